//! Reading across sealed, active and compacted segments, against a naive model.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::support::*;
use handfast_core::event::{Body, PlacedEvent, StoredEvent};
use handfast_core::ids::{Lsn, Offset, TopicId, TransactionId};
use handfast_core::record::Record;
use handfast_journal::files::crash::CrashDisk;
use handfast_journal::{Error, Journal};

type Topics = BTreeMap<u32, Vec<StoredEvent>>;

/// Publishes, commits and commits locally, with holes in the offsets, over many segments.
fn busy_journal(disk: &CrashDisk, rounds: u64) -> (Journal, Topics) {
    let mut journal = open(disk.clone()).unwrap().journal;
    let mut topics = Topics::new();
    let mut random = Random(3);
    let mut next = [0u64; 3];
    let mut open_local: Option<(TransactionId, Lsn, Vec<u64>)> = None;
    for round in 0..rounds {
        if journal.space().wants_roll {
            let state = open_local
                .iter()
                .map(|(id, lsn, _)| restated(begin(*id, NOW, false, None), *lsn, *lsn));
            roll(&mut journal, state.collect()).unwrap();
        }
        let wall_ms = NOW + round;
        let mut place = |topic: u32| {
            let offset = next[topic as usize] + random.below(3);
            next[topic as usize] = offset + 1;
            offset
        };
        let events: Vec<PlacedEvent> =
            (0..=round % 4).map(|i| (i % 3) as u32).map(|t| event(t, place(t), 60)).collect();
        let mut stored = |events: &[PlacedEvent], id: Option<TransactionId>, seeds: &[u64]| {
            for event in events {
                let bytes = match &event.body {
                    Body::Here(bytes) => bytes.clone(),
                    Body::InBegin { item, .. } => body(seeds[*item as usize], 50),
                };
                topics.entry(event.topic.0).or_default().push(StoredEvent {
                    offset: event.offset,
                    key: event.key,
                    transaction: id,
                    wall_ms,
                    body: bytes,
                });
            }
        };
        match round % 5 {
            0 => {
                let id = id(wall_ms, round);
                let lsn = journal.next_lsn();
                let begun = Arc::new(Record::Begin(begin(id, wall_ms, false, None)));
                let records = vec![
                    begun,
                    commit(id, lsn, wall_ms, events.clone()),
                    end(id, Lsn(lsn.0 + 1), wall_ms),
                ];
                stored(&events, Some(id), &[]);
                append(&mut journal, records).unwrap();
            }
            // A local transaction, decided some rounds later and perhaps in another segment.
            1 if open_local.is_none() => {
                let id = id(wall_ms, round);
                let seeds = vec![round, round + 1, round + 2];
                let items = local_items(1, &seeds);
                let begun = Arc::new(Record::Begin(begin(id, wall_ms, false, Some(items))));
                let log = append(&mut journal, vec![begun]).unwrap();
                open_local = Some((id, log[0].0, seeds));
            }
            2 if round % 35 == 2 => {
                if let Some((id, lsn, seeds)) = open_local.take() {
                    let in_begin = |item: u32| PlacedEvent {
                        topic: TopicId(1),
                        offset: Offset(place(1)),
                        key: None,
                        body: Body::InBegin { item, size: 50 },
                    };
                    let events: Vec<_> = [2, 0, 1].map(in_begin).into();
                    stored(&events, Some(id), &seeds);
                    append(&mut journal, vec![commit(id, lsn, wall_ms, events)]).unwrap();
                }
            }
            _ => {
                stored(&events, None, &[]);
                append(&mut journal, vec![published(wall_ms, events)]).unwrap();
            }
        }
    }
    (journal, topics)
}

fn naive_range(
    events: &[StoredEvent],
    from: u64,
    to: u64,
    max_events: u32,
    max_bytes: u32,
) -> (Vec<StoredEvent>, Offset) {
    let mut found: Vec<StoredEvent> = Vec::new();
    let mut bytes = 0;
    for event in events.iter().filter(|e| (from..to).contains(&e.offset.0)) {
        let full = !found.is_empty() && bytes + event.body.len() > max_bytes as usize;
        if found.len() == max_events as usize || full {
            return (found, event.offset);
        }
        bytes += event.body.len();
        found.push(event.clone());
    }
    (found, Offset(to.max(from)))
}

