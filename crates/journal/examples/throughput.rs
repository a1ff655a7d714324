//! Durable submissions per second with many outstanding: a decision of 200 bytes and two events of
//! 300, beside a bare loop of write and fdatasync with the same bytes.
//!
//! `cargo run --release -p handfast-journal --example throughput -- [directory] [outstanding] [seconds]`
#![expect(clippy::print_stdout, reason = "it reports to the terminal")]

use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use handfast_core::event::{Body, PlacedEvent};
use handfast_core::ids::{
    Lsn, Name, Offset, OpeningId, StateId, StoreId, SubscriptionId, TopicId, TransactionId,
};
use handfast_core::record::{
    CheckpointStart, Commit, Participant, ParticipantKind, Record, Updater,
};
use handfast_journal::files::{Directory, Files};
use handfast_journal::{Group, Journal, Options, record_bytes};

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().unwrap_or_else(|| "throughput-store".to_owned());
    let outstanding: usize = arguments.next().map_or(Ok(256), |a| a.parse())?;
    let seconds: u64 = arguments.next().map_or(Ok(5), |a| a.parse())?;
    let directory = Path::new(&directory);
    let time = Duration::from_secs(seconds);
    let (record, _) = submission(0);
    println!("one submission takes {} bytes in the log", record_bytes(&record));
    for round in 1..=2 {
        drop(fs::remove_dir_all(directory));
        report(
            &format!("bare write + fdatasync, round {round}"),
            &bare(directory, outstanding, time)?,
        );
        drop(fs::remove_dir_all(directory));
        report(&format!("journal, round {round}"), &journal(directory, outstanding, time)?);
    }
    let started = Instant::now();
    let (store, records) = open(directory)?;
    let took = started.elapsed();
    println!(
        "opened again in {took:?}, {records} records applied, {} segments",
        store.segments().len()
    );
    scan(&store)?;
    drop(store);
    fs::remove_dir_all(directory)?;
    Ok(())
}

/// What a transaction with two participants and two events leaves in the log.
fn submission(number: u64) -> (Arc<Record>, u64) {
    let event = |topic: u32| PlacedEvent {
        topic: TopicId(topic),
        offset: Offset(number),
        key: None,
        body: Body::Here(Bytes::from_static(&[7; 300])),
    };
    let name = |text: &str| Name::new(text).expect("a short plain word is a name");
    let updater = |text: &str| Updater {
        participant: Participant { name: name(text), kind: ParticipantKind::Service },
        state_id: StateId(u128::from(number)),
    };
    let record = Commit {
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
    };
    (Arc::new(Record::Commit(record)), number)
}

#[derive(Default)]
struct Figures {
    done: u64,
    groups: u64,
    time: Duration,
    latencies: Vec<Duration>,
}

fn report(what: &str, figures: &Figures) {
    let mut latencies = figures.latencies.clone();
    latencies.sort_unstable();
    let at = |percent: usize| {
        latencies.get(latencies.len() * percent / 100).copied().unwrap_or_default()
    };
    println!(
        "{what}: {:.0} submissions/s, {:.0} per group, p50 {:?}, p99 {:?}",
        figures.done as f64 / figures.time.as_secs_f64(),
        figures.done as f64 / figures.groups.max(1) as f64,
        at(50),
        at(99),
    );
}

/// One thread submits, and submits again what was acknowledged; the other writes what has
/// gathered while it wrote before.
fn run<T: Send>(
    outstanding: usize,
    time: Duration,
    mut write: impl FnMut(Vec<T>) -> Result<(), Failure> + Send,
    mut make: impl FnMut(u64) -> T,
) -> Result<Figures, Failure> {
    let (submit, submitted): (Sender<(Instant, T)>, Receiver<_>) = channel();
    let (acknowledge, acknowledged) = channel::<Vec<Instant>>();
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || -> Result<u64, Failure> {
            let mut groups = 0;
            while let Ok(first) = submitted.recv() {
                let mut group = vec![first];
                group.extend(submitted.try_iter());
                let (times, records) = group.into_iter().unzip();
                write(records)?;
                groups += 1;
                if acknowledge.send(times).is_err() {
                    break;
                }
            }
            Ok(groups)
        });
        let start = Instant::now();
        let mut figures = Figures::default();
        let mut number = 0;
        let mut next = |count: usize| {
            for _ in 0..count {
                // Fails only if the writer has: its own error is told below.
                drop(submit.send((Instant::now(), make(number))));
                number += 1;
            }
        };
        next(outstanding);
        while start.elapsed() < time {
            let Ok(times) = acknowledged.recv() else { break };
            let now = Instant::now();
            figures.done += times.len() as u64;
            figures.latencies.extend(times.iter().map(|t| now - *t));
            next(times.len());
        }
        figures.time = start.elapsed();
        drop(submit);
        drop(acknowledged);
        figures.groups = writer.join().map_err(|_| "the writer panicked")??;
        Ok(figures)
    })
}

fn bare(directory: &Path, outstanding: usize, time: Duration) -> Result<Figures, Failure> {
    let files = Directory::open(directory)?;
    let file = files.create("bare")?;
    let bytes = vec![7u8; record_bytes(&submission(0).0) as usize];
    let mut at = 0;
    let mut buffer = Vec::new();
    let write = move |group: Vec<()>| -> Result<(), Failure> {
        buffer.clear();
        for () in group {
            buffer.extend_from_slice(&bytes);
        }
        file.write_at(&buffer, at)?;
        at += buffer.len() as u64;
        Ok(file.sync_data()?)
    };
    run(outstanding, time, write, |_| ())
}

fn open(directory: &Path) -> Result<(Journal, u64), Failure> {
    let files = Arc::new(Directory::open(directory)?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
    let mut records = 0;
    let options = Options::default();
    let (store, opening) = (StoreId(1), OpeningId(1));
    let opened =
        Journal::open(files, options, &mut |_| now, store, opening, &mut |_| {}, &mut |_, _| {
            records += 1;
        })?;
    Ok((opened.0, records))
}

fn journal(directory: &Path, outstanding: usize, time: Duration) -> Result<Figures, Failure> {
    let (mut journal, _) = open(directory)?;
    let write = move |records: Vec<Arc<Record>>| -> Result<(), Failure> {
        if journal.space().wants_roll {
            roll(&mut journal)?;
        }
        append(&mut journal, records, false)
    };
    run(outstanding, time, write, |number| submission(number).0)
}

fn append(journal: &mut Journal, records: Vec<Arc<Record>>, roll: bool) -> Result<(), Failure> {
    let first = journal.next_lsn().0;
    let records = (first..).map(Lsn).zip(records).collect();
    Ok(journal.append(&Group { records, roll })?)
}

fn roll(journal: &mut Journal) -> Result<(), Failure> {
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

/// Reads every event of one topic.
fn scan(journal: &Journal) -> Result<(), Failure> {
    use handfast_core::output::{Fetch, Wanted};
    let reader = journal.reader();
    let started = Instant::now();
    let (mut from, mut events) = (Offset(0), 0u64);
    let end = journal.sealed().iter().filter_map(|s| s.topic(TopicId(1))).map(|t| t.last.0).max();
    let to = Offset(end.unwrap_or(0));
    while from < to {
        let wanted = Wanted::Range { from, to, max_events: 1000 };
        let fetch = Fetch { fetch: 0, topic: TopicId(1), wanted, max_bytes: 1 << 20 };
        let (read, next) = reader.fetch(&fetch)?;
        events += read.len() as u64;
        from = next;
    }
    println!("read {:.0} events/s", events as f64 / started.elapsed().as_secs_f64());
    Ok(())
}
