//! A server with participants, on which clients run their loads one after the other. What each has
//! cost is looked at, and what everybody says about the same transactions is compared.

use std::path::Path;
use std::time::Duration;

use handfast::{Handfast, TopicSettings};
use tokio::time::{Instant, sleep};

use super::others::Others;
use super::plan::{ClientPlan, Done, Load, ParticipantPlan};
use super::report::Run;
use super::tally::Found;
use crate::bench::part::{Part, Said};
use crate::bench::resources::Before;
use crate::bench::server::Server;
use crate::bench::show::Show;
use crate::harness::Problem;

/// Services may take this long to attach.
const ATTACHING: Duration = Duration::from_secs(30);

/// Everybody who is there during all runs.
pub(in crate::bench) struct Stage<'a> {
    dir: &'a Path,
    show: &'a Show,
    server: &'a Server,
    hf: Handfast,
    participants: Vec<Part>,
    threads: u8,
    /// What all clients together were told.
    committed: u64,
    problems: Vec<String>,
}

impl<'a> Stage<'a> {
    pub(in crate::bench) async fn new(
        dir: &'a Path,
        show: &'a Show,
        server: &'a Server,
        threads: u8,
    ) -> Result<Self, Problem> {
        let hf = server.connect().await?;
        let (participants, problems) = (Vec::new(), Vec::new());
        Ok(Self { dir, show, server, hf, participants, threads, committed: 0, problems })
    }

    /// Starts the participants, and waits until they take part.
    pub(in crate::bench) async fn start(
        &mut self,
        services: &[String],
        durable_votes: bool,
    ) -> Result<(), Problem> {
        for service in services {
            let store = self.dir.join(format!("{service}.db"));
            let plan = ParticipantPlan {
                server: self.server.url.clone(),
                name: service.clone(),
                store: durable_votes.then(|| store.to_string_lossy().into_owned()),
                threads: self.threads,
            };
            let name = format!("participant {}", self.participants.len() + 1);
            self.participants.push(Part::start(self.dir, name, "tx-participant", &plan)?);
        }
        let give_up = Instant::now() + ATTACHING;
        while !self.are_attached(services).await? {
            if Instant::now() > give_up {
                let problem = format!("the participants did not attach within {ATTACHING:?}");
                return Err(Problem::Part(problem));
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    async fn are_attached(&self, services: &[String]) -> Result<bool, Problem> {
        let there = self.hf.participants().await?;
        Ok(services.iter().all(|service| {
            there.iter().any(|p| p.name.as_str() == service && !p.instances.is_empty())
        }))
    }

    /// Begins transactions that stay open meanwhile.
    pub(super) async fn begin_others(&self, number: u32) -> Result<Others, Problem> {
        self.show.doing(format!("beginning {number} transactions that stay open"));
        Others::begin(&self.hf, number).await
    }

    /// One run with a client of its own.
    pub(in crate::bench) async fn run(&mut self, load: &Load) -> Result<Run, Problem> {
        self.hf.create_topic(&load.topic, TopicSettings::new()).await?;
        let counted = self.server.counters().await?;
        let (server, threads) = (self.server.url.clone(), self.threads);
        let plan = ClientPlan { server, load: load.clone(), threads };
        let mut client = Part::start(self.dir, "client", "tx-client", &plan)?;
        let doing =
            |what: &str| self.show.doing(format!("{} concurrent: {what}", load.concurrency));
        doing("warming up");
        client.until(|said| matches!(said, Said::Measuring)).await?;
        let before = Before::look(self.server, &self.with(&client)).await?;
        let mut done = 0;
        loop {
            match client.next().await? {
                Said::Measured => break,
                Said::Progress(so_far) => {
                    done = so_far;
                    doing(&format!("{done} done"));
                }
                Said::Ready | Said::Measuring | Said::Found(_) => {}
            }
        }
        let resources = before.cost(self.server, &self.with(&client), done).await?;
        doing("comparing");
        let found: Found = client.finish().await?;
        self.committed += found.all_committed;
        self.problems.extend(found.problems.iter().cloned());
        let open = self.server.settle(&self.hf, load.others).await?;
        if open > 0 {
            self.problems.push(format!("{open} transactions have not ended"));
        }
        let mut run = Run::new(load, &found, resources);
        if self.server.is_ours() {
            let counted = self.server.counters().await?.since(counted);
            for (what, server, client) in [
                ("committed", counted.committed, found.all_committed),
                ("failed", counted.failed, found.all_failed),
            ] {
                if server != client {
                    let problem = format!("the server says {server} {what}, its client {client}");
                    self.problems.push(problem);
                }
            }
            run.refused_by_server(counted.refused);
        } else {
            self.hf.delete_topic(&load.topic).await?;
        }
        Ok(run)
    }

    /// Everybody whose cost is looked at, beside the server.
    fn with<'b>(&'b self, client: &'b Part) -> Vec<&'b Part> {
        self.participants.iter().chain([client]).collect()
    }

    /// The participants leave. Each has to have committed what the clients were told. Says what
    /// was wrong in all runs.
    pub(in crate::bench) async fn end(mut self) -> Result<Vec<String>, Problem> {
        for participant in self.participants {
            let name = participant.name().to_owned();
            let done: Done = participant.leave().await?;
            if done.committed != self.committed || done.prepared != done.committed + done.aborted {
                let committed = self.committed;
                let problem =
                    format!("{committed} transactions committed, and {name} did {done:?}");
                self.problems.push(problem);
            }
        }
        Ok(self.problems)
    }
}
