//! When things are due in an open loop: at fixed distances, whatever becomes of those before.
//!
//! A thread of its own keeps the time, because a runtime's timers are good for a millisecond only.

use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::coop::consume_budget;

/// Shorter pauses would cost more than what is measured; what falls due meanwhile is told together,
/// and the time that passed counts as latency.
const SHORTEST: Duration = Duration::from_micros(250);

/// What is due, in order.
#[derive(Debug)]
pub(super) struct Due {
    /// Up to which number everything is due.
    until: mpsc::UnboundedReceiver<u64>,
    times: Times,
    next: u64,
    known: u64,
}

/// When the one with a number is due.
#[derive(Clone, Copy, Debug)]
struct Times {
    from: Instant,
    distance: f64,
}

impl Times {
    fn of(self, number: u64) -> Instant {
        self.from + Duration::from_secs_f64(number as f64 * self.distance)
    }

    /// How many are due before a moment.
    fn before(self, moment: Instant) -> u64 {
        let passed = moment.saturating_duration_since(self.from);
        (passed.as_secs_f64() / self.distance).ceil() as u64
    }
}

impl Due {
    /// When the next one was due, as soon as it is; none: there are no more.
    ///
    /// Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Instant> {
        // It may be ready very often.
        consume_budget().await;
        while self.next == self.known {
            self.known = self.until.recv().await?;
        }
        self.next += 1;
        Some(self.times.of(self.next - 1))
    }
}

/// `rate` in each second between two moments.
pub(super) fn due(from: Instant, to: Instant, rate: u32) -> Due {
    let (tell, until) = mpsc::unbounded_channel();
    let times = Times { from, distance: 1.0 / f64::from(rate) };
    thread::spawn(move || {
        let mut told = 0;
        loop {
            let now = Instant::now();
            let due = times.before(now.min(to));
            if due > told && tell.send(due).is_err() {
                return;
            }
            told = due;
            if now >= to {
                return;
            }
            let next = times.of(told).min(to);
            thread::sleep(next.saturating_duration_since(now).max(SHORTEST));
        }
    });
    Due { until, times, next: 0, known: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_due_and_none_before_its_time() {
        let from = Instant::now();
        for rate in [1_u32, 3, 7, 100, 1_000, 58_000, 170_333] {
            let times = Times { from, distance: 1.0 / f64::from(rate) };
            assert_eq!(times.before(from), 0);
            for number in (0..u64::from(rate)).step_by(97) {
                // The clock counts nanoseconds, so one may be due a nanosecond early.
                let due = times.before(times.of(number));
                assert!(due == number || due == number + 1, "{number} at {rate}: {due}");
            }
            let all = times.before(from + Duration::from_secs(1));
            assert_eq!(all, u64::from(rate));
        }
    }
}
