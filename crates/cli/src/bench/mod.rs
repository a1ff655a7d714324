//! `handfast bench`: how fast it is, measured over real processes and sockets.
//!
//! This process conducts: it starts the others, reads what they say and what the kernel says about
//! them, and ends them. Every figure is of work that was durable when it was answered, and every
//! benchmark proves afterwards that what was answered is there: one that finds an error says so
//! and has failed, however fast it was.

pub(crate) mod db;
pub(crate) mod events;
pub(crate) mod idle;
pub(crate) mod journal;
mod latency;
mod machine;
mod metrics;
mod pace;
mod part;
mod report;
mod resources;
pub(crate) mod restart;
mod server;
mod show;
pub(crate) mod tx;
mod usage;

use std::fs;
use std::future::Future;
use std::io;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use crate::demo::child;

pub(crate) use report::Report;

/// Before what counts: connections are made, caches filled.
const WARM_UP: Duration = Duration::from_secs(1);

/// How a benchmark is run, whatever it measures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Common {
    /// Shows nothing while it runs.
    pub(crate) is_quiet: bool,
    /// The report is for programs.
    pub(crate) is_json: bool,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// A part of it failed.
    #[error("{0}")]
    Part(String),
    /// This machine failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The server failed where it may not.
    #[error("{0}")]
    Server(#[from] handfast::Error),
    /// A transaction failed where it may not.
    #[error("{0}")]
    Transaction(#[from] handfast::TransactionError),
    /// A database failed where it may not.
    #[error("{0}")]
    Database(#[from] sqlx::Error),
    /// A private database server does not start.
    #[error("{0}")]
    Private(#[from] handfast_database::private::PrivateError),
    /// Ctrl-C, or told to stop.
    #[error("stopped by a signal; everything that was started has been ended")]
    Interrupted,
}

/// Does the work in a runtime of its own, until it is done or a signal comes. Processes that are
/// still there then are ended with the values that hold them.
pub(crate) fn conduct<T>(work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            result = work => result,
            signalled = interrupted() => Err(signalled.err().map_or(Problem::Interrupted, Into::into)),
        }
    })
}

async fn interrupted() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}

/// Where the processes of a benchmark keep everything; gone at the end.
#[derive(Debug)]
struct Directory(TempDir);

impl Directory {
    /// Below `parent`, whose file system is what is measured; none: where temporary files are.
    fn new(parent: Option<&Path>) -> Result<Self, Problem> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("handfast-bench-");
        let dir = match parent {
            Some(parent) => builder.tempdir_in(parent)?,
            None => builder.tempdir()?,
        };
        fs::create_dir(child::log_dir(dir.path()))?;
        Ok(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Why a process of a benchmark ended.
pub(crate) type PartError = Box<dyn std::error::Error + Send + Sync>;

/// A runtime for such a process, with so many threads for the network.
fn runtime(threads: u8) -> io::Result<Runtime> {
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.worker_threads(threads.into()).enable_all().build()
}
