//! What can go wrong, who is at fault, and whether trying again is safe.
//!
//! A [`Refusal`] is the server's answer and had no effect. A [`Fault`] is the world: no connection,
//! a lost reply, a server that speaks another protocol. Every error answers two questions:
//! `is_retryable` (the same call may succeed later) and `has_no_side_effects` (nothing of it
//! happened, or ever will).

use std::time::Duration;

use handfast_core::ids::{StoreId, TransactionId};
use handfast_core::refusal::Code;
use handfast_wire::edge::Edge;
use handfast_wire::{Malformed, status, v1};
use thiserror::Error;
use tonic::Status;

/// Who has to do something about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The program that made the call: it asks for what cannot be.
    Caller,
    /// The server, or who runs it.
    Server,
    /// What is in between.
    Network,
}

/// The server refused. A refused call had no effect.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("refused ({code}): {detail}")]
pub struct Refusal {
    /// The stable code, such as `unknown_topic`. A newer server may have codes that this crate
    /// does not know; see [`Refusal::known`].
    pub code: String,
    /// What was wrong, for people.
    pub detail: String,
    /// The same call may succeed later without any change.
    pub retryable: bool,
    /// How long to wait before that; zero if it is not retryable.
    pub retry_after: Duration,
}

impl Refusal {
    pub(crate) fn local(code: Code, detail: impl Into<String>) -> Self {
        Self::core(handfast_core::refusal::Refusal::new(code, detail))
    }

    pub(crate) fn core(refusal: handfast_core::refusal::Refusal) -> Self {
        v1::Refusal::from(refusal).into()
    }

    /// The code, if this crate knows it.
    #[must_use]
    pub fn known(&self) -> Option<Code> {
        status::code(&self.code)
    }

    /// Whether it is this code.
    #[must_use]
    pub fn is(&self, code: Code) -> bool {
        self.code == code.as_str()
    }

    /// The same call may succeed later without any change.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }

    /// Always: a refused call had no effect.
    #[must_use]
    pub fn has_no_side_effects(&self) -> bool {
        true
    }

    /// The server where waiting helps, else the caller.
    #[must_use]
    pub fn blame(&self) -> Blame {
        if self.retryable { Blame::Server } else { Blame::Caller }
    }
}

impl From<v1::Refusal> for Refusal {
    fn from(message: v1::Refusal) -> Self {
        Self {
            code: message.code,
            detail: message.detail,
            retryable: message.retryable,
            retry_after: Duration::from_millis(message.retry_after_ms),
        }
    }
}

/// The world failed: the call was neither answered nor refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Fault {
    /// There is no connection, and the call was never sent.
    #[error("nothing answers at {url}: is `handfast serve` running? ({problem})")]
    Unreachable {
        /// Where it was tried.
        url: String,
        /// What the network said last.
        problem: String,
    },
    /// The connection was lost while the call was under way: it may have taken effect.
    #[error("the connection was lost before the answer came ({problem})")]
    Lost {
        /// What the network said.
        problem: String,
    },
    /// No answer within the time limit.
    #[error(
        "no answer after {after:?}{}",
        if *sent { "; the call may have taken effect" } else { "; the call was never sent" }
    )]
    TimedOut {
        /// How long was waited.
        after: Duration,
        /// The call had been sent, so it may have taken effect.
        sent: bool,
    },
    /// Client and server have no protocol in common.
    #[error("the server at {url} cannot be spoken to: {detail}")]
    Incompatible {
        /// The server.
        url: String,
        /// What it said.
        detail: String,
    },
    /// Another store answers at the address than before. What it does not know proves nothing
    /// about the first one's transactions, so nothing is asked of it: connect anew if the change
    /// was meant.
    #[error("another store answers at {url} than before: {found}, not {expected}")]
    OtherStore {
        /// The server.
        url: String,
        /// The store of the first connection.
        expected: StoreId,
        /// The store that answers now.
        found: StoreId,
    },
    /// The server answered with something that the protocol does not have.
    #[error("the server's answer is not well-formed: {0}")]
    Malformed(Malformed),
    /// The server failed with a status that is no refusal.
    #[error("the server failed: {0}")]
    Failed(String),
    /// The stream or subscription that the call belonged to has been closed on this side.
    #[error("closed: {0}")]
    Closed(&'static str),
    /// The address is none.
    #[error("{url:?} is not an address such as http://127.0.0.1:7400: {problem}")]
    InvalidUrl {
        /// What was given.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Fault {
    /// The same call may succeed later. Where [`Fault::has_no_side_effects`] is false a repeat
    /// may take effect a second time, unless the call says that it is idempotent.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Lost { .. } | Self::TimedOut { .. } => true,
            Self::Incompatible { .. }
            | Self::OtherStore { .. }
            | Self::Malformed(_)
            | Self::Failed(_)
            | Self::Closed(_)
            | Self::InvalidUrl { .. } => false,
        }
    }

    /// Nothing of the call happened, or ever will.
    #[must_use]
    pub fn has_no_side_effects(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Incompatible { .. }
            | Self::OtherStore { .. }
            | Self::InvalidUrl { .. } => true,
            Self::TimedOut { sent, .. } => !sent,
            Self::Lost { .. } | Self::Malformed(_) | Self::Failed(_) | Self::Closed(_) => false,
        }
    }

    /// Who has to do something about it.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::Unreachable { .. } | Self::Lost { .. } | Self::TimedOut { .. } => Blame::Network,
            Self::Incompatible { .. }
            | Self::OtherStore { .. }
            | Self::Malformed(_)
            | Self::Failed(_) => Blame::Server,
            Self::Closed(_) | Self::InvalidUrl { .. } => Blame::Caller,
        }
    }
}

