//! Conducts `bench idle`.

use std::time::Duration;

use handfast::{Handfast, TopicSettings};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::args::Args;
use super::crowd::Plan;
use crate::bench::part::{Part, Said};
use crate::bench::server::Server;
use crate::bench::show::Show;
use crate::bench::tx::{Load, Run, Stage, WaitFor};
use crate::bench::{Common, Report, conduct, directory};
use crate::harness::Problem;
use crate::terminal;

/// Files that a server or the crowd has open besides its connections.
const OTHER_FILES: u64 = 200;
/// The server may take this long to notice that connections have come or gone.
const NOTICING: Duration = Duration::from_secs(120);
const TOPIC: &str = "bench-idle";
/// The service that takes part in the transactions.
const SERVICES: [&str; 2] = ["bench-idle-service-1", "bench-idle-service-2"];

/// A configuration that lets so many in, with those of the transactions. One stream of each needs no
/// further place.
fn room_for(connections: u32) -> String {
    let most = u64::from(connections) + OTHER_FILES;
    format!("[connections]\nmost = {most}\n")
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
struct Found {
    connections: u32,
    connecting_seconds: f64,
    /// Streams that the server has then, with those of the transactions.
    streams: u64,
    /// Of the server: the most it ever had resident, before and after they came.
    peak_memory_before_bytes: u64,
    peak_memory_after_bytes: u64,
    /// Of the server, while nothing happened at all, in CPU seconds per second.
    idle_cpu: f64,
    /// Rate beside them in terms of the mean of those before and after.
    rate_ratio: f64,
    /// The same of the 99th percentiles.
    p99_ratio: Option<f64>,
    before: Run,
    beside: Run,
    after: Run,
}

/// Runs it.
pub(crate) fn run(args: &Args, common: Common) -> Result<Report, Problem> {
    raise_file_limit(u64::from(args.connections) + OTHER_FILES)?;
    conduct(async {
        let show = Show::new(common);
        let dir = directory(None)?;
        show.doing("starting");
        let server = Server::start(dir.path(), &room_for(args.connections)).await?;
        let hf = server.connect().await?;
        hf.create_topic(TOPIC, TopicSettings::new()).await?;
        let mut stage = Stage::new(dir.path(), &show, &server, 1).await?;
        stage.start(&SERVICES.map(str::to_owned), false).await?;
        let load = |name: &str| Load {
            topic: format!("{TOPIC}-{name}"),
            participants: SERVICES.map(str::to_owned).to_vec(),
            concurrency: args.concurrency,
            seconds: args.seconds,
            rate: args.rate,
            abort_percent: 0,
            events: 1,
            event_bytes: 200,
            wait: WaitFor::Decided,
            comes_again: false,
            others: 0,
        };
        let before = stage.run(&load("before")).await?;
        show.note(&format!("alone: {}", before.line()));
        let peak_memory_before_bytes = peak(&server)?;
        let alone = streams(&hf).await?;

        let (crowd, connecting_seconds) = gather(args, dir.path(), &server, &show).await?;
        let wanted = alone + u64::from(args.connections);
        let streams_then = until(&hf, |streams| streams >= wanted).await?;
        show.doing("all are connected, nothing happens");
        let idle_cpu = idle_cpu(&server).await?;
        let peak_memory_after_bytes = peak(&server)?;
        show.note(&format!(
            "{} connected in {connecting_seconds:.1} s; the server's memory was at most {}, now {}",
            args.connections,
            terminal::size(peak_memory_before_bytes),
            terminal::size(peak_memory_after_bytes)
        ));
        let beside = stage.run(&load("beside")).await?;
        show.note(&format!("beside them: {}", beside.line()));
        show.doing("they leave");
        crowd.kill().await?;
        until(&hf, |streams| streams <= alone).await?;
        let after = stage.run(&load("after")).await?;
        show.note(&format!("alone: {}", after.line()));

        let mut problems = stage.end().await?;
        if streams_then < wanted {
            problems.push(format!("{wanted} streams should be open, {streams_then} are"));
        }
        server.end().await?;
        let rate = |run: &Run| run.committed_per_second();
        let p99 = |run: &Run| run.latency_us().map(|percentiles| percentiles.p99);
        let mean = |before: f64, after: f64| (before + after) / 2.0;
        let p99_alone = p99(&before).zip(p99(&after)).map(|(one, other)| mean(one, other));
        let found = Found {
            connections: args.connections,
            connecting_seconds,
            streams: streams_then,
            peak_memory_before_bytes,
            peak_memory_after_bytes,
            idle_cpu,
            rate_ratio: rate(&beside) / mean(rate(&before), rate(&after)),
            p99_ratio: p99(&beside).zip(p99_alone).map(|(beside, alone)| beside / alone),
            before,
            beside,
            after,
        };
        Report::new("idle", args, &[&found], problems, text(&found))
    })
}

/// Connections are files; children have the limit of their parent.
fn raise_file_limit(wanted: u64) -> Result<(), Problem> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let most = limit.maximum.unwrap_or(u64::MAX);
    let raised = Rlimit { current: Some(wanted.min(most)), maximum: limit.maximum };
    let refused = |why: String| {
        Problem::Part(format!("{wanted} files have to be open at once, and {why}: see `ulimit -n`"))
    };
    if most < wanted {
        return Err(refused(format!("{most} may")));
    }
    setrlimit(Resource::Nofile, raised).map_err(|error| refused(error.to_string()))
}