fn compare(journal: &Journal, topics: &Topics, tries: u64) {
    let reader = journal.reader();
    let mut random = Random(17);
    for (topic, events) in topics {
        let end = events.last().unwrap().offset.0 + 1;
        assert_eq!(&all_events(&reader, *topic, end).unwrap(), events);
        for _ in 0..tries {
            let from = random.below(end + 2);
            let to = from + random.below(60);
            let to = to.min(end);
            let (max_events, max_bytes) = (1 + random.below(20) as u32, random.below(900) as u32);
            let found = reader.fetch(&range(*topic, from, to, max_events, max_bytes)).unwrap();
            let expected = naive_range(events, from, to, max_events, max_bytes);
            if from < to {
                assert_eq!(found, expected, "{topic}: {from}..{to}");
            } else {
                assert!(found.0.is_empty());
            }
            let mut wanted: Vec<u64> =
                (0..random.below(6)).map(|_| random.below(end + 3)).collect();
            wanted.sort_unstable();
            wanted.dedup();
            let (found, _) = reader.fetch(&offsets(*topic, &wanted, u32::MAX)).unwrap();
            let expected: Vec<_> =
                events.iter().filter(|e| wanted.contains(&e.offset.0)).cloned().collect();
            assert_eq!(found, expected, "{topic}: {wanted:?}");
        }
    }
    let nothing = reader.fetch(&range(9, 3, 8, 10, 10)).unwrap();
    assert_eq!(nothing, (vec![], Offset(8)));
    // Times rise with the rounds here, so the answer is exact up to the events of one record.
    for (topic, events) in topics {
        for _ in 0..tries / 10 {
            let wall_ms = NOW + random.below(events.last().unwrap().wall_ms - NOW + 3);
            let expected = events.iter().find(|e| e.wall_ms >= wall_ms).map(|e| e.offset);
            assert_eq!(reader.offset_at(TopicId(*topic), wall_ms).unwrap(), expected);
        }
    }
}

#[test]
fn reads_equal_a_naive_model() {
    let disk = CrashDisk::new();
    let (mut journal, mut topics) = busy_journal(&disk, 800);
    assert!(journal.sealed().len() > 5);
    compare(&journal, &topics, 300);
    let crossing =
        journal.sealed().iter().any(|s| s.references.iter().any(|r| !r.events.is_empty()));
    assert!(crossing, "a body is in an older segment than its COMMIT");

    // Compaction takes out what topic 0 alone needed up to some offset.
    let cut = topics[&0][topics[&0].len() / 2].offset;
    for summary in journal.sealed() {
        let mut keep = |_: Lsn, record: &Record| match record {
            Record::Begin(_) => true,
            _ => record.events().iter().any(|e| e.topic.0 != 0 || e.offset >= cut),
        };
        let done = journal.compact_segment(summary.segment, &mut keep).unwrap();
        assert!(done.bytes_after <= done.bytes_before);
    }
    let reader = journal.reader();
    let left: Vec<_> = all_events(&reader, 0, 10_000).unwrap();
    let mut expected = topics[&0].clone();
    expected.retain(|e| e.offset >= cut || left.contains(e));
    assert_eq!(left, expected);
    assert!(left.len() < topics[&0].len());
    topics.insert(0, left);
    compare(&journal, &topics, 300);
    drop(journal);
    let journal = open(disk.clone()).unwrap().journal;
    compare(&journal, &topics, 300);
    drop(journal);

    // The same without indexes, built again.
    let mut image = disk.snapshot().everything();
    for name in image.names() {
        if name.ends_with(".idx") {
            image.remove(&name);
        }
    }
    let opening = open(image.into_disk()).unwrap();
    assert!(opening.recovered.rebuilt_indexes.len() > 5);
    compare(&opening.journal, &topics, 300);
}

/// An index that is damaged while the store is open is built again by the reader that finds it.
#[test]
fn a_damaged_index_is_built_again() {
    let disk = CrashDisk::new();
    let (journal, topics) = busy_journal(&disk, 300);
    drop(journal);
    let image = disk.snapshot().everything();
    let indexes: Vec<_> = image.names().into_iter().filter(|n| n.ends_with(".idx")).collect();
    for name in &indexes {
        let length = image.bytes(name).unwrap().len();
        for at in (0..length).step_by(512) {
            let mut damaged = image.clone();
            let mut bytes = image.bytes(name).unwrap();
            bytes[at..(at + 100).min(length)].fill(0xee);
            damaged.replace(name, &bytes);
            let disk = damaged.into_disk();
            let report = handfast_journal::check(&disk, &mut |_| {}).unwrap();
            assert!(report.is_sound() && report.stale_indexes.len() == 1);
            let journal = open(disk.clone()).unwrap().journal;
            for (topic, events) in &topics {
                assert_eq!(&all_events(&journal.reader(), *topic, 10_000).unwrap(), events);
            }
        }
    }
}

