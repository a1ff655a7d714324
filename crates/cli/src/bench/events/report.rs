//! What a run of `bench events` found.

use serde::Serialize;

use super::args::Args;
use super::plan::{Consumed, Published};
use crate::bench::latency::{Latencies, Percentiles};
use crate::bench::resources::{Resources, shown};
use crate::terminal::{self, Column};

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Run {
    in_flight: u32,
    in_tx: bool,
    seconds: f64,
    events: u64,
    events_per_second: f64,
    /// Publishes or transactions, of one or more events each.
    requests_per_second: f64,
    /// From asking to durable.
    publish_latency_us: Option<Percentiles>,
    groups: Vec<Group>,
    /// "Each" is an event that was published.
    resources: Resources,
}

/// What came to one consumer group.
#[derive(Clone, Debug, Serialize)]
struct Group {
    /// Of those that were sent while it counted.
    events: u64,
    /// While they came.
    events_per_second: Option<f64>,
    /// From asking to having it in hand.
    delivery_latency_us: Option<Percentiles>,
}

fn percentiles(counts: &[(u64, u64)]) -> Option<Percentiles> {
    let mut latencies = Latencies::new();
    latencies.add(counts);
    latencies.percentiles()
}

impl Run {
    pub(super) fn new(
        args: &Args,
        in_flight: u32,
        published: &Published,
        consumed: &[Consumed],
        resources: Resources,
    ) -> Self {
        let per_second = published.events as f64 / published.seconds;
        let group = |found: &Consumed| Group {
            events: found.events,
            events_per_second: (found.seconds > 0.0).then(|| found.events as f64 / found.seconds),
            delivery_latency_us: percentiles(&found.latencies),
        };
        Self {
            in_flight,
            in_tx: args.in_tx,
            seconds: published.seconds,
            events: published.events,
            events_per_second: per_second,
            requests_per_second: per_second / f64::from(args.events()),
            publish_latency_us: percentiles(&published.latencies),
            groups: consumed.iter().map(group).collect(),
            resources,
        }
    }

    /// How much of it there was, on one line.
    pub(super) fn line(&self) -> String {
        let p99 = self.publish_latency_us.map(|percentiles| percentiles.p99 / 1_000.0);
        format!(
            "{} in flight: {:.0} events per second, p99 {} ms",
            self.in_flight,
            self.events_per_second,
            shown(p99, 2)
        )
    }
}

/// For people: all runs, then what each has cost.
pub(super) fn text(runs: &[Run]) -> String {
    let mut columns = vec![
        Column::Right("IN FLIGHT"),
        Column::Left("WHAT"),
        Column::Right("EVENTS/S"),
        Column::Right("REQUESTS/S"),
    ];
    columns.extend(Percentiles::HEADINGS.map(Column::Right));
    let mut rows = Vec::new();
    for run in runs {
        let what = if run.in_tx { "committed" } else { "published" };
        let rates = [run.events_per_second, run.requests_per_second].map(|r| format!("{r:.0}"));
        let mut row = vec![run.in_flight.to_string(), what.to_owned()];
        row.extend(rates);
        row.extend(Percentiles::cells(run.publish_latency_us));
        rows.push(row);
        for (at, group) in run.groups.iter().enumerate() {
            let mut row = vec![String::new(), format!("delivered to group {}", at + 1)];
            row.extend([shown(group.events_per_second, 0), String::new()]);
            row.extend(Percentiles::cells(group.delivery_latency_us));
            rows.push(row);
        }
    }
    let mut text = terminal::table(&columns, rows, "nothing was run");
    for run in runs {
        text.push_str(&format!("\n\n{}\n{}", run.line(), run.resources.text("event")));
    }
    text
}
