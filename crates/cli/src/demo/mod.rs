//! `handfast demo`: the main job on real input, in separate processes, while parts of it are
//! killed; and at the end the proof that nothing was lost, done twice or left in doubt.
//!
//! This process conducts: it starts the others, kills them, and reads what they leave behind. It
//! takes no part in any transaction, and what it proves it has from files and from the server.

pub(crate) mod bank;
mod cast;
mod conductor;
mod evidence;
mod ledger;
pub(crate) mod parts;
pub(crate) mod plan;
mod proof;
pub(crate) mod report;
mod results;
mod script;
mod show;
mod watch;

use std::path::PathBuf;

use tokio::runtime;

use conductor::Conductor;
use plan::Plan;
use report::Report;

use crate::harness::{Directory, Problem, Urls, or_interrupted};

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) plan: Plan,
    pub(crate) kills: u32,
    pub(crate) seed: u64,
    /// An empty directory, or one to be made; none: a temporary one.
    pub(crate) dir: Option<PathBuf>,
    /// The temporary directory stays.
    pub(crate) keep: bool,
    /// Where the services keep their accounts; none: each in a SQLite file.
    pub(crate) urls: Option<Urls>,
}

/// A report, and where everything is if it is still there.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) report: Report,
    pub(crate) kept: Option<PathBuf>,
}

/// Why there is no report, and where everything is if it is still there.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) problem: Box<Problem>,
    pub(crate) kept: Option<PathBuf>,
}

impl<E: Into<Problem>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self { problem: Box::new(error.into()), kept: None }
    }
}

/// Runs it.
pub(crate) fn run(options: &Options) -> Result<Done, Failed> {
    let dir = match &options.dir {
        Some(dir) => Directory::given(dir)?,
        None => Directory::temporary("handfast-demo-", None)?,
    };
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let mut conductor = Conductor::new(dir.path(), options);
        let result = or_interrupted(conductor.conduct(&options.plan)).await;
        conductor.end(result.is_err()).await;
        result
    });
    let is_fine = match &result {
        Ok(report) => report.ok,
        Err(problem) => matches!(problem, Problem::Interrupted),
    };
    let kept = dir.end(options.keep || !is_fine);
    match result {
        Ok(report) => Ok(Done { report, kept }),
        Err(problem) => Err(Failed { problem: Box::new(problem), kept }),
    }
}
