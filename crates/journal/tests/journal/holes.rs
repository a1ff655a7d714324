//! Room that was allocated and never written need not be read, and what stands behind it is found
//! (I17). On both disks, because a file system says by itself what was written.

use std::path::PathBuf;
use std::sync::Arc;

use crate::support::*;
use handfast_journal::files::crash::CrashDisk;
use handfast_journal::files::{Directory, File, Files};
use handfast_journal::{Error, check};

const NAME: &str = "0000000001.log";
const ROOM: u64 = 1 << 20;
/// Longer than a page, so that a group that is left out leaves a hole.
const BODY: usize = 20_000;

/// A directory that is removed again.
struct Temporary(PathBuf);

impl Temporary {
    fn new(test: &str) -> Self {
        let name = format!("handfast-holes-{test}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        drop(std::fs::remove_dir_all(&path));
        Self(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Runs a test on the disk of the crash tests and on a real one.
fn on_both(test: &str, act: impl Fn(&mut dyn FnMut() -> Arc<dyn Files>)) {
    act(&mut || Arc::new(CrashDisk::new()));
    let mut number = 0;
    let directory = Temporary::new(test);
    act(&mut || {
        number += 1;
        Arc::new(Directory::open(directory.0.join(number.to_string())).unwrap())
    });
}

#[test]
fn a_file_says_where_it_may_have_been_written() {
    on_both("says", |disk| {
        let file = disk().create("file").unwrap();
        file.preallocate(ROOM).unwrap();
        assert_eq!(file.written(ROOM).unwrap(), []);
        file.write_at(&[7; 100], 600_000).unwrap();
        file.write_at(&[7; 10_000], 900_000).unwrap();
        for _ in 0..2 {
            for from in [0, 1, 4096, 599_999, 600_000, 600_099, 600_100, 700_000, 909_999] {
                let ranges = file.written(from).unwrap();
                assert!(ranges.iter().all(|range| range.start < range.end && range.end <= ROOM));
                assert!(ranges.is_sorted_by(|a, b| a.end < b.start), "{ranges:?}");
                assert!(ranges[0].start >= from, "{ranges:?}");
                for at in [600_000, 600_050, 600_099, 900_000, 905_000, 909_999] {
                    let is_there = ranges.iter().any(|range| range.contains(&at));
                    assert!(is_there || at < from, "{at} is not in {ranges:?}");
                }
            }
            file.sync_data().unwrap();
        }
        // To read makes nothing less of what was written.
        file.read_at(&mut vec![1; ROOM as usize], 0).unwrap();
        assert!(file.written(0).unwrap().iter().any(|range| range.contains(&909_999)));
    });
}

/// A store of three groups, and where each begins and ends in its only segment.
fn three_groups(files: &Arc<dyn Files>) -> (Vec<u8>, [u64; 4]) {
    let options = options().with_segment_bytes(ROOM).with_preallocate_bytes(16 << 10);
    let mut journal = open_with(files.clone(), options).unwrap().journal;
    let file = files.open(NAME).unwrap();
    let end = |file: &Arc<dyn File>| {
        let mut bytes = vec![0; file.length().unwrap() as usize];
        file.read_at(&mut bytes, 0).unwrap();
        (bytes.iter().rposition(|b| *b != 0).unwrap() + 1).next_multiple_of(8) as u64
    };
    let mut ends = [end(&file); 4];
    for i in 0..3u64 {
        append(&mut journal, vec![published(i, vec![event(1, i, BODY)])]).unwrap();
        ends[i as usize + 1] = end(&file);
    }
    drop(journal);
    let mut bytes = vec![0; ends[3] as usize];
    file.read_at(&mut bytes, 0).unwrap();
    (bytes, ends)
}

/// Writes these parts of the segment, and nothing else, to a new file in its place.
fn replace(files: &dyn Files, bytes: &[u8], parts: &[(u64, u64)]) {
    let file = files.create("new").unwrap();
    file.preallocate(ROOM).unwrap();
    for (from, to) in parts {
        file.write_at(&bytes[*from as usize..*to as usize], *from).unwrap();
    }
    file.sync_data().unwrap();
    files.rename("new", NAME).unwrap();
    files.sync_directory().unwrap();
}

#[test]
fn a_whole_group_behind_a_hole_is_damage() {
    on_both("damage", |disk| {
        let files = disk();
        let (bytes, ends) = three_groups(&files);
        replace(&*files, &bytes, &[(0, ends[1]), (ends[2], ends[3])]);
        match open_with(files.clone(), options()) {
            Err(Error::Corrupt(corruption)) => {
                assert_eq!((corruption.file.as_str(), corruption.position), (NAME, ends[1]));
                assert!(corruption.detail.contains(&ends[2].to_string()), "{corruption}");
            }
            Err(e) => panic!("{e}"),
            Ok(_) => panic!("a group is gone and nobody noticed"),
        }
        assert!(!check(&*files, &mut |_| {}).unwrap().is_sound());
    });
}

#[test]
fn part_of_a_group_behind_a_hole_was_never_acknowledged() {
    on_both("torn", |disk| {
        let files = disk();
        let (bytes, ends) = three_groups(&files);
        // The header of the second group is missing, and all of the third.
        let written = ends[2] - 1000;
        replace(&*files, &bytes, &[(0, ends[1]), (ends[1] + 10_000, written)]);
        assert_eq!(check(&*files, &mut |_| {}).unwrap().torn_bytes, written - ends[1]);
        let opening = open_with(files, options()).unwrap();
        assert_eq!(opening.recovered.dropped_bytes, written - ends[1]);
        assert_eq!(all_events(&opening.journal.reader(), 1, 10).unwrap().len(), 1);
    });
}

#[test]
fn room_behind_the_last_group_is_nothing() {
    on_both("nothing", |disk| {
        let files = disk();
        let (bytes, ends) = three_groups(&files);
        replace(&*files, &bytes, &[(0, ends[3])]);
        assert_eq!(check(&*files, &mut |_| {}).unwrap().torn_bytes, 0);
        let opening = open_with(files, options()).unwrap();
        assert_eq!(opening.recovered.dropped_bytes, 0);
        assert_eq!(all_events(&opening.journal.reader(), 1, 10).unwrap().len(), 3);
    });
}
