//! `handfast torture`: transactions over a real PostgreSQL and a real MariaDB while the server, the
//! databases and the application are killed at random instants; and the proof that no money was
//! made or lost, nothing happened twice, and nothing is left in doubt.
//!
//! This process conducts: it starts the others, kills them, and reads the balances all the time.

mod bank;
mod conductor;
pub(crate) mod part;
mod proof;
pub(crate) mod report;
mod victims;
mod watch;

use std::path::PathBuf;

use report::Report;

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// URLs of databases that are there, and are not killed; none: private ones, which are.
    pub(crate) urls: Option<Urls>,
    pub(crate) transfers: u64,
    pub(crate) kills: u32,
    pub(crate) clients: usize,
    pub(crate) seed: u64,
    /// Shows nothing while it runs.
    pub(crate) quiet: bool,
}

/// Where the two databases are.
#[derive(Clone, Debug)]
pub(crate) struct Urls {
    pub(crate) postgres: String,
    pub(crate) mariadb: String,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// This machine failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A database failed where it may not.
    #[error("{0}")]
    Database(#[from] sqlx::Error),
    /// A private database server does not start.
    #[error("{0}")]
    Private(#[from] handfast_database::private::PrivateError),
    /// handfast failed where it may not.
    #[error("{0}")]
    Handfast(#[from] handfast::Error),
    /// A part of it failed.
    #[error("{0}")]
    Part(String),
    /// It was stopped by a signal.
    #[error("stopped")]
    Interrupted,
}

/// Runs it all. Everything is in a temporary directory, which stays if something was not proven.
pub(crate) fn run(options: Options) -> Result<(Report, Option<PathBuf>), Problem> {
    let dir = tempfile::Builder::new().prefix("handfast-torture-").tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(conductor::conduct(options, dir.path()))?;
    let kept = (!report.ok).then(|| dir.keep());
    Ok((report, kept))
}
