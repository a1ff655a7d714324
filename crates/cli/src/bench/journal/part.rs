//! The process that writes: the journal and the bare loop, by turns, in a new directory each time.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use handfast::bytes::Bytes;
use handfast_core::event::{Body, PlacedEvent};
use handfast_core::ids::{
    Lsn, Name, Offset, OpeningId, StateId, StoreId, SubscriptionId, TopicId, TransactionId,
};
use handfast_core::record::{
    CheckpointStart, Commit, Participant, ParticipantKind, Record, Updater,
};
use handfast_journal::files::{Directory, Files};
use handfast_journal::{Group, Journal, Options, record_bytes};
use serde::{Deserialize, Serialize};

use super::outstanding::{Done, run as outstanding};
use crate::bench::latency::Latencies;
use crate::bench::part::Said;
use crate::bench::usage::Usage;
use crate::harness::{PartError, exit_with_stdin};

/// The start of each slice does not count: files grow, caches fill.
const WARM_UP: Duration = Duration::from_millis(250);
const SLICE: Duration = Duration::from_secs(1);

/// What to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) dir: PathBuf,
    pub(super) outstanding: Vec<u32>,
    pub(super) slices: u16,
}

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Writer {
    /// `write` and `fdatasync`.
    Bare,
    /// The journal.
    Journal,
}

/// What one of them did with so many outstanding, over all its slices.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Wrote {
    pub(super) writer: Writer,
    pub(super) outstanding: u32,
    pub(super) records: u64,
    pub(super) groups: u64,
    pub(super) seconds: f64,
    pub(super) latencies: Vec<(u64, u64)>,
    /// With what did not count.
    pub(super) cpu_seconds: f64,
    pub(super) written_bytes: u64,
}

/// Runs it, and says what was found.
pub(super) fn run(plan: Plan) -> Result<(), PartError> {
    exit_with_stdin();
    let mut found = Vec::new();
    for count in plan.outstanding {
        let mut sums = [Sum::new(Writer::Bare), Sum::new(Writer::Journal)];
        for slice in 0..plan.slices {
            // Nobody is always the first.
            sums.rotate_left(usize::from(slice > 0));
            for sum in &mut sums {
                let dir = plan.dir.join("journal");
                let before = Usage::of(std::process::id())?;
                let done = match sum.writer {
                    Writer::Bare => bare(&dir, count)?,
                    Writer::Journal => journal(&dir, count)?,
                };
                sum.add(&done, Usage::of(std::process::id())?.since(before));
                fs::remove_dir_all(&dir)?;
            }
            Said::Progress(slice.into()).say()?;
        }
        found.extend(sums.into_iter().map(|sum| sum.wrote(count)));
    }
    match Said::say_found_and_stay(&found)? {}
}

struct Sum {
    writer: Writer,
    done: Done,
    used: Usage,
}

impl Sum {
    fn new(writer: Writer) -> Self {
        let done = Done { records: 0, groups: 0, seconds: 0.0, latencies: Latencies::new() };
        Self { writer, done, used: Usage::default() }
    }

    fn add(&mut self, done: &Done, used: Usage) {
        self.done.records += done.records;
        self.done.groups += done.groups;
        self.done.seconds += done.seconds;
        self.done.latencies.add(&done.latencies.counts());
        self.used.cpu_seconds += used.cpu_seconds;
        self.used.written_bytes += used.written_bytes;
    }

    fn wrote(self, outstanding: u32) -> Wrote {
        let Done { records, groups, seconds, latencies } = self.done;
        Wrote {
            writer: self.writer,
            outstanding,
            records,
            groups,
            seconds,
            latencies: latencies.counts(),
            cpu_seconds: self.used.cpu_seconds,
            written_bytes: self.used.written_bytes,
        }
    }
}

/// What a transaction with two participants and two events leaves in the log.
fn record(number: u64) -> Arc<Record> {
    let event = |topic: u32| PlacedEvent {
        topic: TopicId(topic),
        offset: Offset(number),
        key: None,
        body: Body::Here(Bytes::from_static(&[b'.'; 300])),
    };
    let name = |text: &str| Name::new(text).expect("a short plain word is a name");
    let updater = |text: &str| Updater {
        participant: Participant { name: name(text), kind: ParticipantKind::Service },
        state_id: StateId(u128::from(number)),
    };
    Arc::new(Record::Commit(Commit {
        id: TransactionId(u128::from(number) << 64),
        previous: Lsn(1),
        wall_ms: 1_700_000_000_000,
        updaters: vec![
            updater("a-participant-with-a-name-of-some-length"),
            updater("another-participant-with-a-name-too"),
        ],
        read_only: Vec::new(),
        events: vec![event(1), event(2)],
        acknowledged: vec![(SubscriptionId(1), Offset(number))],
    }))
}

/// Bytes of such a record in the log.
pub(super) fn bytes() -> u64 {
    record_bytes(&record(0))
}

fn bare(dir: &Path, count: u32) -> Result<Done, PartError> {
    let files = Directory::open(dir)?;
    let file = files.create("bare")?;
    let bytes = vec![b'.'; usize::try_from(bytes())?];
    let (mut at, mut buffer) = (0, Vec::new());
    let write = move |group: Vec<()>| -> Result<(), PartError> {
        buffer.clear();
        for () in group {
            buffer.extend_from_slice(&bytes);
        }
        file.write_at(&buffer, at)?;
        at += buffer.len() as u64;
        Ok(file.sync_data()?)
    };
    outstanding(count, WARM_UP, SLICE, write, |_| ())
}

fn journal(dir: &Path, count: u32) -> Result<Done, PartError> {
    let files = Arc::new(Directory::open(dir)?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
    let (options, store) = (Options::default(), StoreId(1));
    let (mut journal, _) = Journal::open(
        files,
        options,
        &mut |_| now,
        store,
        OpeningId(1),
        &mut |_| {},
        &mut |_, _| {},
    )?;
    let write = move |records: Vec<Arc<Record>>| -> Result<(), PartError> {
        if journal.space().wants_roll {
            roll(&mut journal)?;
        }
        append(&mut journal, records, false)
    };
    outstanding(count, WARM_UP, SLICE, write, record)
}

fn append(journal: &mut Journal, records: Vec<Arc<Record>>, roll: bool) -> Result<(), PartError> {
    let first = journal.next_lsn().0;
    let records = (first..).map(Lsn).zip(records).collect();
    Ok(journal.append(&Group { records, roll })?)
}

/// A new segment, with the checkpoint of a server that has next to nothing open.
fn roll(journal: &mut Journal) -> Result<(), PartError> {
    let start = Record::CheckpointStart(CheckpointStart {
        store: journal.store(),
        epoch: journal.epoch(),
        next_topic: TopicId(3),
        next_subscription: SubscriptionId(1),
        segments: journal.segments(),
        keys: Vec::new(),
        openings: Vec::new(),
        away: Vec::new(),
    });
    append(journal, vec![Arc::new(start), Arc::new(Record::CheckpointEnd)], true)
}
