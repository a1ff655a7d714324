//! A server as a process of its own.

use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::ChildStdout;
use tokio::time::timeout;

use super::{Child, Problem};

/// What has become of a server that was started.
#[derive(Debug)]
pub(crate) enum Server {
    /// It listens at this address.
    Listens(Child, String),
    /// It has ended before it did.
    Ended(Child, ExitStatus),
}

impl Server {
    /// Starts one, by the arguments of a command of this program that serves, and waits until it
    /// listens.
    ///
    /// # Errors
    /// It does not listen within that time, and was killed.
    pub(crate) async fn start(
        dir: &Path,
        arguments: &[String],
        within: Duration,
    ) -> Result<Self, Problem> {
        let (mut child, stdout) = Child::start(dir, "server", arguments)?;
        let mut lines = BufReader::new(stdout).lines();
        let Ok(address) = timeout(within, listening(&mut lines)).await else {
            child.kill().await?;
            return Err(Problem::Part(format!("the server did not listen within {within:?}")));
        };
        let Some(address) = address else {
            let status = child.leave().await?;
            return Ok(Self::Ended(child, status));
        };
        // What else it says is of no interest, but somebody has to read it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self::Listens(child, address))
    }

    /// The process and its address.
    ///
    /// # Errors
    /// It has ended, and what it said last.
    pub(crate) fn listens(self) -> Result<(Child, String), Problem> {
        match self {
            Self::Listens(child, address) => Ok((child, address)),
            Self::Ended(child, status) => Err(Problem::Part(child.obituary(status))),
        }
    }
}

/// The address out of a server's banner; none: it ended before it said one.
async fn listening(lines: &mut Lines<BufReader<ChildStdout>>) -> Option<String> {
    while let Ok(Some(line)) = lines.next_line().await {
        let mut words = line.split_whitespace();
        if words.next() == Some("listens") && words.next() == Some("on") {
            return words.next().map(ToOwned::to_owned);
        }
    }
    None
}
