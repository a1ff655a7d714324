//! The clocks of the server's machine: a monotonic one, and one for the time of day, which somebody
//! sets an hour or a year forward or back, while the server runs and while it does not. Log time
//! follows it by the product's own rule.

use handfast_core::ids::Now;
use handfast_core::log_time::LogTime;

use crate::rng::Rng;

const HOUR_MS: i64 = 3_600_000;
const YEAR_MS: i64 = 8_760 * HOUR_MS;

/// See the module.
#[derive(Debug)]
pub(super) struct Clocks {
    mono_ms: u64,
    /// The time of day, as it really is.
    true_ms: u64,
    /// How far the clock is from it.
    off_ms: i64,
    log_time: LogTime,
}

impl Clocks {
    pub(super) fn new(now: Now) -> Self {
        let log_time = LogTime::new(now.mono_ms, now.wall_ms);
        Self { mono_ms: now.mono_ms, true_ms: now.wall_ms, off_ms: 0, log_time }
    }

    /// Somebody sets the clock.
    pub(super) fn set(&mut self, rng: &mut Rng) {
        self.off_ms = [0, 0, HOUR_MS, -HOUR_MS, YEAR_MS, -YEAR_MS][rng.index(6)];
    }

    /// Time passes.
    pub(super) fn advance(&mut self, ms: u64) -> Now {
        self.mono_ms += ms;
        self.true_ms += ms;
        let wall_ms = self.log_time.follow(self.mono_ms, self.machine_ms());
        Now { mono_ms: self.mono_ms, wall_ms }
    }

    /// The server opens its store, in which this is the newest time.
    pub(super) fn open(&mut self, newest_ms: u64) -> Now {
        let wall_ms = self.machine_ms().max(newest_ms);
        self.log_time = LogTime::new(self.mono_ms, wall_ms);
        Now { mono_ms: self.mono_ms, wall_ms }
    }

    /// What the clock says.
    fn machine_ms(&self) -> u64 {
        self.true_ms.saturating_add_signed(self.off_ms)
    }
}
