//! Torn tails, flipped bits, zeroed pages: refused, or exactly the last group is cut off, or
//! nothing that was written is touched (I17).

use std::sync::Arc;

use crate::support::*;
use handfast_core::ids::Lsn;
use handfast_core::record::Record;
use handfast_journal::files::crash::{CrashDisk, Image};
use handfast_journal::{Error, check};

/// A journal of several segments and openings, and its records.
fn small_journal() -> (Image, Vec<Arc<Record>>) {
    let disk = CrashDisk::new();
    let mut records: Vec<Arc<Record>> = Vec::new();
    let mut keep = |log: Log| records.extend(log.into_iter().map(|(_, record)| record));
    let Opening { mut journal, applied, .. } = open(disk.clone()).unwrap();
    keep(applied);
    for i in 0..110u64 {
        if journal.space().wants_roll {
            keep(roll(&mut journal, vec![]).unwrap());
        }
        if i == 57 || i == 107 {
            drop(journal);
            let opening = open(disk.clone()).unwrap();
            keep(vec![opening.applied.last().unwrap().clone()]);
            journal = opening.journal;
        }
        let events = (0..=i % 2).map(|n| event(n as u32, i * 2 + n, 250 + i as usize));
        keep(append(&mut journal, vec![published(NOW + i, events.collect())]).unwrap());
    }
    drop(journal);
    let image = disk.snapshot().everything();
    let bytes: usize = image.names().iter().filter_map(|n| image.bytes(n)).map(|b| b.len()).sum();
    assert!(bytes > 64 << 10, "{bytes}");
    (image, records)
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum Verdict {
    /// Everything is there.
    Harmless,
    /// All but the last group is there.
    Cut,
    /// It does not open.
    Refused,
    /// It opens, but a record could not be read and that was said.
    ReadRefused,
}

/// Opens what is left and compares all of it. Panics at any wrong answer.
/// Single records are looked up with this `stride`; events are always all read.
fn judge(image: &Image, records: &[Arc<Record>], last_group: usize, stride: usize) -> Verdict {
    let disk = image.clone().into_disk();
    let opening = match open(disk.clone()) {
        Ok(opening) => opening,
        Err(e) => {
            assert!(e.is_corrupt() || matches!(e, Error::Format { .. }), "{e}");
            let after = disk.snapshot().everything();
            assert_eq!(&after, image, "a refusal changes nothing");
            return Verdict::Refused;
        }
    };
    let there = opening.recovered.next_lsn.0 as usize - 2;
    assert!(there == records.len() || there == records.len() - last_group, "{there} records");
    let reader = opening.journal.reader();
    let mut refused = false;
    for (i, record) in records[..there].iter().enumerate().step_by(stride) {
        match reader.record(Lsn(i as u64 + 1)) {
            Ok(found) => assert_eq!(found.as_ref(), Some(record), "record {}", i + 1),
            Err(e) => {
                assert!(e.is_corrupt(), "{e}");
                refused = true;
            }
        }
    }
    for topic in 0..2 {
        let written = || records[..there].iter().flat_map(|r| r.events());
        let expected: Vec<_> = written().filter(|e| e.topic.0 == topic).collect();
        match all_events(&reader, topic, 400) {
            Ok(events) => {
                assert_eq!(events.len(), expected.len());
                for (found, expected) in events.iter().zip(expected) {
                    assert_eq!(found.offset, expected.offset);
                    assert_eq!(handfast_core::event::Body::Here(found.body.clone()), expected.body);
                }
            }
            Err(e) => {
                assert!(e.is_corrupt(), "{e}");
                refused = true;
            }
        }
    }
    match (refused, there == records.len()) {
        (true, _) => Verdict::ReadRefused,
        (false, true) => Verdict::Harmless,
        (false, false) => Verdict::Cut,
    }
}

/// Which bits of a file are flipped: all of what is read when the store opens (the store file,
/// the newest segment, every header), one in each byte of other segments, fewer in the indexes; with `HANDFAST_EVERY_BIT` set,
/// all there are.
fn bits(name: &str, bytes: &[u8], newest: &str) -> Vec<(usize, u8)> {
    let end = bytes.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1);
    let every = std::env::var_os("HANDFAST_EVERY_BIT").is_some();
    let mut bits = Vec::new();
    for at in 0..bytes.len() {
        let all = every || at < 96 || (name == newest && at < end) || name == "store";
        if all {
            bits.extend((0..8).map(|bit| (at, bit)));
        } else if !name.ends_with(".idx") || at % 4 == 0 {
            bits.push((at, (at / 4 % 8) as u8));
        }
    }
    bits
}

