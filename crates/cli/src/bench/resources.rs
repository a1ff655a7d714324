//! What a stretch of work has cost: processor time and memory of every process, groups and bytes
//! of the journal.

use serde::Serialize;

use super::metrics::Counters;
use super::part::Part;
use super::server::Server;
use super::usage::Usage;
use crate::harness::Problem;
use crate::terminal::{self, Column};

/// How everything stood when the stretch began.
#[derive(Debug)]
pub(super) struct Before {
    server: Option<Usage>,
    counters: Counters,
    parts: Vec<Usage>,
}

impl Before {
    pub(super) async fn look(server: &Server, parts: &[&Part]) -> Result<Self, Problem> {
        let counters = server.counters().await?;
        let parts = parts.iter().map(|part| part.usage()).collect::<Result<_, _>>()?;
        Ok(Self { server: server.usage()?, counters, parts })
    }

    /// The cost since then, when `units` (transactions, events) were done by the same parts.
    pub(super) async fn cost(
        &self,
        server: &Server,
        parts: &[&Part],
        units: u64,
    ) -> Result<Resources, Problem> {
        let mut processes = Vec::new();
        let server_used = match (server.usage()?, self.server) {
            (Some(now), Some(before)) => Some(now.since(before)),
            _ => None,
        };
        processes.extend(server_used.map(|used| Process::new("server", used, units)));
        for (part, before) in parts.iter().zip(&self.parts) {
            processes.push(Process::new(part.name(), part.usage()?.since(*before), units));
        }
        let counters = server.counters().await?.since(self.counters);
        let written_bytes = server_used.map(|used| used.written_bytes);
        Ok(Resources::new(processes, counters, written_bytes, units))
    }
}

/// What a stretch of work has cost. "Each" is one transaction or one event.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Resources {
    /// All processes that were looked at together.
    pub(super) cpu_us_each: f64,
    pub(super) processes: Vec<Process>,
    pub(super) journal: Journal,
}

/// What one process has used.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Process {
    name: String,
    cpu_seconds: f64,
    cpu_us_each: Option<f64>,
    peak_memory_bytes: u64,
}

impl Process {
    pub(super) fn new(name: &str, used: Usage, units: u64) -> Self {
        let cpu_us_each = (units > 0).then(|| used.cpu_seconds * 1e6 / units as f64);
        Self {
            name: name.to_owned(),
            cpu_seconds: used.cpu_seconds,
            cpu_us_each,
            peak_memory_bytes: used.peak_memory_bytes,
        }
    }
}

/// What the journal did.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Journal {
    /// Commit groups: each one write and one sync.
    groups: u64,
    records: u64,
    records_per_group: Option<f64>,
    /// Mean time of a group's write and sync.
    group_us: Option<f64>,
    /// To storage by the server's process; null: it is not ours to look at.
    written_bytes: Option<u64>,
    written_bytes_each: Option<f64>,
}

impl Journal {
    fn new(counted: Counters, written_bytes: Option<u64>, units: u64) -> Self {
        let Counters { groups, records, write_seconds, .. } = counted;
        let each_group = |total: f64| (groups > 0).then(|| total / groups as f64);
        let each = |bytes: u64| (units > 0).then(|| bytes as f64 / units as f64);
        Self {
            groups,
            records,
            records_per_group: each_group(records as f64),
            group_us: each_group(write_seconds * 1e6),
            written_bytes,
            written_bytes_each: written_bytes.and_then(each),
        }
    }
}

impl Resources {
    pub(super) fn new(
        processes: Vec<Process>,
        counted: Counters,
        written_bytes: Option<u64>,
        units: u64,
    ) -> Self {
        Self {
            cpu_us_each: processes.iter().filter_map(|process| process.cpu_us_each).sum(),
            processes,
            journal: Journal::new(counted, written_bytes, units),
        }
    }

    /// For people: a table of processes, and a line about the journal.
    pub(super) fn text(&self, each: &str) -> String {
        let columns = [
            Column::Left("PROCESS"),
            Column::Right("CPU S"),
            Column::Right("CPU US EACH"),
            Column::Right("PEAK MEMORY"),
        ];
        let rows = self.processes.iter().map(|process| {
            vec![
                process.name.clone(),
                format!("{:.2}", process.cpu_seconds),
                shown(process.cpu_us_each, 1),
                terminal::size(process.peak_memory_bytes),
            ]
        });
        let table = terminal::table(&columns, rows.collect(), "");
        let Journal { groups, records_per_group, group_us, written_bytes_each, .. } = self.journal;
        format!(
            "{table}\njournal: {groups} groups of {} records, {} us to write and sync one, {} \
             bytes written per {each}",
            shown(records_per_group, 1),
            shown(group_us, 0),
            shown(written_bytes_each, 0),
        )
    }
}

/// A number that may not be known.
pub(super) fn shown(number: Option<f64>, digits: usize) -> String {
    number.map_or_else(|| "?".to_owned(), |number| format!("{number:.digits$}"))
}
