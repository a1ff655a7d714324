//! Records: the facts that are written to the journal, and nothing else.
//!
//! A record states what happened, never what to do. `Core::apply` folds records into the state,
//! live and in recovery alike; a checkpoint is a list of records that, applied to an empty state,
//! make the state again.

mod bus;
mod checkpoint;
mod transaction;

use alloc::boxed::Box;
use alloc::vec::Vec;

pub use self::bus::{
    Acknowledged, DeadLettered, DeadLettersTaken, GapAcknowledged, Published, SubscriptionCreated,
    SubscriptionDeleted, SubscriptionSettings, SubscriptionSought, TopicAltered, TopicCreated,
    TopicDeleted, TopicSettings, TopicTruncated,
};
pub use self::checkpoint::{
    Away, CheckpointStart, KeyBatch, KeyRestated, OpeningRestated, ProducerRestated,
    SubscriptionRestated, TopicRestated, TransactionRestated, UnseenRestated,
};
pub use self::transaction::{
    Abort, Begin, Commit, Decision, End, Finished, IdempotencyKey, LocalItems, Note, Operated,
    Participant, ParticipantKind, Reason, ReasonCode, Remark, Updater,
};
use crate::event::{Body, PlacedEvent};
use crate::ids::{OpeningId, StoreId, TransactionId};
use crate::limits::NAME_BYTES;

/// What a frame of the log adds to a record that stands alone in it, at most.
const FRAME_BYTES: u64 = 128;

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The store was opened: the first record of every opening.
    Opened(Opened),
    /// BEGIN.
    Begin(Begin),
    /// COMMIT: the one decision, with everything that takes effect by it.
    Commit(Commit),
    /// ABORT.
    Abort(Abort),
    /// An operator stepped in.
    Operated(Operated),
    /// END: every updater has finished (after COMMIT), or enough aborts were sent (after ABORT).
    End(End),
    /// Events published outside a transaction, acknowledged as one.
    Published(Published),
    /// A topic exists from here on.
    TopicCreated(TopicCreated),
    /// A topic has other settings from here on.
    TopicAltered(TopicAltered),
    /// A topic takes no more events, or is gone.
    TopicDeleted(TopicDeleted),
    /// Events before an offset are gone from a topic by retention.
    TopicTruncated(TopicTruncated),
    /// A subscription exists from here on.
    SubscriptionCreated(SubscriptionCreated),
    /// A subscription goes on at another offset; earlier deliveries are void.
    SubscriptionSought(SubscriptionSought),
    /// A subscription takes no more acknowledgements in transactions, or is gone.
    SubscriptionDeleted(SubscriptionDeleted),
    /// Deliveries were acknowledged outside a transaction.
    Acknowledged(Acknowledged),
    /// A subscriber has taken note of a gap.
    GapAcknowledged(GapAcknowledged),
    /// An event failed too often (or was refused for good) and waits for a person.
    DeadLettered(DeadLettered),
    /// Dead letters left the list: delivered again, or dropped.
    DeadLettersTaken(DeadLettersTaken),
    /// A segment of the journal is about to be removed.
    SegmentDropped(SegmentDropped),
    /// A checkpoint begins: what follows up to its end restates the state from nothing.
    CheckpointStart(CheckpointStart),
    /// Part of a checkpoint: an open transaction.
    TransactionRestated(Box<TransactionRestated>),
    /// Part of a checkpoint: transactions with a heuristic end that nobody has taken note of.
    UnseenRestated(Vec<UnseenRestated>),
    /// Part of a checkpoint: a subscription's progress.
    SubscriptionRestated(Box<SubscriptionRestated>),
    /// Part of a checkpoint: a topic's bounds.
    TopicRestated(TopicRestated),
    /// Part of a checkpoint: what is remembered of producers.
    ProducersRestated(Vec<ProducerRestated>),
    /// Idempotency keys of transactions that have ended: what later checkpoints refer to.
    KeysEnded(Vec<KeyRestated>),
    /// Part of a checkpoint: idempotency keys of ended transactions that are in no
    /// [`Record::KeysEnded`] yet.
    KeysRestated(Vec<KeyRestated>),
    /// The checkpoint that began is complete.
    CheckpointEnd,
}

