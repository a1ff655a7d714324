//! `handfast demo`: the main job on real input, in separate processes, while parts of it are
//! killed; and at the end the proof that nothing was lost, done twice or left in doubt.
//!
//! This process conducts: it starts the others, kills them, and reads what they leave behind. It
//! takes no part in any transaction, and what it proves it has from files and from the server.

pub(crate) mod bank;
mod cast;
pub(crate) mod child;
mod conductor;
mod evidence;
mod ledger;
pub(crate) mod parts;
pub(crate) mod plan;
mod proof;
pub(crate) mod random;
pub(crate) mod report;
mod results;
mod script;
mod show;
mod watch;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

use conductor::Conductor;
use plan::Plan;
use report::Report;

use crate::torture::Urls;

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

/// Why there is no report.
#[derive(Debug, Error)]
pub(crate) enum Problem {
    /// A part of the demo failed.
    #[error("{0}")]
    Part(String),
    /// This machine failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A file of a part cannot be used.
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A database of a service cannot be used.
    #[error("{0}")]
    Database(#[from] sqlx::Error),
    /// The server does not answer.
    #[error("{0}")]
    Server(#[from] handfast::Error),
    /// Ctrl-C, or told to stop.
    #[error("stopped by a signal; everything that was started has been ended")]
    Interrupted,
    /// The directory cannot be used.
    #[error("{0}")]
    Directory(String),
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
    pub(crate) problem: Problem,
    pub(crate) kept: Option<PathBuf>,
}

impl<E: Into<Problem>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self { problem: error.into(), kept: None }
    }
}

/// Runs it.
pub(crate) fn run(options: &Options) -> Result<Done, Failed> {
    let dir = Directory::new(options.dir.as_deref(), options.keep)?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let mut conductor = Conductor::new(dir.path(), options);
        let result = tokio::select! {
            result = conductor.conduct(&options.plan) => result,
            signalled = interrupted() => Err(signalled.err().map_or(Problem::Interrupted, Into::into)),
        };
        conductor.end(result.is_err()).await;
        result
    });
    let is_fine = match &result {
        Ok(report) => report.ok,
        Err(problem) => matches!(problem, Problem::Interrupted),
    };
    let kept = dir.end(is_fine);
    match result {
        Ok(report) => Ok(Done { report, kept }),
        Err(problem) => Err(Failed { problem, kept }),
    }
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

/// Where everything is.
#[derive(Debug)]
enum Directory {
    /// Goes at the end, unless something is wrong.
    Temporary { dir: tempfile::TempDir, keep: bool },
    /// Stays.
    Given(PathBuf),
}

impl Directory {
    fn new(given: Option<&Path>, keep: bool) -> Result<Self, Problem> {
        let directory = if let Some(dir) = given {
            let refused =
                |error: io::Error| Problem::Directory(format!("{}: {error}", dir.display()));
            fs::create_dir_all(dir).map_err(refused)?;
            if fs::read_dir(dir).map_err(refused)?.next().is_some() {
                let problem = format!("{}: the directory is not empty", dir.display());
                return Err(Problem::Directory(problem));
            }
            // The children are started with it, wherever they are.
            Self::Given(fs::canonicalize(dir).map_err(refused)?)
        } else {
            let dir = tempfile::Builder::new().prefix("handfast-demo-").tempdir()?;
            Self::Temporary { dir, keep }
        };
        fs::create_dir(child::log_dir(directory.path()))?;
        Ok(directory)
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary { dir, .. } => dir.path(),
            Self::Given(dir) => dir,
        }
    }

    /// Says where it is if it stays.
    fn end(self, is_fine: bool) -> Option<PathBuf> {
        match self {
            Self::Given(dir) => Some(dir),
            Self::Temporary { dir, keep } if keep || !is_fine => Some(dir.keep()),
            Self::Temporary { .. } => None,
        }
    }
}
