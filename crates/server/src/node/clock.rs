//! Log time: the only place where the node reads a clock or makes an id. How it follows the
//! machine's clock is [`LogTime`]'s.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use handfast_core::ids::{Now, OpeningId, StoreId, Tick, TransactionId};
use handfast_core::log_time::{FAR_MS, LogTime, Standing};

/// An opening so long after the newest time in the log is said as well: nobody but a person knows
/// whether the server was away for so long.
const AWAY_MS: u64 = 3_600_000;

/// What tells the time of day: the machine's clock, unless a test brings another.
#[derive(Clone, Default)]
pub struct WallClock(Option<Arc<dyn Fn() -> u64 + Send + Sync>>);

impl WallClock {
    /// A clock that says this, in Unix time in milliseconds.
    #[must_use]
    pub fn told_by(unix_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(unix_ms)))
    }

    /// Unix time in milliseconds; zero on a machine whose clock is before 1970.
    fn unix_ms(&self) -> u64 {
        match &self.0 {
            None => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis),
            Some(told) => told(),
        }
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_none() { "the machine's" } else { "a test's" })
    }
}

/// The pump's clock: a monotonic one beside log time.
#[derive(Debug)]
pub(crate) struct Clock {
    started: Instant,
    wall: WallClock,
    log_time: LogTime,
    given: Given,
}

/// The newest tick that was given to anybody, in records or in ids.
#[derive(Clone, Debug, Default)]
struct Given(Arc<AtomicU64>);

impl Clock {
    pub(crate) fn start(wall: WallClock) -> Self {
        Self {
            started: Instant::now(),
            wall,
            log_time: LogTime::new(0, 0),
            given: Given::default(),
        }
    }

    /// Log time at the opening of a store, in which this is the newest time: later than that.
    pub(crate) fn open(&mut self, newest_ms: u64) -> u64 {
        let (mono_ms, wall_ms) = (self.mono_ms(), self.wall.unix_ms());
        if newest_ms > 0 && wall_ms.saturating_sub(newest_ms) > AWAY_MS {
            tracing::warn!("the machine's clock: {}", away(wall_ms - newest_ms));
        }
        // Ids of the newest millisecond may have been given, and nobody knows how many.
        self.log_time = LogTime::new(mono_ms, wall_ms.max(newest_ms.saturating_add(1)));
        let log_ms = self.log_time.follow(mono_ms, wall_ms);
        if self.log_time.standing() != Standing::With {
            self.tell();
        }
        self.given.at_least(log_ms)
    }

    pub(crate) fn now(&mut self) -> Now {
        let mono_ms = self.mono_ms();
        let before = self.log_time.standing();
        let log_ms = self.log_time.follow(mono_ms, self.wall.unix_ms());
        if self.log_time.standing() != before {
            self.tell();
        }
        Now { mono_ms, wall_ms: self.given.at_least(log_ms) }
    }

    /// How far the machine's clock is from log time, in milliseconds: positive if it is ahead.
    pub(crate) fn offset_ms(&self) -> i64 {
        self.log_time.offset_ms()
    }

    /// From when its monotonic time is counted.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// How long until a monotonic time of this clock; zero if it has passed.
    pub(crate) fn until(&self, mono_ms: u64) -> Duration {
        Duration::from_millis(mono_ms).saturating_sub(self.started.elapsed())
    }

    /// A name for a new store: a UUIDv7 of this moment.
    pub(crate) fn store_id(&self) -> StoreId {
        const REST: u128 = (1 << 80) - 1;
        let unix_ms = u128::from(self.wall.unix_ms()) << 80;
        StoreId(unix_ms | (uuid::Uuid::now_v7().as_u128() & REST))
    }

    /// What makes ids in this epoch.
    pub(crate) fn ids(&self, epoch: u32, opening: OpeningId) -> Ids {
        Ids { given: self.given.clone(), epoch, opening }
    }

    fn mono_ms(&self) -> u64 {
        millis(self.started.elapsed())
    }

    fn tell(&self) {
        match off(self.offset_ms()) {
            Some(off) => tracing::warn!("the machine's clock: {off}"),
            None => tracing::info!("the machine's clock and the times in the store agree again"),
        }
    }
}

impl Given {
    /// Log time, if it is this by the clock: never before what was given already.
    fn at_least(&self, log_ms: u64) -> u64 {
        // No other memory is read by it.
        let given = Tick(self.0.load(Ordering::Relaxed));
        let first = Tick::first_of(log_ms);
        if given >= first {
            return given.unix_ms();
        }
        let before = self.0.fetch_max(first.0, Ordering::Relaxed);
        Tick(before).unix_ms().max(log_ms)
    }
}

