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

use crate::harness::{Directory, Problem, Urls, or_interrupted};

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

/// Runs it all. Everything is in a temporary directory, which stays if something was not proven.
pub(crate) fn run(options: Options) -> Result<(Report, Option<PathBuf>), Problem> {
    let dir = Directory::temporary("handfast-torture-", None)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(or_interrupted(conductor::conduct(options, dir.path())))?;
    let kept = dir.end(!report.ok);
    Ok((report, kept))
}
