//! What can go wrong between the server and a database, and whether trying again is safe.

use std::time::Duration;

use thiserror::Error;

/// A call had no usable answer. Every call of the seam is idempotent, so repeating one is safe;
/// [`Fault::is_retryable`] says whether it can help without somebody changing something first.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Fault {
    /// No connection, or it was lost.
    #[error("the database does not answer: {0}")]
    Unreachable(String),
    /// No answer in time; what was asked may still happen.
    #[error("the database did not answer within {0:?}")]
    TimedOut(Duration),
    /// Every connection of the pool was in use for all that time. The database itself may be well.
    #[error("all connections of the server's pool for it were in use for {0:?}")]
    Busy(Duration),
    /// A replica, a server in recovery or one that is read-only: what it says is not the truth
    /// yet (PG8, MY8).
    #[error("the server that answers is not the primary: {0}")]
    NotPrimary(String),
    /// The database understood and refused.
    #[error("the database refused ({code}): {message}")]
    Refused {
        /// SQLSTATE, or MariaDB's error number.
        code: String,
        /// The database's own words.
        message: String,
        /// The same call may succeed later without any change.
        retryable: bool,
    },
    /// A role's name that this crate does not write into a statement.
    #[error(
        "a role's name is letters, digits and _ - . $, at most 63 of them; in MariaDB it may be \
         followed by @ and a host"
    )]
    InvalidRole,
    /// It answered what this crate does not expect of it.
    #[error("the database gave an unexpected answer: {0}")]
    Unexpected(String),
}

impl Fault {
    /// The same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::TimedOut(_) | Self::Busy(_) | Self::NotPrimary(_) => true,
            Self::Refused { retryable, .. } => *retryable,
            Self::InvalidRole | Self::Unexpected(_) => false,
        }
    }
}
