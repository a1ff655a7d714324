//! The world fails: at every call in turn, in every way. Nothing acknowledged is lost, nothing is
//! retried, and want of room is a refusal after which everything goes on.

use std::sync::{Arc, Mutex};

use crate::support::history::{Model, Shared, drive, lock};
use crate::support::*;
use handfast_core::ids::Lsn;
use handfast_journal::files::Files;
use handfast_journal::files::crash::{CrashDisk, Fault};
use handfast_journal::{Error, Group};

/// Plants one fault at each call of a history, and looks at what a power cut, or the death of the
/// process, leaves then.
#[test]
fn a_fault_at_any_call_loses_nothing() {
    let seed = 11;
    let steps = 70;
    let disk = CrashDisk::new();
    drive(&disk, &Shared::default(), seed, steps).unwrap();
    let calls = disk.calls();
    assert!(calls > 400, "{calls}");
    let images = Mutex::new(0);
    let mut failed = 0;
    for fault in [Fault::Io, Fault::ShortWrite, Fault::FailedSync, Fault::NoSpace] {
        for call in 0..calls {
            let disk = CrashDisk::new();
            let model = Shared::default();
            disk.fail_at(call, fault);
            let done = drive(&disk, &model, seed, steps);
            failed += u32::from(done.is_err());
            if let Err(e) = &done {
                let clean = matches!(e, Error::NoSpace { .. });
                assert!(fault == Fault::NoSpace || !clean, "{fault:?} at {call}: {e}");
                // A sealed segment that cannot be read is damaged, and ends nobody else.
                assert!(!matches!(e, Error::Corrupt(_)), "{fault:?} at {call}: {e}");
            }
            let model = Model { opening: true, ..lock(&model).clone() };
            disk.heal();
            let snapshot = disk.snapshot();
            model.check(snapshot.synced_only(), call, 0, &images);
            model.check(snapshot.everything(), call, 0, &images);
            model.check(snapshot.random(call), call, 0, &images);
        }
    }
    assert!(failed > 1000, "{failed}");
}

#[test]
fn a_failed_append_poisons_for_good() {
    for fault in [Fault::Io, Fault::ShortWrite, Fault::FailedSync] {
        for call in 0..2 {
            let disk = CrashDisk::new();
            let mut journal = open(disk.clone()).unwrap().journal;
            let kept = append(&mut journal, vec![published(1, vec![])]).unwrap();
            disk.fail_at(disk.calls() + call, fault);
            let lost = append(&mut journal, vec![published(2, vec![])]);
            assert!(matches!(lost, Err(Error::Io { .. })), "{fault:?} {call}");
            let calls = disk.calls();
            assert!(matches!(
                append(&mut journal, vec![published(3, vec![])]),
                Err(Error::Poisoned)
            ));
            assert!(matches!(journal.reserve(1), Err(Error::Poisoned)));
            assert!(matches!(journal.drop_segment(1), Err(Error::Poisoned)));
            assert!(matches!(journal.compact_segment(1, &mut |_, _| true), Err(Error::Poisoned)));
            assert_eq!(disk.calls(), calls, "a poisoned journal leaves the disk alone");
            // Readers go on with what is durable.
            let reader = journal.reader();
            assert_eq!(reader.durable(), kept[0].0);
            assert_eq!(reader.record(kept[0].0).unwrap().as_ref(), Some(&kept[0].1));
            assert_eq!(reader.record(Lsn(kept[0].0.0 + 1)).unwrap(), None);
        }
    }
}

/// After a failed sync the page cache holds the group, and the disk may not. What the next opening
/// reads from the cache must be on the disk before anything follows from it.
#[test]
fn what_was_read_from_the_cache_is_made_durable() {
    let disk = CrashDisk::new();
    let mut journal = open(disk.clone()).unwrap().journal;
    disk.fail_at(disk.calls() + 1, Fault::FailedSync);
    let lost = published(1, vec![event(1, 1, 3000)]);
    assert!(append(&mut journal, vec![lost.clone()]).is_err());
    drop(journal);
    // The process dies and starts again; the machine goes on.
    let mut opening = open(disk.clone()).unwrap();
    let seen = opening.applied.iter().any(|(_, record)| *record == lost);
    assert!(seen, "the cache has it");
    let next = append(&mut opening.journal, vec![published(2, vec![])]).unwrap();
    // Then the power fails.
    let opening = open(disk.snapshot().synced_only().into_disk()).unwrap();
    assert!(opening.applied.iter().any(|(_, record)| *record == lost), "it was read before");
    assert!(opening.applied.contains(&next[0]));
}

