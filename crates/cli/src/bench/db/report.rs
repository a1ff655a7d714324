//! What `bench db` found.

use serde::Serialize;

use super::plan::{Ran, Way};
use crate::bench::latency::{Latencies, Percentiles};
use crate::bench::resources::shown;
use crate::terminal::{self, Column};

/// One way at one concurrency.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Run {
    way: Way,
    concurrency: u16,
    seconds: f64,
    committed: u64,
    committed_per_second: f64,
    latency_us: Option<Percentiles>,
    /// Rate in terms of that of the transfer by hand, or of the local transaction with an outbox
    /// row.
    ratio: Option<f64>,
    /// Of a local transaction: in terms of the plain one.
    ratio_to_plain: Option<f64>,
}

/// Rates and ratios.
pub(super) fn runs(ran: &[Ran]) -> Vec<Run> {
    let rate = |way: Way, concurrency: u16| {
        let found = ran.iter().find(|ran| ran.way == way && ran.concurrency == concurrency)?;
        (found.seconds > 0.0).then(|| found.committed as f64 / found.seconds)
    };
    let run = |ran: &Ran| {
        let Ran { way, concurrency, committed, seconds, .. } = *ran;
        let own = rate(way, concurrency).unwrap_or_default();
        let to = |way| rate(way, concurrency).filter(|rate| *rate > 0.0).map(|rate| own / rate);
        let base = if way.is_transfer() { Way::TransferByHand } else { Way::LocalOutbox };
        let mut latencies = Latencies::new();
        latencies.add(&ran.latencies);
        Run {
            way,
            concurrency,
            seconds,
            committed,
            committed_per_second: own,
            latency_us: latencies.percentiles(),
            ratio: to(base),
            ratio_to_plain: if way.is_transfer() { None } else { to(Way::LocalPlain) },
        }
    };
    ran.iter().map(run).collect()
}

/// For people.
pub(super) fn text(runs: &[Run]) -> String {
    let mut columns = vec![
        Column::Left("WHAT"),
        Column::Right("CONCURRENT"),
        Column::Right("COMMITTED/S"),
        Column::Right("RATIO"),
        Column::Right("TO PLAIN"),
    ];
    columns.extend(Percentiles::HEADINGS.map(Column::Right));
    let row = |run: &Run| {
        let mut row = vec![
            run.way.title().to_owned(),
            run.concurrency.to_string(),
            format!("{:.0}", run.committed_per_second),
            shown(run.ratio, 2),
            run.ratio_to_plain.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
        ];
        row.extend(Percentiles::cells(run.latency_us));
        row
    };
    let table = terminal::table(&columns, runs.iter().map(row).collect(), "nothing was run");
    format!(
        "{table}\n\nRATIO: rates in terms of the transfer by hand, and of the local transaction \
         with an outbox row."
    )
}
