//! What still needs the log: events that topics hold, dead letters, open transactions, outcomes
//! that may be asked for. Everything else may go.

use std::collections::{BTreeMap, BTreeSet};

use handfast_core::Core;
use handfast_core::event::PlacedEvent;
use handfast_core::ids::{Lsn, Now, Offset, TopicId};
use handfast_core::record::Record;
use handfast_journal::{Reference, SegmentSummary};

/// How long the outcome of a transaction without an idempotency key is kept after END, in
/// milliseconds.
pub(super) const OUTCOME_MS: u64 = 3_600_000;

/// What still needs the log.
#[derive(Debug)]
pub(crate) struct Needs {
    /// First offset that each topic still has; a topic that is not here is gone.
    starts: BTreeMap<TopicId, Offset>,
    /// Dead letters, whose events stay whatever retention says.
    dead: BTreeSet<(TopicId, Offset)>,
    /// Records that checkpoints refer to.
    referred: BTreeSet<Lsn>,
    /// BEGIN of the oldest open transaction.
    oldest_open: Option<Lsn>,
    /// What ended before this is no longer asked for, if it had no idempotency key.
    unkeyed_since_ms: u64,
    /// The same for what had one.
    keyed_since_ms: u64,
}

impl Needs {
    pub(crate) fn of(core: &Core, now: Now, key_age_ms: u64) -> Self {
        Self {
            starts: core.topics().into_iter().map(|t| (t.topic, t.start)).collect(),
            dead: core.dead_letters().into_iter().collect(),
            referred: core.referred().into_iter().collect(),
            oldest_open: core.oldest_open(),
            unkeyed_since_ms: core.older_than(now, OUTCOME_MS),
            keyed_since_ms: core.older_than(now, key_age_ms),
        }
    }

    /// Nothing in the segment is needed for its own sake.
    pub(crate) fn none_of(&self, segment: &SegmentSummary) -> bool {
        let events = segment.topics.iter().any(|part| {
            let dead = self.dead.range((part.topic, part.first)..=(part.topic, part.last));
            self.has(part.topic, part.last) || dead.count() > 0
        });
        let open = self.oldest_open.is_some_and(|lsn| lsn <= segment.last);
        let referred = self.referred.range(segment.first..=segment.last).next().is_some();
        !events
            && !open
            && !referred
            && !self.outcomes(segment.newest_end_ms, segment.newest_keyed_end_ms)
    }

    /// Another segment needs what is in this one.
    pub(crate) fn reference(&self, reference: &Reference) -> bool {
        let events = reference.events.iter().any(|(topic, offset)| {
            let dead = self.dead.range((*topic, Offset(0))..=(*topic, *offset));
            self.has(*topic, *offset) || dead.count() > 0
        });
        events || self.outcomes(reference.newest_end_ms, reference.newest_keyed_end_ms)
    }

    fn has(&self, topic: TopicId, offset: Offset) -> bool {
        self.starts.get(&topic).is_some_and(|start| offset >= *start)
    }

    fn outcomes(&self, unkeyed: Option<u64>, keyed: Option<u64>) -> bool {
        unkeyed.is_some_and(|at| at >= self.unkeyed_since_ms)
            || keyed.is_some_and(|at| at >= self.keyed_since_ms)
    }

    /// Outcomes of transactions that ended in the segment are still asked for.
    pub(crate) fn outcomes_of(&self, segment: &SegmentSummary) -> bool {
        self.outcomes(segment.newest_end_ms, segment.newest_keyed_end_ms)
    }

    /// Bytes of events in the segment that are needed, at most.
    pub(crate) fn live_bytes(&self, segment: &SegmentSummary) -> u64 {
        let live = segment.topics.iter().filter(|part| self.has(part.topic, part.last));
        live.map(|part| part.bytes).sum()
    }

    /// Whether a record of a sealed segment is needed. What a checkpoint restates is not: recovery
    /// begins at the newest one.
    pub(crate) fn record(&self, lsn: Lsn, record: &Record) -> bool {
        let young = |wall_ms: u64| wall_ms >= self.keyed_since_ms;
        let open = self.oldest_open.is_some_and(|oldest| lsn >= oldest);
        let event = |e: &PlacedEvent| {
            self.has(e.topic, e.offset) || self.dead.contains(&(e.topic, e.offset))
        };
        let events = || record.events().iter().any(event);
        match record {
            // A local transaction's BEGIN holds bytes that its COMMIT refers to.
            Record::Begin(r) => open || r.local.is_some() || young(r.wall_ms),
            Record::Commit(r) => open || young(r.wall_ms) || events(),
            Record::Abort(r) => open || young(r.wall_ms),
            Record::Operated(r) => open || young(r.note.wall_ms),
            Record::End(r) => open || young(r.wall_ms),
            Record::Published(_) => events(),
            Record::KeysEnded(_) => self.referred.contains(&lsn),
            Record::Opened(_)
            | Record::TopicCreated(_)
            | Record::TopicAltered(_)
            | Record::TopicDeleted(_)
            | Record::TopicTruncated(_)
            | Record::SubscriptionCreated(_)
            | Record::SubscriptionSought(_)
            | Record::SubscriptionDeleted(_)
            | Record::Acknowledged(_)
            | Record::GapAcknowledged(_)
            | Record::DeadLettered(_)
            | Record::DeadLettersTaken(_)
            | Record::SegmentDropped(_)
            | Record::CheckpointStart(_)
            | Record::TransactionRestated(_)
            | Record::UnseenRestated(_)
            | Record::SubscriptionRestated(_)
            | Record::TopicRestated(_)
            | Record::ProducersRestated(_)
            | Record::KeysRestated(_)
            | Record::CheckpointEnd => false,
        }
    }
}
