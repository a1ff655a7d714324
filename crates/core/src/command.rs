//! Commands: what clients, services and subscribers ask for. Plain data, checked by the core.
//!
//! Every command gets exactly one [`crate::output::Reply`] (possibly a refusal), in any order,
//! released when whatever it reveals is durable.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::event::{DeliveryRef, EventRequest};
use crate::ids::{
    Began, Digest, Holder, Name, Offset, ProducerId, SessionId, StateId, TransactionId,
};
use crate::record::{IdempotencyKey, Participant, SubscriptionSettings, TopicSettings};

/// Whom to answer: a stream and the number it gave to its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Caller {
    /// The stream or call.
    pub session: SessionId,
    /// The request's number on it.
    pub request: u64,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A transaction of either kind, alone or in one call with all that it needs.
    Begin(Box<BeginRequest>),
    /// More branches for a distributed transaction.
    Enlist {
        /// The transaction.
        id: TransactionId,
        /// Who takes part, and with what work.
        branches: Vec<BranchRequest>,
    },
    /// Events and acknowledgements for a distributed transaction.
    Stage {
        /// The transaction.
        id: TransactionId,
        /// Events to publish if it commits.
        events: Vec<EventRequest>,
        /// Deliveries to acknowledge if it commits.
        acknowledgements: Vec<DeliveryRef>,
    },
    /// Commit. For a local transaction: "my local COMMIT succeeded".
    Commit {
        /// The transaction.
        id: TransactionId,
        /// What the caller counted, and how long it waits.
        request: CommitRequest,
    },
    /// Abort. For a local transaction also: "I do not know whether my COMMIT succeeded".
    Abort {
        /// The transaction.
        id: TransactionId,
        /// For people.
        detail: String,
    },
    /// A new deadline, counted from now.
    Extend {
        /// The transaction.
        id: TransactionId,
        /// Milliseconds.
        deadline_ms: u64,
    },
    /// The public state; with a wait, answered when it has been reached or after
    /// [`crate::limits::Limits::finish_wait_ms`].
    Status {
        /// The transaction.
        id: TransactionId,
        /// What to wait for.
        wait: Option<Wait>,
    },
    /// Everything that is known about a transaction.
    Show {
        /// The transaction.
        id: TransactionId,
    },
    /// Transactions, by id.
    ListTransactions {
        /// After this id.
        after: Option<TransactionId>,
        /// At most this many, at most 1,000.
        limit: u32,
        /// Those that a person should look at, open or ended; else those that are open.
        attention: bool,
    },
    /// The stream becomes an instance of a service.
    Attach {
        /// The service.
        service: Name,
        /// The instance, unique within the service; a newer stream of the same instance replaces
        /// the older one.
        instance: Name,
        /// Its durable state.
        state_id: StateId,
    },
    /// A service's vote.
    Vote {
        /// The transaction.
        id: TransactionId,
        /// YES, NO or READ-ONLY.
        vote: Vote,
    },
    /// Databases that the caller has prepared: their YES, before or instead of in the commit.
    VoteFor {
        /// The transaction.
        id: TransactionId,
        /// The votes.
        votes: Vec<DatabaseVote>,
    },
    /// A client has finished a branch on the database session that it held for it.
    BranchEnded {
        /// The transaction.
        id: TransactionId,
        /// The database.
        database: Name,
        /// As it was told; false: it could not, and the server has to.
        done: bool,
    },
    /// An operator steps in.
    Operate {
        /// The transaction.
        id: TransactionId,
        /// What to do.
        act: Act,
        /// Who and why, for people.
        detail: String,
    },
    /// A service has finished its branch as it was told.
    Finished {
        /// The transaction.
        id: TransactionId,
        /// How.
        committed: bool,
    },
    /// A service was told to commit a transaction that it does not know (P10).
    NotKnown {
        /// The transaction.
        id: TransactionId,
    },
    /// A service could not finish its branch as it was told. It stays prepared, and tries again.
    NotFinished {
        /// The transaction.
        id: TransactionId,
        /// Why, for people.
        reason: String,
    },
    /// A prepared service asks what was decided.
    Inquire {
        /// The transaction.
        id: TransactionId,
    },
    /// Whoever found a prepared branch in a database asks what was decided about it.
    InquireBranch {
        /// The transaction.
        id: TransactionId,
        /// The database.
        database: Name,
    },
    /// A service asks which of these outcomes it may forget.
    MayForget {
        /// The transactions, and when each began, as its prepare said; none: an abort came, and no
        /// prepare before it.
        outcomes: Vec<(TransactionId, Option<Began>)>,
    },
    /// Services and their live instances.
    ListParticipants,
    /// A topic. Creating it again with the same settings is no error.
    CreateTopic {
        /// Its name.
        name: Name,
        /// Its settings.
        settings: TopicSettings,
    },
    /// Other settings for a topic.
    AlterTopic {
        /// Its name.
        name: Name,
        /// Its new settings.
        settings: TopicSettings,
    },
    /// Deletes a topic with its subscriptions, at once or when the last staged item is decided.
    DeleteTopic {
        /// Its name.
        name: Name,
    },
    /// All topics.
    ListTopics,
    /// Events outside a transaction; answered when they are durable.
    Publish {
        /// Who publishes.
        producer: ProducerId,
        /// The producer's number of this batch, rising.
        sequence: u64,
        /// Of what the batch says: the number stands for that and nothing else.
        digest: Digest,
        /// The events, all or none.
        events: Vec<EventRequest>,
    },
    /// A subscription. Creating it again on the same topic is no error.
    CreateSubscription {
        /// Its name.
        name: Name,
        /// The topic it reads.
        topic: Name,
        /// Where it starts.
        start: Start,
        /// Its settings.
        settings: SubscriptionSettings,
    },
    /// The stream receives deliveries of a subscription, which has to exist. A stream subscribes
    /// once.
    Subscribe {
        /// The subscription.
        subscription: Name,
        /// How many deliveries may be under way to this stream at once; at most
        /// [`crate::limits::CREDIT`]. A delivery takes one and gives it back when it is over:
        /// acknowledged, staged, rejected or expired. Fewer are, where the bus sees that the stream
        /// takes up fewer in a lease.
        credit: u32,
    },
    /// More credit for the stream's subscription.
    Credit {
        /// How many more.
        more: u32,
    },
    /// Deliveries were processed. Each is answered on its own in [`crate::output::Reply::Acknowledged`].
    Acknowledge {
        /// Which.
        deliveries: Vec<DeliveryRef>,
    },
    /// A delivery could not be processed: deliver it again later, or make it a dead letter.
    Reject {
        /// Which.
        delivery: DeliveryRef,
        /// For people.
        reason: String,
        /// True: a dead letter at once. False: another attempt after the back-off.
        dead: bool,
    },
    /// Leases of deliveries start anew.
    ExtendLease {
        /// Which.
        deliveries: Vec<DeliveryRef>,
    },
    /// Deliveries that nobody has begun to work on go back, and may go to others: no attempt, and
    /// no judgement. Each takes the credit with it that it had taken.
    GiveBack {
        /// Which.
        deliveries: Vec<DeliveryRef>,
    },
    /// A gap notice was read.
    AcknowledgeGap {
        /// The subscription.
        subscription: Name,
        /// The end of the gap that was noted.
        to: Offset,
    },
    /// All subscriptions.
    ListSubscriptions,
    /// The subscription goes on at another offset; deliveries under way become void.
    Seek {
        /// The subscription.
        subscription: Name,
        /// Where to.
        to: Start,
    },
    /// Deletes a subscription, at once or when the last staged acknowledgement is decided.
    DeleteSubscription {
        /// The subscription.
        subscription: Name,
    },
    /// Dead letters of a subscription, by offset.
    ListDeadLetters {
        /// The subscription.
        subscription: Name,
        /// From this offset.
        from: Offset,
        /// At most this many, at most 1,000.
        limit: u32,
    },
    /// Takes dead letters off the list.
    TakeDeadLetters {
        /// The subscription.
        subscription: Name,
        /// Which; empty: all.
        offsets: Vec<Offset>,
        /// True: deliver them again. False: drop them for good.
        retry: bool,
    },
}

