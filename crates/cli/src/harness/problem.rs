//! Why there is no report.

use std::io;

use thiserror::Error;

/// Why a demo, torture or benchmark has no report.
#[derive(Debug, Error)]
pub(crate) enum Problem {
    /// A process failed, or something took too long.
    #[error("{0}")]
    Part(String),
    /// This machine failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A SQLite file of a process cannot be used.
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A database failed where it may not.
    #[error("{0}")]
    Database(#[from] sqlx::Error),
    /// A private database server does not start.
    #[error("{0}")]
    Private(#[from] handfast_database::private::PrivateError),
    /// The server failed where it may not.
    #[error("{0}")]
    Server(#[from] handfast::Error),
    /// A transaction failed where it may not.
    #[error("{0}")]
    Transaction(#[from] handfast::TransactionError),
    /// Ctrl-C, or told to stop.
    #[error("stopped by a signal; everything that was started has been ended")]
    Interrupted,
    /// The directory that was given cannot be used.
    #[error("{0}")]
    Directory(String),
}

/// Why a process of one of them ended.
pub(crate) type PartError = Box<dyn std::error::Error + Send + Sync>;
