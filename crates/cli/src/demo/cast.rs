//! Everybody who takes part: who runs, how each of them is started, killed and started again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::ChildStdout;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::bank::Home;
use super::plan::Side;
use super::results::Ended;
use super::script::Target;
use crate::harness::{Child, Problem, Random, Server};

/// A server may take this long until it listens.
const LISTENING: Duration = Duration::from_secs(60);
/// Pause before a server whose port was taken meanwhile is started once more.
const PORT_PAUSE: Duration = Duration::from_millis(100);

/// The processes.
#[derive(Debug)]
pub(super) struct Cast {
    dir: PathBuf,
    homes: [Home; 2],
    in_flight: usize,
    address: String,
    server: Option<Child>,
    services: BTreeMap<(Side, u32), Child>,
    subscriber: Option<Child>,
    client: Option<Child>,
    /// What the client says.
    ended: mpsc::UnboundedSender<Ended>,
    pub(super) kills: u32,
    pub(super) restarts: u32,
}

impl Cast {
    /// Nobody yet. What the client says about transfers goes to `ended`.
    pub(super) fn new(
        dir: &Path,
        homes: [Home; 2],
        in_flight: usize,
        ended: mpsc::UnboundedSender<Ended>,
    ) -> Self {
        Self {
            dir: dir.to_owned(),
            homes,
            in_flight,
            address: "127.0.0.1:0".to_owned(),
            server: None,
            services: BTreeMap::new(),
            subscriber: None,
            client: None,
            ended,
            kills: 0,
            restarts: 0,
        }
    }

    /// The server's address, to connect to.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Starts the server: first on a port that the system chooses, later on the same one.
    pub(super) async fn start_server(&mut self) -> Result<(), Problem> {
        let give_up = Instant::now() + LISTENING;
        loop {
            let store = self.dir.join("server");
            let arguments = [
                "demo-part".to_owned(),
                "server".to_owned(),
                "--data-dir".to_owned(),
                store.to_string_lossy().into_owned(),
                "--listen".to_owned(),
                self.address.clone(),
            ];
            match Server::start(&self.dir, &arguments, LISTENING).await? {
                Server::Listens(child, address) => {
                    self.address = address;
                    self.server = Some(child);
                    return Ok(());
                }
                // While it was dead its port was free for anybody.
                Server::Ended(_, status)
                    if status.code() == Some(1) && Instant::now() <= give_up =>
                {
                    sleep(PORT_PAUSE).await;
                }
                Server::Ended(child, status) => {
                    return Err(Problem::Part(child.obituary(status)));
                }
            }
        }
    }

    /// Starts an instance of a service.
    pub(super) fn start_instance(&mut self, side: Side, number: u32) -> Result<(), Problem> {
        let name = format!("{side}-{number}");
        let mut more =
            vec!["--side".to_owned(), side.to_string(), "--instance".to_owned(), name.clone()];
        let home = match side {
            Side::East => &self.homes[0],
            Side::West => &self.homes[1],
        };
        if let Some(url) = home.url() {
            more.extend(["--database".to_owned(), url.to_owned()]);
        }
        let (child, _) = self.start_part("service", &name, &more)?;
        self.services.insert((side, number), child);
        Ok(())
    }

    pub(super) fn start_subscriber(&mut self) -> Result<(), Problem> {
        let (child, _) = self.start_part("subscriber", "subscriber", &[])?;
        self.subscriber = Some(child);
        Ok(())
    }

    pub(super) fn start_client(&mut self) -> Result<(), Problem> {
        let more = ["--in-flight".to_owned(), self.in_flight.to_string()];
        let (child, stdout) = self.start_part("client", "client", &more)?;
        self.client = Some(child);
        let ended = self.ended.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                // A line that a kill has cut off comes again from the next client.
                let Ok(line) = serde_json::from_str(&line) else { continue };
                if ended.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(())
    }

    fn start_part(
        &self,
        part: &str,
        name: &str,
        more: &[String],
    ) -> Result<(Child, ChildStdout), Problem> {
        let mut arguments = vec![
            "demo-part".to_owned(),
            part.to_owned(),
            "--server".to_owned(),
            self.url(),
            "--dir".to_owned(),
            self.dir.to_string_lossy().into_owned(),
        ];
        arguments.extend_from_slice(more);
        Ok(Child::start(&self.dir, name, &arguments)?)
    }