#[test]
fn chains_are_found_among_thousands() {
    let disk = CrashDisk::new();
    let mut journal = open(disk.clone()).unwrap().journal;
    let mut chains = BTreeMap::new();
    let mut waiting: Vec<(TransactionId, Lsn, u64)> = Vec::new();
    let mut random = Random(1);
    for i in 0..6_000u64 {
        let wall_ms = NOW + i * 10;
        let id = id(wall_ms, random.next() >> 3);
        if journal.space().wants_roll {
            let state = waiting.iter().map(|(id, lsn, wall_ms)| {
                restated(begin(*id, *wall_ms, id.0 % 2 == 0, None), *lsn, *lsn)
            });
            roll(&mut journal, state.collect()).unwrap();
        }
        let begun = Arc::new(Record::Begin(begin(id, wall_ms, id.0.is_multiple_of(2), None)));
        let log = append(&mut journal, vec![begun]).unwrap();
        chains.insert(id, log.clone());
        waiting.push((id, log[0].0, wall_ms));
        // Up to 50 are open, and they end in any order.
        if waiting.len() > 50 {
            let at = random.below(50) as usize;
            let (id, lsn, _) = waiting.swap_remove(at);
            let decided = append(&mut journal, vec![commit(id, lsn, wall_ms, vec![])]).unwrap();
            let ended = append(&mut journal, vec![end(id, decided[0].0, wall_ms)]).unwrap();
            chains.get_mut(&id).unwrap().extend(decided.into_iter().chain(ended));
        }
    }
    assert!(journal.sealed().len() > 20);
    let look = |journal: &Journal| {
        let reader = journal.reader();
        for (id, expected) in &chains {
            let chain = reader.chain(*id).unwrap();
            assert!(chain.whole);
            let expected: Vec<_> =
                expected.iter().map(|(lsn, r)| (*lsn, Record::clone(r))).collect();
            assert_eq!(chain.records, expected);
        }
        let unknown = reader.chain(id(NOW + 5_000, u64::MAX >> 3)).unwrap();
        assert!(unknown.records.is_empty() && unknown.whole);
    };
    look(&journal);
    // Finding one touches few segments: with all of them it would be several reads in each.
    let calls = disk.calls();
    let some: Vec<_> = chains.keys().step_by(61).collect();
    for id in &some {
        journal.reader().chain(**id).unwrap();
    }
    let per_chain = (disk.calls() - calls) / some.len() as u64;
    assert!(per_chain < 40, "{per_chain} calls for a chain");
    drop(journal);
    let mut journal = open(disk.clone()).unwrap().journal;
    look(&journal);

    // What may have been in a segment that is gone is not known to be nothing.
    let summary = journal.sealed()[0].clone();
    drop_segment(&mut journal, summary.segment).unwrap();
    let (_, newest) = summary.wall_ms.unwrap();
    for journal in [journal].iter().chain([&open_later(&disk)]) {
        let reader = journal.reader();
        assert!(!reader.chain(id(newest, 1)).unwrap().whole);
        assert!(!reader.chain(id(NOW, 1)).unwrap().whole);
        assert!(reader.chain(id(newest + 1_000, 1)).unwrap().whole);
    }
}

/// The same store, as another process would see it after this one died.
fn open_later(disk: &CrashDisk) -> Journal {
    open(disk.snapshot().synced_only().into_disk()).unwrap().journal
}

#[test]
fn summaries_tell_what_is_needed() {
    let disk = CrashDisk::new();
    let mut journal = open(disk.clone()).unwrap().journal;
    let (keyed, plain) = (id(NOW, 1), id(NOW, 2));
    let begun = |id, keyed| Arc::new(Record::Begin(begin(id, NOW, keyed, None)));
    let log = append(&mut journal, vec![begun(keyed, true), begun(plain, false)]).unwrap();
    let state = vec![
        restated(begin(keyed, NOW, true, None), log[0].0, log[0].0),
        restated(begin(plain, NOW, false, None), log[1].0, log[1].0),
    ];
    roll(&mut journal, state).unwrap();
    let decided = append(
        &mut journal,
        vec![commit(keyed, log[0].0, NOW + 1, vec![]), commit(plain, log[1].0, NOW + 2, vec![])],
    )
    .unwrap();
    let ends = vec![end(keyed, decided[0].0, NOW + 3), end(plain, decided[1].0, NOW + 4)];
    append(&mut journal, ends).unwrap();
    roll(&mut journal, vec![]).unwrap();
    let sealed = journal.sealed();
    assert_eq!((sealed[0].ended, sealed[0].newest_end_ms), (0, None));
    assert_eq!(sealed[1].ended, 2);
    assert_eq!(sealed[1].newest_end_ms, Some(NOW + 4));
    assert_eq!(sealed[1].newest_keyed_end_ms, Some(NOW + 3));
    let reference = sealed[1].reference(1).unwrap();
    assert_eq!(reference.newest_end_ms, Some(NOW + 4));
    assert_eq!(reference.newest_keyed_end_ms, Some(NOW + 3));
    assert!(matches!(journal.drop_segment(1), Err(Error::NotDropped(1))));
    assert!(matches!(journal.drop_segment(9), Err(Error::NoSuchSegment(9))));
    // The same after the index was lost.
    drop(journal);
    let mut image = disk.snapshot().everything();
    image.remove("0000000002.idx");
    let journal = open(image.into_disk()).unwrap().journal;
    assert_eq!(journal.sealed(), sealed);
}

