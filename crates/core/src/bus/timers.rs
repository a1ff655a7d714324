//! What happens by itself at its time: leases that run out, pauses between attempts that are over.
//!
//! A pause has a timer of its own. The leases of one subscription are equally long, so they run
//! out in the order in which they began: they stand in a line, and only the subscription has a
//! timer. One that ends early stays in its line until it comes to the front. What was sent and waits
//! behind others in its stream is in no line here (`flow.rs`).

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

use super::window::{Phase, Window};
use crate::ids::{Offset, SubscriptionId};

/// A line is looked through when it has more than twice as many as there are leases, and these.
const OVER: usize = 1_024;

/// The timers of all subscriptions.
#[derive(Clone, Debug, Default)]
pub(super) struct Timers {
    /// Time, subscription and offset of each pause.
    pauses: BTreeSet<(u64, SubscriptionId, Offset)>,
    /// When to look after the leases of a subscription: not later than the first runs out.
    leases: BTreeSet<(u64, SubscriptionId)>,
}

impl Timers {
    /// The earliest time at which something may have to be done.
    pub(super) fn next(&self) -> Option<u64> {
        let pause = self.pauses.first().map(|(at_ms, _, _)| *at_ms);
        let lease = self.leases.first().map(|(at_ms, _)| *at_ms);
        pause.into_iter().chain(lease).min()
    }

    /// A pause that is over.
    pub(super) fn pop_pause(&mut self, now_ms: u64) -> Option<(SubscriptionId, Offset)> {
        let (at_ms, id, offset) = self.pauses.first().copied()?;
        (at_ms <= now_ms && self.pauses.remove(&(at_ms, id, offset))).then_some((id, offset))
    }

    /// A subscription whose leases have to be looked after.
    pub(super) fn pop_lease(&mut self, now_ms: u64) -> Option<SubscriptionId> {
        let (at_ms, id) = self.leases.first().copied()?;
        (at_ms <= now_ms && self.leases.remove(&(at_ms, id))).then_some(id)
    }

    /// An event pauses.
    pub(super) fn pause(&mut self, at_ms: u64, id: SubscriptionId, offset: Offset) {
        self.pauses.insert((at_ms, id, offset));
    }

    /// It does not pause any more.
    pub(super) fn end_pause(&mut self, at_ms: u64, id: SubscriptionId, offset: Offset) {
        self.pauses.remove(&(at_ms, id, offset));
    }

    /// Pauses, and subscriptions with leases.
    #[cfg(test)]
    pub(super) fn count(&self) -> (usize, usize) {
        (self.pauses.len(), self.leases.len())
    }
}

/// The leases of one subscription.
#[derive(Clone, Debug, Default)]
pub(super) struct Leases {
    /// When each runs out, ascending. Not all are leases still.
    line: VecDeque<(u64, Offset)>,
    /// How many are.
    held: usize,
    /// The time of the subscription's timer; there is one while there are leases.
    timer: Option<u64>,
}

impl Leases {
    /// An event is leased; its entry says so already.
    pub(super) fn begin(
        &mut self,
        timers: &mut Timers,
        id: SubscriptionId,
        window: &Window,
        (until_ms, offset): (u64, Offset),
    ) {
        // As many leave as come, or more.
        for _ in 0..2 {
            if self.line.front().is_none_or(|first| is_held(window, *first)) {
                break;
            }
            self.line.pop_front();
        }
        if self.line.len() > 2 * self.held + OVER {
            self.line.retain(|lease| is_held(window, *lease));
        }
        self.held += 1;
        // At the end, unless the lease has become shorter.
        let place = match self.line.back() {
            Some((last, _)) if *last > until_ms => {
                self.line.partition_point(|(other, _)| *other <= until_ms)
            }
            Some(_) | None => self.line.len(),
        };
        self.line.insert(place, (until_ms, offset));
        if self.timer.is_none_or(|at_ms| at_ms > until_ms) {
            self.set_timer(timers, id, Some(until_ms));
        }
    }

    /// An event is not leased any more.
    pub(super) fn end(&mut self, timers: &mut Timers, id: SubscriptionId) {
        self.held -= 1;
        if self.held == 0 {
            self.clear(timers, id);
        }
    }

    /// No event is leased any more.
    pub(super) fn clear(&mut self, timers: &mut Timers, id: SubscriptionId) {
        self.line.clear();
        self.held = 0;
        self.set_timer(timers, id, None);
    }

    /// The timer has ended: takes the events out whose lease is over, and sets it anew. Whoever
    /// asked ends these leases.
    pub(super) fn due(
        &mut self,
        timers: &mut Timers,
        id: SubscriptionId,
        window: &Window,
        now_ms: u64,
    ) -> Vec<Offset> {
        self.timer = None;
        let mut due = Vec::new();
        while let Some(first) = self.line.front().copied() {
            if is_held(window, first) {
                if first.0 > now_ms {
                    self.set_timer(timers, id, Some(first.0));
                    break;
                }
                due.push(first.1);
            }
            self.line.pop_front();
        }
        due
    }

    fn set_timer(&mut self, timers: &mut Timers, id: SubscriptionId, at_ms: Option<u64>) {
        if let Some(before) = self.timer {
            timers.leases.remove(&(before, id));
        }
        if let Some(at_ms) = at_ms {
            timers.leases.insert((at_ms, id));
        }
        self.timer = at_ms;
    }

    /// Leases in line, and those that were.
    #[cfg(test)]
    pub(super) fn in_line(&self) -> usize {
        self.line.len()
    }

    /// Whether it is in order: every lease of the window stands in line, and the timer comes
    /// before all.
    #[cfg(test)]
    pub(super) fn assert_fits(&self, window: &Window) {
        let mut held = 0;
        for (offset, entry) in window.entries() {
            if let Phase::Leased { until_ms, .. } = entry.phase() {
                held += 1;
                assert!(self.line.contains(&(until_ms, offset)), "a lease was forgotten");
                assert!(self.timer.is_some_and(|at_ms| at_ms <= until_ms), "no timer for a lease");
            }
        }
        assert_eq!(self.held, held);
        assert_eq!(self.timer.is_some(), held > 0);
        assert!(self.line.iter().is_sorted_by_key(|(until_ms, _)| *until_ms));
    }
}

fn is_held(window: &Window, (until_ms, offset): (u64, Offset)) -> bool {
    let until = window.entry(offset).map(super::window::Entry::phase);
    matches!(until, Some(Phase::Leased { until_ms: until, .. }) if until == until_ms)
}
