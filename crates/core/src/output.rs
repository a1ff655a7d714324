//! Outputs: what the core wants done. Plain data, in the order in which it has to happen.
//!
//! Whatever reveals something that is not durable yet is held back inside the core, so every
//! output may be carried out at once.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::command::Caller;
use crate::event::{Delivery, DeliveryRef, OffsetRange};
use crate::ids::{
    Began, Holder, Lsn, Name, Offset, SessionId, SubscriptionId, TopicId, TransactionId,
};
use crate::record::{DeadLettered, Reason, Record, SubscriptionSettings, TopicSettings};
use crate::refusal::Refusal;
pub use crate::state::PublicState;
use crate::view::{ParticipantView, SubscriptionView, TopicView, TransactionView};

/// One effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Append a record. Answered by [`crate::input::Input::Accepted`] (or `Lost`, `Unknown`), and
    /// later by [`crate::input::Input::Durable`].
    Append {
        /// Its place; places are handed out without holes, in order.
        lsn: Lsn,
        /// What to write.
        record: Arc<Record>,
    },
    /// Answer a command.
    Reply {
        /// Whom.
        to: Caller,
        /// With what.
        reply: Reply,
    },
    /// Send to an instance of a service.
    ToService {
        /// Its stream.
        session: SessionId,
        /// What.
        message: ToService,
    },
    /// Hand an event to a subscriber.
    Deliver {
        /// Its stream.
        session: SessionId,
        /// The event, under a lease.
        delivery: Box<Delivery>,
    },
    /// Tell a subscriber that events were gone before it read them. Sent once to each stream of
    /// the subscription until one acknowledges it; nothing is delivered before.
    Gap {
        /// Its stream.
        session: SessionId,
        /// What is gone.
        gap: OffsetRange,
    },
    /// End a stream: it was replaced, or what it was attached to is gone.
    EndSession {
        /// The stream.
        session: SessionId,
        /// Why.
        refusal: Refusal,
    },
    /// Read events from the journal; answered by [`crate::input::Input::Fetched`].
    Fetch(Fetch),
    /// Read the chain of a transaction from the journal; answered by
    /// [`crate::input::Input::Chain`].
    ReadChain {
        /// The transaction.
        id: TransactionId,
    },
    /// Finish a branch in a database; answered by [`crate::input::Input::BranchFinished`].
    FinishBranch {
        /// The transaction.
        id: TransactionId,
        /// The database.
        database: Name,
        /// Commit or roll back.
        commit: bool,
        /// The session that held it, if it is known: it has to be gone first.
        holder: Option<Holder>,
    },
    /// Let a client finish a branch on the session that it holds for it; answered by
    /// [`crate::command::Command::BranchEnded`].
    FinishOnSession {
        /// The client's stream.
        session: SessionId,
        /// The transaction.
        id: TransactionId,
        /// The database.
        database: Name,
        /// Commit or roll back.
        commit: bool,
    },
    /// Find out whether a branch is prepared, of a local transaction whether its marker is
    /// visible; answered by [`crate::input::Input::Verified`].
    Verify {
        /// The transaction.
        id: TransactionId,
        /// The database.
        database: Name,
        /// Look for the marker.
        local: bool,
    },
    /// Find out, by a tombstone, how a local transaction ended in its database; answered by
    /// [`crate::input::Input::Resolved`].
    Resolve {
        /// The transaction.
        id: TransactionId,
        /// The database.
        database: Name,
        /// Nobody has asked: its stream ended, or its deadline passed.
        abandoned: bool,
    },
    /// A person should look: a metric, a log line, an entry in `indoubt`.
    Attention {
        /// The transaction.
        id: TransactionId,
        /// Why.
        detail: String,
    },
    /// A service could not do as it was told, and tries again: a log line.
    Trouble {
        /// The transaction.
        id: TransactionId,
        /// The service.
        participant: Name,
        /// What it was told: commit or abort.
        commit: bool,
        /// Why, in its words.
        detail: Box<str>,
    },
    /// A transaction that asked for a person needs none any more: it has ended as decided.
    AttentionOver {
        /// The transaction.
        id: TransactionId,
    },
}

/// See [`Output::Fetch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Comes back with the answer.
    pub fetch: u64,
    /// The topic.
    pub topic: TopicId,
    /// Which of its events.
    pub wanted: Wanted,
    /// Stop after this many bytes (but read at least one event).
    pub max_bytes: u32,
}

/// The events that a fetch wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The next `max_events` at or after an offset and before another.
    Range {
        /// First offset.
        from: Offset,
        /// First offset after the range; everything before it is durable.
        to: Offset,
        /// At most this many.
        max_events: u32,
    },
    /// These, ascending.
    Offsets(Vec<Offset>),
}

