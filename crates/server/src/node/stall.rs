//! Notices that the process, or the machine, stood still: stopped by a signal, suspended, starved.
//!
//! By a clock that goes on while the machine is suspended. A virtual machine whose clocks stand
//! still with it, as a snapshot in memory may leave them, does not notice it here.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The pump waits for a message no longer than this.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// So much later than it wanted to go on, it stood still. A busy machine may be late too; then
/// databases are asked once more than they need be.
const LATE: Duration = Duration::from_secs(2);

#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Stalls {
    /// When it goes on at the latest.
    due: Option<Duration>,
}

impl Stalls {
    /// It goes on after this time, or before.
    pub(super) fn waits(&mut self, wait: Duration) {
        self.waits_at(now(), wait);
    }

    /// It goes on now: for how long it stood still, if it did.
    pub(super) fn is_over(&mut self) -> Option<Duration> {
        self.is_over_at(now())
    }

    fn waits_at(&mut self, now: Duration, wait: Duration) {
        // Standing still while it was at work counts too, and is noticed when it goes on.
        self.due = Some(self.due.map_or(now, |due| due.min(now)) + wait);
    }

    fn is_over_at(&mut self, now: Duration) -> Option<Duration> {
        let due = self.due.replace(now)?;
        now.checked_sub(due).filter(|late| *late > LATE)
    }
}

fn now() -> Duration {
    let now = clock_gettime(CLOCK);
    let seconds = Duration::from_secs(u64::try_from(now.tv_sec).unwrap_or(0));
    seconds + Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_much_too_late_stood_still() {
        let at = Duration::from_millis;
        let mut stalls = Stalls::default();
        assert_eq!(stalls.is_over_at(at(0)), None);
        for (waits_at, over_at, stood) in [
            (0, 1_000, None),
            (1_100, 3_000, None),
            (3_000, 6_100, Some(2_100)),
            (6_200, 6_300, None),
            // At work from 6,300 to 9,000, or standing still: nobody knows.
            (9_000, 9_001, None),
            (12_100, 12_200, Some(2_199)),
        ] {
            stalls.waits_at(at(waits_at), at(1_000));
            assert_eq!(stalls.is_over_at(at(over_at)), stood.map(at), "{over_at}");
        }
    }

    #[test]
    fn the_clock_can_be_read() {
        let mut stalls = Stalls::default();
        stalls.waits(Duration::from_secs(3_600));
        assert_eq!(stalls.is_over(), None);
    }
}