impl Command {
    /// Bytes of events, work and lists that it carries: all of it that may be large.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        match self {
            Self::Begin(request) => request.held_bytes(),
            Self::Enlist { branches, .. } => bytes_of_work(branches) + size_of_val(&**branches),
            Self::Stage { events, acknowledgements, .. } => {
                bytes_of_events(events) + size_of_val(&**events) + size_of_val(&**acknowledgements)
            }
            Self::Publish { events, .. } => bytes_of_events(events) + size_of_val(&**events),
            Self::Commit { request, .. } => size_of_val(&*request.votes),
            Self::VoteFor { votes, .. } => size_of_val(&**votes),
            Self::MayForget { outcomes } => size_of_val(&**outcomes),
            Self::Acknowledge { deliveries }
            | Self::ExtendLease { deliveries }
            | Self::GiveBack { deliveries } => size_of_val(&**deliveries),
            Self::TakeDeadLetters { offsets, .. } => size_of_val(&**offsets),
            // A name, an id, a reason: nothing that is large.
            _ => 0,
        }
    }
}

/// What begins a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeginRequest {
    /// Its id, made at the edge: a UUIDv7.
    pub id: TransactionId,
    /// Present: a local transaction in this database.
    pub local: Option<Name>,
    /// Milliseconds until it fails if it is not decided; none: the default.
    pub deadline_ms: Option<u64>,
    /// The caller's key.
    pub key: Option<IdempotencyKey>,
    /// True: it outlives the stream that began it.
    pub detached: bool,
    /// Who takes part, and with what work. Empty in a local transaction.
    pub branches: Vec<BranchRequest>,
    /// Events to publish if it commits.
    pub events: Vec<EventRequest>,
    /// Deliveries to acknowledge if it commits.
    pub acknowledgements: Vec<DeliveryRef>,
    /// Present: commit in the same call; the answer is the outcome.
    pub commit: Option<CommitRequest>,
}