/// See [`Record::Opened`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The store.
    pub store: StoreId,
    /// Raised by every opening.
    pub epoch: u32,
    /// Tells this opening from every other one, also from those of copies of the store.
    pub opening: OpeningId,
    /// Log time, Unix time in milliseconds: never before `newest_ms`.
    pub wall_ms: u64,
    /// The newest time that the log had, in records or in ids of transactions; 0: it had none.
    pub newest_ms: u64,
}

/// See [`Record::SegmentDropped`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentDropped {
    /// The segment's number.
    pub segment: u64,
}

impl Record {
    /// The transaction that the record belongs to, if it belongs to one.
    #[must_use]
    pub fn transaction(&self) -> Option<TransactionId> {
        match self {
            Self::Begin(r) => Some(r.id),
            Self::Commit(r) => Some(r.id),
            Self::Abort(r) => Some(r.id),
            Self::Operated(r) => Some(r.id),
            Self::End(r) => Some(r.id),
            Self::TransactionRestated(r) => Some(r.begin.id),
            Self::Opened(_)
            | Self::Published(_)
            | Self::TopicCreated(_)
            | Self::TopicAltered(_)
            | Self::TopicDeleted(_)
            | Self::TopicTruncated(_)
            | Self::SubscriptionCreated(_)
            | Self::SubscriptionSought(_)
            | Self::SubscriptionDeleted(_)
            | Self::Acknowledged(_)
            | Self::GapAcknowledged(_)
            | Self::DeadLettered(_)
            | Self::DeadLettersTaken(_)
            | Self::SegmentDropped(_)
            | Self::CheckpointStart(_)
            | Self::UnseenRestated(_)
            | Self::SubscriptionRestated(_)
            | Self::TopicRestated(_)
            | Self::ProducersRestated(_)
            | Self::KeysEnded(_)
            | Self::KeysRestated(_)
            | Self::CheckpointEnd => None,
        }
    }

    /// When the record was made, if it says so: Unix time in milliseconds.
    #[must_use]
    pub fn wall_ms(&self) -> Option<u64> {
        match self {
            Self::Opened(r) => Some(r.wall_ms),
            Self::Begin(r) => Some(r.wall_ms),
            Self::Commit(r) => Some(r.wall_ms),
            Self::Abort(r) => Some(r.wall_ms),
            Self::Operated(r) => Some(r.note.wall_ms),
            Self::End(r) => Some(r.wall_ms),
            Self::Published(r) => Some(r.wall_ms),
            Self::TopicCreated(r) => Some(r.wall_ms),
            Self::SubscriptionCreated(r) => Some(r.wall_ms),
            Self::DeadLettered(r) => Some(r.wall_ms),
            // What a checkpoint restates happened earlier; the rest carries no time.
            Self::TopicAltered(_)
            | Self::TopicDeleted(_)
            | Self::TopicTruncated(_)
            | Self::SubscriptionSought(_)
            | Self::SubscriptionDeleted(_)
            | Self::Acknowledged(_)
            | Self::GapAcknowledged(_)
            | Self::DeadLettersTaken(_)
            | Self::SegmentDropped(_)
            | Self::CheckpointStart(_)
            | Self::TransactionRestated(_)
            | Self::UnseenRestated(_)
            | Self::SubscriptionRestated(_)
            | Self::TopicRestated(_)
            | Self::ProducersRestated(_)
            | Self::KeysEnded(_)
            | Self::KeysRestated(_)
            | Self::CheckpointEnd => None,
        }
    }

    /// The later of the record's time and the time in its transaction's id; 0: it has neither.
    #[must_use]
    pub fn newest_ms(&self) -> u64 {
        let id_ms = self.transaction().map_or(0, TransactionId::unix_ms);
        self.wall_ms().unwrap_or(0).max(id_ms)
    }

