//! A process of this very program. It is ended by its handle, and by itself when this process is
//! gone: each child watches its standard input, which ends with whoever holds the other end.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child as Process, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::log_dir;

/// A child that was told to leave may take this long before it is killed.
const LEAVING: Duration = Duration::from_secs(15);
/// So many lines of a log are shown when its process has ended by itself.
const LAST_LINES: usize = 8;

/// A process that runs.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) name: String,
    process: Process,
    stdin: Option<ChildStdin>,
    log: PathBuf,
}

impl Child {
    /// Starts this very program with other arguments. What it says on standard error goes to a
    /// file of its name, behind what was there.
    pub(crate) fn start(
        dir: &Path,
        name: impl Into<String>,
        arguments: &[String],
    ) -> io::Result<(Self, ChildStdout)> {
        let name = name.into();
        let log = log_dir(dir).join(format!("{name}.log"));
        let errors = OpenOptions::new().create(true).append(true).open(&log)?;
        Self::spawn(name, log, errors, arguments)
    }

    fn spawn(
        name: String,
        log: PathBuf,
        errors: File,
        arguments: &[String],
    ) -> io::Result<(Self, ChildStdout)> {
        let mut command = Command::new(std::env::current_exe()?);
        // The person's own settings are for the person's own server.
        for (variable, _) in std::env::vars_os() {
            if variable.to_str().is_some_and(|variable| variable.starts_with("HANDFAST_")) {
                command.env_remove(variable);
            }
        }
        let mut process = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            // A Ctrl-C at the terminal is for the one that conducts, which then ends its children.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let stdin = process.stdin.take();
        let stdout = process.stdout.take().ok_or_else(|| io::Error::other("it has no output"))?;
        Ok((Self { name, process, stdin, log }, stdout))
    }

    /// The process's id; none: it has ended.
    pub(crate) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// SIGKILL. Returns when it is gone; says whether it was there to be killed.
    pub(crate) async fn kill(&mut self) -> io::Result<bool> {
        if self.process.try_wait()?.is_some() {
            return Ok(false);
        }
        self.process.kill().await?;
        Ok(true)
    }

    /// Tells it to leave.
    pub(crate) fn tell_to_leave(&mut self) {
        self.stdin = None;
    }

    /// Tells it to leave, and waits until it has.
    pub(crate) async fn leave(&mut self) -> io::Result<ExitStatus> {
        self.stdin = None;
        if let Ok(status) = timeout(LEAVING, self.process.wait()).await {
            return status;
        }
        self.process.kill().await?;
        self.process.wait().await
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.process.try_wait()
    }

    /// What to tell about one that has ended by itself.
    pub(crate) fn obituary(&self, status: ExitStatus) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        let mut told = format!("{} ended by itself ({status})", self.name);
        if !last.is_empty() {
            told.push_str("; the last it said:");
        }
        for line in last {
            told.push_str("\n    ");
            told.push_str(line);
        }
        told
    }
}
