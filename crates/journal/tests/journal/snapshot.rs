//! A snapshot stays what it was while the journal goes on, and its copy is a whole store or none.

use std::sync::{Arc, Mutex};

use handfast_core::ids::Lsn;
use handfast_journal::files::Files;
use handfast_journal::files::crash::{CrashDisk, Fault};
use handfast_journal::{Error, Journal, Snapshot, check};

use crate::support::*;

/// A journal of several segments, one of them compacted, one dropped.
fn journal() -> (CrashDisk, Journal, u64) {
    let disk = CrashDisk::new();
    let mut journal = open(disk.clone()).unwrap().journal;
    fill(&mut journal, 0, 250);
    journal.compact_segment(2, &mut |lsn, _| !lsn.0.is_multiple_of(3)).unwrap();
    drop_segment(&mut journal, 1).unwrap();
    fill(&mut journal, 250, 300);
    (disk, journal, 300)
}

fn fill(journal: &mut Journal, from: u64, to: u64) {
    for i in from..to {
        if journal.space().wants_roll {
            roll(journal, vec![]).unwrap();
        }
        append(journal, vec![published(NOW + i, vec![event(3, i, 300)])]).unwrap();
    }
}

fn copy(snapshot: &Snapshot, to: &CrashDisk) -> Result<bool, Error> {
    snapshot.copy_to(to, &[], &mut |_| true)
}

#[track_caller]
fn assert_sound(disk: &CrashDisk, last: Lsn) {
    let report = check(disk, &mut |_| {}).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((report.last, report.torn_bytes), (last, 0), "{report:?}");
    assert!(report.stale_indexes.is_empty() && report.leftovers.is_empty(), "{report:?}");
}

#[test]
fn a_snapshot_stays_what_it_was() {
    let (_disk, mut journal, events) = journal();
    let snapshot = journal.snapshot().unwrap();
    let last = Lsn(journal.next_lsn().0 - 1);
    assert_eq!(snapshot.last(), Some(last));
    let reader = journal.reader();
    let before: Vec<_> = (1..=last.0).map(|lsn| reader.record(Lsn(lsn)).unwrap()).collect();

    // Everything that can happen to a segment.
    fill(&mut journal, events, events + 150);
    let sealed: Vec<u64> = journal.sealed().iter().map(|s| s.segment).collect();
    for segment in &sealed[1..] {
        journal.compact_segment(*segment, &mut |lsn, _| lsn.0.is_multiple_of(2)).unwrap();
    }
    drop_segment(&mut journal, sealed[0]).unwrap();

    let to = CrashDisk::new();
    let seen = Mutex::new(0);
    let copied = snapshot.copy_to(&to, &[("beside", b"mine")], &mut |progress| {
        assert!(progress.done <= progress.total && progress.total == snapshot.bytes());
        *seen.lock().unwrap() = progress.done;
        true
    });
    assert!(copied.unwrap());
    assert_eq!(*seen.lock().unwrap(), snapshot.bytes());
    assert_sound(&to, last);
    assert_eq!(to.snapshot().synced_only().bytes("beside").unwrap(), b"mine");
    let Opening { journal, recovered, .. } = open(to).unwrap();
    assert_eq!(recovered.store, snapshot.store());
    assert!(recovered.rebuilt_indexes.is_empty() && recovered.dropped_bytes == 0);
    let reader = journal.reader();
    for (lsn, record) in (1..).map(Lsn).zip(before) {
        assert_eq!(reader.record(lsn).unwrap(), record, "{lsn}");
    }
}

#[test]
fn a_store_that_nobody_has_open_is_copied_too() {
    let (disk, journal, _) = journal();
    let last = Lsn(journal.next_lsn().0 - 1);
    assert!(matches!(Snapshot::of(&disk), Err(Error::Locked)));
    drop(journal);
    let snapshot = Snapshot::of(&disk).unwrap();
    assert!(matches!(open(disk.clone()), Err(Error::Locked)), "opened while it is copied");
    let to = CrashDisk::new();
    assert!(copy(&snapshot, &to).unwrap());
    assert_sound(&to, last);
    assert!(matches!(Snapshot::of(&CrashDisk::new()), Err(Error::NoStore)));
}

#[test]
fn a_copy_that_is_cut_off_is_no_store() {
    let (_disk, journal, _) = journal();
    let snapshot = journal.snapshot().unwrap();
    let last = Lsn(journal.next_lsn().0 - 1);
    let counts = Arc::new(Mutex::new((0, 0)));
    let to = CrashDisk::new();
    let (count, mut sync) = (counts.clone(), 0);
    to.before_each_sync(move |at| {
        sync += 1;
        for image in [at.synced_only(), at.everything(), at.random(sync), at.random(sync + 500)] {
            let disk = image.into_disk();
            let is_store = check(&disk, &mut |_| {}).is_ok();
            if is_store {
                assert_sound(&disk, last);
            }
            let mut counts = count.lock().unwrap();
            counts.0 += u32::from(is_store);
            counts.1 += 1;
        }
    });
    assert!(copy(&snapshot, &to).unwrap());
    let (stores, images) = *counts.lock().unwrap();
    assert!(stores > 0 && images > 40 && stores < images / 4, "{stores} stores of {images}");
    to.before_each_sync(|_| {});
    // When it is said to be there it is durable.
    assert_sound(&to.snapshot().synced_only().into_disk(), last);
}

#[test]
fn a_copy_that_fails_leaves_nothing() {
    let (_disk, journal, _) = journal();
    let snapshot = journal.snapshot().unwrap();
    let whole = CrashDisk::new();
    assert!(copy(&snapshot, &whole).unwrap());
    for call in 0..whole.calls() {
        let to = CrashDisk::new();
        to.fail_at(call, Fault::Io);
        let failed = copy(&snapshot, &to);
        assert!(matches!(failed, Err(Error::Io { .. })), "call {call}: {failed:?}");
        assert_eq!(to.list().unwrap(), Vec::<String>::new(), "call {call}");
        assert!(copy(&snapshot, &to).unwrap(), "call {call}");
    }
    let full = CrashDisk::new();
    full.set_capacity(Some(snapshot.bytes() / 2));
    assert!(matches!(copy(&snapshot, &full), Err(Error::NoSpace { .. })));
    assert_eq!(full.list().unwrap(), Vec::<String>::new());

    let stopped = CrashDisk::new();
    let half = snapshot.bytes() / 2;
    assert!(!snapshot.copy_to(&stopped, &[], &mut |progress| progress.done < half).unwrap());
    assert_eq!(stopped.list().unwrap(), Vec::<String>::new());

    // What is in the way stays, be it a backup.
    let names = whole.list().unwrap();
    assert!(matches!(copy(&snapshot, &whole), Err(Error::NotEmpty { .. })));
    assert_eq!(whole.list().unwrap(), names);
}