/// A call that is no transaction was refused, or the world failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// The server refused, without any effect.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The world failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl Error {
    /// The same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.is_retryable(),
            Self::Fault(fault) => fault.is_retryable(),
        }
    }

    /// Nothing of the call happened, or ever will.
    #[must_use]
    pub fn has_no_side_effects(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.has_no_side_effects(),
            Self::Fault(fault) => fault.has_no_side_effects(),
        }
    }

    /// Who has to do something about it.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::Refused(refusal) => refusal.blame(),
            Self::Fault(fault) => fault.blame(),
        }
    }

    /// The refusal, if it is one with this code.
    #[must_use]
    pub fn is_refused_with(&self, code: Code) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.is(code))
    }

    /// Whoever keeps a stream open need not try again: it would be the same.
    pub(crate) fn stays(&self) -> bool {
        match self {
            Self::Refused(refusal) => !refusal.retryable,
            Self::Fault(fault) => matches!(
                fault,
                Fault::Incompatible { .. } | Fault::OtherStore { .. } | Fault::InvalidUrl { .. }
            ),
        }
    }

    /// What a status means. `sent`: the call may have reached the server.
    pub(crate) fn from_status(status: &Status, url: &str, sent: bool) -> Self {
        if let Some(refusal) = status::refusal(status) {
            let is_older = refusal.code == Edge::UnknownMethod.as_str();
            if is_older || refusal.code == Code::NotSupported.as_str() && !sent {
                return Fault::Incompatible { url: url.to_owned(), detail: refusal.detail }.into();
            }
            return Self::Refused(refusal.into());
        }
        let problem = problem(status);
        match status.code() {
            tonic::Code::Unimplemented => {
                Fault::Incompatible { url: url.to_owned(), detail: problem }.into()
            }
            tonic::Code::InvalidArgument
            | tonic::Code::Internal
            | tonic::Code::OutOfRange
            | tonic::Code::ResourceExhausted
            | tonic::Code::DataLoss
            | tonic::Code::Unauthenticated
            | tonic::Code::PermissionDenied
                if !is_transport(status) =>
            {
                let code = status::reason(status);
                let code = code.unwrap_or_else(|| format!("{:?}", status.code()));
                Fault::Failed(format!("{code}: {problem}")).into()
            }
            _ if !sent || is_connect(status) => {
                Fault::Unreachable { url: url.to_owned(), problem }.into()
            }
            _ => Fault::Lost { problem }.into(),
        }
    }
}

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Self {
        Self::Fault(Fault::Malformed(malformed))
    }
}

/// Whether a status was made on this side, of a broken connection.
fn is_transport(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// Whether the connection was never made.
fn is_connect(status: &Status) -> bool {
    let mut next = std::error::Error::source(status);
    while let Some(error) = next {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        next = error.source();
    }
    false
}

/// What the innermost error said, because the outer ones say only that there was one.
fn problem(status: &Status) -> String {
    let mut innermost = None;
    let mut next = std::error::Error::source(status);
    while let Some(error) = next {
        innermost = Some(error.to_string());
        next = error.source();
    }
    match innermost {
        Some(text) if !text.is_empty() => text,
        _ if status.message().is_empty() => format!("{:?}", status.code()),
        _ => status.message().to_owned(),
    }
}

/// Why a transaction failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{code}{}{}", by(participant), colon(detail))]
pub struct Reason {
    /// The stable code: `voted_no`, `aborted`, `deadline_passed`, `incomplete`, `client_gone`,
    /// `coordinator_restarted`, `operator`, `not_committed_locally`; a newer server may have more.
    /// This crate adds `unknown_transaction`: see [`TransactionError::Failed`].
    pub code: String,
    /// The participant at fault; empty: none.
    pub participant: String,
    /// For people.
    pub detail: String,
}

fn by(participant: &str) -> String {
    if participant.is_empty() { String::new() } else { format!(" by {participant}") }
}

fn colon(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(": {detail}") }
}

