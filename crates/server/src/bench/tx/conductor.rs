//! Conducts `bench tx`: starts everybody, lets the client run, looks at what that cost, and
//! compares what everybody says about the same transactions.

use std::path::Path;
use std::time::Duration;

use handfast::{Handfast, TopicSettings};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::args::Args;
use super::plan::{ClientPlan, Done, EmbeddedPlan, Load, ParticipantPlan};
use super::report::{self, Run};
use super::tally::Found;
use crate::bench::part::{Part, Said};
use crate::bench::resources::Before;
use crate::bench::server::Server;
use crate::bench::show::Show;
use crate::bench::{Common, Directory, Problem, Report, conduct};

/// Services may take this long to attach.
const ATTACHING: Duration = Duration::from_secs(30);

/// Runs it.
pub(crate) fn run(args: &Args, common: Common) -> Result<Report, Problem> {
    conduct(async {
        let show = Show::new(common.quiet);
        let dir = Directory::new(args.dir.as_deref())?;
        let (runs, problems) = if args.in_process {
            embedded(args, dir.path(), &show).await?
        } else {
            across_processes(args, dir.path(), &show).await?
        };
        Report::new("tx", args, &runs, problems, report::text(&runs))
    })
}

/// The loads that were asked for, one for each run.
fn loads(args: &Args, name: &str) -> Vec<Load> {
    let rates: Vec<Option<u32>> = match args.rate.as_slice() {
        [] => vec![None],
        rates => rates.iter().copied().map(Some).collect(),
    };
    let pairs = args
        .concurrency
        .iter()
        .flat_map(|concurrency| rates.iter().map(move |rate| (*concurrency, *rate)));
    let load = |(number, (concurrency, rate))| Load {
        // Each has a topic of its own, so that its events can be counted.
        topic: format!("{name}-{number}"),
        participants: (1..=args.participants).map(|n| format!("{name}-service-{n}")).collect(),
        concurrency,
        seconds: args.seconds,
        rate,
        abort_percent: args.abort_percent,
        events: args.events,
        event_bytes: args.event_bytes,
        wait: args.wait,
    };
    pairs.enumerate().map(load).collect()
}

/// A name that no other run on the same server has.
fn own_name() -> String {
    let id = Uuid::now_v7().simple().to_string();
    format!("bench-{}", &id[..12])
}

async fn across_processes(
    args: &Args,
    dir: &Path,
    show: &Show,
) -> Result<(Vec<Run>, Vec<String>), Problem> {
    show.doing("starting");
    let server = match &args.server {
        Some(url) => Server::at(url),
        None => Server::start(dir, "").await?,
    };
    let hf = server.connect().await?;
    let loads = loads(args, &own_name());
    let mut participants = Vec::new();
    for name in loads.iter().take(1).flat_map(|load| &load.participants) {
        let store = dir.join(format!("{name}.db"));
        let plan = ParticipantPlan {
            server: server.url.clone(),
            name: name.clone(),
            store: args.durable_votes.then(|| store.to_string_lossy().into_owned()),
            threads: args.threads,
        };
        participants.push(Part::start(
            dir,
            format!("participant {}", participants.len() + 1),
            "tx-participant",
            &plan,
        )?);
    }
    attached(&hf, &loads).await?;
    let mut stage = Stage { dir, show, server, hf, participants, threads: args.threads };
    let (mut runs, mut problems, mut committed) = (Vec::new(), Vec::new(), 0);
    for load in &loads {
        let (run, found) = stage.run(load, &mut problems).await?;
        show.note(&run.line());
        committed += found.all_committed;
        runs.push(run);
    }
    problems.extend(stage.end(committed).await?);
    Ok((runs, problems))
}

