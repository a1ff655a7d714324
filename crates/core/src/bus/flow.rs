//! What one stream has been sent and has not answered: which of it the subscriber has taken up, as
//! far as that can be told from its answers, and how much it should have at a time.
//!
//! A stream is read in order. So the first delivery that is not answered has been taken up, and
//! whatever was sent before one that is answered; the rest waits, however long, and its lease has
//! not begun (D2). It never looks at an event.

use alloc::collections::VecDeque;

use crate::ids::{DeliveryToken, Offset};
use crate::limits::CREDIT;

/// The line is looked through when it has more than twice as many as are under way, and these.
const OVER: usize = 256;

/// A delivery that waits in its stream, or did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    /// What names it.
    pub(super) token: DeliveryToken,
    /// Its event.
    pub(super) offset: Offset,
    /// When it was sent.
    pub(super) sent_ms: u64,
}

/// See the file's head.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    /// In the order in which they were sent. Not all wait still.
    line: VecDeque<Waiting>,
    /// The latest of the line that was answered.
    answered: Option<DeliveryToken>,
    /// When the stream last sent a word of any kind.
    pub(super) heard_ms: u64,
    /// When it last answered a delivery for good.
    pub(super) answered_ms: u64,
    /// How much it may have under way.
    window: u32,
    /// When the present period began, how many it has answered in it, and in the one before. A
    /// period is a lease at least.
    period_ms: u64,
    answers: u32,
    answers_before: u32,
}

impl Flow {
    /// Of a stream that has just been opened.
    pub(super) fn new(now_ms: u64) -> Self {
        Self {
            line: VecDeque::new(),
            answered: None,
            heard_ms: now_ms,
            answered_ms: now_ms,
            window: CREDIT,
            period_ms: now_ms,
            answers: 0,
            answers_before: 0,
        }
    }

    /// A delivery was sent, behind others.
    pub(super) fn push(&mut self, waiting: Waiting) {
        self.line.push_back(waiting);
    }

    /// The first in line.
    pub(super) fn front(&self) -> Option<Waiting> {
        self.line.front().copied()
    }

    /// Nobody is in line.
    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// The first leaves the line.
    pub(super) fn pop(&mut self) {
        self.line.pop_front();
    }

    /// All leave the line.
    pub(super) fn take(&mut self) -> VecDeque<Waiting> {
        core::mem::take(&mut self.line)
    }

    /// Drops those that `waits` does not know, if there are many more than `under_way`.
    pub(super) fn tidy(&mut self, under_way: u32, waits: impl Fn(&Waiting) -> bool) {
        if self.line.len() > 2 * under_way as usize + OVER {
            self.line.retain(waits);
        }
    }

    /// One that was in line was answered.
    pub(super) fn answer(&mut self, token: DeliveryToken) {
        if self.answered.is_none_or(|before| is_before(before, token)) {
            self.answered = Some(token);
        }
    }

    /// Whether one of the line, or a later one, was answered.
    pub(super) fn is_passed(&self, token: DeliveryToken) -> bool {
        self.answered.is_some_and(|answered| !is_before(answered, token))
    }

    /// How much it may have under way.
    pub(super) fn window(&self) -> u32 {
        self.window
    }

    /// So many were answered for good.
    pub(super) fn count_answers(&mut self, now_ms: u64, count: u32, lease_ms: u64) {
        let passed = now_ms.saturating_sub(self.period_ms);
        if passed >= lease_ms {
            self.answers_before = if passed < 2 * lease_ms { self.answers } else { 0 };
            self.answers = 0;
            self.period_ms = now_ms;
        }
        self.answers = self.answers.saturating_add(count);
        self.answered_ms = now_ms;
    }

    /// One was taken up after it had waited so long. Whoever keeps something waiting for longer
    /// than a lease gets no more under way than he answers in one (D8).
    pub(super) fn took_up(&mut self, waited_ms: u64, lease_ms: u64) {
        if waited_ms > lease_ms {
            self.has_too_much();
        } else if waited_ms <= lease_ms / 2 && self.window < CREDIT {
            self.window += 1;
        }
    }

    /// It has more under way than it can do in time.
    pub(super) fn has_too_much(&mut self) {
        self.window = self.window.min(self.answers.max(self.answers_before)).max(1);
    }
}

/// Whether a token was made before another. Their numbers come again after 2^32; those of one line
/// are never half as far apart.
fn is_before(one: DeliveryToken, other: DeliveryToken) -> bool {
    let low = |token: DeliveryToken| token.0 & u64::from(u32::MAX);
    let distance = low(other).wrapping_sub(low(one)) & u64::from(u32::MAX);
    distance != 0 && distance < 1 << 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_in_order_where_their_numbers_begin_anew() {
        let token = |low: u32| DeliveryToken(7 << 32 | u64::from(low));
        assert!(is_before(token(1), token(2)) && !is_before(token(2), token(1)));
        assert!(is_before(token(u32::MAX), token(3)) && !is_before(token(3), token(u32::MAX)));
        assert!(!is_before(token(5), token(5)));
    }

    /// One a second, a lease of 30 s: what waits longer than that is too much.
    #[test]
    fn who_keeps_things_waiting_gets_what_he_answers_in_a_lease() {
        let mut flow = Flow::new(0);
        for second in 1..=256u64 {
            flow.count_answers(second * 1_000, 1, 30_000);
            flow.took_up(second * 1_000, 30_000);
        }
        assert!((29..=31).contains(&flow.window()), "{}", flow.window());
        // And more again when he is quicker.
        for _ in 0..300 {
            flow.count_answers(300_000, 1, 30_000);
            flow.took_up(10, 30_000);
        }
        assert!(flow.window() > 300);
    }

    #[test]
    fn who_is_quick_enough_is_never_held_back() {
        let mut flow = Flow::new(0);
        for ms in 1..=20_000 {
            flow.count_answers(ms, 1, 30_000);
            flow.took_up(29_000, 30_000);
        }
        assert_eq!(flow.window(), CREDIT);
    }
}
