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

use std::future::Future;
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::harness::{Directory, Problem, or_interrupted};

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

/// Does the work in a runtime of its own, until it is done or a signal comes. Processes that are
/// still there then are ended with the values that hold them.
pub(crate) fn conduct<T>(work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(or_interrupted(work))
}

/// Where the processes of a benchmark keep everything; gone at the end. Below `parent`, whose file
/// system is what is measured; none: where temporary files are.
fn directory(parent: Option<&Path>) -> Result<Directory, Problem> {
    Directory::temporary("handfast-bench-", parent)
}

/// A runtime for a process of a benchmark, with so many threads for the network.
fn runtime(threads: u8) -> io::Result<Runtime> {
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.worker_threads(threads.into()).enable_all().build()
}