/// A transaction did not commit, or it is not known that it did.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// Decided: nothing of it happened, or ever will.
    ///
    /// The code `unknown_transaction` stands for this: commit was asked, the answer was lost, and
    /// the server, asked on a new connection to the same store, finds nothing about the
    /// transaction in its log. A decision to commit is in the log before anything follows from
    /// it, and outcomes are kept for an hour after the end, so within that hour nothing in the log
    /// means that it was never decided to commit; and what is undecided when the server starts
    /// is aborted. It counts as retryable only if the server says so.
    #[error("the transaction {id} failed: {reason}")]
    Failed {
        /// The transaction.
        id: TransactionId,
        /// Why.
        reason: Reason,
        /// The same transaction, begun again, may succeed.
        retryable: bool,
    },
    /// Commit was asked, and the outcome could not be found out within the time limit: it may
    /// have committed, or may still. Ask again: [`Handfast::status`](crate::Handfast::status) with
    /// the id, or run the same transaction again with the same key.
    #[error(
        "the outcome of transaction {} is not known: {cause}",
        id.map_or_else(|| key.clone().unwrap_or_default(), |id| id.to_string())
    )]
    Unknown {
        /// The transaction; none: the server never said it, then there is a key.
        id: Option<TransactionId>,
        /// The idempotency key that it was run with.
        key: Option<String>,
        /// Why it could not be found out.
        cause: Box<Error>,
    },
    /// Never accepted: it had no effect.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The world failed before commit was asked, so nothing of it happened.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl TransactionError {
    /// The same transaction may succeed when it is run again, with a new key. Never for
    /// [`TransactionError::Unknown`]: that would be a second transaction.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Failed { retryable, .. } => *retryable,
            Self::Unknown { .. } => false,
            Self::Refused(refusal) => refusal.is_retryable(),
            Self::Fault(fault) => fault.is_retryable(),
        }
    }

    /// Nothing of it happened, or ever will. False only for [`TransactionError::Unknown`].
    #[must_use]
    pub fn has_no_side_effects(&self) -> bool {
        !matches!(self, Self::Unknown { .. })
    }

    /// The transaction, if the server had given it an id.
    #[must_use]
    pub fn id(&self) -> Option<TransactionId> {
        match self {
            Self::Failed { id, .. } => Some(*id),
            Self::Unknown { id, .. } => *id,
            Self::Refused(_) | Self::Fault(_) => None,
        }
    }
}

impl From<Error> for TransactionError {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(refusal) => Self::Refused(refusal),
            Error::Fault(fault) => Self::Fault(fault),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_whether_a_retry_is_safe() {
        let lost = Error::from(Fault::Lost { problem: "reset".into() });
        assert!(lost.is_retryable() && !lost.has_no_side_effects());
        let never = Error::from(Fault::TimedOut { after: Duration::from_secs(1), sent: false });
        assert!(never.is_retryable() && never.has_no_side_effects());
        let refused = Error::from(Refusal::local(Code::UnknownTopic, "no topic x"));
        assert!(!refused.is_retryable() && refused.has_no_side_effects());
        assert_eq!(refused.blame(), Blame::Caller);
        assert!(refused.is_refused_with(Code::UnknownTopic));
        let unknown = TransactionError::Unknown { id: None, key: None, cause: Box::new(lost) };
        assert!(!unknown.is_retryable() && !unknown.has_no_side_effects());
    }

    #[test]
    fn a_status_is_a_refusal_only_if_it_says_so() {
        let refusal = handfast_core::refusal::Refusal::new(Code::Draining, "soon gone");
        let error = Error::from_status(&status::status(refusal), "u", true);
        assert!(error.is_refused_with(Code::Draining) && error.is_retryable());
        let cut = Error::from_status(&Status::unavailable("gone"), "u", true);
        assert_eq!(cut, Fault::Lost { problem: "gone".into() }.into());
        let never = Error::from_status(&Status::unavailable("gone"), "u", false);
        assert!(never.has_no_side_effects());
        for edge in Edge::ALL {
            let error = Error::from_status(&edge.status("why"), "u", true);
            assert_eq!(error.has_no_side_effects(), edge.is_refusal(), "{edge:?}: {error}");
        }
        let older = Error::from_status(&Edge::UnknownMethod.status("no such call"), "u", true);
        assert!(matches!(older, Error::Fault(Fault::Incompatible { .. })), "{older}");
        let failed = Error::from_status(&Edge::Failed.status("/backup: read-only"), "u", true);
        assert_eq!(failed, Fault::Failed("failed: /backup: read-only".into()).into());
    }

    #[test]
    fn sentences_read_well() {
        let reason = Reason {
            code: "voted_no".into(),
            participant: "payments".into(),
            detail: "no money".into(),
        };
        assert_eq!(reason.to_string(), "voted_no by payments: no money");
        let fault = Fault::TimedOut { after: Duration::from_secs(30), sent: true };
        assert_eq!(fault.to_string(), "no answer after 30s; the call may have taken effect");
    }
}
