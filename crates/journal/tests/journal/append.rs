//! The main path: make, append, close, open again, read.

use std::sync::Arc;

use crate::support::*;
use handfast_core::ids::{Lsn, Offset, StoreId, TopicId};
use handfast_core::record::Record;
use handfast_journal::files::crash::CrashDisk;
use handfast_journal::files::{Directory, Files};
use handfast_journal::{Error, Group, Journal};

#[test]
fn a_new_store_holds_an_empty_checkpoint_and_its_opening() {
    let disk = CrashDisk::new();
    let opening = open(disk.clone()).unwrap();
    let kinds: Vec<_> = opening.applied.iter().map(|(lsn, r)| (lsn.0, &**r)).collect();
    assert!(matches!(kinds[0], (1, Record::CheckpointStart(_))));
    assert!(matches!(kinds[1], (2, Record::CheckpointEnd)));
    assert!(
        matches!(kinds[2], (3, Record::Opened(o)) if o.epoch == 1 && o.store == STORE && o.opening == OPENING)
    );
    assert_eq!(kinds.len(), 3);
    assert_eq!(opening.recovered.next_lsn, Lsn(4));
    assert!(opening.recovered.created);
    assert_eq!(disk.list().unwrap(), ["0000000001.log", "LOCK", "store"]);
}

#[test]
fn what_was_appended_is_there_again() {
    let disk = CrashDisk::new();
    let mut log = open(disk.clone()).unwrap().applied;
    for opening in 0..5u64 {
        let Opening { mut journal, recovered, applied } = open(disk.clone()).unwrap();
        assert_eq!(recovered.epoch as u64, opening + 2);
        assert_eq!(recovered.store, STORE);
        assert_eq!(recovered.dropped_bytes, 0);
        assert_eq!(applied[..applied.len() - 1], log);
        log = applied;
        for group in 0..10u64 {
            let records = (0..=group % 3)
                .map(|i| published(NOW + group, vec![event(1, opening * 100 + group * 3 + i, 100)]))
                .collect();
            log.extend(append(&mut journal, records).unwrap());
        }
        let reader = journal.reader();
        for (lsn, record) in &log {
            assert_eq!(reader.record(*lsn).unwrap().as_ref(), Some(record));
        }
        assert_eq!(reader.record(journal.next_lsn()).unwrap(), None);
        assert_eq!(reader.record(Lsn(0)).unwrap(), None);
    }
}

#[test]
fn rolling_seals_and_recovery_begins_with_the_newest_checkpoint() {
    let disk = CrashDisk::new();
    let mut journal = open(disk.clone()).unwrap().journal;
    let mut all = Vec::new();
    let mut since_checkpoint = Vec::new();
    for i in 0..200u64 {
        if journal.space().wants_roll {
            since_checkpoint = roll(&mut journal, vec![]).unwrap();
            all.extend(since_checkpoint.clone());
        }
        let log = append(&mut journal, vec![published(NOW + i, vec![event(3, i, 300)])]).unwrap();
        all.extend(log.clone());
        since_checkpoint.extend(log);
    }
    // A segment of 16 KiB is full with 39 or 40 of these groups, so that five have 197 of them and the
    // sixth the last three. Eight bytes less in each, as before a batch had a digest, and five
    // would hold them all.
    let events: Vec<u64> = journal.sealed().iter().map(|s| s.topics[0].events).collect();
    assert!(events.iter().all(|in_it| matches!(in_it, 39 | 40)), "{events:?}");
    assert_eq!(events.iter().sum::<u64>(), 197);
    assert_eq!(journal.segments(), [1, 2, 3, 4, 5, 6]);
    drop(journal);
    let Opening { journal, recovered, mut applied } = open(disk.clone()).unwrap();
    assert_eq!(recovered.segments, [1, 2, 3, 4, 5, 6]);
    assert!(recovered.rebuilt_indexes.is_empty());
    applied.pop();
    assert_eq!(applied, since_checkpoint);
    let reader = journal.reader();
    for (lsn, record) in &all {
        assert_eq!(reader.record(*lsn).unwrap().as_ref(), Some(record), "{lsn}");
    }
    let events = all_events(&reader, 3, 200).unwrap();
    assert_eq!(events.len(), 200);
    let summary = &journal.sealed()[1];
    assert_eq!(summary.segment, 2);
    assert_eq!(summary.topics[0].topic, TopicId(3));
    assert_eq!(summary.topics[0].newest_ms, NOW + summary.topics[0].last.0);
    assert_eq!(reader.offset_at(TopicId(3), NOW + 70).unwrap(), Some(Offset(70)));
    assert_eq!(reader.offset_at(TopicId(3), NOW + 199).unwrap(), Some(Offset(199)));
    assert_eq!(reader.offset_at(TopicId(3), 0).unwrap(), Some(Offset(0)));
    assert_eq!(reader.offset_at(TopicId(3), NOW + 200).unwrap(), None);
    assert_eq!(reader.offset_at(TopicId(4), 0).unwrap(), None);
}

