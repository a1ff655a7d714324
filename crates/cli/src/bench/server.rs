//! The server under test: `handfast serve` as a process of the benchmark, or one that runs already.

use std::fs;
use std::path::Path;
use std::time::Duration;

use handfast::Handfast;
use tokio::time::{Instant, sleep};

use super::metrics::Counters;
use super::usage::Usage;
use crate::harness::{self, Child, Problem};

/// A server may take this long until it listens: a large store has to be read.
const LISTENING: Duration = Duration::from_secs(300);
/// What was begun may take this long to end once nobody asks for more.
const SETTLING: Duration = Duration::from_secs(60);

/// A server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) url: String,
    /// None: it was there before, and its process is not looked at.
    child: Option<Child>,
}

impl Server {
    /// Starts one on a free port, with its store and its log in `dir`. Says it when it listens.
    pub(super) async fn start(dir: &Path, config: &str) -> Result<Self, Problem> {
        let (store, file) = (dir.join("store"), dir.join("handfast.toml"));
        fs::write(&file, config)?;
        let arguments = [
            "bench-part".to_owned(),
            "server".to_owned(),
            "--listen=127.0.0.1:0".to_owned(),
            format!("--data-dir={}", store.display()),
            format!("--config={}", file.display()),
        ];
        let (child, address) =
            harness::Server::start(dir, &arguments, LISTENING).await?.listens()?;
        Ok(Self { url: format!("http://{address}"), child: Some(child) })
    }

    /// One that runs.
    pub(super) fn at(url: &str) -> Self {
        let has_scheme = url.contains("://");
        let url = if has_scheme { url.to_owned() } else { format!("http://{url}") };
        Self { url, child: None }
    }

    /// It was started by this benchmark, so nobody else uses it.
    pub(super) fn is_ours(&self) -> bool {
        self.child.is_some()
    }

    /// What its process has used; none: not ours.
    pub(super) fn usage(&self) -> Result<Option<Usage>, Problem> {
        let id = self.child.as_ref().and_then(Child::id);
        id.map(Usage::of).transpose().map_err(|error| Problem::Part(format!("server: {error}")))
    }

    pub(super) async fn counters(&self) -> Result<Counters, Problem> {
        Counters::of(&self.url).await
    }

    pub(super) async fn connect(&self) -> Result<Handfast, Problem> {
        let builder = Handfast::builder(self.url.clone());
        Ok(builder.with_wait_for_server(Duration::from_secs(10)).connect().await?)
    }

    /// Waits until no transaction is open besides `others`; says how many are left if that takes too
    /// long.
    pub(super) async fn settle(&self, hf: &Handfast, others: u32) -> Result<u64, Problem> {
        let give_up = Instant::now() + SETTLING;
        loop {
            let open = hf.server_status().await?.open_transactions.unwrap_or_default();
            let open = open.saturating_sub(u64::from(others));
            if open == 0 || !self.is_ours() || Instant::now() > give_up {
                return Ok(if self.is_ours() { open } else { 0 });
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// SIGKILL.
    pub(super) async fn kill(mut self) -> Result<(), Problem> {
        if let Some(child) = &mut self.child {
            child.kill().await?;
        }
        Ok(())
    }

    /// Ends it, if it is ours; says what it has said if it did not end well.
    pub(super) async fn end(mut self) -> Result<(), Problem> {
        let Some(child) = &mut self.child else { return Ok(()) };
        let status = child.leave().await?;
        if status.success() { Ok(()) } else { Err(Problem::Part(child.obituary(status))) }
    }
}
