//! Finding what has ended since a time, against a naive model.

use std::sync::Arc;

use crate::support::*;
use handfast_core::ids::{Lsn, TransactionId};
use handfast_core::record::{End, Record};
use handfast_journal::files::crash::CrashDisk;
use handfast_journal::{Error, Journal, Reader};

/// What ended, with the place and the END.
type Ends = Vec<(Lsn, End)>;

/// Transactions that end in any order, every third one failed, among publishes; over many segments
/// and two openings.
fn ended_journal(disk: &CrashDisk) -> (Journal, Ends) {
    let mut journal = open(disk.clone()).unwrap().journal;
    let mut ends = Ends::new();
    let mut random = Random(5);
    let mut waiting: Vec<(TransactionId, Lsn)> = Vec::new();
    for round in 0..900u64 {
        if round == 400 {
            drop(journal);
            journal = open(disk.clone()).unwrap().journal;
        }
        // Several rounds share a millisecond.
        let wall_ms = NOW + round / 3 * 10;
        if journal.space().wants_roll {
            let state =
                waiting.iter().map(|(id, lsn)| restated(begin(*id, NOW, false, None), *lsn, *lsn));
            roll(&mut journal, state.collect()).unwrap();
        }
        // For a while there are only events: segments in which nothing ends.
        if (200..300).contains(&round) {
            append(&mut journal, vec![published(wall_ms, vec![event(1, round, 900)])]).unwrap();
            continue;
        }
        let id = id(wall_ms, random.next() >> 3);
        let begun = Arc::new(Record::Begin(begin(id, wall_ms, false, None)));
        let log = append(&mut journal, vec![begun]).unwrap();
        waiting.push((id, log[0].0));
        if waiting.len() > 20 {
            let (id, lsn) = waiting.swap_remove(random.below(20) as usize);
            let event = event(1, round, random.below(700) as usize);
            let mut records = vec![commit(id, lsn, wall_ms, vec![event])];
            let next = journal.next_lsn();
            let committed = round % 3 != 0;
            let Record::End(mut end) = Record::clone(&end(id, next, wall_ms)) else {
                unreachable!("an END was made")
            };
            end.committed = committed;
            records.push(Arc::new(Record::End(end.clone())));
            append(&mut journal, records).unwrap();
            ends.push((Lsn(next.0 + 1), end));
        }
    }
    assert!(journal.sealed().len() > 15);
    assert!(journal.sealed().iter().any(|s| s.ended == 0));
    (journal, ends)
}

fn all(
    reader: &Reader,
    since_ms: u64,
    wanted: &dyn Fn(&End) -> bool,
    most: usize,
) -> Vec<(Lsn, TransactionId)> {
    let (mut all, mut from) = (Vec::new(), None);
    loop {
        let page = reader.ended(from, since_ms, wanted, most).unwrap();
        assert!(page.found.len() <= most);
        all.extend(page.found);
        match page.next {
            Some(next) => {
                assert!(from.is_none_or(|before| next > before), "a page makes progress");
                from = Some(next);
            }
            None => return all,
        }
    }
}

fn compare(journal: &Journal, ends: &Ends) {
    let reader = journal.reader();
    let newest = ends.last().unwrap().1.wall_ms;
    let times = (0..60).map(|i| NOW - 1 + i * (newest + 20 - NOW) / 59);
    for since_ms in times.chain([0, newest, newest + 1, u64::MAX]) {
        for (most, failed) in [(1_000, false), (1_000, true), (7, false), (1, true)] {
            let wanted = |end: &End| !(failed && end.committed);
            let expected = ends.iter().filter(|(_, e)| e.wall_ms >= since_ms && wanted(e));
            let expected: Vec<_> = expected.map(|(lsn, end)| (*lsn, end.id)).collect();
            assert_eq!(all(&reader, since_ms, &wanted, most), expected, "since {since_ms}");
        }
    }
}

