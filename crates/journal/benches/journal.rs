//! Time of the record codec, and of one group through the journal to the disk under the directory
//! of temporary files. `cargo bench -p handfast-journal --bench journal`
//!
//! With `TMPDIR` in memory it is the journal without a disk: encoding, checksums, frames, index.
//! The journal in use, with groups that gather, is measured by `handfast bench journal`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use handfast_core::event::{Body, PlacedEvent};
use handfast_core::ids::{Lsn, Name, Offset, OpeningId, StateId, StoreId, TopicId, TransactionId};
use handfast_core::record::{Commit, Participant, ParticipantKind, Record, Updater};
use handfast_journal::codec::{decode, encode};
use handfast_journal::{Group, Journal, Options};

/// What a transaction with two participants and one event of 200 bytes leaves in the log.
fn record(number: u64) -> Record {
    let updater = |text: &str| Updater {
        participant: Participant {
            name: Name::new(text).expect("a short plain word is a name"),
            kind: ParticipantKind::Service,
        },
        state_id: StateId(7),
    };
    Record::Commit(Commit {
        id: TransactionId(u128::from(number) << 64),
        previous: Lsn(1),
        wall_ms: 1_700_000_000_000,
        updaters: vec![updater("orders"), updater("payments")],
        read_only: Vec::new(),
        events: vec![PlacedEvent {
            topic: TopicId(1),
            offset: Offset(number),
            key: None,
            body: Body::Here(Bytes::from_static(&[b'.'; 200])),
        }],
        acknowledged: Vec::new(),
    })
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a decision with an event");
    let record = record(1);
    let mut bytes = Vec::new();
    encode(&record, &mut bytes);
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("encode", |bencher| {
        let mut out = Vec::with_capacity(1_024);
        bencher.iter(|| {
            out.clear();
            encode(black_box(&record), &mut out);
        });
    });
    let bytes = Bytes::from(bytes);
    group.bench_function("decode", |bencher| {
        bencher.iter(|| decode(black_box(bytes.clone())).expect("it was encoded"));
    });
    group.finish();
}

fn append(criterion: &mut Criterion) {
    let mut bench = criterion.benchmark_group("append and sync");
    // One segment holds all that is written in this time.
    bench.sample_size(10).measurement_time(Duration::from_secs(1));
    bench.warm_up_time(Duration::from_millis(200));
    for count in [1_u64, 64, 1_024] {
        let directory = tempfile::tempdir().expect("a directory");
        let files = handfast_journal::files::Directory::open(directory.path());
        let files = Arc::new(files.expect("a directory"));
        let opened = Journal::open(
            files,
            Options::default().with_segment_bytes(4 << 30),
            &mut |_| 1_700_000_000_000,
            StoreId(1),
            OpeningId(1),
            &mut |_| {},
            &mut |_, _| {},
        );
        let (mut journal, _) = opened.expect("an empty directory becomes a store");
        let record = Arc::new(record(1));
        bench.throughput(Throughput::Elements(count));
        bench.bench_function(format!("{count} in a group"), |bencher| {
            bencher.iter(|| {
                let first = journal.next_lsn().0;
                let records = (first..first + count).map(|n| (Lsn(n), Arc::clone(&record)));
                let group = Group { records: records.collect(), roll: false };
                journal.append(&group).expect("there is room");
            });
        });
    }
    bench.finish();
}

criterion_group!(benches, codec, append);
criterion_main!(benches);