/// What the coordinator says to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToService {
    /// Request: do the work and vote.
    Prepare {
        /// The transaction.
        id: TransactionId,
        /// When it began.
        began: Began,
        /// The work; none: vote about what you have been asked by other means.
        work: Option<Bytes>,
        /// Milliseconds until the transaction fails if it is not decided.
        remaining_ms: u64,
    },
    /// The decision is COMMIT.
    Commit {
        /// The transaction.
        id: TransactionId,
        /// When it began, for a participant that has got no prepare: it must know that when it
        /// forgets the outcome.
        began: Began,
    },
    /// The decision is ABORT, or there was never one to commit.
    Abort {
        /// The transaction.
        id: TransactionId,
    },
    /// Not decided yet: ask again.
    Pending {
        /// The transaction.
        id: TransactionId,
        /// Milliseconds to wait before the next inquiry.
        retry_after_ms: u64,
    },
    /// END is durable: the outcomes of these need not be kept.
    Forget {
        /// The transactions.
        ids: Vec<TransactionId>,
    },
}

/// What stands about a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The transaction.
    pub id: TransactionId,
    /// Its public state.
    pub state: PublicState,
    /// Why it failed.
    pub reason: Option<Reason>,
    /// A branch was ended against the decision.
    pub heuristic: bool,
    /// It committed, and every participant has finished. Known as soon as the last one has said so,
    /// while `Committed` is told only when END is durable: a restart may ask them all again (I4).
    /// With `heuristic` it becomes known with END.
    pub finished: bool,
}

/// What was decided about a branch in a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BranchDecision {
    /// Commit it.
    Commit,
    /// Roll it back.
    Abort,
    /// Nothing yet, or nothing that may be guessed.
    Pending,
    /// The log, which is whole, has never heard of it, or has forgotten it.
    Unknown,
}

/// An answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To `Begin` without commit.
    Begun {
        /// The transaction: for a repeated key the one that was begun first.
        id: TransactionId,
        /// Milliseconds until its deadline.
        remaining_ms: u64,
        /// The key had begun it before.
        repeated: bool,
        /// The databases in it, which need the ids of their branches.
        databases: Vec<Name>,
    },
    /// To `Enlist` and `Stage`: what the transaction now has.
    Counted {
        /// The transaction.
        id: TransactionId,
        /// The databases in it, which need the ids of their branches.
        databases: Vec<Name>,
        /// Branches.
        branches: u32,
        /// Events and acknowledgements.
        items: u32,
    },
    /// To `Commit`, `Abort`, `Status` and `Begin` with commit.
    Outcome(Outcome),
    /// To `Extend`, and to an inquiry about a transaction that is being resolved.
    Remaining {
        /// Milliseconds until the deadline.
        remaining_ms: u64,
    },
    /// To `Show`.
    Transaction(Box<TransactionView>),
    /// To `ListTransactions`.
    Transactions(Vec<TransactionView>),
    /// To `ListParticipants`.
    Participants(Vec<ParticipantView>),
    /// To `ListTopics`.
    Topics(Vec<TopicView>),
    /// To `CreateTopic` and `AlterTopic`.
    Topic {
        /// Its name.
        name: Name,
        /// Its settings.
        settings: TopicSettings,
        /// It did not exist before.
        created: bool,
    },
    /// To `Publish`.
    Published {
        /// Topic and offset of each event, in the order of the request; empty for a repeated batch.
        places: Vec<(TopicId, Offset)>,
        /// The batch had been published before.
        repeated: bool,
    },
    /// To `CreateSubscription` and `Subscribe`.
    Subscription {
        /// Its internal id.
        subscription: SubscriptionId,
        /// Its name.
        name: Name,
        /// The topic it reads.
        topic: Name,
        /// Its settings.
        settings: SubscriptionSettings,
        /// It did not exist before.
        created: bool,
    },
    /// To `ListSubscriptions`.
    Subscriptions(Vec<SubscriptionView>),
    /// To `Acknowledge`, `ExtendLease` and `GiveBack`: what was refused, the rest is done.
    Acknowledged {
        /// Deliveries that were refused, with the reason.
        refused: Vec<(DeliveryRef, Refusal)>,
    },
    /// To `Seek`.
    Sought {
        /// The next offset to deliver.
        offset: Offset,
    },
    /// To `ListDeadLetters`.
    DeadLetters {
        /// The topic, where the events can be read.
        topic: TopicId,
        /// The letters.
        letters: Vec<DeadLettered>,
    },
    /// To `TakeDeadLetters`: how many.
    Taken(u32),
    /// To `MayForget`: which.
    Forget(Vec<TransactionId>),
    /// To `InquireBranch`.
    Branch(BranchDecision),
    /// To commands that have no result.
    Done,
    /// The command was refused and had no effect.
    Refused(Refusal),
}
