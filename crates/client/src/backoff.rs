//! Pauses between attempts: 100 ms, doubled up to 5 s, each shortened at random by up to half so
//! that many clients that lost the same server do not come back at once.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    pub(crate) fn next(&mut self) -> Duration {
        let pause = FIRST.saturating_mul(1 << self.attempts.min(10)).min(LONGEST);
        self.attempts = self.attempts.saturating_add(1);
        pause.mul_f64(1.0 - random() / 2.0)
    }

    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// The pause after a refusal that names one, when there were others before it: never shorter than
/// it says, doubled up to 5 s, and lengthened at random by up to half.
pub(crate) fn after(named: Duration, refusals: u32) -> Duration {
    let pause = named.saturating_mul(1 << refusals.min(10)).min(LONGEST).max(named);
    pause.mul_f64(1.0 + random() / 2.0)
}

/// From zero to one.
fn random() -> f64 {
    RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_pause_is_kept_and_doubled() {
        let named = Duration::from_millis(200);
        for (refusals, shortest) in [(0, 200), (1, 400), (4, 3_200), (5, 5_000), (99, 5_000)] {
            let (pause, shortest) = (after(named, refusals), Duration::from_millis(shortest));
            assert!(pause >= shortest && pause <= shortest.mul_f64(1.5), "{refusals}: {pause:?}");
        }
        let long = Duration::from_secs(60);
        assert!(after(long, 3) >= long);
    }

    #[test]
    fn pauses_double_and_end_at_five_seconds() {
        let mut backoff = Backoff::default();
        for longest in [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
            let pause = backoff.next();
            let longest = Duration::from_millis(longest);
            assert!(pause <= longest && pause >= longest / 2, "{pause:?} of {longest:?}");
        }
        for _ in 0..100 {
            assert!(backoff.next() <= LONGEST);
        }
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
