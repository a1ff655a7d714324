//! What the driver wants a person to know. None of it is an answer to the coordinator.

use std::fmt;

use handfast_core::ids::TransactionId;

/// Something to log, and to count.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Report {
    /// The handler panicked in `prepare`; the vote was NO.
    PreparePanicked {
        /// The transaction.
        id: TransactionId,
        /// The panic's message.
        message: String,
    },
    /// A decided branch could not be finished. It stays prepared, nothing was acknowledged, and
    /// it is tried again.
    FinishFailed {
        /// The transaction.
        id: TransactionId,
        /// The decision.
        commit: bool,
        /// How often it has failed since this process knows of it.
        attempts: u32,
        /// Milliseconds until the next attempt.
        retry_in_ms: u64,
        /// What the handler, or the store at its commit, said.
        error: String,
    },
    /// The coordinator asked for what must never happen; nothing was changed.
    Attention {
        /// The transaction.
        id: TransactionId,
        /// What is wrong.
        reason: &'static str,
    },
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PreparePanicked { id, message } => {
                write!(f, "transaction {id}: the handler panicked in prepare: {message}")
            }
            Self::FinishFailed { id, commit, attempts, retry_in_ms, error } => {
                let decision = if *commit { "commit" } else { "abort" };
                write!(
                    f,
                    "transaction {id}: {decision} failed {attempts} times, again in \
                     {retry_in_ms} ms: {error}"
                )
            }
            Self::Attention { id, reason } => write!(f, "transaction {id}: {reason}"),
        }
    }
}
