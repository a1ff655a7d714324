//! Conducts `bench restart`.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::timeout;

use super::args::Args;
use super::filler::{Filled, Plan, limit};
use crate::bench::part::{Part, Said};
use crate::bench::server::Server;
use crate::bench::show::Show;
use crate::bench::{Common, Report, conduct, directory};
use crate::harness::Problem;
use crate::terminal::{self, Column};

/// A node that is being filled makes something durable at least so often.
const STALLED: Duration = Duration::from_secs(60);

/// One start.
#[derive(Clone, Debug, Serialize)]
struct Run {
    /// From starting the process until it listens, which it does when it takes work.
    ready_seconds: f64,
    /// Open transactions that it then has.
    open: u64,
    events: u64,
    store_bytes: u64,
    cpu_seconds: Option<f64>,
    peak_memory_bytes: Option<u64>,
}

/// Runs it.
pub(crate) fn run(args: &Args, common: Common) -> Result<Report, Problem> {
    conduct(async {
        let show = Show::new(common);
        let dir = directory(args.dir.as_deref())?;
        let filled = fill(args, dir.path(), &show).await?;
        if filled.refused > 0 {
            let refused = filled.refused;
            show.note(&format!("refused {refused} times as no_space while it was filled"));
        }
        let config = format!("[limits]\nopen_transactions = {}\n", limit(args.open));
        let (mut runs, mut problems) = (Vec::new(), Vec::new());
        for time in 1..=args.times {
            show.doing(format!("start {time} of {}", args.times));
            let since = Instant::now();
            let server = Server::start(dir.path(), &config).await?;
            let ready_seconds = since.elapsed().as_secs_f64();
            let run = look(&server, dir.path(), ready_seconds).await?;
            server.kill().await?;
            for (what, was, is) in
                [("open", filled.open, run.open), ("events", filled.events, run.events)]
            {
                if was != is {
                    problems.push(format!("start {time}: {what}: {was} before, {is} now"));
                }
            }
            show.note(&format!("ready after {ready_seconds:.2} s"));
            runs.push(run);
        }
        Report::new("restart", args, &runs, problems, text(&runs))
    })
}

/// Fills the store and kills who did it.
async fn fill(args: &Args, dir: &Path, show: &Show) -> Result<Filled, Problem> {
    let bytes = (args.gib * (1_u64 << 30) as f64) as u64;
    let (store, has_events) = (dir.join("store"), !args.no_events);
    let plan = Plan { store, bytes, open: args.open, has_events };
    let mut filler = Part::start(dir, "filler", "restart-filler", &plan)?;
    loop {
        let Ok(said) = timeout(STALLED, filler.next()).await else {
            let problem = format!("while it was filled nothing became durable for {STALLED:?}");
            return Err(Problem::Part(problem));
        };
        match said? {
            Said::Progress(done) => show.doing(format!("filling the store: {done}")),
            Said::Found(found) => {
                let filled = serde_json::from_value(found).map_err(std::io::Error::from)?;
                filler.kill().await?;
                return Ok(filled);
            }
            Said::Ready | Said::Measuring | Said::Measured => {}
        }
    }
}

async fn look(server: &Server, dir: &Path, ready_seconds: f64) -> Result<Run, Problem> {
    let used = server.usage()?;
    let hf = server.connect().await?;
    let status = hf.server_status().await?;
    let unknown = || Problem::Part("the server does not say what is open".to_owned());
    // Every event of a batch has an offset of its own, and none was left out.
    let events = hf.topics().await?.iter().map(|topic| topic.end.0 - topic.start.0).sum();
    let mut store_bytes = 0;
    for entry in std::fs::read_dir(dir.join("store"))? {
        store_bytes += entry?.metadata()?.len();
    }
    Ok(Run {
        ready_seconds,
        open: status.open_transactions.ok_or_else(unknown)?,
        events,
        store_bytes,
        cpu_seconds: used.map(|used| used.cpu_seconds),
        peak_memory_bytes: used.map(|used| used.peak_memory_bytes),
    })
}

fn text(runs: &[Run]) -> String {
    let columns = [
        Column::Right("READY S"),
        Column::Right("CPU S"),
        Column::Right("OPEN"),
        Column::Right("EVENTS"),
        Column::Right("STORE"),
        Column::Right("PEAK MEMORY"),
    ];
    let row = |run: &Run| {
        vec![
            format!("{:.2}", run.ready_seconds),
            run.cpu_seconds.map(|seconds| format!("{seconds:.2}")).unwrap_or_default(),
            run.open.to_string(),
            run.events.to_string(),
            terminal::size(run.store_bytes),
            run.peak_memory_bytes.map(terminal::size).unwrap_or_default(),
        ]
    };
    terminal::table(&columns, runs.iter().map(row).collect(), "nothing was run")
}