    /// SIGKILL for one process, which is then started again at once. Says who it was.
    pub(super) async fn strike(
        &mut self,
        target: Target,
        random: &mut Random,
    ) -> Result<Option<String>, Problem> {
        let (child, who) = match target {
            Target::Server => (self.server.as_mut(), None),
            Target::Subscriber => (self.subscriber.as_mut(), None),
            Target::Client => (self.client.as_mut(), None),
            Target::Service(side) => {
                let here: Vec<_> =
                    self.services.keys().copied().filter(|(at, _)| *at == side).collect();
                let Some(who) = here.get(random.below(here.len().max(1) as u64) as usize) else {
                    return Ok(None);
                };
                (self.services.get_mut(who), Some(*who))
            }
        };
        let Some(child) = child else { return Ok(None) };
        let name = child.name.clone();
        if !child.kill().await? {
            // It had just ended: if it should not have, that is found when everybody is looked at.
            return Ok(None);
        }
        self.kills += 1;
        match (target, who) {
            (Target::Server, _) => self.start_server().await?,
            (Target::Subscriber, _) => self.start_subscriber()?,
            (Target::Client, _) => self.start_client()?,
            (Target::Service(_), Some((side, number))) => self.start_instance(side, number)?,
            (Target::Service(_), None) => {}
        }
        self.restarts += 1;
        Ok(Some(name))
    }

    /// Another instance joins. Says its name.
    pub(super) fn join(&mut self, side: Side) -> Result<String, Problem> {
        let highest = self.services.keys().filter(|(at, _)| *at == side).map(|(_, n)| *n).max();
        let number = highest.unwrap_or(0) + 1;
        self.start_instance(side, number)?;
        Ok(format!("{side}-{number}"))
    }

    /// The oldest instance leaves in order. Says its name.
    pub(super) async fn leave(&mut self, side: Side) -> Result<Option<String>, Problem> {
        let Some(who) = self.services.keys().copied().find(|(at, _)| *at == side) else {
            return Ok(None);
        };
        let Some(mut child) = self.services.remove(&who) else { return Ok(None) };
        let status = child.leave().await?;
        if !status.success() {
            return Err(Problem::Part(child.obituary(status)));
        }
        Ok(Some(child.name))
    }

    /// Whether the client has done all it had to.
    pub(super) fn client_is_done(&mut self) -> Result<bool, Problem> {
        let Some(client) = &mut self.client else { return Ok(true) };
        match client.ended()? {
            None => Ok(false),
            Some(status) if status.success() => {
                self.client = None;
                Ok(true)
            }
            Some(status) => Err(Problem::Part(client.obituary(status))),
        }
    }

    /// Nobody else may end before it is told to.
    pub(super) fn check(&mut self) -> Result<(), Problem> {
        let others = self.server.iter_mut().chain(&mut self.subscriber);
        for child in others.chain(self.services.values_mut()) {
            if let Some(status) = child.ended()? {
                return Err(Problem::Part(child.obituary(status)));
            }
        }
        Ok(())
    }

    /// Ends everybody at once, because nothing is to be proven any more.
    pub(super) async fn end(&mut self) {
        let services = std::mem::take(&mut self.services);
        let others = self.client.take().into_iter().chain(self.subscriber.take());
        for mut child in others.chain(services.into_values()).chain(self.server.take()) {
            // One that cannot be killed notices by its standard input that it has to go.
            let _ = child.kill().await;
        }
    }

    /// Everybody leaves: the server last, because the others talk to it.
    pub(super) async fn dismiss(&mut self) -> Result<(), Problem> {
        let services = std::mem::take(&mut self.services);
        let first = self.client.take().into_iter().chain(self.subscriber.take());
        for mut child in first.chain(services.into_values()).chain(self.server.take()) {
            let status = child.leave().await?;
            if !status.success() {
                return Err(Problem::Part(child.obituary(status)));
            }
        }
        Ok(())
    }
}
