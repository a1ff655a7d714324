//! When things are due in an open loop: at fixed distances, whatever becomes of those before.
//!
//! A thread of its own keeps the time, because a runtime's timers are good for a millisecond only.

use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

/// Shorter pauses would cost more than what is measured; what falls due meanwhile is told together,
/// and the time that passed counts as latency.
const SHORTEST: Duration = Duration::from_micros(100);

/// What is due, in order.
#[derive(Debug)]
pub(super) struct Due(mpsc::UnboundedReceiver<Instant>);

impl Due {
    /// When the next one was due, as soon as it is; none: there are no more.
    pub(super) async fn next(&mut self) -> Option<Instant> {
        self.0.recv().await
    }
}

/// `rate` in each second between two moments.
pub(super) fn due(from: Instant, to: Instant, rate: u32) -> Due {
    let (tell, due) = mpsc::unbounded_channel();
    thread::spawn(move || {
        let distance = 1.0 / f64::from(rate);
        let mut number = 0_u64;
        loop {
            let next = from + Duration::from_secs_f64(number as f64 * distance);
            let now = Instant::now();
            if next >= to {
                return;
            }
            if next > now {
                thread::sleep((next - now).max(SHORTEST));
                continue;
            }
            if tell.send(next).is_err() {
                return;
            }
            number += 1;
        }
    });
    Due(due)
}
