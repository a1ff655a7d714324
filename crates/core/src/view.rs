//! Views: what people and programs see of the state when they list or show it.

use alloc::string::String;
use alloc::vec::Vec;

use crate::event::OffsetRange;
use crate::ids::{Name, Offset, SessionId, StateId, SubscriptionId, TopicId, TransactionId};
use crate::record::{Note, ParticipantKind, Reason, SubscriptionSettings, TopicSettings};
use crate::state::PublicState;

/// A transaction with its timeline, branch by branch. Times are milliseconds since its begin
/// where their names do not say otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionView {
    /// Its id.
    pub id: TransactionId,
    /// Its public state.
    pub state: PublicState,
    /// The database of a local transaction.
    pub local: Option<Name>,
    /// When it began, Unix time in milliseconds.
    pub begun_wall_ms: u64,
    /// Milliseconds until its deadline; none once commit or abort is decided.
    pub remaining_ms: Option<u64>,
    /// Commit was asked.
    pub commit_asked: bool,
    /// Events that it publishes.
    pub events: u32,
    /// Deliveries that it acknowledges.
    pub acknowledgements: u32,
    /// Why it failed.
    pub reason: Option<Reason>,
    /// When it was decided, Unix time in milliseconds.
    pub decided_wall_ms: Option<u64>,
    /// When it ended, Unix time in milliseconds.
    pub ended_wall_ms: Option<u64>,
    /// A branch was ended against the decision.
    pub heuristic: bool,
    /// Which one and how; none also if an operator has released it.
    pub why: Option<String>,
    /// Why a person should look, and nobody has taken note yet.
    pub attention: Option<String>,
    /// What operators did about it, in order.
    pub notes: Vec<Note>,
    /// Its branches.
    pub branches: Vec<BranchView>,
}

/// One branch of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchView {
    /// Who.
    pub participant: Name,
    /// Service or database.
    pub kind: ParticipantKind,
    /// The durable state that holds it, once it was sent.
    pub state_id: Option<StateId>,
    /// The instance that it was last sent to.
    pub instance: Option<Name>,
    /// When prepare was first sent.
    pub prepare_sent_ms: Option<u64>,
    /// Its vote: `yes`, `no`, `read-only`.
    pub vote: Option<VoteKind>,
    /// When its vote came.
    pub voted_ms: Option<u64>,
    /// When commit or abort was first sent.
    pub decision_sent_ms: Option<u64>,
    /// When it had finished.
    pub finished_ms: Option<u64>,
    /// How often anything was sent to it.
    pub sends: u32,
    /// Why its service could not finish it yet.
    pub trouble: Option<String>,
}

/// A vote without its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VoteKind {
    /// Prepared.
    Yes,
    /// Aborted.
    No,
    /// Nothing to change.
    ReadOnly,
}

/// A service and its live instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParticipantView {
    /// Its name.
    pub name: Name,
    /// Service or database.
    pub kind: ParticipantKind,
    /// Live instances of a service.
    pub instances: Vec<InstanceView>,
    /// Branches of open transactions.
    pub open_branches: u32,
}

/// A live instance of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceView {
    /// Its name.
    pub instance: Name,
    /// Its durable state.
    pub state_id: StateId,
    /// Its stream.
    pub session: SessionId,
    /// When it attached, Unix time in milliseconds.
    pub since_wall_ms: u64,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicView {
    /// Its internal id.
    pub topic: TopicId,
    /// Its name.
    pub name: Name,
    /// Its settings.
    pub settings: TopicSettings,
    /// The first offset that is still there.
    pub start: Offset,
    /// The offset after the last durable event.
    pub end: Offset,
    /// Bytes of events between them.
    pub bytes: u64,
    /// It takes no more events and goes when the last staged one is decided.
    pub deleting: bool,
    /// Its subscriptions.
    pub subscriptions: u32,
}

/// A subscription and its progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionView {
    /// Its internal id.
    pub subscription: SubscriptionId,
    /// Its name.
    pub name: Name,
    /// The topic it reads.
    pub topic: Name,
    /// Its settings.
    pub settings: SubscriptionSettings,
    /// Everything below is acknowledged.
    pub acknowledged_below: Offset,
    /// The offset after the topic's last durable event.
    pub end: Offset,
    /// Deliveries under lease.
    pub leased: u32,
    /// Deliveries staged in a transaction.
    pub staged: u32,
    /// Events that wait for another attempt.
    pub waiting: u32,
    /// Events not acknowledged yet (`end` minus what is).
    pub backlog: u64,
    /// Dead letters.
    pub dead: u32,
    /// A gap that nobody has noted yet.
    pub gap: Option<OffsetRange>,
    /// Streams that receive its deliveries.
    pub subscribers: u32,
    /// Those of them that are sent nothing, because they have let a lease pass without a word.
    pub silent: u32,
    /// Attempts that have counted since the server started because the event was rejected.
    pub rejected: u64,
    /// Those that have because a lease was over.
    pub expired: u64,
    /// Those that have because a stream ended that had nothing else.
    pub lost: u64,
    /// Events that have become dead letters since the server started.
    pub died: u64,
    /// It takes no more and goes when the last staged acknowledgement is decided.
    pub deleting: bool,
    /// Whether it delivers, and if not, why; none: in a way that this version does not know.
    pub standing: Option<Standing>,
    /// The same in a sentence; empty: there is nothing to say.
    pub note: String,
}

/// Whether a subscription delivers at a moment, and if not, why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Everything is acknowledged.
    #[default]
    Done,
    /// It delivers.
    Delivering,
    /// All that can be delivered is with its subscribers.
    Leased,
    /// All that can be delivered is staged in transactions.
    Staged,
    /// All that can be delivered waits for another attempt.
    Waiting,
    /// Nobody is subscribed.
    NoSubscriber,
    /// No stream has asked for more.
    NoCredit,
    /// No stream reads what it was sent, or answers.
    NotReading,
    /// As far as it looks ahead, everything is done or waits for an earlier event.
    WindowFull,
    /// A gap has to be noted first.
    Gap,
    /// What it was told last is not durable yet.
    Held,
    /// It is being deleted.
    Deleting,
}

impl Standing {
    /// Every one there is, in the order of their numbers.
    pub const ALL: &'static [Standing] = &[
        Self::Done,
        Self::Delivering,
        Self::Leased,
        Self::Staged,
        Self::Waiting,
        Self::NoSubscriber,
        Self::NoCredit,
        Self::NotReading,
        Self::WindowFull,
        Self::Gap,
        Self::Held,
        Self::Deleting,
    ];

    /// One word for programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Delivering => "delivering",
            Self::Leased => "leased",
            Self::Staged => "staged",
            Self::Waiting => "waiting",
            Self::NoSubscriber => "no_subscriber",
            Self::NoCredit => "no_credit",
            Self::NotReading => "not_reading",
            Self::WindowFull => "window_full",
            Self::Gap => "gap",
            Self::Held => "held",
            Self::Deleting => "deleting",
        }
    }
}
