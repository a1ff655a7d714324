//! What the log holds about a subscription, and how each record changes it.

use alloc::collections::{BTreeMap, BTreeSet};

use super::progress::Progress;
use crate::event::OffsetRange;
use crate::ids::Offset;
use crate::record::{DeadLettered, SubscriptionCreated, SubscriptionRestated};

/// What the log holds about a subscription. It changes in the fold and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// How it was created.
    pub(super) created: SubscriptionCreated,
    /// It goes when its last staged acknowledgement is decided.
    pub(super) deleting: bool,
    /// What is acknowledged.
    pub(super) progress: Progress,
    /// Events that retention took before they were acknowledged; nobody has noted it yet.
    pub(super) gap: Option<OffsetRange>,
    /// Events that failed too often.
    pub(super) dead: BTreeMap<Offset, DeadLettered>,
    /// Dead letters that are tried again. They count as acknowledged in `progress`.
    pub(super) retried: BTreeSet<Offset>,
}

impl Facts {
    /// Of a new subscription.
    pub(super) fn new(created: SubscriptionCreated) -> Self {
        let progress = Progress::below(created.start);
        let (gap, dead, retried) = (None, BTreeMap::new(), BTreeSet::new());
        Self { created, deleting: false, progress, gap, dead, retried }
    }

    /// Events are done with.
    pub(super) fn acknowledge(&mut self, range: OffsetRange) {
        self.progress.acknowledge(range);
        while let Some(offset) = self.retried.range(range.from..range.to).next().copied() {
            self.retried.remove(&offset);
        }
    }

    /// One event is done with.
    pub(super) fn acknowledge_one(&mut self, offset: Offset) {
        self.acknowledge(OffsetRange { from: offset, to: Offset(offset.0 + 1) });
    }

    /// It goes on at `offset`. What is tried again below it still is; above it everything is
    /// delivered anyway. A gap stays until it is noted.
    pub(super) fn seek(&mut self, offset: Offset) {
        self.progress = Progress::below(offset);
        self.retried =
            core::mem::take(&mut self.retried).into_iter().filter(|o| *o < offset).collect();
    }

    /// Retention took everything below `to`. True if that makes or extends a gap.
    pub(super) fn overtake(&mut self, to: Offset) -> bool {
        let from = self.progress.floor();
        if from >= to {
            return false;
        }
        self.progress.acknowledge(OffsetRange { from, to });
        let from = self.gap.map_or(from, |gap| gap.from);
        self.gap = Some(OffsetRange { from, to });
        true
    }

    /// A subscriber has noted the gap up to `to`.
    pub(super) fn note_gap(&mut self, to: Offset) {
        self.gap = self
            .gap
            .map(|gap| OffsetRange { from: gap.from.max(to), to: gap.to })
            .filter(|gap| gap.from < gap.to);
    }

    /// A dead letter leaves the list.
    pub(super) fn take_dead(&mut self, offset: Offset, retry: bool) {
        // What is not acknowledged (after a seek) is delivered anyway.
        if self.dead.remove(&offset).is_some() && retry && self.progress.contains(offset) {
            self.retried.insert(offset);
        }
    }

    /// For a checkpoint.
    pub(super) fn restate(&self) -> SubscriptionRestated {
        let mut created = self.created.clone();
        created.start = self.progress.floor();
        SubscriptionRestated {
            created,
            deleting: self.deleting,
            acknowledged: self.progress.ranges(),
            gap: self.gap,
            dead: self.dead.values().cloned().collect(),
            retried: self.retried.iter().copied().collect(),
        }
    }

    /// From a checkpoint, for a subscription made of its creation.
    pub(super) fn restore(&mut self, restated: &SubscriptionRestated) {
        self.deleting = restated.deleting;
        for range in &restated.acknowledged {
            self.progress.acknowledge(*range);
        }
        self.gap = restated.gap;
        self.dead = restated.dead.iter().map(|letter| (letter.offset, letter.clone())).collect();
        self.retried = restated.retried.iter().copied().collect();
    }
}
