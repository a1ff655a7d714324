//! What a store over SQL fails at. Nothing was answered because of it, so a retry is always safe.

use std::time::Duration;

use handfast_core::ids::StateId;

/// A fault of the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The service's name is none.
    #[error("{service:?} is not a name: {problem}")]
    InvalidName {
        /// What was given.
        service: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The store's own runtime cannot be made.
    #[error("no runtime for the store: {0}")]
    Runtime(String),
    /// The database does not make durable what it commits.
    #[error("{0}: what this database commits may be lost in a crash, so no vote may rest on it")]
    NotDurable(String),
    /// Another version has made the state.
    #[error("the state has layout {found}, this version knows only {known}")]
    OtherLayout {
        /// The layout of the state.
        found: i64,
        /// The one that is known.
        known: i64,
    },
    /// Another version has made the tables.
    #[error("the tables of services are not those of this version: {0}")]
    OtherTables(#[source] sqlx::Error),
    /// The state that was opened is not in the database any more: it was deleted or replaced.
    #[error("the state {0} is not in this database any more")]
    Gone(StateId),
    /// Somebody else holds the service's row for too long.
    #[error("no turn within {} ms: another process has a step open", waited.as_millis())]
    Busy {
        /// How long a step waits.
        waited: Duration,
    },
    /// The step's transaction was ended under it: by a handler, or by a deadlock in MariaDB.
    #[error("the step's transaction was ended under it: {0}")]
    StepEnded(String),
    /// What is recorded cannot be read.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// The database did not answer, or not in time.
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// Anything else.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}
