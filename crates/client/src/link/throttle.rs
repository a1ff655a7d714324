//! Holding back what a server with too much to do would refuse anyway.
//!
//! A refusal costs both sides about as much as taking the call, so a client that asks for ten times
//! what the server can do takes much of that away from everybody. While the server refuses new
//! transactions, a client lets through an eighth more than was taken lately, and refuses the rest by
//! itself, with the same code and pause. The eighth finds out when there is room again. It is enough
//! to take every place that becomes free, because at the server a begin waits a moment for one.
//!
//! This is the adaptive throttling of "Handling Overload" in Site Reliability Engineering
//! (O'Reilly, 2016), except that a call counts as taken until it is refused, because a transaction
//! may take long.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use handfast_core::refusal::Code;
use tokio::time::Instant;

use super::answer::Unanswered;
use crate::error::{Error, Refusal};
use crate::time::millis;

/// What counts is halved so often: "lately" is twice as long.
const PERIOD: Duration = Duration::from_millis(100);
/// Without a refusal for so long, nothing is held back any more.
const OVER: Duration = Duration::from_secs(1);
/// Calls that are let through for each eight that were taken.
const FOR_EIGHT: u64 = 9;
/// One of so many calls is let through, whatever became of the others.
const AT_LEAST: u64 = 32;
/// So few calls of those that count are let through anyway.
const FEW: u64 = 8;
/// What a call counts before it is halved.
const ONE: u64 = 256;

/// A call may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permit {
    /// Nothing is held back, and nothing counted.
    Free,
    /// It counts as taken, since this period.
    Counted(u64),
}

/// Counts without a lock: what somebody counts while another halves may be lost, which does no
/// harm.
#[derive(Debug)]
pub(super) struct Throttle {
    since: Instant,
    /// The server has refused lately; nothing is counted otherwise.
    on: AtomicBool,
    /// When the last refusal is forgotten, in milliseconds.
    over: AtomicU64,
    /// The last period in which something was counted.
    period: AtomicU64,
    /// Calls that were to be sent.
    asked: AtomicU64,
    /// Those of them that were let through and have not been refused.
    taken: AtomicU64,
    /// Spreads evenly over all calls which are let through.
    turn: AtomicU64,
    /// The pause that the server named last, in milliseconds.
    retry_after: AtomicU64,
}

