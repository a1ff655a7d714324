//! Recognises a data directory that is a copy: its files are not those in which the store was
//! opened last, or not on that machine, or they do not belong together.
//!
//! A restart, and a directory that is renamed or mounted elsewhere, keep the files (their numbers
//! and the times of their birth); copying makes others. What keeps even those, the snapshot of a
//! whole disk that is put back, cannot be recognised here.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use handfast_core::ids::OpeningId;
use handfast_core::openings::Openings;
use serde::{Deserialize, Serialize};

/// The file that remembers it, JSON. To the journal it is nobody's.
const FILE: &str = "place";
/// The journal writes it once, when a store is made.
const STORE: &str = "store";

/// Where a store was opened.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    /// By which opening.
    opening: String,
    /// On which machine.
    node: String,
    /// The file `store`, which is never written again.
    store: Identity,
    /// This file, which every opening makes anew.
    place: Identity,
}

/// What tells a file from every other one of its file system, whatever is in them.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    inode: u64,
    /// When it was made; not every file system knows.
    born_unix_ns: Option<u64>,
}

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Self {
        let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        let born_unix_ns = born.and_then(|since| u64::try_from(since.as_nanos()).ok());
        Self { inode: metadata.ino(), born_unix_ns }
    }
}

/// By what a data directory is recognised as a copy; none: it is not, as far as can be told.
/// `openings` are those of its log, this one last.
///
/// # Errors
/// The file system did not say.
pub(super) fn recognise(
    data_dir: &Path,
    openings: &Openings,
    node: &str,
) -> io::Result<Option<String>> {
    let bytes = match fs::read(data_dir.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // The first opening has none yet, and one that was cut off right then wrote nothing.
            let missing = (!is_unused(openings)).then(|| format!("the file `{FILE}` is missing"));
            return Ok(missing);
        }
        other => other?,
    };
    let Ok(place) = serde_json::from_slice::<Place>(&bytes) else {
        return Ok(Some(format!("the file `{FILE}` cannot be read")));
    };
    let identity = |name| fs::metadata(data_dir.join(name)).map(|m| Identity::from(&m));
    if place.node != node {
        return Ok(Some(format!("it was opened last on another machine ({})", place.node)));
    }
    if identity(STORE)? != place.store || identity(FILE)? != place.place {
        return Ok(Some("its files are not those in which the store was opened last".to_owned()));
    }
    let known = place.opening.parse().is_ok_and(|opening| openings.find(opening).is_some());
    let foreign = "its log is not the one that was opened here last";
    Ok((!known).then(|| foreign.to_owned()))
}

/// Nothing was ever written but openings.
fn is_unused(openings: &Openings) -> bool {
    let all = openings.restate();
    all.windows(2).all(|two| two[0].lsn.0 + 1 == two[1].lsn.0)
}

/// Remembers durably that the store was opened here. Blocks on the disk.
///
/// # Errors
/// It is not remembered; what was remembered before still is.
pub(super) fn note(data_dir: &Path, opening: OpeningId, node: &str) -> io::Result<()> {
    let unfinished = data_dir.join(format!("{FILE}.new"));
    // Not the inode of an unfinished attempt.
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = File::create(&unfinished)?;
    let place = Place {
        opening: opening.to_string(),
        node: node.to_owned(),
        store: Identity::from(&fs::metadata(data_dir.join(STORE))?),
        place: Identity::from(&file.metadata()?),
    };
    let mut bytes = serde_json::to_vec_pretty(&place)?;
    bytes.push(b'\n');
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, data_dir.join(FILE))?;
    File::open(data_dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use handfast_core::ids::{Lsn, StoreId};
    use handfast_core::record::Opened;

    fn openings(lsns: &[u64]) -> Openings {
        let mut openings = Openings::default();
        for (number, lsn) in (1..).zip(lsns) {
            let opening = OpeningId(u128::from(number));
            let opened =
                Opened { store: StoreId(1), epoch: number, opening, wall_ms: 0, newest_ms: 0 };
            openings.opened(Lsn(*lsn), &opened);
        }
        openings
    }

    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).expect("a directory");
        for entry in fs::read_dir(from).expect("a directory") {
            let entry = entry.expect("an entry");
            fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
        }
    }

    #[test]
    fn a_copy_is_told_from_the_directory_itself() {
        let parent = tempfile::tempdir().expect("a directory");
        let path = |name: &str| parent.path().join(name);
        let here = path("here");
        fs::create_dir(&here).expect("a directory");
        fs::write(here.join(STORE), "a store").expect("written");
        let is_copy = |dir: &Path, log: &[u64], node| {
            recognise(dir, &openings(log), node).expect("readable").is_some()
        };
        // A store that was just made has no such file; one that was used must have it.
        assert!(!is_copy(&here, &[3], "a") && !is_copy(&here, &[3, 4], "a"));
        assert!(is_copy(&here, &[3, 9], "a"));
        note(&here, OpeningId(1), "a").expect("noted");
        assert!(!is_copy(&here, &[3, 9], "a"));
        assert!(is_copy(&here, &[3, 9], "b"), "another machine");
        // Renamed, it is the same; copied, it is not, also where the original was.
        copy(&here, &path("copy"));
        fs::rename(&here, path("there")).expect("renamed");
        assert!(!is_copy(&path("there"), &[3, 9], "a"));
        fs::rename(path("copy"), &here).expect("renamed");
        assert!(is_copy(&here, &[3, 9], "a"));
        // Files of an older life copied over those of a later one, whose numbers they keep.
        copy(&path("there"), &path("older"));
        note(&path("there"), OpeningId(2), "a").expect("noted");
        assert!(!is_copy(&path("there"), &[3, 9, 12], "a"));
        copy(&path("older"), &path("there"));
        assert!(is_copy(&path("there"), &[3, 9], "a"));
        // Without an opening in between nothing tells them: it is as the snapshot of a disk.
        note(&path("there"), OpeningId(2), "a").expect("noted");
        copy(&path("there"), &path("same"));
        copy(&path("same"), &path("there"));
        assert!(!is_copy(&path("there"), &[3, 9, 12], "a"));
        // Only the log is another one.
        note(&path("there"), OpeningId(2), "a").expect("noted");
        assert!(is_copy(&path("there"), &[3], "a"));
    }
}
