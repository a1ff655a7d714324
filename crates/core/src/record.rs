//! Records: the facts that are written to the journal, and nothing else.
//!
//! A record states what happened, never what to do. `Core::apply` folds records into the state,
//! live and in recovery alike; a checkpoint is a list of records that, applied to an empty state,
//! make the state again.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::event::{Body, OffsetRange, PlacedEvent, StagedEvent};
use crate::ids::{
    Lsn, Name, Offset, ProducerId, StateId, StoreId, SubscriptionId, TopicId, TransactionId,
};
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
    /// Unix time in milliseconds.
    pub wall_ms: u64,
}

/// What kind of participant a branch belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParticipantKind {
    /// Takes part over a stream.
    Service,
    /// Registered by the administrator; finished by the server.
    Database,
}

/// A participant of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Participant {
    /// Its name.
    pub name: Name,
    /// Service or database.
    pub kind: ParticipantKind,
}

/// The caller's name for one request, so that asking twice is asking once (I10).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey {
    /// 1 to [`crate::limits::KEY_BYTES`] bytes, chosen by the caller.
    pub key: Arc<str>,
    /// Digest of the request, made at the edge: the same key with another digest is a conflict.
    pub digest: u64,
}

/// See [`Record::Begin`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begin {
    /// The transaction.
    pub id: TransactionId,
    /// Unix time in milliseconds.
    pub wall_ms: u64,
    /// Milliseconds from begin to deadline.
    pub deadline_ms: u64,
    /// The caller's key.
    pub key: Option<IdempotencyKey>,
    /// Who was named at the start; others may be enlisted, which is not written.
    pub participants: Vec<Participant>,
    /// Present in a local transaction.
    pub local: Option<LocalItems>,
}

/// What a local transaction stages at its begin: its decision refers to it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct LocalItems {
    /// Events.
    pub events: Vec<StagedEvent>,
    /// Acknowledgements: subscription and offset.
    pub acknowledged: Vec<(SubscriptionId, Offset)>,
}

/// A branch that voted YES: it is told of the decision until it has acknowledged it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Updater {
    /// The participant.
    pub participant: Participant,
    /// The durable state that holds the branch. For a database: the session that held it when it
    /// was prepared (see [`crate::ids::Holder`]), or zero.
    pub state_id: StateId,
}

/// See [`Record::Commit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The transaction.
    pub id: TransactionId,
    /// The transaction's record before this one.
    pub previous: Lsn,
    /// Unix time in milliseconds.
    pub wall_ms: u64,
    /// Who has to be told.
    pub updaters: Vec<Updater>,
    /// Participants that had nothing to change.
    pub read_only: Vec<Participant>,
    /// Its events, each with its offset.
    pub events: Vec<PlacedEvent>,
    /// Its acknowledgements: subscription and offset.
    pub acknowledged: Vec<(SubscriptionId, Offset)>,
}

/// See [`Record::Abort`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abort {
    /// The transaction.
    pub id: TransactionId,
    /// The transaction's record before this one.
    pub previous: Lsn,
    /// Unix time in milliseconds.
    pub wall_ms: u64,
    /// Why.
    pub reason: Reason,
}

/// See [`Record::Operated`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operated {
    /// The transaction.
    pub id: TransactionId,
    /// The transaction's record before this one.
    pub previous: Lsn,
    /// What was done.
    pub note: Note,
    /// The participant that is not waited for any more.
    pub released: Option<Name>,
}

/// What an operator did, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Unix time in milliseconds.
    pub wall_ms: u64,
    /// What was done, by whom and why; at most [`crate::limits::REASON_BYTES`] and a few words.
    pub text: String,
}

/// Why a transaction failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The kind of reason, stable.
    pub code: ReasonCode,
    /// The participant at fault, if it was one.
    pub participant: Option<Name>,
    /// For people; at most [`crate::limits::REASON_BYTES`].
    pub detail: String,
    /// The same transaction, begun again, may succeed.
    pub retryable: bool,
}