impl Throttle {
    pub(super) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            since: Instant::now(),
            on: AtomicBool::new(false),
            over: zero(),
            period: zero(),
            asked: zero(),
            taken: zero(),
            turn: zero(),
            retry_after: zero(),
        }
    }

    /// A call is to be sent; an error: it is refused without asking.
    pub(super) fn ask(&self) -> Result<Permit, Refusal> {
        if !self.on.load(Ordering::Relaxed) {
            return Ok(Permit::Free);
        }
        let now = self.now();
        if now >= self.over.load(Ordering::Relaxed) {
            self.on.store(false, Ordering::Relaxed);
            return Ok(Permit::Free);
        }
        let period = self.halve(now);
        let asked = self.asked.fetch_add(ONE, Ordering::Relaxed) + ONE;
        let taken = self.taken.load(Ordering::Relaxed);
        let may = (taken * FOR_EIGHT / 8).max(asked / AT_LEAST).max(FEW * ONE);
        // Multiples of the golden ratio are spread evenly between zero and one (Weyl).
        let turn = self.turn.fetch_add(0x9e37_79b9, Ordering::Relaxed) & 0xffff_ffff;
        if turn * asked < may << 32 {
            self.taken.fetch_add(ONE, Ordering::Relaxed);
            return Ok(Permit::Counted(period));
        }
        Err(self.refusal())
    }

    /// What became of a call that was let through.
    ///
    /// What counts is that as many transactions are open as the server takes. Other refusals may
    /// be for a transaction's size, and small ones would be held back for large.
    pub(super) fn see<T>(&self, pass: Permit, outcome: &Result<T, Unanswered>) {
        if let Err(Unanswered { error: Error::Refused(refusal), .. }) = outcome
            && refusal.is(Code::TooManyTransactions)
        {
            self.refused(pass, refusal);
        }
    }

    fn refused(&self, pass: Permit, refusal: &Refusal) {
        let now = self.now();
        self.retry_after.store(millis(refusal.retry_after), Ordering::Relaxed);
        self.over.store(now + millis(OVER), Ordering::Relaxed);
        let period = self.halve(now);
        if !self.on.swap(true, Ordering::Relaxed) {
            self.asked.store(0, Ordering::Relaxed);
            self.taken.store(0, Ordering::Relaxed);
        } else if let Permit::Counted(since) = pass {
            // As much as is left of it.
            let left = ONE >> period.saturating_sub(since).min(63);
            let taken = self.taken.load(Ordering::Relaxed);
            self.taken.store(taken.saturating_sub(left), Ordering::Relaxed);
        }
    }

    /// Halves what counts once for each period that has passed; says which it is now.
    fn halve(&self, now: u64) -> u64 {
        let period = now / millis(PERIOD);
        // Whoever looked at the clock a moment earlier takes nothing back.
        let before = self.period.fetch_max(period, Ordering::Relaxed);
        if period > before {
            for counter in [&self.asked, &self.taken] {
                let count = counter.load(Ordering::Relaxed);
                counter.store(count >> (period - before).min(63), Ordering::Relaxed);
            }
        }
        period
    }

    fn refusal(&self) -> Refusal {
        Refusal {
            code: Code::TooManyTransactions.as_str().to_owned(),
            detail: "the server has refused others lately, so it was not asked".to_owned(),
            retryable: true,
            retry_after: Duration::from_millis(self.retry_after.load(Ordering::Relaxed)),
        }
    }

    fn now(&self) -> u64 {
        millis(self.since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::time::advance;

    use super::*;

    fn too_many() -> Refusal {
        let mut refusal = Refusal::local(Code::TooManyTransactions, "there are enough");
        refusal.retry_after = Duration::from_millis(200);
        refusal
    }

    /// What became of calls.
    #[derive(Debug, Default)]
    struct Seen {
        taken: u64,
        refused: u64,
        held_back: u64,
    }

    /// So many calls each millisecond, to a server that takes so many of them and refuses the
    /// others 3 ms later.
    async fn ask(throttle: &Throttle, millis: u64, calls: u64, takes: usize) -> Seen {
        ask_from_afar(throttle, 3, millis, calls, takes).await
    }

    /// The same with refusals after so many milliseconds.
    async fn ask_from_afar(
        throttle: &Throttle,
        after: usize,
        millis: u64,
        calls: u64,
        takes: usize,
    ) -> Seen {
        let mut seen = Seen::default();
        let mut late = VecDeque::from(vec![vec![]; after]);
        for _ in 0..millis {
            advance(Duration::from_millis(1)).await;
            for pass in late.pop_front().unwrap_or_default() {
                throttle.refused(pass, &too_many());
            }
            let mut sent = Vec::new();
            for _ in 0..calls {
                match throttle.ask() {
                    Ok(pass) => sent.push(pass),
                    Err(refusal) => {
                        assert!(refusal.retryable && refusal.is(Code::TooManyTransactions));
                        assert_eq!(refusal.retry_after, too_many().retry_after);
                        seen.held_back += 1;
                    }
                }
            }
            let refused = sent.split_off(sent.len().min(takes));
            seen.taken += sent.len() as u64;
            seen.refused += refused.len() as u64;
            late.push_back(refused);
        }
        seen
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_held_back_unless_the_server_refuses() {
        let throttle = Throttle::new();
        let seen = ask(&throttle, 1_000, 50, 50).await;
        assert_eq!((seen.taken, seen.held_back), (50_000, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_takes_half_or_a_tenth_is_kept_busy_and_seldom_asked_in_vain() {
        for calls in [40, 200, 2_000] {
            let throttle = Throttle::new();
            ask(&throttle, 500, calls, 20).await;
            let seen = ask(&throttle, 1_000, calls, 20).await;
            assert!(seen.taken >= 19_000, "{calls}: {seen:?}");
            let at_most = seen.taken / 5 + calls * 1_000 / AT_LEAST;
            assert!(seen.refused <= at_most, "{calls}: {seen:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_far_away_is_kept_busy_as_well() {
        for after in [50, 100, 300, 1_000] {
            let throttle = Throttle::new();
            ask_from_afar(&throttle, after, 5_000, 100, 20).await;
            let seen = ask_from_afar(&throttle, after, 2_000, 100, 20).await;
            assert!(seen.taken >= 38_000, "{after} ms: {seen:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_takes_nothing_is_asked_now_and_then() {
        let throttle = Throttle::new();
        ask(&throttle, 1_000, 64, 0).await;
        let seen = ask(&throttle, 1_000, 64, 0).await;
        assert!((1_000..4_000).contains(&seen.refused), "{seen:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_found_within_two_seconds() {
        let throttle = Throttle::new();
        ask(&throttle, 1_000, 100, 10).await;
        ask(&throttle, 2_000, 100, 100).await;
        let seen = ask(&throttle, 1_000, 100, 100).await;
        assert_eq!(seen.held_back, 0, "{seen:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_seldom_is_never_held_back() {
        let throttle = Throttle::new();
        for _ in 0..100 {
            let pass = throttle.ask().expect("30 in a second");
            throttle.refused(pass, &too_many());
            advance(Duration::from_millis(33)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_after_the_last_refusal_it_is_over() {
        let throttle = Throttle::new();
        ask(&throttle, 100, 100, 0).await;
        advance(OVER).await;
        let seen = ask(&throttle, 10, 1_000, 1_000).await;
        assert_eq!((seen.taken, seen.held_back), (10_000, 0));
    }
}