#[test]
fn two_openers_are_one_too_many() {
    let disk = CrashDisk::new();
    let first = open(disk.clone()).unwrap();
    assert!(matches!(open(disk.clone()), Err(Error::Locked)));
    drop(first);
    assert!(open(disk).is_ok());
}

#[test]
fn a_foreign_directory_is_left_alone() {
    let disk = CrashDisk::new();
    disk.create("PG_VERSION").unwrap().write_at(b"15", 0).unwrap();
    let before = disk.snapshot().everything();
    let Err(error) = open(disk.clone()) else { panic!("it is not a store") };
    assert!(matches!(&error, Error::NotAStore { name } if name == "PG_VERSION"), "{error}");
    assert_eq!(disk.snapshot().everything(), before);
}

#[test]
fn a_large_group_becomes_several_frames() {
    let disk = CrashDisk::new();
    let mut journal = open(disk.clone()).unwrap().journal;
    let records = (0..5).map(|i| published(NOW, vec![event(1, i, 7 << 20)])).collect();
    let syncs = disk.syncs();
    let log = append(&mut journal, records).unwrap();
    assert_eq!(disk.syncs() - syncs, 3);
    drop(journal);
    let opening = open(disk).unwrap();
    assert_eq!(opening.applied[3..8], log);
}

#[test]
fn a_large_checkpoint_is_whole_or_not_there() {
    let disk = CrashDisk::new();
    let mut journal = open(disk.clone()).unwrap().journal;
    let items = |n: u64| {
        let mut items = local_items(1, &[n]);
        items.events[0].body = body(n, 6 << 20);
        restated(begin(id(NOW, n), NOW, false, Some(items)), Lsn(n), Lsn(n))
    };
    let log = roll(&mut journal, (0..6).map(items).collect()).unwrap();
    assert!(!journal.space().wants_roll);
    drop(journal);
    let opening = open(disk).unwrap();
    assert_eq!(opening.applied[..opening.applied.len() - 1], log);
}

#[test]
#[should_panic(expected = "record 9 where 4 is due")]
fn a_hole_is_a_bug() {
    let mut journal = open(CrashDisk::new()).unwrap().journal;
    let records = vec![(Lsn(9), published(0, vec![]))];
    drop(journal.append(&Group { records, roll: false }));
}

#[test]
fn an_empty_group_is_nothing() {
    let disk = CrashDisk::new();
    let mut journal = open(disk.clone()).unwrap().journal;
    let calls = disk.calls();
    journal.append(&Group::default()).unwrap();
    assert_eq!(disk.calls(), calls);
}

#[test]
fn a_real_directory_works_the_same() {
    let path = std::env::temp_dir().join(format!("handfast-journal-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&path));
    let files = || Arc::new(Directory::open(&path).unwrap());
    let Opening { mut journal, applied, .. } = open_with(files(), options()).unwrap();
    assert!(matches!(open_with(files(), options()), Err(Error::Locked)));
    let mut log = applied;
    for i in 0..100u64 {
        if journal.space().wants_roll {
            log = roll(&mut journal, vec![]).unwrap();
        }
        log.extend(append(&mut journal, vec![published(i, vec![event(1, i, 400)])]).unwrap());
    }
    assert!(journal.reserve(100_000).unwrap().free >= 100_000);
    drop(journal);
    let mut bytes = (0, 0);
    let mut applied = Vec::new();
    let (journal, _) = Journal::open(
        files(),
        options(),
        &mut |_| NOW,
        StoreId(0),
        OPENING,
        &mut |progress| bytes = (progress.done, progress.total),
        &mut |lsn, record| applied.push((lsn, record)),
    )
    .unwrap();
    assert!(bytes.0 > 0 && bytes.0 == bytes.1);
    applied.pop();
    assert_eq!(applied, log);
    assert_eq!(all_events(&journal.reader(), 1, 100).unwrap().len(), 100);
    drop(journal);
    std::fs::remove_dir_all(&path).unwrap();
}
