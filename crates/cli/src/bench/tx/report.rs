//! What a run of `bench tx` found.

use std::collections::BTreeMap;

use serde::Serialize;

use super::plan::Load;
use super::tally::Found;
use crate::bench::latency::{Latencies, Percentiles};
use crate::bench::resources::{Resources, shown};
use crate::terminal::{self, Column};

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(in crate::bench) struct Run {
    concurrency: u32,
    /// Transactions that were due per second; null: a closed loop.
    rate: Option<u32>,
    /// Other transactions that were open meanwhile.
    others: u32,
    seconds: f64,
    committed: u64,
    /// Because a participant refused, as it was told to.
    failed: u64,
    committed_per_second: f64,
    /// Committed and failed: what is not refused by the server.
    ended_per_second: f64,
    latency_us: Option<Percentiles>,
    /// Whoever was refused came again, and is not among those that follow.
    came_again: bool,
    /// What the server did not accept, by code, in the whole run.
    refusals: BTreeMap<String, u64>,
    refused_per_second: f64,
    /// Refusals that the server has counted in the whole run; null: it is not ours.
    refused_by_server: Option<u64>,
    /// The shortest and the longest pause that a refusal asked for.
    retry_after_ms: Option<(u64, u64)>,
    /// With too much to do: what was done, in terms of what is done at most.
    of_peak: Option<f64>,
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
            others: load.others,
            seconds: found.seconds,
            committed: found.committed,
            failed: found.failed,
            committed_per_second: per_second(found.committed),
            ended_per_second: per_second(found.committed + found.failed),
            latency_us: latencies.percentiles(),
            came_again: load.comes_again,
            refused_by_server: None,
            refusals: found.refusals.clone(),
            refused_per_second: per_second(found.refused),
            retry_after_ms: found.retry_after_ms,
            of_peak: None,
            events_read_back: found.events_read,
            resources,
        }
    }

    pub(in crate::bench) fn committed_per_second(&self) -> f64 {
        self.committed_per_second
    }

    pub(super) fn ended_per_second(&self) -> f64 {
        self.ended_per_second
    }

    /// What the server says about it.
    pub(super) fn refused_by_server(&mut self, refused: u64) {
        self.refused_by_server = Some(refused);
    }

    /// More was due than can be done: in terms of this many per second.
    pub(super) fn compare_with_peak(&mut self, peak: f64) {
        self.of_peak = Some(self.ended_per_second / peak);
    }

    pub(in crate::bench) fn latency_us(&self) -> Option<Percentiles> {
        self.latency_us
    }

    /// How much of it there was, on one line.
    pub(in crate::bench) fn line(&self) -> String {
        let p99 = self.latency_us.map(|percentiles| percentiles.p99 / 1_000.0);
        let again = if self.came_again { ", coming again when refused" } else { "" };
        let due = self.rate.map(|rate| format!(", {rate} due per second{again}"));
        let due = due.unwrap_or_default();
        let others = match self.others {
            0 => String::new(),
            others => format!(", {others} others open"),
        };
        format!(
            "{} concurrent{due}{others}: {:.0} committed per second, p99 {} ms",
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
    terminal::table(&columns, runs.iter().map(row).collect(), "nothing was run")
}

/// For people: all runs, then what each has cost.
pub(super) fn text(runs: &[Run]) -> String {
    let mut text = table(&runs.iter().collect::<Vec<_>>());
    for run in runs {
        text.push_str(&format!("\n\n{}\n{}", run.line(), run.resources.text("transaction")));
        for (code, times) in &run.refusals {
            text.push_str(&format!("\nrefused {times} times: {code}"));
        }
        if let Some((shortest, longest)) = run.retry_after_ms {
            text.push_str(&format!(
                "\nrefused {:.0} per second, to come again after {shortest} to {longest} ms",
                run.refused_per_second
            ));
        }
        if let Some(times) = run.refused_by_server.filter(|times| *times > 0) {
            let again = if run.came_again { ", and came again" } else { "" };
            text.push_str(&format!("\nrefused {times} times by the server{again}"));
        }
        if let Some(share) = run.of_peak {
            text.push_str(&format!("\ndone with too much to do: {share:.2} of the peak"));
        }
    }
    text
}