#[test]
fn every_flipped_bit_is_found_or_harmless() {
    let (image, records) = small_journal();
    assert_eq!(judge(&image, &records, 1, 1), Verdict::Harmless);
    let newest = image.names().into_iter().filter(|n| n.ends_with(".log")).max().unwrap();
    let names = image.names();
    let mut flips = Vec::new();
    for name in &names {
        let bytes = image.bytes(name).unwrap();
        flips.extend(bits(name, &bytes, &newest).into_iter().map(|(at, bit)| (name, at, bit)));
    }
    let flip = |(name, at, bit): &(&String, usize, u8)| {
        let mut flipped = image.bytes(name).unwrap();
        flipped[*at] ^= 1 << bit;
        let mut damaged = image.clone();
        damaged.replace(name, &flipped);
        let verdict = judge(&damaged, &records, 1, 1 + at % 29);
        let what = format!("{name} byte {at} bit {bit}: {verdict:?}");
        if name.ends_with(".idx") {
            assert_eq!(verdict, Verdict::Harmless, "{what}");
        }
        assert!(verdict != Verdict::Cut || **name == newest, "{what}");
        (name.to_string(), verdict)
    };
    let flip = &flip;
    let halves = flips.chunks(flips.len().div_ceil(2));
    let verdicts: Vec<_> = std::thread::scope(|scope| {
        let halves: Vec<_> = halves
            .map(|half| scope.spawn(move || half.iter().map(flip).collect::<Vec<_>>()))
            .collect();
        halves.into_iter().flat_map(|half| half.join().unwrap()).collect()
    });
    let mut counts = std::collections::BTreeMap::new();
    for verdict in verdicts {
        *counts.entry(verdict).or_insert(0u32) += 1;
    }
    println!("{counts:#?}");
    assert!(counts.contains_key(&(newest.clone(), Verdict::Cut)));
    assert!(counts.contains_key(&(newest, Verdict::Refused)));
}

#[test]
fn a_tail_torn_at_any_byte_is_dropped_as_a_whole() {
    let disk = CrashDisk::new();
    let mut journal = open(disk.clone()).unwrap().journal;
    append(&mut journal, vec![published(1, vec![event(1, 1, 100)])]).unwrap();
    let before = disk.snapshot().everything();
    let group = |n: u64| published(n, vec![event(1, n, 150), event(2, n, 90)]);
    let last = append(&mut journal, vec![group(2), group(3)]).unwrap();
    let after = disk.snapshot().everything();
    drop(journal);
    let name = "0000000001.log";
    let (old, new) = (before.bytes(name).unwrap(), after.bytes(name).unwrap());
    let from = (0..new.len()).find(|i| old.get(*i).copied().unwrap_or(0) != new[*i]).unwrap();
    let to = new.iter().rposition(|b| *b != 0).unwrap() + 1;
    assert!(to - from > 500);
    for cut in from..=to {
        // The rest is zeros, or what a disk may have there, or the file ends.
        for (kind, filler) in [Some(0u8), Some(0xff), None].into_iter().enumerate() {
            let mut bytes = new[..cut].to_vec();
            if let Some(filler) = filler {
                bytes.resize(new.len(), filler);
            }
            let mut image = after.clone();
            image.replace(name, &bytes);
            let opening = open(image.into_disk()).unwrap();
            let next = opening.recovered.next_lsn.0;
            // Padding at the end may be missing only in part of zeros.
            let whole = bytes.len() >= to.next_multiple_of(8)
                && bytes[..to] == new[..to]
                && bytes[to..to.next_multiple_of(8)].iter().all(|b| *b == 0);
            let expected = if whole { last[1].0.0 + 2 } else { last[0].0.0 + 1 };
            assert_eq!(next, expected, "cut at {cut} of {from}..{to}, kind {kind}");
            if !whole && cut > from && kind == 0 {
                assert!(opening.recovered.dropped_bytes > 0);
            }
        }
    }
}

#[test]
fn a_zeroed_page_in_acknowledged_data_is_refused_with_its_position() {
    let disk = CrashDisk::new();
    let big = options().with_segment_bytes(1 << 20);
    let mut journal = open_with(Arc::new(disk.clone()), big).unwrap().journal;
    for i in 0..100u64 {
        append(&mut journal, vec![published(i, vec![event(1, i, 500)])]).unwrap();
    }
    let image = disk.snapshot().everything();
    let name = "0000000001.log";
    let bytes = image.bytes(name).unwrap();
    for page in 1..10 {
        let mut damaged = bytes.clone();
        damaged[page * 4096..(page + 1) * 4096].fill(0);
        let mut image = image.clone();
        image.replace(name, &damaged);
        let disk = image.into_disk();
        match open(disk.clone()) {
            Err(Error::Corrupt(corruption)) => {
                assert_eq!(corruption.file, name);
                let position = corruption.position;
                let range = (page as u64 * 4096).saturating_sub(700)..(page as u64 + 1) * 4096;
                assert!(range.contains(&position), "{corruption}");
            }
            Err(e) => panic!("{e}"),
            Ok(_) => panic!("page {page} is gone and nobody noticed"),
        }
        let report = check(&disk, &mut |_| {}).unwrap();
        assert!(!report.is_sound());
    }
}

