//! Conducts `bench tx`: one run for each load that was asked for, over processes of their own or in
//! one.

use std::path::Path;

use uuid::Uuid;

use super::args::{Args, WaitFor};
use super::embedded::Journal;
use super::plan::{EmbeddedPlan, Load};
use super::report::{self, Run};
use super::stage::Stage;
use super::tally::Found;
use crate::bench::part::{Part, Said};
use crate::bench::server::Server;
use crate::bench::show::Show;
use crate::bench::{Common, Report, conduct, directory};
use crate::harness::{Problem, log_dir};

/// Runs it.
pub(crate) fn run(args: &Args, common: Common) -> Result<Report, Problem> {
    conduct(async {
        let show = Show::new(common);
        let dir = directory(args.dir.as_deref())?;
        let (runs, problems) = if args.in_process {
            embedded(args, dir.path(), &show).await?
        } else if args.overload {
            overload(args, dir.path(), &show).await?
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
        comes_again: false,
        others: 0,
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
        None => Server::start(dir, &room_for(args.open)).await?,
    };
    let loads = loads(args, &own_name());
    let services = loads.first().map_or(&[][..], |load| &load.participants);
    let mut stage = Stage::new(dir, show, &server, args.threads).await?;
    stage.start(services, args.durable_votes).await?;
    let mut runs = Vec::new();
    for load in &loads {
        let run = stage.run(load).await?;
        show.note(&run.line());
        runs.push(run);
        if args.open > 0 {
            let others = stage.begin_others(args.open).await?;
            let topic = format!("{}-open", load.topic);
            let run = stage.run(&Load { topic, others: args.open, ..load.clone() }).await?;
            show.note(&run.line());
            runs.push(run);
            others.end().await?;
        }
    }
    let problems = stage.end().await?;
    server.end().await?;
    Ok((runs, problems))
}

/// The server's configuration, so that it takes these transactions besides those of the load.
fn room_for(open: u32) -> String {
    let all = u64::from(open) + 100_000;
    format!("[limits]\nopen_transactions = {all}\n")
}

/// Callers with too much to do, for each transaction that the server takes at once.
const CALLERS: u32 = 4;
/// At least so many, because 1,024 may wait at the server without being refused.
const CALLERS_AT_LEAST: u32 = 4_096;

/// What is done with twice as much due, of those who go away when they are refused and of those who
/// come again; before, between and after that what is done at most. For each concurrency a server
/// of its own, which takes so many transactions at once.
async fn overload(
    args: &Args,
    dir: &Path,
    show: &Show,
) -> Result<(Vec<Run>, Vec<String>), Problem> {
    let (mut runs, mut problems) = (Vec::new(), Vec::new());
    for load in loads(args, &own_name()) {
        let dir = dir.join(&load.topic);
        std::fs::create_dir_all(log_dir(&dir))?;
        show.doing("starting");
        let config = format!("[limits]\nopen_transactions = {}\n", load.concurrency);
        let server = Server::start(&dir, &config).await?;
        let mut stage = Stage::new(&dir, show, &server, args.threads).await?;
        stage.start(&load.participants, args.durable_votes).await?;
        // Then as many are open as callers wait.
        let of = |what: &str| Load {
            topic: format!("{}-{what}", load.topic),
            wait: WaitFor::Finished,
            ..load.clone()
        };
        // A new server is faster: it has no idempotency keys to look through and to let go of.
        stage.run(&of("fill")).await?;
        let before = stage.run(&of("before")).await?;
        show.note(&before.line());
        let too_much = |what| Load {
            rate: Some((2.0 * before.ended_per_second()).max(1.0) as u32),
            concurrency: (load.concurrency * CALLERS).max(CALLERS_AT_LEAST),
            ..of(what)
        };
        let mut going = stage.run(&too_much("go-away")).await?;
        show.note(&going.line());
        let between = stage.run(&of("between")).await?;
        show.note(&between.line());
        let again = Load { comes_again: true, ..too_much("come-again") };
        let mut coming = stage.run(&again).await?;
        show.note(&coming.line());
        let after = stage.run(&of("after")).await?;
        show.note(&after.line());
        // The machine drifts, so each is compared with those on both sides of it.
        let mean =
            |one: &Run, other: &Run| (one.ended_per_second() + other.ended_per_second()) / 2.0;
        going.compare_with_peak(mean(&before, &between));
        coming.compare_with_peak(mean(&between, &after));
        runs.extend([before, going, between, coming, after]);
        problems.extend(stage.end().await?);
        server.end().await?;
    }
    Ok((runs, problems))
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
        let (found, counters): (Found, Journal) = part.finish().await?;
        problems.extend(found.problems.iter().cloned());
        let run = Run::new(&load, &found, counters.resources(used, found.committed + found.failed));
        show.note(&run.line());
        runs.push(run);
    }
    Ok((runs, problems))
}