    /// Bytes that the record takes in the log, at most, headers included. It need not be exact, only
    /// never too low: room in the log is reckoned with it.
    #[must_use]
    pub fn size_bound(&self) -> u64 {
        let names = |n: usize| n as u64 * (NAME_BYTES as u64 + 40);
        let placed = |events: &[PlacedEvent]| -> u64 {
            let bytes = |e: &PlacedEvent| match &e.body {
                Body::Here(body) => body.len() as u64 + 48,
                Body::InBegin { .. } => 64,
            };
            events.iter().map(bytes).sum()
        };
        let local = |items: &Option<LocalItems>| -> u64 {
            let Some(items) = items else { return 0 };
            let events: u64 = items.events.iter().map(|e| e.body.len() as u64 + 48).sum();
            events + items.acknowledged.len() as u64 * 16
        };
        let begin = |r: &Begin| {
            let key = r.key.as_ref().map_or(0, |k| k.key.len() as u64 + 16);
            64 + key + names(r.participants.len()) + local(&r.local)
        };
        let reason = |r: &Reason| r.detail.len() as u64 + NAME_BYTES as u64 + 16;
        FRAME_BYTES
            + match self {
                Self::Begin(r) => begin(r),
                Self::Commit(r) => {
                    let items = r.acknowledged.len() as u64 * 16;
                    64 + names(r.updaters.len() + r.read_only.len()) + placed(&r.events) + items
                }
                Self::Abort(r) => 64 + reason(&r.reason),
                Self::Operated(r) => 128 + r.note.text.len() as u64 + NAME_BYTES as u64,
                Self::End(r) => {
                    let why = r.why.len() as u64 + 8;
                    64 + names(r.finished.len()) + r.finished.len() as u64 * 32 + why
                }
                Self::Published(r) => 64 + placed(&r.events),
                Self::Acknowledged(r) => 32 + r.ranges.len() as u64 * 24,
                Self::DeadLettered(r) => 64 + r.reason.len() as u64,
                Self::DeadLettersTaken(r) => 32 + r.offsets.len() as u64 * 10,
                Self::CheckpointStart(r) => {
                    let lists = r.segments.len() as u64 * 10 + r.keys.len() as u64 * 20;
                    64 + lists + r.openings.len() as u64 * 32 + r.away.len() as u64 * 20
                }
                Self::TransactionRestated(r) => {
                    let why = match &r.decision {
                        Some(Decision::Abort(why)) => reason(why),
                        Some(Decision::Commit) | None => 0,
                    };
                    let notes: u64 = r.notes.iter().map(|n| n.text.len() as u64 + 16).sum();
                    128 + begin(&r.begin) + names(r.updaters.len() + r.released.len()) + why + notes
                }
                Self::SubscriptionRestated(r) => {
                    let dead: u64 = r.dead.iter().map(|d| d.reason.len() as u64 + 64).sum();
                    256 + r.acknowledged.len() as u64 * 24 + r.retried.len() as u64 * 10 + dead
                }
                Self::UnseenRestated(unseen) => {
                    unseen.iter().map(|u| 64 + u.why.len() as u64).sum()
                }
                Self::ProducersRestated(producers) => {
                    producers.iter().map(|p| 64 + p.batches.len() as u64 * 24).sum()
                }
                Self::KeysEnded(keys) | Self::KeysRestated(keys) => {
                    keys.iter().map(|k| 64 + k.key.key.len() as u64).sum()
                }
                Self::Opened(_)
                | Self::TopicCreated(_)
                | Self::TopicAltered(_)
                | Self::TopicDeleted(_)
                | Self::TopicTruncated(_)
                | Self::SubscriptionCreated(_)
                | Self::SubscriptionSought(_)
                | Self::SubscriptionDeleted(_)
                | Self::GapAcknowledged(_)
                | Self::SegmentDropped(_)
                | Self::TopicRestated(_)
                | Self::CheckpointEnd => 2 * (NAME_BYTES as u64) + 256,
            }
    }

    /// The events that become visible by the record.
    #[must_use]
    pub fn events(&self) -> &[PlacedEvent] {
        match self {
            Self::Commit(r) => &r.events,
            Self::Published(r) => &r.events,
            _ => &[],
        }
    }
}
