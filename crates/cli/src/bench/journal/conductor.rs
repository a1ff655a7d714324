//! Conducts `bench journal`, and says how far the journal is from the disk.

use serde::Serialize;

use super::args::Args;
use super::part::{Plan, Writer, Wrote, bytes};
use crate::bench::latency::{Latencies, Percentiles};
use crate::bench::part::{Part, Said};
use crate::bench::resources::shown;
use crate::bench::show::Show;
use crate::bench::{Common, Report, conduct, directory};
use crate::harness::Problem;
use crate::terminal::{self, Column};

/// One of the two with so many outstanding.
#[derive(Clone, Debug, Serialize)]
struct Run {
    writer: Writer,
    outstanding: u32,
    seconds: f64,
    record_bytes: u64,
    records: u64,
    records_per_second: f64,
    /// Rate in terms of the bare loop's.
    ratio: Option<f64>,
    groups: u64,
    records_per_group: Option<f64>,
    latency_us: Option<Percentiles>,
    cpu_seconds: f64,
    written_bytes: u64,
}

/// Runs it.
pub(crate) fn run(args: &Args, common: Common) -> Result<Report, Problem> {
    conduct(async {
        let show = Show::new(common);
        let dir = directory(args.dir.as_deref())?;
        let plan = Plan {
            dir: dir.path().to_path_buf(),
            outstanding: args.outstanding.clone(),
            slices: args.seconds,
        };
        let mut writer = Part::start(dir.path(), "writer", "journal-writer", &plan)?;
        let all = args.outstanding.len() * usize::from(args.seconds);
        let mut slices = 0;
        let wrote: Vec<Wrote> = loop {
            match writer.next().await? {
                Said::Found(found) => {
                    break serde_json::from_value(found).map_err(std::io::Error::from)?;
                }
                Said::Progress(_) => {
                    slices += 1;
                    show.doing(format!("slice {slices} of {all}"));
                }
                Said::Ready | Said::Measuring | Said::Measured => {}
            }
        };
        let runs = runs(&wrote);
        let mut problems = Vec::new();
        if runs.iter().any(|run| run.records == 0) {
            problems.push("nothing became durable in time".to_owned());
        }
        Report::new("journal", args, &runs, problems, text(&runs))
    })
}

fn runs(wrote: &[Wrote]) -> Vec<Run> {
    let rate = |wrote: &Wrote| wrote.records as f64 / wrote.seconds;
    let run = |one: &Wrote| {
        let mut latencies = Latencies::new();
        latencies.add(&one.latencies);
        let bare = |other: &&Wrote| {
            other.writer == Writer::Bare
                && other.outstanding == one.outstanding
                && other.records > 0
        };
        let ratio = wrote.iter().find(bare).map(|bare| rate(one) / rate(bare));
        Run {
            writer: one.writer,
            outstanding: one.outstanding,
            seconds: one.seconds,
            record_bytes: bytes(),
            records: one.records,
            records_per_second: rate(one),
            ratio,
            groups: one.groups,
            records_per_group: (one.groups > 0).then(|| one.records as f64 / one.groups as f64),
            latency_us: latencies.percentiles(),
            cpu_seconds: one.cpu_seconds,
            written_bytes: one.written_bytes,
        }
    };
    let mut runs: Vec<Run> = wrote.iter().map(run).collect();
    runs.sort_by_key(|run| (run.outstanding, run.writer == Writer::Journal));
    runs
}

fn text(runs: &[Run]) -> String {
    let mut columns = vec![
        Column::Left("WHAT"),
        Column::Right("OUTSTANDING"),
        Column::Right("RECORDS/S"),
        Column::Right("RATIO"),
        Column::Right("PER GROUP"),
    ];
    columns.extend(Percentiles::HEADINGS.map(Column::Right));
    let row = |run: &Run| {
        let what = match run.writer {
            Writer::Bare => "write + fdatasync",
            Writer::Journal => "journal",
        };
        let mut row = vec![
            what.to_owned(),
            run.outstanding.to_string(),
            format!("{:.0}", run.records_per_second),
            shown(run.ratio, 2),
            shown(run.records_per_group, 1),
        ];
        row.extend(Percentiles::cells(run.latency_us));
        row
    };
    let table = terminal::table(&columns, runs.iter().map(row).collect(), "nothing was run");
    format!("{table}\n\nA record takes {} bytes.", bytes())
}
