//! What the records of a checkpoint say: the state as it was, told again.

use alloc::string::String;
use alloc::vec::Vec;

#[cfg(doc)]
use super::Record;
use super::bus::{DeadLettered, SubscriptionCreated, TopicCreated};
use super::transaction::{Begin, Decision, IdempotencyKey, Note, Updater};
use crate::event::OffsetRange;
use crate::ids::{
    Digest, Lsn, Name, Offset, OpeningId, ProducerId, StoreId, SubscriptionId, TopicId,
    TransactionId,
};

/// See [`Record::CheckpointStart`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointStart {
    /// The store.
    pub store: StoreId,
    /// The epoch in which the checkpoint was written.
    pub epoch: u32,
    /// Internal ids of topics and subscriptions below these were used.
    pub next_topic: TopicId,
    /// See `next_topic`.
    pub next_subscription: SubscriptionId,
    /// Segments of the journal that exist besides the one this record opens, ascending.
    pub segments: Vec<u64>,
    /// Where the older idempotency keys are, oldest first.
    pub keys: Vec<KeyBatch>,
    /// The newest openings of the store, oldest first, at most [`OPENINGS`](crate::limits::OPENINGS).
    pub openings: Vec<OpeningRestated>,
    /// Times in which no server ran and that do not count for ages yet, oldest first.
    pub away: Vec<Away>,
}

/// One opening that the log contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpeningRestated {
    /// Which.
    pub opening: OpeningId,
    /// Its epoch.
    pub epoch: u32,
    /// Where its [`Record::Opened`] is. What follows, up to the next one, was written by it.
    pub lsn: Lsn,
    /// The newest time in the log before it, Unix time in milliseconds; 0: there was none.
    pub newest_ms: u64,
}

/// A time in which no server ran, as far as its length does not count for ages yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Away {
    /// The opening that ended it, Unix time in milliseconds.
    pub until_ms: u64,
    /// What has not counted.
    pub uncounted_ms: u64,
}

/// A [`Record::KeysEnded`] that a checkpoint refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyBatch {
    /// Where it is.
    pub lsn: Lsn,
    /// How many keys are in it.
    pub total: u32,
    /// How many of them, the last ones, are still kept.
    pub kept: u32,
}

/// See [`Record::TransactionRestated`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionRestated {
    /// The transaction's BEGIN, without the bytes of its events (their number is kept).
    pub begin: Begin,
    /// Where BEGIN is.
    pub begin_lsn: Lsn,
    /// The transaction's last record.
    pub last: Lsn,
    /// The decision, if one was appended.
    pub decision: Option<Decision>,
    /// When it was decided, Unix time in milliseconds.
    pub decided_wall_ms: u64,
    /// Who has to be told of COMMIT, if that is the decision.
    pub updaters: Vec<Updater>,
    /// Participants that an operator has released.
    pub released: Vec<Name>,
    /// What operators did about it.
    pub notes: Vec<Note>,
    /// What needs attention was seen, as far as the log says.
    pub noted: bool,
}

/// A transaction that has ended otherwise than was decided, and nobody has said that it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnseenRestated {
    /// The transaction.
    pub id: TransactionId,
    /// Its END.
    pub end: Lsn,
    /// True after COMMIT, false after ABORT.
    pub committed: bool,
    /// When it ended, Unix time in milliseconds.
    pub wall_ms: u64,
    /// What END says about it.
    pub why: String,
}

/// See [`Record::SubscriptionRestated`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionRestated {
    /// As it was created; `start` is the offset below which everything is acknowledged.
    pub created: SubscriptionCreated,
    /// It only waits for staged acknowledgements before it goes.
    pub deleting: bool,
    /// Acknowledged above `start`, ascending.
    pub acknowledged: Vec<OffsetRange>,
    /// A gap that is not noted yet.
    pub gap: Option<OffsetRange>,
    /// Its dead letters, ascending.
    pub dead: Vec<DeadLettered>,
    /// Dead letters that were taken to be tried again and are not acknowledged since, ascending.
    pub retried: Vec<Offset>,
}

/// See [`Record::TopicRestated`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRestated {
    /// As it was created, with its settings of now.
    pub created: TopicCreated,
    /// It only waits for staged events before it goes.
    pub deleting: bool,
    /// The first offset that is still there.
    pub start: Offset,
    /// The offset that the next event gets.
    pub end: Offset,
    /// Bytes of events between them.
    pub bytes: u64,
}

/// What is remembered of one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerRestated {
    /// Who.
    pub producer: ProducerId,
    /// What numbers below this stood for is not known any more.
    pub floor: u64,
    /// Batches that were accepted, ascending by number, each with its digest.
    pub batches: Vec<(u64, Digest)>,
    /// Unix time in milliseconds of its last batch.
    pub wall_ms: u64,
}

/// An idempotency key whose transaction has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRestated {
    /// The key.
    pub key: IdempotencyKey,
    /// The transaction it began.
    pub id: TransactionId,
    /// How it ended.
    pub committed: bool,
    /// Unix time in milliseconds at which it ended.
    pub wall_ms: u64,
}