impl Reason {
    /// A reason that is nobody's in particular.
    #[must_use]
    pub fn new(code: ReasonCode, detail: impl Into<String>, retryable: bool) -> Self {
        Self { code, participant: None, detail: detail.into(), retryable }
    }
}

/// The kinds of reason for a failed transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReasonCode {
    /// A participant voted NO.
    VotedNo,
    /// The client asked for it.
    Aborted,
    /// The deadline passed before the decision.
    DeadlinePassed,
    /// The client's commit counted other branches or items than the coordinator.
    Incomplete,
    /// The stream that began the transaction ended.
    ClientGone,
    /// The server started again before the decision.
    CoordinatorRestarted,
    /// An operator ended it.
    Operator,
    /// The database holds a tombstone: the local transaction can no longer commit.
    NotCommittedLocally,
}

impl ReasonCode {
    /// Every code there is.
    pub const ALL: &'static [ReasonCode] = &[
        Self::VotedNo,
        Self::Aborted,
        Self::DeadlinePassed,
        Self::Incomplete,
        Self::ClientGone,
        Self::CoordinatorRestarted,
        Self::Operator,
        Self::NotCommittedLocally,
    ];

    /// The stable text that clients see.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VotedNo => "voted_no",
            Self::Aborted => "aborted",
            Self::DeadlinePassed => "deadline_passed",
            Self::Incomplete => "incomplete",
            Self::ClientGone => "client_gone",
            Self::CoordinatorRestarted => "coordinator_restarted",
            Self::Operator => "operator",
            Self::NotCommittedLocally => "not_committed_locally",
        }
    }
}

/// See [`Record::End`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The transaction.
    pub id: TransactionId,
    /// The transaction's record before this one.
    pub previous: Lsn,
    /// Unix time in milliseconds.
    pub wall_ms: u64,
    /// True after COMMIT, false after ABORT.
    pub committed: bool,
    /// Somebody else ended a branch against the decision, or an operator released one.
    pub heuristic: bool,
    /// How each branch went that was sent anything or voted.
    pub finished: Vec<Finished>,
}

/// The history of one branch, for people. Times are milliseconds since the transaction's begin (or
/// since the server's last start, if that was later).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The participant.
    pub participant: Name,
    /// When prepare was first sent.
    pub prepare_sent_ms: Option<u64>,
    /// When its vote came.
    pub voted_ms: Option<u64>,
    /// When the decision was first sent.
    pub decision_sent_ms: Option<u64>,
    /// When its acknowledgement came; none if it never did.
    pub finished_ms: Option<u64>,
    /// How often anything was sent to it.
    pub sends: u32,
}

/// See [`Record::Published`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Who published.
    pub producer: ProducerId,
    /// The producer's number of this batch.
    pub sequence: u64,
    /// Unix time in milliseconds.
    pub wall_ms: u64,
    /// The events; their bytes are always here.
    pub events: Vec<PlacedEvent>,
}

/// How long a topic keeps its events. Whatever limit is met first ends an event; none: for ever.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TopicSettings {
    /// Events older than this many milliseconds may go.
    pub retain_ms: Option<u64>,
    /// Oldest events may go while the topic holds more bytes than this.
    pub retain_bytes: Option<u64>,
    /// Nothing goes before every subscription has acknowledged it; at `retain_bytes` publishing to
    /// this topic is refused instead.
    pub retain_unacknowledged: bool,
}

/// See [`Record::TopicCreated`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicCreated {
    /// Its internal id.
    pub topic: TopicId,
    /// Its public name.
    pub name: Name,
    /// Its settings.
    pub settings: TopicSettings,
    /// Unix time in milliseconds.
    pub wall_ms: u64,
}

/// See [`Record::TopicAltered`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicAltered {
    /// The topic.
    pub topic: TopicId,
    /// Its new settings.
    pub settings: TopicSettings,
}