#[test]
fn what_ended_since_a_time_is_found() {
    let disk = CrashDisk::new();
    let (mut journal, mut ends) = ended_journal(&disk);
    compare(&journal, &ends);
    assert_eq!(journal.reader().ended(None, 0, &|_| true, 1).unwrap().removed_ms, None);

    // A cursor that is nobody's: from the record behind it, or nothing.
    let (third, _) = ends[3];
    let page = journal.reader().ended(Some(Lsn(third.0 + 1)), 0, &|_| true, 1).unwrap();
    assert_eq!(page.found, [(ends[4].0, ends[4].1.id)]);
    let page = journal.reader().ended(Some(Lsn(u64::MAX)), 0, &|_| true, 1).unwrap();
    assert_eq!((page.found, page.next), (vec![], None));

    // Compaction takes every other one out of a third of the segments, and of others all of them.
    let sealed = journal.sealed();
    for (number, summary) in sealed.iter().enumerate() {
        let inside = |lsn: Lsn| (summary.first..=summary.last).contains(&lsn);
        let gone = |lsn: Lsn| match number % 3 {
            0 => lsn.0.is_multiple_of(2),
            1 => number.is_multiple_of(2),
            _ => false,
        };
        journal.compact_segment(summary.segment, &mut |lsn, _| !gone(lsn)).unwrap();
        ends.retain(|(lsn, _)| !(inside(*lsn) && gone(*lsn)));
    }
    compare(&journal, &ends);
    let page = journal.reader().ended(None, 0, &|_| true, 1).unwrap();
    assert!(page.removed_ms.is_some_and(|at| at > NOW));

    // One segment is removed.
    let first = journal.sealed()[0].clone();
    ends.retain(|(lsn, _)| *lsn > first.last);
    drop_segment(&mut journal, first.segment).unwrap();
    compare(&journal, &ends);
    drop(journal);
    let journal = open(disk.clone()).unwrap().journal;
    compare(&journal, &ends);
    drop(journal);

    // The same without indexes, built again.
    let mut image = disk.snapshot().everything();
    for name in image.names() {
        if name.ends_with(".idx") {
            image.remove(&name);
        }
    }
    compare(&open(image.into_disk()).unwrap().journal, &ends);
}

/// What is asked for is near the end: little of the store is read.
#[test]
fn old_segments_are_not_read() {
    let disk = CrashDisk::new();
    let (journal, ends) = ended_journal(&disk);
    let calls = disk.calls();
    let newest = ends.last().unwrap().1.wall_ms;
    let page = journal.reader().ended(None, newest, &|_| true, 1_000).unwrap();
    assert!(!page.found.is_empty());
    assert!(disk.calls() - calls < 40, "{} calls", disk.calls() - calls);
}

/// One call reads a bounded part of the log, and says where to go on; also when it has found nothing.
#[test]
fn one_call_reads_a_bounded_part() {
    let disk = CrashDisk::new();
    let options = options().with_segment_bytes(64 << 20);
    let mut journal = open_with(Arc::new(disk), options).unwrap().journal;
    let first = id(NOW, 1);
    append(&mut journal, vec![end(first, Lsn(1), NOW)]).unwrap();
    for round in 0..9u64 {
        let events = (0..4).map(|n| event(1, round * 4 + n, 1 << 20)).collect();
        append(&mut journal, vec![published(NOW, events)]).unwrap();
    }
    let last = append(&mut journal, vec![end(id(NOW, 2), Lsn(1), NOW)]).unwrap()[0].0;
    let reader = journal.reader();
    let page = reader.ended(None, 0, &|_| true, 1_000).unwrap();
    assert_eq!(page.found.len(), 1);
    let next = page.next.unwrap();
    assert!(next < last);
    assert_eq!(reader.ended(Some(next), 0, &|_| false, 1_000).unwrap().found, []);
    assert_eq!(all(&reader, 0, &|_| true, 1_000).len(), 2);
}

/// Damage is refused where it is, and hides nothing: never "nothing ended".
#[test]
fn damage_is_said() {
    let disk = CrashDisk::new();
    let (journal, ends) = ended_journal(&disk);
    let sealed = journal.sealed();
    let number = sealed.iter().rposition(|s| s.ended > 5).unwrap();
    let summary = sealed[number].clone();
    drop(journal);
    let mut image = disk.snapshot().everything();
    let name = format!("{:010}.log", summary.segment);
    let mut bytes = image.bytes(&name).unwrap();
    let at = summary.bytes as usize / 2;
    bytes[at..at + 64].fill(0xee);
    image.replace(&name, &bytes);
    let journal = open(image.into_disk()).unwrap().journal;
    let reader = journal.reader();
    let before = summary.wall_ms.unwrap().0;
    let refused = reader.ended(None, before, &|_| true, 1_000).unwrap_err();
    assert!(matches!(refused, Error::Unreadable(_)), "{refused}");
    assert_eq!(reader.damage().len(), 1);
    // What is behind it is found.
    let expected = ends.iter().filter(|(lsn, _)| *lsn > summary.last).count();
    let mut found = 0;
    let mut from = Some(Lsn(summary.last.0 + 1));
    while let Some(at) = from {
        let page = reader.ended(Some(at), before, &|_| true, 1_000).unwrap();
        found += page.found.len();
        from = page.next;
    }
    assert!(found == expected && found > 0);
}