impl BeginRequest {
    /// Bytes of events and work that it carries.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        bytes_of_events(&self.events) + bytes_of_work(&self.branches)
    }

    fn held_bytes(&self) -> usize {
        let votes = self.commit.as_ref().map_or(0, |commit| size_of_val(&*commit.votes));
        self.payload_bytes()
            + size_of::<Self>()
            + size_of_val(&*self.branches)
            + size_of_val(&*self.events)
            + size_of_val(&*self.acknowledgements)
            + votes
    }
}

pub(crate) fn bytes_of_events(events: &[EventRequest]) -> usize {
    events.iter().map(|e| e.body.len()).sum()
}

fn bytes_of_work(branches: &[BranchRequest]) -> usize {
    branches.iter().filter_map(|b| b.work.as_ref()).map(Bytes::len).sum()
}

/// One participant's share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchRequest {
    /// Who.
    pub participant: Participant,
    /// What the service is to do in its prepare. Without it the service is expected to have been
    /// asked by other means, and to vote by itself (an unsolicited vote).
    pub work: Option<Bytes>,
}

/// The caller's side of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitRequest {
    /// Branches that the caller counted; another number is an abort, reason `incomplete`.
    pub branches: u32,
    /// Events and acknowledgements that the caller counted.
    pub items: u32,
    /// Databases that the caller has prepared: their YES.
    pub votes: Vec<DatabaseVote>,
    /// Of a local transaction: the caller's library has seen the guarded commit succeed. Without
    /// it the marker is looked up first.
    pub vouched: bool,
    /// When to answer.
    pub wait: Wait,
}

/// A YES that a caller gives for a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseVote {
    /// The database.
    pub database: Name,
    /// The session that holds the branch, where the database needs to be told.
    pub holder: Option<Holder>,
    /// The caller keeps that session and will finish the branch on it.
    pub finishes: bool,
    /// The caller's library has seen the guarded prepare succeed. Without it the database is asked.
    pub vouched: bool,
}

/// What an operator can do about a transaction. Committing is not among it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Fail it, if it is undecided.
    Abort,
    /// Wait no longer for a branch whose participant is gone for good: nobody knows how it ended.
    Release(Name),
    /// What needed attention was seen.
    Note,
}

/// When a commit is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Wait {
    /// When every participant has finished, at most
    /// [`crate::limits::Limits::finish_wait_ms`]; then `Committing`.
    #[default]
    Finished,
    /// When the decision is durable.
    Decided,
}

/// A vote in two-phase commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vote {
    /// Prepared: can commit whatever happens, and will not decide alone.
    Yes,
    /// Nothing to change: leaves the transaction.
    ReadOnly,
    /// Has aborted its branch.
    No {
        /// For people.
        reason: String,
        /// The same work may succeed later.
        retryable: bool,
    },
}

/// Where a subscription starts or goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Start {
    /// With what the topic still holds.
    Earliest,
    /// With the next event.
    Latest,
    /// At this offset; one past the end at most.
    At(Offset),
}