/// See [`Record::TopicDeleted`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDeleted {
    /// The topic.
    pub topic: TopicId,
    /// False: it still has staged items and only refuses new ones. True: it is gone, and its
    /// subscriptions with it.
    pub gone: bool,
}

/// See [`Record::TopicTruncated`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicTruncated {
    /// The topic.
    pub topic: TopicId,
    /// The first offset that is still there.
    pub start: Offset,
    /// Bytes of events that went.
    pub bytes: u64,
}

/// How a subscription delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionSettings {
    /// Milliseconds for which a delivery is leased.
    pub lease_ms: u64,
    /// Attempts after which an event becomes a dead letter; none: it is tried for ever.
    pub max_attempts: Option<u32>,
    /// First pause before another attempt, in milliseconds; doubles with each.
    pub backoff_ms: u64,
    /// Longest pause before another attempt, in milliseconds.
    pub backoff_max_ms: u64,
}

impl Default for SubscriptionSettings {
    fn default() -> Self {
        Self { lease_ms: 30_000, max_attempts: Some(10), backoff_ms: 100, backoff_max_ms: 30_000 }
    }
}

/// See [`Record::SubscriptionCreated`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionCreated {
    /// Its internal id.
    pub subscription: SubscriptionId,
    /// Its public name.
    pub name: Name,
    /// The topic it reads.
    pub topic: TopicId,
    /// Its settings.
    pub settings: SubscriptionSettings,
    /// The first offset it delivers.
    pub start: Offset,
    /// Unix time in milliseconds.
    pub wall_ms: u64,
}

/// See [`Record::SubscriptionSought`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionSought {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// The next offset to deliver.
    pub offset: Offset,
}

/// See [`Record::SubscriptionDeleted`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionDeleted {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// False: it still has staged acknowledgements and only refuses new ones. True: it is gone.
    pub gone: bool,
}

/// See [`Record::Acknowledged`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// What was acknowledged, ascending.
    pub ranges: Vec<OffsetRange>,
}

/// See [`Record::GapAcknowledged`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GapAcknowledged {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// The end of the gap that was noted.
    pub to: Offset,
}

/// See [`Record::DeadLettered`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLettered {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// The event.
    pub offset: Offset,
    /// How often it was tried.
    pub attempts: u32,
    /// What the last subscriber said, if anything.
    pub reason: String,
    /// Unix time in milliseconds.
    pub wall_ms: u64,
}

/// See [`Record::DeadLettersTaken`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLettersTaken {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// Which.
    pub offsets: Vec<Offset>,
    /// True: deliver them again. False: they are dropped for good.
    pub retry: bool,
}

/// See [`Record::SegmentDropped`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentDropped {
    /// The segment's number.
    pub segment: u64,
}

/// See [`Record::CheckpointStart`].
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

/// A decision about a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// COMMIT.
    Commit,
    /// ABORT, and why.
    Abort(Reason),
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
    /// Batches that were accepted: first and last number of each run, ascending.
    pub sequences: Vec<(u64, u64)>,
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
            | Self::SubscriptionRestated(_)
            | Self::TopicRestated(_)
            | Self::ProducersRestated(_)
            | Self::KeysEnded(_)
            | Self::KeysRestated(_)
            | Self::CheckpointEnd => None,
        }
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
                Self::End(r) => 64 + names(r.finished.len()) + r.finished.len() as u64 * 32,
                Self::Published(r) => 64 + placed(&r.events),
                Self::Acknowledged(r) => 32 + r.ranges.len() as u64 * 24,
                Self::DeadLettered(r) => 64 + r.reason.len() as u64,
                Self::DeadLettersTaken(r) => 32 + r.offsets.len() as u64 * 10,
                Self::CheckpointStart(r) => {
                    64 + r.segments.len() as u64 * 10 + r.keys.len() as u64 * 20
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
                Self::ProducersRestated(producers) => {
                    producers.iter().map(|p| 64 + p.sequences.len() as u64 * 24).sum()
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