fn peak(server: &Server) -> Result<u64, Problem> {
    Ok(server.usage()?.map_or(0, |used| used.peak_memory_bytes))
}

async fn streams(hf: &Handfast) -> Result<u64, Problem> {
    let status = hf.server_status().await?;
    status.sessions.ok_or_else(|| Problem::Part("the server counts no streams".to_owned()))
}

/// Waits until so many streams are open; says how many are.
async fn until(hf: &Handfast, is_enough: impl Fn(u64) -> bool) -> Result<u64, Problem> {
    let give_up = Instant::now() + NOTICING;
    loop {
        let open = streams(hf).await?;
        if is_enough(open) || Instant::now() > give_up {
            return Ok(open);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Starts the crowd; says how long it took to connect them all.
async fn gather(
    args: &Args,
    dir: &std::path::Path,
    server: &Server,
    show: &Show,
) -> Result<(Part, f64), Problem> {
    let plan =
        Plan { server: server.url.clone(), topic: TOPIC.to_owned(), connections: args.connections };
    let since = Instant::now();
    let mut crowd = Part::start(dir, "crowd", "idle-crowd", &plan)?;
    loop {
        match crowd.next().await? {
            Said::Ready => return Ok((crowd, since.elapsed().as_secs_f64())),
            Said::Progress(number) => {
                show.doing(format!("{number} of {} connected", args.connections));
            }
            Said::Measuring | Said::Measured | Said::Found(_) => {}
        }
    }
}

/// What the server uses when nobody asks for anything, in CPU seconds per second.
async fn idle_cpu(server: &Server) -> Result<f64, Problem> {
    let used = || Ok::<_, Problem>(server.usage()?.map_or(0.0, |used| used.cpu_seconds));
    let (before, since) = (used()?, Instant::now());
    sleep(Duration::from_secs(5)).await;
    Ok((used()? - before) / since.elapsed().as_secs_f64())
}

fn text(found: &Found) -> String {
    let Found { connections, connecting_seconds, idle_cpu, rate_ratio, .. } = found;
    let p99 = crate::bench::resources::shown(found.p99_ratio, 2);
    format!(
        "{}\n\n{connections} idle connections, made in {connecting_seconds:.1} s. The server's \
         memory was at most {} before, {} after;\nwith nothing to do it takes {:.1} % of a core. \
         Beside them the rate is {rate_ratio:.2} and the 99th\npercentile {p99} of what they are \
         without.",
        crate::bench::tx::table(&[&found.before, &found.beside, &found.after]),
        terminal::size(found.peak_memory_before_bytes),
        terminal::size(found.peak_memory_after_bytes),
        idle_cpu * 100.0,
    )
}
