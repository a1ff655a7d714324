//! What records of transactions say.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

#[cfg(doc)]
use super::Record;
use crate::event::{PlacedEvent, StagedEvent};
use crate::ids::{Lsn, Name, Offset, StateId, SubscriptionId, TransactionId};

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
    /// What needed attention was seen.
    pub noted: bool,
    /// The participant that is not waited for any more.
    pub released: Option<Name>,
    /// What it is about.
    pub remark: Remark,
}

impl Operated {
    /// It follows END. Nothing else does.
    #[must_use]
    pub fn follows_end(&self) -> bool {
        match self.remark {
            Remark::Open => false,
            Remark::Seen | Remark::Gone => true,
        }
    }
}

/// What an [`Operated`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remark {
    /// An operator has done something about a transaction that was decided and had not ended.
    Open,
    /// It had ended, and somebody has seen how.
    Seen,
    /// It had ended committed, and the server has found a database in which that is gone.
    Gone,
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

/// A decision about a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// COMMIT.
    Commit,
    /// ABORT, and why.
    Abort(Reason),
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
    /// What makes a person look: who ended what, as far as that is known. Empty unless `heuristic`,
    /// and if an operator's release was all. At most [`crate::limits::REASON_BYTES`].
    pub why: String,
    /// An operator has taken note of `why` before this.
    pub noted: bool,
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
