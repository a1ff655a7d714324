//! When to do what nobody asked for: inquire, try a finish again, look for branches of other
//! processes, ask what may be forgotten.
//!
//! It lives in memory and decides nothing: whether a branch is still prepared is read in the
//! store at the time. Its clock is the caller's, in milliseconds that never go back.

use std::collections::{BTreeMap, BTreeSet};

use handfast_core::ids::{Began, TransactionId};
use handfast_core::participant::inquiry_pause_ms;

use super::store::{Outcome, OutcomeKey};

/// Pause between two looks at all prepared branches of the store.
const SWEEP_MS: u64 = 30_000;
/// Pause between two requests to forget, when the last one had nothing more to ask.
const FORGET_MS: u64 = 10_000;
/// Pause after a request to forget that nobody has answered.
const FORGET_UNANSWERED_MS: u64 = 1_000;
/// First and longest pause before a failed finish is tried again.
const RETRY_MS: (u64, u64) = (100, 30_000);
/// Longest pause that the coordinator may impose between two inquiries.
const PENDING_MS: u64 = 30_000;

/// All timers of a driver.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Prepared branches, with the number of inquiries made.
    inquiries: Timers<u32>,
    /// Decided branches that could not be finished.
    retries: Timers<Retry>,
    /// The next look at all prepared branches.
    pub(super) sweep: Sweep,
    /// The next request to forget.
    pub(super) forget: Forget,
    random: u64,
}

/// How a branch is to end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Decision {
    /// Applied; with when the transaction began.
    Commit(Began),
    /// Undone.
    Abort,
}

/// A decided branch that could not be finished.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    /// The decision.
    pub(super) decision: Decision,
    /// How often it has failed.
    pub(super) attempts: u32,
}

/// The walk over all prepared branches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sweep {
    /// Its next page is due.
    pub(super) due_ms: u64,
    /// Where it stands.
    pub(super) after: Option<TransactionId>,
    /// What it finds is asked about at once, as after a restart.
    pub(super) at_once: bool,
}

/// The walk over all outcomes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forget {
    /// Its next page is due.
    pub(super) due_ms: u64,
    /// Where it stands.
    pub(super) after: Option<OutcomeKey>,
}

impl Schedule {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            inquiries: Timers::default(),
            retries: Timers::default(),
            sweep: Sweep { due_ms: 0, after: None, at_once: true },
            forget: Forget { due_ms: 0, after: None },
            random: seed,
        }
    }

    /// The instant at which something is due.
    pub(super) fn next_ms(&self) -> u64 {
        [self.inquiries.next_ms(), self.retries.next_ms()]
            .into_iter()
            .flatten()
            .fold(self.sweep.due_ms.min(self.forget.due_ms), u64::min)
    }

    /// Walk over everything again and ask at once.
    pub(super) fn restart(&mut self, now_ms: u64) {
        self.sweep = Sweep { due_ms: now_ms, after: None, at_once: true };
        self.forget = Forget { due_ms: now_ms, after: None };
    }

    /// A branch has voted YES.
    pub(super) fn prepared(&mut self, id: TransactionId, now_ms: u64) {
        let pause = inquiry_pause_ms(0, self.random());
        self.inquiries.set(id, now_ms + pause, 0);
    }

    /// An inquiry was made.
    pub(super) fn inquired(&mut self, id: TransactionId, now_ms: u64) {
        let asked = self.inquiries.value(id).map_or(1, |asked| asked.saturating_add(1));
        let pause = inquiry_pause_ms(asked, self.random());
        self.inquiries.set(id, now_ms + pause, asked);
    }

    /// The coordinator says when to ask again.
    pub(super) fn pending(&mut self, id: TransactionId, now_ms: u64, retry_after_ms: u64) {
        if let Some(asked) = self.inquiries.value(id) {
            let pause = retry_after_ms.clamp(RETRY_MS.0, PENDING_MS);
            self.inquiries.set(id, now_ms + pause, asked);
        }
    }

    /// A page of the walk over all prepared branches; `limit` is the size of a full one.
    pub(super) fn swept(&mut self, page: &[TransactionId], limit: usize, now_ms: u64) {
        for id in page {
            if self.sweep.at_once {
                let asked = self.inquiries.value(*id).unwrap_or(0);
                self.inquiries.set(*id, now_ms, asked);
            } else if self.inquiries.value(*id).is_none() {
                self.prepared(*id, now_ms);
            }
        }
        if page.len() < limit {
            self.sweep = Sweep { due_ms: now_ms + SWEEP_MS, after: None, at_once: false };
        } else {
            self.sweep.after = page.last().copied();
        }
    }

    /// Inquiries that are due, at most `limit`.
    pub(super) fn due_inquiries(&self, now_ms: u64, limit: usize) -> Vec<TransactionId> {
        self.inquiries.due(now_ms, limit)
    }

    /// A page of the walk over all outcomes was asked about; `limit` is the size of a full one.
    pub(super) fn asked_to_forget(&mut self, page: &[Outcome], limit: usize, now_ms: u64) {
        if page.len() < limit {
            self.forget = Forget { due_ms: now_ms + FORGET_MS, after: None };
        } else {
            self.forget =
                Forget { due_ms: now_ms + FORGET_UNANSWERED_MS, after: page.last().map(|o| o.key) };
        }
    }

    /// Some outcomes were forgotten: a walk that is not at its end goes on at once.
    pub(super) fn forgot(&mut self, now_ms: u64) {
        if self.forget.after.is_some() {
            self.forget.due_ms = self.forget.due_ms.min(now_ms);
        }
    }

    /// A finish failed. Says how often, and the pause before the next attempt.
    pub(super) fn failed(
        &mut self,
        id: TransactionId,
        decision: Decision,
        now_ms: u64,
    ) -> (u32, u64) {
        let attempts = self.retries.value(id).map_or(1, |r| r.attempts.saturating_add(1));
        let pause = RETRY_MS.0.saturating_mul(1 << attempts.min(16) >> 1).min(RETRY_MS.1);
        // Down to half of it, so that branches that failed together do not come back together.
        let pause = pause - self.random() % (pause / 2);
        self.retries.set(id, now_ms + pause, Retry { decision, attempts });
        (attempts, pause)
    }

    /// A finish that failed is not to be tried before its pause is over.
    pub(super) fn waits(&self, id: TransactionId, now_ms: u64) -> bool {
        self.retries.due_ms(id).is_some_and(|due| now_ms < due)
    }

    /// Failed finishes that are due, at most `limit`.
    pub(super) fn due_retries(&self, now_ms: u64, limit: usize) -> Vec<(TransactionId, Retry)> {
        let due = self.retries.due(now_ms, limit);
        due.into_iter().filter_map(|id| Some((id, self.retries.value(id)?))).collect()
    }

    /// Nothing is in doubt about this branch any more.
    pub(super) fn ended(&mut self, id: TransactionId) {
        self.inquiries.remove(id);
        self.retries.remove(id);
    }

    /// `SplitMix64`: good enough to spread timers.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// At most one timer per transaction, and the earliest of them.