#[test]
fn dropped_segments_are_gone_and_stay_gone() {
    let disk = CrashDisk::new();
    let (mut journal, topics) = busy_journal(&disk, 300);
    let first = journal.sealed()[0].clone();
    drop_segment(&mut journal, 1).unwrap();
    assert!(!journal.segments().contains(&1));
    let reader = journal.reader();
    assert_eq!(reader.record(Lsn(2)).unwrap(), None);
    let gone = first.topic(TopicId(0)).unwrap().last;
    let expected: Vec<_> = topics[&0].iter().filter(|e| e.offset > gone).cloned().collect();
    assert_eq!(all_events(&reader, 0, 10_000).unwrap(), expected);
    roll(&mut journal, vec![]).unwrap();
    drop(journal);
    // A file that comes back (the removal was not durable) is taken away again.
    let mut image = disk.snapshot().everything();
    image.replace("0000000001.log", b"whatever");
    image.replace("0000000001.idx", b"whatever");
    let disk = image.into_disk();
    let report = handfast_journal::check(&disk, &mut |_| {}).unwrap();
    assert_eq!(report.leftovers, ["0000000001.log", "0000000001.idx"]);
    let journal = open(disk.clone()).unwrap().journal;
    assert!(!disk.snapshot().everything().names().contains(&"0000000001.log".to_owned()));
    assert_eq!(all_events(&journal.reader(), 0, 10_000).unwrap(), expected);
}

/// What is held in memory is bounded by one segment, however many there are.
#[test]
fn memory_does_not_grow_with_the_store() {
    let disk = CrashDisk::new();
    let mut journal = open(disk).unwrap().journal;
    let mut most = [0; 2];
    for i in 0..20_000u64 {
        if journal.space().wants_roll {
            roll(&mut journal, vec![]).unwrap();
        }
        let lsn = journal.next_lsn();
        let id = id(NOW + i, i);
        let records = vec![
            Arc::new(Record::Begin(begin(id, NOW, false, None))),
            commit(id, lsn, NOW + i, vec![event(1, i, 30)]),
            end(id, Lsn(lsn.0 + 1), NOW + i),
        ];
        append(&mut journal, records).unwrap();
        let half = usize::from(i > 10_000);
        most[half] = most[half].max(journal.items_in_memory());
    }
    assert!(journal.sealed().len() > 100);
    assert!(most[1] <= most[0] + most[0] / 10, "{most:?}");
    assert!(most[1] < 1_000, "{most:?}");
}

/// Readers work beside the writer and see only what is durable.
#[test]
fn readers_run_beside_the_writer() {
    let disk = CrashDisk::new();
    let mut journal = open(disk).unwrap().journal;
    let reader = journal.reader();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let reader = reader.clone();
                scope.spawn(move || {
                    let mut from = 0;
                    while from < 1_000 {
                        let (events, next) =
                            reader.fetch(&range(1, from, 1_000, 50, 5_000)).unwrap();
                        for event in &events {
                            assert_eq!(event.offset.0, from);
                            assert_eq!(event.body, body(from + 1_000, 80));
                            from += 1;
                        }
                        // The range was not durable up to its end yet: go on where it ended.
                        assert!(next.0 == from || next.0 == 1_000);
                        std::thread::yield_now();
                    }
                })
            })
            .collect();
        for i in 0..1_000u64 {
            if journal.space().wants_roll {
                roll(&mut journal, vec![]).unwrap();
            }
            append(&mut journal, vec![published(i, vec![event(1, i, 80)])]).unwrap();
            if i % 100 == 99 {
                let oldest = journal.sealed().first().map(|s| s.segment);
                if let Some(oldest) = oldest {
                    journal.compact_segment(oldest, &mut |_, r| !r.events().is_empty()).unwrap();
                }
            }
        }
        for reader in readers {
            reader.join().unwrap();
        }
    });
}