#[test]
fn no_room_is_a_refusal_and_nothing_more() {
    let disk = CrashDisk::new();
    let mut journal = open(disk.clone()).unwrap().journal;
    disk.set_capacity(Some(disk.used() + 10_000));
    let mut log = Vec::new();
    let refused = loop {
        let group = vec![published(1, vec![event(1, log.len() as u64, 700)])];
        match append(&mut journal, group) {
            Ok(records) => log.extend(records),
            Err(e) => break e,
        }
        assert!(log.len() < 1000);
    };
    assert!(refused.is_no_space(), "{refused}");
    assert!(journal.space().low);
    // Nothing was reserved that was not there, nothing was written, and a roll is refused too.
    let space = journal.reserve(100_000).unwrap();
    assert!(space.free < 100_000 && space.low);
    let big = (0..20).map(|n| {
        let items = local_items(1, &[n; 20]);
        restated(begin(id(NOW, n), NOW, false, Some(items)), Lsn(n + 1), Lsn(n + 1))
    });
    let rolled = roll(&mut journal, big.collect());
    assert!(rolled.is_err_and(|e| e.is_no_space()));
    assert!(append(&mut journal, vec![published(2, vec![event(1, 999, 700)])]).is_err());
    // What was preallocated can still be used.
    let free = journal.space().free;
    if free > 300 {
        log.extend(append(&mut journal, vec![published(3, vec![])]).unwrap());
    }
    // There is room again, and it goes on.
    disk.set_capacity(None);
    log.extend(append(&mut journal, vec![published(4, vec![event(1, 1000, 700)])]).unwrap());
    assert!(journal.reserve(100_000).unwrap().free >= 100_000);
    assert!(!journal.space().low);
    drop(journal);
    let applied = open(disk).unwrap().applied;
    assert_eq!(applied[3..applied.len() - 1], log);
}

#[test]
fn a_reserve_survives_a_roll() {
    let disk = CrashDisk::new();
    let mut journal = open(disk.clone()).unwrap().journal;
    journal.reserve(50_000).unwrap();
    let free = journal.space().free;
    roll(&mut journal, vec![]).unwrap();
    assert!(journal.space().free >= free);
    disk.set_capacity(Some(disk.used()));
    let calls = disk.calls();
    while journal.space().free > 2_000 {
        append(&mut journal, vec![published(1, vec![event(1, 1, 1_500)])]).unwrap();
    }
    assert!(disk.calls() > calls);
}

#[test]
fn a_limit_of_the_store_counts_like_a_full_disk() {
    let disk = CrashDisk::new();
    let limited = options().with_max_store_bytes(Some(40 << 10));
    let mut journal = open_with(Arc::new(disk), limited).unwrap().journal;
    let mut low_at = None;
    for i in 0..1000u64 {
        if journal.space().wants_roll {
            roll(&mut journal, vec![]).unwrap();
        }
        if journal.space().low {
            low_at.get_or_insert(i);
        }
        match append(&mut journal, vec![published(1, vec![event(1, i, 900)])]) {
            Ok(_) => {}
            Err(e) => {
                assert!(e.is_no_space());
                assert!(low_at.is_some_and(|low| low < i), "low comes before the refusal");
                return;
            }
        }
    }
    panic!("the limit was not kept");
}

/// Opening needed room for the whole newest segment once more: a store that had filled its disk could
/// not be opened, and so nothing in it could be deleted. Now it is made durable where it is, and a power
/// cut on the way leaves what was there, the torn end of a group included or not.
#[test]
fn a_store_on_a_full_disk_opens_whatever_the_power_does() {
    let disk = CrashDisk::new();
    let mut journal = open(disk.clone()).unwrap().journal;
    let mut log = Vec::new();
    for i in 0..9 {
        log.extend(append(&mut journal, vec![published(1, vec![event(1, i, 3_000)])]).unwrap());
    }
    journal.reserve(8_000).unwrap();
    disk.fail_next(Fault::ShortWrite);
    let torn = append(&mut journal, vec![published(1, vec![event(1, 9, 7_000)])]);
    assert!(matches!(torn, Err(Error::Io { .. })));
    drop(journal);
    disk.set_capacity(Some(disk.used()));
    let snapshots = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&snapshots);
    disk.before_each_sync(move |snapshot| seen.lock().unwrap().push(snapshot.clone()));
    // The first opening of a full disk, and the second.
    for _ in 0..2 {
        let opening = open(disk.clone()).unwrap();
        assert_eq!(opening.applied[3..3 + log.len()], log);
        assert!(opening.journal.space().free > 0);
    }
    let snapshots = snapshots.lock().unwrap().clone();
    assert!(snapshots.len() >= 4, "{}", snapshots.len());
    for (n, snapshot) in snapshots.iter().enumerate() {
        let random = (0..200).map(|seed| snapshot.random(seed));
        let images = [snapshot.synced_only(), snapshot.everything()].into_iter().chain(random);
        for image in images {
            let applied = open(image.into_disk()).unwrap_or_else(|e| panic!("{n}: {e}")).applied;
            assert_eq!(applied[3..3 + log.len()], log, "{n}");
        }
    }
    // It is not torn any more, and it goes on.
    let mut opening = open(disk.clone()).unwrap();
    assert_eq!(opening.recovered.dropped_bytes, 0);
    let next = append(&mut opening.journal, vec![published(2, vec![])]).unwrap();
    drop(opening);
    assert!(open(disk).unwrap().applied.contains(&next[0]));
}