/// Makes ids of transactions that rise, and says what time it is: as the pump has last read it,
/// which it does once a second at least.
#[derive(Debug)]
pub(crate) struct Ids {
    given: Given,
    epoch: u32,
    opening: OpeningId,
}

impl Ids {
    pub(crate) fn next(&self) -> TransactionId {
        let tick = self.given.0.fetch_add(1, Ordering::Relaxed) + 1;
        TransactionId::new(Tick(tick), 0, self.epoch, self.opening)
    }

    pub(crate) fn log_ms(&self) -> u64 {
        Tick(self.given.0.load(Ordering::Relaxed)).unix_ms()
    }
}

/// What people are told of a clock that is so far from log time; none: it is near enough.
pub(super) fn off(offset_ms: i64) -> Option<String> {
    let far_ms = offset_ms.unsigned_abs();
    if far_ms <= FAR_MS {
        return None;
    }
    let far = words(far_ms);
    Some(if offset_ms < 0 {
        format!(
            "it is {far} behind the newest time in the store; set it right if it is wrong; until \
             it has caught up, times in the store go on at half speed"
        )
    } else {
        format!(
            "it has leapt and is {far} ahead; set it right if it is wrong; times in the store \
             approach it at double speed, or are with it at once after a restart"
        )
    })
}

/// What people are told of an opening so long after the newest time in the log; none: it is usual.
pub(super) fn absence(away_ms: u64) -> Option<String> {
    (away_ms > AWAY_MS).then(|| away(away_ms))
}

fn away(away_ms: u64) -> String {
    format!(
        "by it the newest record is {} old; if the server was not away for so long, stop it and \
         set the clock right; this time counts for ages only as fast as the server runs now",
        words(away_ms)
    )
}

fn words(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What this opening of a store is called: 122 random bits.
pub(crate) fn opening_id() -> OpeningId {
    OpeningId(uuid::Uuid::new_v4().as_u128())
}

/// A number for a claim: 61 random bits, below 2^63.
pub(crate) fn claim() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1 >> 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;
    const YEAR_MS: u64 = 8_760 * HOUR_MS;
    const T_MS: u64 = 1_800_000_000_000;

    #[test]
    fn ids_rise_beyond_log_time_and_log_time_stays_with_them() {
        let mut clock = Clock::start(WallClock::told_by(|| T_MS));
        assert_eq!(clock.open(0), T_MS);
        let ids = clock.ids(9, OpeningId(1));
        let mut last = ids.next();
        for _ in 0..10_000 {
            let id = ids.next();
            assert!(id > last && id.epoch() == 9);
            last = id;
        }
        assert_eq!((last.unix_ms(), ids.log_ms()), (T_MS + 2, T_MS + 2));
        assert!(clock.now().wall_ms >= T_MS + 2);
    }

    #[test]
    fn an_opening_is_never_before_the_newest_time_in_the_log() {
        let ahead_ms = T_MS + YEAR_MS;
        for (newest_ms, log_ms) in [(0, T_MS), (T_MS - 5, T_MS), (ahead_ms, ahead_ms + 1)] {
            let mut clock = Clock::start(WallClock::told_by(|| T_MS));
            assert_eq!(clock.open(newest_ms), log_ms);
            assert!(clock.now().wall_ms >= log_ms);
            assert_eq!(off(clock.offset_ms()).is_some(), newest_ms > T_MS, "{newest_ms}");
        }
    }

    /// The clock stood, or was set back: the first id of the next opening was before the last one.
    #[test]
    fn ids_rise_over_openings_in_one_millisecond() {
        for back_ms in [0, HOUR_MS] {
            let mut clock = Clock::start(WallClock::told_by(|| T_MS));
            let newest_ms = clock.open(0);
            let ids = clock.ids(1, OpeningId(u128::MAX));
            let last = std::iter::repeat_with(|| ids.next()).take(3).last();
            let mut clock = Clock::start(WallClock::told_by(move || T_MS - back_ms));
            clock.open(newest_ms);
            assert!(Some(clock.ids(1, OpeningId(0)).next()) > last);
        }
    }

    #[test]
    fn people_hear_of_a_clock_that_is_far_off_and_of_no_other() {
        assert_eq!(off(60_000), None);
        assert_eq!(off(-60_000), None);
        assert!(off(61_000).is_some_and(|text| text.contains("leapt and is 1 min ahead")));
        let year_ms = i64::try_from(YEAR_MS).unwrap_or_default();
        assert!(off(-year_ms).is_some_and(|text| text.contains("365 days behind")));
        assert_eq!(absence(HOUR_MS), None);
        assert!(absence(3 * HOUR_MS).is_some_and(|text| text.contains("3 h old")));
    }
}