#[derive(Debug)]
struct Timers<T> {
    by_id: BTreeMap<TransactionId, (u64, T)>,
    by_time: BTreeSet<(u64, TransactionId)>,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self { by_id: BTreeMap::new(), by_time: BTreeSet::new() }
    }
}

impl<T: Copy> Timers<T> {
    fn set(&mut self, id: TransactionId, due_ms: u64, value: T) {
        self.remove(id);
        self.by_id.insert(id, (due_ms, value));
        self.by_time.insert((due_ms, id));
    }

    fn remove(&mut self, id: TransactionId) {
        if let Some((due_ms, _)) = self.by_id.remove(&id) {
            self.by_time.remove(&(due_ms, id));
        }
    }

    fn value(&self, id: TransactionId) -> Option<T> {
        self.by_id.get(&id).map(|(_, value)| *value)
    }

    fn due_ms(&self, id: TransactionId) -> Option<u64> {
        self.by_id.get(&id).map(|(due_ms, _)| *due_ms)
    }

    fn next_ms(&self) -> Option<u64> {
        self.by_time.first().map(|(due_ms, _)| *due_ms)
    }

    fn due(&self, now_ms: u64, limit: usize) -> Vec<TransactionId> {
        let due = self.by_time.iter().take_while(|(due_ms, _)| *due_ms <= now_ms);
        due.take(limit).map(|(_, id)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: TransactionId = TransactionId(7);

    #[test]
    fn a_failed_finish_waits_longer_each_time_up_to_thirty_seconds() {
        let mut schedule = Schedule::new(1);
        let mut now = 0;
        for (attempt, longest) in (1..).zip([100, 200, 400, 800, 1_600]) {
            let (attempts, pause) = schedule.failed(X, Decision::Abort, now);
            assert_eq!(attempts, attempt);
            assert!(pause <= longest && pause > longest / 2 - 1, "{pause} of {longest}");
            assert!(schedule.waits(X, now + pause - 1) && !schedule.waits(X, now + pause));
            now += pause;
        }
        for _ in 0..100 {
            assert!(schedule.failed(X, Decision::Abort, now).1 <= 30_000);
        }
        schedule.ended(X);
        assert!(!schedule.waits(X, now) && schedule.due_retries(u64::MAX, 9).is_empty());
    }

    #[test]
    fn a_walk_that_fills_its_page_goes_on_and_then_rests() {
        let mut schedule = Schedule::new(1);
        schedule.restart(1_000);
        schedule.swept(&[TransactionId(1), TransactionId(2)], 2, 1_000);
        assert_eq!(schedule.sweep.after, Some(TransactionId(2)));
        assert_eq!(schedule.sweep.due_ms, 1_000);
        schedule.swept(&[TransactionId(3)], 2, 1_000);
        assert_eq!((schedule.sweep.after, schedule.sweep.due_ms), (None, 31_000));
        assert_eq!(schedule.due_inquiries(1_000, 9).len(), 3, "a restart asks at once");
        // A branch that another process prepared gets its usual pause.
        schedule.swept(&[TransactionId(4)], 2, 31_000);
        assert!(!schedule.due_inquiries(31_000, 9).contains(&TransactionId(4)));
        assert!(schedule.due_inquiries(37_000, 9).contains(&TransactionId(4)));
    }

    #[test]
    fn pending_moves_an_inquiry_and_makes_none() {
        let mut schedule = Schedule::new(1);
        schedule.pending(X, 0, 10);
        assert!(schedule.due_inquiries(u64::MAX, 9).is_empty());
        schedule.prepared(X, 0);
        schedule.pending(X, 0, 7_777);
        assert!(schedule.due_inquiries(7_776, 9).is_empty());
        assert_eq!(schedule.due_inquiries(7_777, 9), [X]);
    }
}
