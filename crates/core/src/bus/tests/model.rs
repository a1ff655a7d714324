//! What must hold of the deliveries of one subscription, seen from its outputs and the durable log
//! alone.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::event::StoredEvent;
use crate::ids::{KeyHash, Offset};

/// See the file's head.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// Done with, durably.
    done: BTreeSet<Offset>,
    /// Delivered at least once.
    pub(super) first: BTreeSet<Offset>,
    /// Per key the event that was delivered and is not done with.
    holder: BTreeMap<KeyHash, Offset>,
    /// Per key the last event that was delivered for the first time.
    last_first: BTreeMap<KeyHash, Offset>,
    /// Dead letters taken for another try.
    pub(super) retried: BTreeSet<Offset>,
}

impl Model {
    /// An event was delivered.
    pub(super) fn delivered(&mut self, event: &StoredEvent) {
        let offset = event.offset;
        let retried = self.retried.contains(&offset);
        assert!(!self.done.contains(&offset) || retried, "{offset} was done with (I9)");
        let is_first = self.first.insert(offset);
        let Some(key) = event.key else { return };
        let holder = *self.holder.entry(key).or_insert(offset);
        assert_eq!(holder, offset, "two events of a key at a time");
        // A dead letter has been delivered before, perhaps before a seek.
        if is_first && !retried {
            let last = self.last_first.insert(key, offset);
            assert!(last.is_none_or(|last| last < offset), "out of order (I11)");
        }
    }

    /// An acknowledgement or a dead letter is durable.
    pub(super) fn done_with(&mut self, offset: Offset) {
        self.done.insert(offset);
        self.retried.remove(&offset);
        self.holder.retain(|_, holder| *holder != offset);
    }

    /// A seek is durable.
    pub(super) fn sought(&mut self) {
        *self = Self { retried: core::mem::take(&mut self.retried), ..Self::default() };
    }

    /// A truncation is durable.
    pub(super) fn truncated(&mut self, start: Offset) {
        self.holder.retain(|_, offset| *offset >= start);
    }

    /// The process has started again: nothing is leased.
    pub(super) fn restarted(&mut self) {
        self.holder.clear();
    }
}