#[test]
fn a_missing_segment_is_refused() {
    let (image, _) = small_journal();
    let logs: Vec<_> = image.names().into_iter().filter(|n| n.ends_with(".log")).collect();
    for name in logs {
        let mut damaged = image.clone();
        damaged.remove(&name);
        let disk = damaged.clone().into_disk();
        let Err(e) = open(disk.clone()) else { panic!("{name} is missing") };
        assert!(e.is_corrupt() && e.to_string().contains(&name), "{e}");
        assert_eq!(disk.snapshot().everything(), damaged);
        assert!(!check(&disk, &mut |_| {}).unwrap().is_sound(), "{name}");
    }
}

#[test]
fn a_missing_store_file_is_refused() {
    let (mut image, _) = small_journal();
    image.remove("store");
    assert!(matches!(open(image.clone().into_disk()), Err(Error::Corrupt(_))));
    for name in image.names() {
        if name.ends_with(".idx") || name.ends_with(".log") && name != "0000000001.log" {
            image.remove(&name);
        }
    }
    assert!(matches!(open(image.into_disk()), Err(Error::Corrupt(_))));
}

#[test]
fn a_segment_of_another_store_is_refused() {
    let (mut image, _) = small_journal();
    let other = CrashDisk::new();
    let mut journal = handfast_journal::Journal::open(
        Arc::new(other.clone()),
        options(),
        &mut |_| NOW,
        handfast_core::ids::StoreId(77),
        OPENING,
        &mut |_| {},
        &mut |_, _| {},
    )
    .unwrap()
    .0;
    roll(&mut journal, vec![]).unwrap();
    let foreign = other.snapshot().everything();
    for name in ["0000000001.log", "0000000002.log"] {
        image.replace(name, &foreign.bytes(name).unwrap());
        assert!(open(image.clone().into_disk()).is_err_and(|e| e.is_corrupt()));
    }
}

/// Segments that are cut off where a frame ends are as damaged as others.
#[test]
fn a_shortened_sealed_segment_is_refused() {
    let (image, records) = small_journal();
    let name = "0000000002.log";
    let bytes = image.bytes(name).unwrap();
    for keep_index in [true, false] {
        for length in (0..bytes.len()).step_by(8) {
            let mut damaged = image.clone();
            damaged.replace(name, &bytes[..length]);
            if !keep_index {
                damaged.remove("0000000002.idx");
            }
            assert_eq!(judge(&damaged, &records, 1, 1), Verdict::Refused, "{length}");
        }
    }
}

#[test]
fn random_smashes_are_never_a_wrong_answer() {
    let (image, records) = small_journal();
    let mut random = Random(5);
    for _ in 0..5_000 {
        let mut damaged = image.clone();
        let names = damaged.names();
        for _ in 0..=random.below(2) {
            let name = &names[random.below(names.len() as u64) as usize];
            let mut bytes = damaged.bytes(name).unwrap();
            if bytes.is_empty() {
                continue;
            }
            let at = random.below(bytes.len() as u64) as usize;
            let length = (random.below(5000) as usize).min(bytes.len() - at);
            match random.below(4) {
                0 => bytes.truncate(at),
                1 => bytes[at..at + length].fill(0),
                2 => bytes[at..at + length].iter_mut().for_each(|b| *b = random.next() as u8),
                _ => bytes.copy_within(at..at + length, 0),
            }
            damaged.replace(name, &bytes);
        }
        // Damage that reaches the end of the newest segment may take more than one group: the
        // frames behind it that would prove it are damaged, too.
        let disk = damaged.clone().into_disk();
        if let Ok(opening) = open(disk) {
            let there = opening.recovered.next_lsn.0 as usize - 2;
            assert!(there <= records.len());
            let reader = opening.journal.reader();
            for (i, record) in records[..there].iter().enumerate() {
                match reader.record(Lsn(i as u64 + 1)) {
                    Ok(found) => assert_eq!(found.as_ref(), Some(record)),
                    Err(e) => assert!(e.is_corrupt(), "{e}"),
                }
            }
        }
    }
}