/// Waits until every service has an instance.
async fn attached(hf: &Handfast, loads: &[Load]) -> Result<(), Problem> {
    let wanted: Vec<&String> = loads.iter().take(1).flat_map(|load| &load.participants).collect();
    let give_up = Instant::now() + ATTACHING;
    loop {
        let there = hf.participants().await?;
        let is_there = |name: &&&String| {
            there.iter().any(|p| p.name.as_str() == name.as_str() && !p.instances.is_empty())
        };
        if wanted.iter().filter(is_there).count() == wanted.len() {
            return Ok(());
        }
        if Instant::now() > give_up {
            let problem = format!("the participants did not attach within {ATTACHING:?}");
            return Err(Problem::Part(problem));
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Everybody who is there during all runs.
struct Stage<'a> {
    dir: &'a Path,
    show: &'a Show,
    server: Server,
    hf: Handfast,
    participants: Vec<Part>,
    threads: u8,
}

impl Stage<'_> {
    /// One run with a client of its own.
    async fn run(
        &mut self,
        load: &Load,
        problems: &mut Vec<String>,
    ) -> Result<(Run, Found), Problem> {
        self.hf.create_topic(&load.topic, TopicSettings::new()).await?;
        let counted = self.server.counters().await?;
        let plan = ClientPlan {
            server: self.server.url.clone(),
            load: load.clone(),
            threads: self.threads,
        };
        let mut client = Part::start(self.dir, "client", "tx-client", &plan)?;
        self.show.doing(format!("{} concurrent: warming up", load.concurrency));
        client.until(|said| matches!(said, Said::Measuring)).await?;
        let before = Before::look(&self.server, &self.with(&client)).await?;
        let mut done = 0;
        loop {
            match client.next().await? {
                Said::Measured => break,
                Said::Progress(so_far) => {
                    done = so_far;
                    self.show.doing(format!("{} concurrent: {done} done", load.concurrency));
                }
                Said::Ready | Said::Measuring | Said::Found(_) => {}
            }
        }
        let resources = before.cost(&self.server, &self.with(&client), done).await?;
        self.show.doing(format!("{} concurrent: comparing", load.concurrency));
        let found: Found = client.leave().await?;
        problems.extend(found.problems.iter().cloned());
        let open = self.server.settle(&self.hf).await?;
        if open > 0 {
            problems.push(format!("{open} transactions have not ended"));
        }
        if self.server.is_ours() {
            let counted = self.server.counters().await?.since(counted);
            for (what, server, client) in [
                ("committed", counted.committed, found.all_committed),
                ("failed", counted.failed, found.all_failed),
            ] {
                if server != client {
                    problems.push(format!("the server says {server} {what}, its client {client}"));
                }
            }
        } else {
            self.hf.delete_topic(&load.topic).await?;
        }
        Ok((Run::new(load, &found, resources), found))
    }

    /// Everybody whose cost is looked at, beside the server.
    fn with<'a>(&'a self, client: &'a Part) -> Vec<&'a Part> {
        self.participants.iter().chain([client]).collect()
    }

    /// Everybody leaves. Each participant has to have committed what the clients were told.
    async fn end(self, committed: u64) -> Result<Vec<String>, Problem> {
        let mut problems = Vec::new();
        for participant in self.participants {
            let name = participant.name().to_owned();
            let done: Done = participant.leave().await?;
            if done.committed != committed || done.prepared != done.committed + done.aborted {
                problems
                    .push(format!("{committed} transactions committed, and {name} did {done:?}"));
            }
        }
        self.server.end().await?;
        Ok(problems)
    }
}

/// Each run in a process of its own with a store of its own.
async fn embedded(
    args: &Args,
    dir: &Path,
    show: &Show,
) -> Result<(Vec<Run>, Vec<String>), Problem> {
    let (mut runs, mut problems) = (Vec::new(), Vec::new());
    for load in loads(args, &own_name()) {
        let store = dir.join(&load.topic).to_string_lossy().into_owned();
        let plan = EmbeddedPlan { store, load: load.clone(), threads: args.threads };
        let mut part = Part::start(dir, "handfast", "tx-embedded", &plan)?;
        show.doing(format!("{} concurrent, in one process", load.concurrency));
        part.until(|said| matches!(said, Said::Measuring)).await?;
        let before = part.usage()?;
        part.until(|said| matches!(said, Said::Measured)).await?;
        let used = part.usage()?.since(before);
        let (found, counters): (Found, super::embedded::Journal) = part.leave().await?;
        problems.extend(found.problems.iter().cloned());
        let run = Run::new(&load, &found, counters.resources(used, found.committed + found.failed));
        show.note(&run.line());
        runs.push(run);
    }
    Ok((runs, problems))
}
