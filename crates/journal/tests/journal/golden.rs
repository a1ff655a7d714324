//! A store that an earlier version wrote opens and means the same, or is refused as a whole.
//!
//! `fixtures/format-2` holds today's format. Until a version with it is released, a change of the
//! format writes it anew (remove it, and run with `HANDFAST_WRITE_FIXTURE=1`); from then on it is
//! never written again, and a new format gets a new number and a directory beside it.
//! `fixtures/format-1` is of a format that no release had: it is refused.

use std::path::Path;
use std::sync::Arc;

use crate::support::every::every_record;
use crate::support::*;
use handfast_core::ids::{Lsn, Offset};
use handfast_core::record::Record;
use handfast_journal::files::Files;
use handfast_journal::files::crash::CrashDisk;
use handfast_journal::{DumpItem, Error, check, dump};

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/format-2");
const REFUSED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/format-1");

/// The history of the fixture.
fn write(disk: &CrashDisk) -> Vec<Arc<Record>> {
    let Opening { mut journal, applied, .. } = open(disk.clone()).unwrap();
    let mut log = applied;
    let local = id(NOW, 1);
    let items = local_items(1, &[5, 6]);
    let begun = begin(local, NOW, true, Some(items));
    log.extend(append(&mut journal, vec![Arc::new(Record::Begin(begun.clone()))]).unwrap());
    let begin_lsn = log.last().unwrap().0;
    log.extend(append(&mut journal, vec![published(NOW + 1, vec![event(1, 0, 20)])]).unwrap());
    log.extend(roll(&mut journal, vec![restated(begun, begin_lsn, begin_lsn)]).unwrap());
    drop(journal);
    let Opening { mut journal, applied, .. } = open(disk.clone()).unwrap();
    log.push(applied.last().unwrap().clone());
    let mut placed = event(1, 3, 0);
    placed.body = handfast_core::event::Body::InBegin { item: 1, size: 50 };
    let decided = commit(local, begin_lsn, NOW + 2, vec![placed]);
    log.extend(append(&mut journal, vec![decided]).unwrap());
    let ended = end(local, log.last().unwrap().0, NOW + 3);
    log.extend(
        append(&mut journal, vec![ended, published(NOW + 4, vec![event(2, 9, 33)])]).unwrap(),
    );
    let every = every_record().into_iter().map(Arc::new).collect();
    log.extend(append(&mut journal, every).unwrap());
    log.into_iter().map(|(_, record)| record).collect()
}

/// The fixture as it is in the repository, on a disk in memory.
fn fixture(directory: &str) -> CrashDisk {
    let mut image = CrashDisk::new().snapshot().everything();
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        image.replace(&name, &std::fs::read(entry.path()).unwrap());
    }
    image.into_disk()
}

#[test]
fn the_fixture_means_the_same() {
    let expected = write(&CrashDisk::new());
    let disk = fixture(DIRECTORY);
    let report = check(&disk, &mut |_| {}).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.records, expected.len() as u64);
    assert!(report.stale_indexes.is_empty());
    let mut dumped = Vec::new();
    dump(&disk, &mut |item| {
        if let DumpItem::Record { record, .. } = item {
            dumped.push(record);
        }
    })
    .unwrap();
    assert_eq!(dumped, expected);
    let opening = open(disk).unwrap();
    let reader = opening.journal.reader();
    for (lsn, record) in (1..).map(Lsn).zip(&expected) {
        assert_eq!(reader.record(lsn).unwrap().as_ref(), Some(record));
    }
    let events = all_events(&reader, 1, 10).unwrap();
    assert_eq!(events.len(), 2);
    assert_eq!((events[1].offset, &events[1].body), (Offset(3), &body(6, 50)));
    let chain = reader.chain(id(NOW, 1)).unwrap();
    assert_eq!((chain.records.len(), chain.whole), (3, true));
}

/// This version still writes these very bytes.
#[test]
fn the_fixture_is_what_is_written() {
    let disk = CrashDisk::new();
    write(&disk);
    let image = disk.snapshot().everything();
    if std::env::var_os("HANDFAST_WRITE_FIXTURE").is_some() && !Path::new(DIRECTORY).exists() {
        std::fs::create_dir_all(DIRECTORY).unwrap();
        for name in image.names().iter().filter(|n| *n != "LOCK") {
            let bytes = image.bytes(name).unwrap();
            std::fs::write(Path::new(DIRECTORY).join(name), bytes).unwrap();
        }
    }
    let fixture = fixture(DIRECTORY).snapshot().everything();
    let names: Vec<_> = image.names().into_iter().filter(|n| n != "LOCK").collect();
    assert_eq!(fixture.names(), names);
    for name in names {
        let written = image.bytes(&name).unwrap();
        assert_eq!(fixture.bytes(&name), Some(written), "{name}");
    }
}

/// A store of another format is refused by its number, whatever is done with it, and left as it is.
#[test]
fn another_format_is_refused() {
    let disk = fixture(REFUSED);
    let before = disk.snapshot().everything();
    let refused = |error| matches!(error, Error::Format { found: 1, known: 2, .. });
    assert!(refused(open(disk.clone()).err().unwrap()));
    assert!(refused(check(&disk, &mut |_| {}).err().unwrap()));
    assert!(refused(dump(&disk, &mut |_| {}).err().unwrap()));
    let after = disk.snapshot().everything();
    let names = |image: &handfast_journal::files::crash::Image| {
        image.names().into_iter().filter(|name| *name != "LOCK").collect::<Vec<_>>()
    };
    assert_eq!(names(&after), names(&before));
    assert!(names(&before).iter().all(|name| after.bytes(name) == before.bytes(name)));
}

/// Looking at a store changes nothing, and needs no lock file.
#[test]
fn check_and_dump_change_nothing() {
    let disk = fixture(DIRECTORY);
    let before = disk.snapshot().everything();
    check(&disk, &mut |_| {}).unwrap();
    dump(&disk, &mut |_| {}).unwrap();
    assert_eq!(disk.snapshot().everything(), before);
    let opening = open(disk.clone()).unwrap();
    assert!(check(&disk, &mut |_| {}).is_err(), "it is open");
    drop(opening);
    let empty = CrashDisk::new();
    assert!(check(&empty, &mut |_| {}).is_err());
    assert!(empty.list().unwrap().is_empty());
}