/// The same as [`what_was_read_from_the_cache_is_made_durable`], without room for a copy.
#[test]
fn what_was_read_from_the_cache_is_made_durable_on_a_full_disk_too() {
    let disk = CrashDisk::new();
    let mut journal = open(disk.clone()).unwrap().journal;
    journal.reserve(8_000).unwrap();
    disk.fail_at(disk.calls() + 1, Fault::FailedSync);
    let lost = published(1, vec![event(1, 1, 3000)]);
    assert!(append(&mut journal, vec![lost.clone()]).is_err());
    drop(journal);
    disk.set_capacity(Some(disk.used()));
    let opening = open(disk.clone()).unwrap();
    assert!(opening.applied.iter().any(|(_, record)| *record == lost), "the cache has it");
    let opening = open(disk.snapshot().synced_only().into_disk()).unwrap();
    assert!(opening.applied.iter().any(|(_, record)| *record == lost), "it was read before");
}

#[test]
fn a_segment_that_was_made_ready_needs_nothing_of_the_disk() {
    let disk = CrashDisk::new();
    let mut journal = open(disk.clone()).unwrap().journal;
    assert_eq!(journal.space().next, 0);
    journal.reserve(29_000).unwrap();
    assert!(journal.prepare(30_000).unwrap().next >= 30_000);
    disk.set_capacity(Some(disk.used()));
    roll(&mut journal, vec![]).unwrap();
    let space = journal.space();
    assert!(space.next == 0 && space.free >= 29_000, "{space:?}");
    // The old one gave its room back, so there is some for another.
    assert!(journal.prepare(2_000).unwrap().next >= 2_000);
    // What was accepted has precedence over it.
    while append(&mut journal, vec![published(1, vec![event(1, 1, 1_500)])]).is_ok() {}
    assert_eq!(journal.space().next, 0);
    disk.set_capacity(None);
    let kept = append(&mut journal, vec![published(2, vec![])]).unwrap();
    drop(journal);
    assert!(open(disk).unwrap().applied.contains(&kept[0]));
}

/// A checkpoint took less than it might have, and the room for the rest of it stayed in the segment
/// for as long as that was written.
#[test]
fn what_a_checkpoint_does_not_take_is_given_back() {
    let disk = CrashDisk::new();
    let mut journal = open(disk.clone()).unwrap().journal;
    let free = journal.reserve(2_000).unwrap().free;
    journal.prepare(1 << 20).unwrap();
    let before = disk.used();
    roll(&mut journal, vec![]).unwrap();
    let space = journal.space();
    assert!((free..10_000).contains(&space.free), "{space:?}");
    assert!(disk.used() + (1 << 20) < before + 10_000, "{} of {before}", disk.used());
    drop(journal);
    open(disk).unwrap();
}

/// Somebody removed the newest segment, or the whole directory, and the server went on to acknowledge
/// what it wrote to a file without a name: all of it was gone with the process (I5).
#[test]
fn nothing_is_acknowledged_in_a_file_that_has_no_name() {
    let disk = CrashDisk::new();
    let mut journal = open(disk.clone()).unwrap().journal;
    append(&mut journal, vec![published(1, vec![])]).unwrap();
    disk.remove("0000000001.log").unwrap();
    let written = append(&mut journal, vec![published(2, vec![])]);
    assert!(matches!(written, Err(Error::Removed { .. })), "{written:?}");
    assert!(matches!(journal.look(), Err(Error::Poisoned)));

    for name in ["0000000001.log", "LOCK"] {
        let disk = CrashDisk::new();
        let mut journal = open(disk.clone()).unwrap().journal;
        journal.look().unwrap();
        disk.remove(name).unwrap();
        disk.create(name).unwrap();
        let looked = journal.look();
        assert!(matches!(looked, Err(Error::Removed { .. })), "{name}: {looked:?}");
    }
}

#[test]
fn the_hook_and_the_counters_tell_what_happened() {
    let disk = CrashDisk::new();
    let mut journal = open(disk.clone()).unwrap().journal;
    let (calls, syncs) = (disk.calls(), disk.syncs());
    journal
        .append(&Group { records: placed(&journal, vec![published(1, vec![])]), roll: false })
        .unwrap();
    assert_eq!(disk.calls() - calls, 2, "one write and one sync");
    assert_eq!(disk.syncs() - syncs, 1);
}
