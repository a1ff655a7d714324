//! What a run of `bench tx` found.

use std::collections::BTreeMap;

use serde::Serialize;

use super::plan::Load;
use super::tally::Found;
use crate::bench::latency::{Latencies, Percentiles};
use crate::bench::resources::{Resources, shown};
use crate::cli::output::{self, Column};

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(in crate::bench) struct Run {
    concurrency: u32,
    /// Transactions that were due per second; null: a closed loop.
    rate: Option<u32>,
    seconds: f64,
    committed: u64,
    /// Because a participant refused, as it was told to.
    failed: u64,
    committed_per_second: f64,
    /// Committed and failed: what is not refused by the server.
    ended_per_second: f64,
    latency_us: Option<Percentiles>,
    /// What the server did not accept, by code.
    refusals: BTreeMap<String, u64>,
    events_read_back: u64,
    resources: Resources,
}

impl Run {
    pub(super) fn new(load: &Load, found: &Found, resources: Resources) -> Self {
        let mut latencies = Latencies::new();
        latencies.add(&found.latencies);
        let per_second = |count: u64| count as f64 / found.seconds;
        Self {
            concurrency: load.concurrency,
            rate: load.rate,
            seconds: found.seconds,
            committed: found.committed,
            failed: found.failed,
            committed_per_second: per_second(found.committed),
            ended_per_second: per_second(found.committed + found.failed),
            latency_us: latencies.percentiles(),
            refusals: found.refusals.clone(),
            events_read_back: found.events_read,
            resources,
        }
    }

    pub(in crate::bench) fn committed_per_second(&self) -> f64 {
        self.committed_per_second
    }

    pub(in crate::bench) fn latency_us(&self) -> Option<Percentiles> {
        self.latency_us
    }

    /// How much of it there was, on one line.
    pub(in crate::bench) fn line(&self) -> String {
        let p99 = self.latency_us.map(|percentiles| percentiles.p99 / 1_000.0);
        let due = self.rate.map(|rate| format!(", {rate} due per second")).unwrap_or_default();
        format!(
            "{} concurrent{due}: {:.0} committed per second, p99 {} ms",
            self.concurrency,
            self.committed_per_second,
            shown(p99, 2)
        )
    }
}

/// For people: all runs.
pub(in crate::bench) fn table(runs: &[&Run]) -> String {
    let mut columns = vec![
        Column::Right("CONCURRENT"),
        Column::Right("DUE/S"),
        Column::Right("COMMITTED/S"),
        Column::Right("FAILED/S"),
    ];
    columns.extend(Percentiles::HEADINGS.map(Column::Right));
    columns.push(Column::Right("CPU US EACH"));
    let row = |run: &&Run| {
        let mut row = vec![
            run.concurrency.to_string(),
            run.rate.map_or_else(|| "-".to_owned(), |rate| rate.to_string()),
            format!("{:.0}", run.committed_per_second),
            format!("{:.0}", run.ended_per_second - run.committed_per_second),
        ];
        row.extend(Percentiles::cells(run.latency_us));
        row.push(format!("{:.1}", run.resources.cpu_us_each));
        row
    };
    output::table(&columns, runs.iter().map(row).collect(), "nothing was run")
}

/// For people: all runs, then what each has cost.
pub(super) fn text(runs: &[Run]) -> String {
    let mut text = table(&runs.iter().collect::<Vec<_>>());
    for run in runs {
        text.push_str(&format!("\n\n{}\n{}", run.line(), run.resources.text("transaction")));
        for (code, times) in &run.refusals {
            text.push_str(&format!("\nrefused {times} times: {code}"));
        }
    }
    text
}
