//! Why a transaction with a database did not commit: who failed, and whether anything happened.

use std::fmt;

use handfast_database::ApplicationError;
use thiserror::Error as ThisError;

use crate::error::TransactionError;

/// A transaction with a database did not commit, or it is not known that it did. `E` is the
/// closure's own error.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum Error<E> {
    /// The closure failed. Its work was rolled back; nothing happened.
    #[error("{0}")]
    Work(E),
    /// The database failed before it was asked to commit, or said no to that. The work was rolled
    /// back; nothing happened.
    #[error("{0}")]
    Database(Failure),
    /// The answer to the COMMIT of a transaction without events was lost. Only the database knows,
    /// and only by what the closure wrote: it may have committed.
    #[error("whether it committed is not known: {0}")]
    Unknown(Failure),
    /// What handfast says: refused, failed, or unknown with the id to ask for.
    #[error(transparent)]
    Transaction(#[from] TransactionError),
}

impl<E> Error<E> {
    /// The same work may succeed in a new transaction. Of the closure's own error nothing is known
    /// here: false. Never where it may have committed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Work(_) | Self::Unknown(_) => false,
            Self::Database(failure) => failure.retryable,
            Self::Transaction(error) => error.is_retryable(),
        }
    }

    /// Nothing of it happened, or ever will.
    #[must_use]
    pub fn has_no_side_effects(&self) -> bool {
        match self {
            Self::Work(_) | Self::Database(_) => true,
            Self::Unknown(_) => false,
            Self::Transaction(error) => error.has_no_side_effects(),
        }
    }
}

/// What a database failed at, in its own words.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
#[error("{step} in the database {database} failed{}: {message}", in_brackets(code))]
pub struct Failure {
    /// The name under which it is registered.
    pub database: String,
    /// What it was asked to do.
    pub step: Step,
    /// SQLSTATE, or MariaDB's error number; empty if the database said nothing.
    pub code: String,
    /// The database's own words, or the driver's.
    pub message: String,
    /// The same work may succeed in a new transaction.
    pub retryable: bool,
}

/// What a database was asked to do, around the closure's own statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// A connection from the pool.
    Connect,
    /// Opening the transaction.
    Begin,
    /// Noting that an event is processed.
    Inbox,
    /// The guarded prepare.
    Prepare,
    /// The guarded commit.
    Commit,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connecting",
            Self::Begin => "begin",
            Self::Inbox => "the inbox",
            Self::Prepare => "prepare",
            Self::Commit => "commit",
        })
    }
}

fn in_brackets(code: &str) -> String {
    if code.is_empty() { String::new() } else { format!(" ({code})") }
}

impl Failure {
    /// A step in which nothing can have been committed.
    pub(super) fn early<D: super::Participant>(
        database: &str,
        step: Step,
        error: &sqlx::Error,
    ) -> Self {
        let (code, message) = D::words(error);
        // Without a code it was no database that refused: no connection, or none was free.
        let retryable = code.is_empty() && !matches!(error, sqlx::Error::Configuration(_));
        Self { database: database.to_owned(), step, code, message, retryable }
    }

    /// The database is not as the server saw it last, and the server does not say that it is wrong.
    pub(super) fn restarted(database: &str, step: Step) -> Self {
        Self {
            database: database.to_owned(),
            step,
            code: String::new(),
            message: "it is another one than the server saw last: started again, or not the one \
                      that is registered, which the server cannot say now"
                .to_owned(),
            retryable: true,
        }
    }

    pub(super) fn of(database: &str, step: Step, error: ApplicationError) -> Self {
        let retryable = error.is_retryable();
        let (code, message) = match error {
            ApplicationError::No { code, message, .. }
            | ApplicationError::Unknown { code, message } => (code, message),
            other => (String::new(), other.to_string()),
        };
        Self { database: database.to_owned(), step, code, message, retryable }
    }
}
