//! A process of a benchmark, seen from the one that conducts: what it says, what it uses, and how
//! it is told to leave. What it has to do it is given as one JSON document on its command line;
//! what it has to say comes as lines of JSON on its standard output.

use std::convert::Infallible;
use std::io::{self, Write};
use std::path::Path;
use std::thread;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::ChildStdout;

use super::usage::Usage;
use crate::harness::{Child, Problem};

/// A line of a part.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Said {
    /// It takes part from now on.
    Ready,
    /// What happens from now on counts.
    Measuring,
    /// So much is done.
    Progress(u64),
    /// What happens from now on does not count.
    Measured,
    /// All that it found; the last line.
    Found(Value),
}

impl Said {
    /// Says it to whoever conducts.
    ///
    /// # Errors
    /// Nobody listens.
    pub(super) fn say(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(self)?)?;
        out.flush()
    }

    /// What a part found, as its last line. Then it stays as it is, to be looked at, until it is
    /// told to leave; `exit_with_stdin` has to be under way.
    ///
    /// # Errors
    /// As [`Said::say`].
    pub(super) fn say_found_and_stay(found: &impl Serialize) -> io::Result<Infallible> {
        Self::say_found(found)?;
        loop {
            thread::park();
        }
    }

    /// What a part found, as its last line.
    ///
    /// # Errors
    /// As [`Said::say`].
    pub(super) fn say_found(found: &impl Serialize) -> io::Result<()> {
        Self::Found(serde_json::to_value(found)?).say()
    }
}

/// A process.
#[derive(Debug)]
pub(super) struct Part {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Part {
    /// Starts the hidden command of this program that plays `role`.
    pub(super) fn start(
        dir: &Path,
        name: impl Into<String>,
        role: &str,
        plan: &impl Serialize,
    ) -> Result<Self, Problem> {
        let plan = serde_json::to_string(plan).map_err(io::Error::from)?;
        let arguments = ["bench-part".to_owned(), role.to_owned(), plan];
        Ok(Self::new(Child::start(dir, name, &arguments)?))
    }

    pub(super) fn new((child, stdout): (Child, ChildStdout)) -> Self {
        Self { child, lines: BufReader::new(stdout).lines() }
    }

    pub(super) fn name(&self) -> &str {
        &self.child.name
    }

    /// What it says next.
    ///
    /// # Errors
    /// It has ended, or says what nobody understands.
    pub(super) async fn next(&mut self) -> Result<Said, Problem> {
        let Some(line) = self.lines.next_line().await? else {
            let status = self.child.leave().await?;
            return Err(Problem::Part(self.child.obituary(status)));
        };
        serde_json::from_str(&line)
            .map_err(|error| Problem::Part(format!("{} says {line:?}: {error}", self.child.name)))
    }

    /// Waits until it says this; what it says before is passed over.
    pub(super) async fn until(&mut self, wanted: impl Fn(&Said) -> bool) -> Result<Said, Problem> {
        loop {
            let said = self.next().await?;
            if wanted(&said) {
                return Ok(said);
            }
        }
    }

    /// Waits for what it found.
    pub(super) async fn found<T: DeserializeOwned>(&mut self) -> Result<T, Problem> {
        let said = self.until(|said| matches!(said, Said::Found(_))).await?;
        let Said::Found(found) = said else { unreachable!("it was waited for") };
        serde_json::from_value(found)
            .map_err(|error| Problem::Part(format!("{}: {error}", self.child.name)))
    }

    /// Waits for what it found by itself, and lets it go.
    pub(super) async fn finish<T: DeserializeOwned>(mut self) -> Result<T, Problem> {
        let found = self.found().await?;
        self.end().await?;
        Ok(found)
    }

    /// Tells it to leave, and takes what it found.
    pub(super) async fn leave<T: DeserializeOwned>(mut self) -> Result<T, Problem> {
        self.child.tell_to_leave();
        let found = self.found().await?;
        self.end().await?;
        Ok(found)
    }

    /// SIGKILL.
    pub(super) async fn kill(mut self) -> Result<(), Problem> {
        self.child.kill().await?;
        Ok(())
    }

    async fn end(mut self) -> Result<(), Problem> {
        let status = self.child.leave().await?;
        if status.success() { Ok(()) } else { Err(Problem::Part(self.child.obituary(status))) }
    }

    /// What it has used so far.
    pub(super) fn usage(&self) -> Result<Usage, Problem> {
        let process = self.child.id().ok_or_else(|| io::Error::other("it has ended"))?;
        let told = |error| Problem::Part(format!("{}: {error}", self.child.name));
        Usage::of(process).map_err(told)
    }
}