/// One old event that did not check ended the process, again and again, as often as somebody wanted
/// to read it. Now whoever wants to read it is told where it is, and everything else goes on (I17).
#[test]
fn damage_in_a_sealed_segment_is_for_its_reader_alone() {
    let (image, records) = small_journal();
    let name = "0000000002.log";
    let bytes = image.bytes(name).unwrap();
    for at in (200..bytes.len()).step_by(bytes.len() / 23) {
        let mut damaged = image.clone();
        let mut altered = bytes.clone();
        altered[at] ^= 0x20;
        damaged.replace(name, &altered);
        let mut journal = open(damaged.into_disk()).unwrap().journal;
        let reader = journal.reader();
        let mut lost = 0;
        for topic in 0..2 {
            let all = records.iter().flat_map(|r| r.events()).filter(|e| e.topic.0 == topic);
            let expected: Vec<_> = all.map(|e| e.offset).collect();
            let (mut from, mut read) = (0, Vec::new());
            while from < 400 {
                match reader.fetch(&range(topic, from, 400, 7, 1_000)) {
                    Ok((events, next)) => {
                        read.extend(events.iter().map(|e| e.offset));
                        assert!(next.0 > from, "a fetch makes progress");
                        from = next.0;
                    }
                    Err(Error::Unreadable(damage)) => {
                        assert_eq!((damage.segment, damage.why.file.as_str()), (2, name));
                        let events = damage.events.unwrap();
                        assert_eq!(events.topic.0, topic);
                        assert!(events.from.0 >= from && events.to > events.from, "{damage}");
                        let hit = |o: &&_| (events.from..events.to).contains(*o);
                        lost += expected.iter().filter(hit).count();
                        read.extend(expected.iter().filter(hit));
                        from = events.to.0;
                    }
                    Err(e) => panic!("{at}: {e}"),
                }
            }
            assert_eq!(read, expected, "{at}");
        }
        assert!(lost <= 3, "{at}: {lost} events");
        // What goes through all of them finds at least as much.
        let known = reader.damage().len();
        reader.check(&mut |_| true).unwrap();
        let damage = reader.damage();
        assert!(damage.len() >= known.max(1), "{at}: {damage:?}");
        assert!(damage.iter().all(|d| d.segment == 2), "{at}: {damage:?}");
        // It is not rewritten, and nothing else is in the way of anything.
        let compacted = journal.compact_segment(2, &mut |_, _| false);
        assert!(matches!(compacted, Err(Error::Unreadable(_))), "{at}: {compacted:?}");
        append(&mut journal, vec![published(NOW, vec![])]).unwrap();
        drop_segment(&mut journal, 2).unwrap();
        assert!(reader.damage().is_empty());
    }
}

/// A log that had lost its last groups as a whole, cut off or overwritten with zeros, looked like one
/// that never had them, and the banner said that they had never been acknowledged (I5, I17).
#[test]
fn an_end_that_was_durable_a_second_ago_is_missed() {
    let disk = CrashDisk::new();
    let mut journal = open(disk.clone()).unwrap().journal;
    let mut tails = Vec::new();
    for i in 0..6 {
        append(&mut journal, vec![published(1, vec![event(1, i, 300)])]).unwrap();
        tails.push(disk.snapshot().everything());
    }
    journal.look().unwrap();
    let marked = disk.snapshot().everything();
    append(&mut journal, vec![published(1, vec![event(1, 6, 300)])]).unwrap();
    drop(journal);
    let image = disk.snapshot().everything();
    let log = "0000000001.log";
    let whole = image.bytes(log).unwrap();
    let end = |image: &Image| {
        let bytes = image.bytes(log).unwrap();
        bytes.iter().rposition(|b| *b != 0).unwrap() + 1
    };
    for (kept, before) in tails.iter().enumerate() {
        let at = end(before).next_multiple_of(8);
        let zeroed: Vec<u8> =
            whole[..at].iter().copied().chain(vec![0; whole.len() - at]).collect();
        for (what, bytes) in [("cut", whole[..at].to_vec()), ("zeroed", zeroed)] {
            let mut damaged = image.clone();
            damaged.replace(log, &bytes);
            let opened = open(damaged.clone().into_disk());
            let report = check(&damaged.clone().into_disk(), &mut |_| {}).unwrap();
            // The last of those that were marked was zeroed: nobody can know of what came after it.
            let known = what == "cut" || at < end(&marked);
            assert_eq!(opened.is_err_and(|e| e.is_corrupt()), known, "{what} behind {kept}");
            assert_eq!(report.is_sound(), !known, "{what} behind {kept}");
            // Without the mark it is as before.
            damaged.remove("end");
            assert!(open(damaged.into_disk()).is_ok(), "{what} behind {kept}");
        }
    }
    // It goes on over rolls and openings, and whatever a power cut leaves of the mark.
    let mut opening = open(disk.clone()).unwrap();
    roll(&mut opening.journal, vec![]).unwrap();
    opening.journal.look().unwrap();
    for seed in 0..50 {
        open(disk.snapshot().random(seed).into_disk()).unwrap();
    }
}
