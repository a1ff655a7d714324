//! Why databases are left alone until an operator adopts them, when each was adopted, and since when
//! a name leads to another database than before: a file in the data directory.
//!
//! A restored backup and a copied data directory are older than the store was, or may be: their
//! databases may know more than they do.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use handfast_core::ids::{Name, TransactionId};
use handfast_core::silence::Adopted;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The file's name. To the journal it is nobody's.
const FILE: &str = "adoption";

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// When it was made, for people.
    at: String,
    /// What happened then.
    cause: Cause,
    /// Databases that an operator has adopted since, and when.
    #[serde(default)]
    adopted: BTreeMap<String, Noted>,
    /// Names under which another database was registered than before, one without anything of this
    /// name, with the log time of that: Unix time in milliseconds.
    #[serde(default)]
    new_since_ms: BTreeMap<String, u64>,
}

/// [`Adopted`] as the file has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    epoch: u32,
    #[serde(with = "text")]
    before: TransactionId,
    markers_to_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Cause {
    /// The store was made of the backup in this directory.
    Restored(String),
    /// The data directory was found to be a copy, and by what.
    Copied(String),
    /// Neither: only what else is noted here.
    Adopted,
}

/// The file that says of a store that it was restored now, from there: its name, and its bytes. While
/// it is in the data directory nothing is resolved in any database before that is adopted.
#[must_use]
pub fn restored_mark(source: &Path) -> (&'static str, Vec<u8>) {
    let cause = Cause::Restored(source.to_string_lossy().into_owned());
    (FILE, Mark::new(cause).encode())
}

impl Mark {
    fn new(cause: Cause) -> Self {
        let at = format!("{:.0}", Timestamp::now());
        Self { at, cause, adopted: BTreeMap::new(), new_since_ms: BTreeMap::new() }
    }

    /// The file's bytes.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("it has nothing but texts");
        bytes.push(b'\n');
        bytes
    }
}

/// What is known about it.
#[derive(Debug, Default)]
pub(crate) struct Adoption {
    /// None: a store in memory, which nobody copies.
    data_dir: Option<PathBuf>,
    mark: Mutex<Option<Mark>>,
}

impl Adoption {
    /// Reads the file; without one, nothing was restored, copied or adopted.
    ///
    /// # Errors
    /// It cannot be read. Nothing may be taken for granted then.
    pub(crate) fn read(data_dir: &Path) -> Result<Self, String> {
        let path = data_dir.join(FILE);
        let failed = |problem: &dyn std::fmt::Display| format!("{}: {problem}", path.display());
        let mark = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(&error)),
            Ok(bytes) => Some(serde_json::from_slice(&bytes).map_err(|error| failed(&error))?),
        };
        Ok(Self { data_dir: Some(data_dir.to_path_buf()), mark: Mutex::new(mark) })
    }

    /// The store was restored, or found to be a copy, and nobody has adopted anything since.
    pub(crate) fn is_untouched(&self) -> bool {
        let mark = self.lock();
        mark.as_ref().is_some_and(|mark| mark.cause != Cause::Adopted && mark.adopted.is_empty())
    }

    /// The data directory is a copy: from now on every database is left alone until it is adopted.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// It is not noted durably, but known until the process ends.
    pub(crate) fn note_copied(&self, how: String) -> io::Result<()> {
        let mut mark = self.lock();
        let new_since_ms = mark.take().map(|before| before.new_since_ms).unwrap_or_default();
        let copied = Mark { new_since_ms, ..Mark::new(Cause::Copied(how)) };
        self.write(mark.insert(copied))
    }

    /// Why nothing is resolved in a database; none: there is no reason, or it was adopted.
    pub(crate) fn why(&self, database: &Name) -> Option<String> {
        let mark = self.lock();
        let mark = mark.as_ref().filter(|mark| !mark.adopted.contains_key(database.as_str()))?;
        let Mark { at, cause, .. } = mark;
        match cause {
            Cause::Restored(source) => Some(format!(
                "this store was restored from the backup {source} at {at}; `handfast database \
                 adopt {database}` if the databases were restored to the same moment too"
            )),
            Cause::Copied(how) => Some(format!(
                "this data directory was found to be a copy at {at}: {how}; `handfast database \
                 adopt {database}` if the original is gone or not in use any more"
            )),
            Cause::Adopted => None,
        }
    }

    /// When a database was adopted last: what began in it before may have been decided by another
    /// life of the store, of which the log need not know.
    pub(crate) fn adopted(&self, database: &Name) -> Option<Adopted> {
        let mark = self.lock();
        let noted = *mark.as_ref()?.adopted.get(database.as_str())?;
        let Noted { epoch, before, markers_to_ms } = noted;
        Some(Adopted { epoch, before, markers_to_ms })
    }

    /// Notes durably that a database was adopted now. Blocks on the disk.
    ///
    /// # Errors
    /// It was not noted, or nobody knows whether it will be after a power cut.
    pub(crate) fn adopt(&self, database: &Name, now: Adopted) -> io::Result<()> {
        let Adopted { epoch, before, markers_to_ms } = now;
        let now = Noted { epoch, before, markers_to_ms };
        self.change(|mark| _ = mark.adopted.insert(database.as_str().to_owned(), now))
    }

    /// From when on a database of this name has what committed in it: log time, Unix time in
    /// milliseconds. What committed before was in another database; 0: nothing was.
    pub(crate) fn new_since_ms(&self, database: &Name) -> u64 {
        let mark = self.lock();
        let since_ms = mark.as_ref().and_then(|mark| mark.new_since_ms.get(database.as_str()));
        since_ms.copied().unwrap_or(0)
    }

    /// Notes durably that a database of this name is another one than before. Blocks on the disk.
    ///
    /// # Errors
    /// As for [`Adoption::adopt`].
    pub(crate) fn note_new(&self, database: &Name, since_ms: u64) -> io::Result<()> {
        self.change(|mark| _ = mark.new_since_ms.insert(database.as_str().to_owned(), since_ms))
    }

    fn change(&self, change: impl FnOnce(&mut Mark)) -> io::Result<()> {
        let mut mark = self.lock();
        let mut noted = mark.clone().unwrap_or_else(|| Mark::new(Cause::Adopted));
        change(&mut noted);
        self.write(&noted)?;
        *mark = Some(noted);
        Ok(())
    }

    fn write(&self, mark: &Mark) -> io::Result<()> {
        match &self.data_dir {
            Some(data_dir) => write_durable(data_dir, FILE, &mark.encode()),
            None => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Mark>> {
        // Whoever panicked while holding it has left a whole mark.
        self.mark.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a file that takes its name when it is durable.
fn write_durable(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let unfinished = directory.join(format!("{name}.new"));
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, directory.join(name))?;
    File::open(directory)?.sync_all()
}

/// An id as people write it.
mod text {
    use handfast_core::ids::TransactionId;
    use serde::de::{Deserialize as _, Deserializer, Error as _};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(id: &TransactionId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<TransactionId, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Adopted =
        Adopted { epoch: 3, before: TransactionId(0x0192_f0a1 << 96 | 7), markers_to_ms: 9 };

    fn names() -> (Name, Name) {
        (Name::new("ledger").expect("a name"), Name::new("stock").expect("a name"))
    }

    #[test]
    fn what_was_adopted_is_remembered() {
        let directory = tempfile::tempdir().expect("a directory");
        let (ledger, stock) = names();
        let read = || Adoption::read(directory.path()).expect("readable");
        assert_eq!((read().why(&ledger), read().is_untouched()), (None, false));
        let (file, mark) = restored_mark(Path::new("/backups/monday"));
        fs::write(directory.path().join(file), mark).expect("written");
        let restored = read();
        assert!(restored.is_untouched());
        let why = restored.why(&ledger).expect("not adopted");
        assert!(why.contains("/backups/monday") && why.contains("adopt ledger"), "{why}");
        restored.adopt(&ledger, Adopted { epoch: 2, ..NOW }).expect("noted");
        restored.adopt(&ledger, NOW).expect("noted");
        for restored in [restored, read()] {
            assert_eq!(restored.why(&ledger), None);
            assert!(restored.why(&stock).is_some());
            assert!(!restored.is_untouched());
            assert_eq!((restored.adopted(&ledger), restored.adopted(&stock)), (Some(NOW), None));
        }
    }

    /// Adopted, and then copied: the copy is nobody's.
    #[test]
    fn a_copy_takes_back_what_was_adopted() {
        let directory = tempfile::tempdir().expect("a directory");
        let (ledger, _) = names();
        let adoption = Adoption::read(directory.path()).expect("readable");
        adoption.adopt(&ledger, NOW).expect("noted");
        adoption.note_new(&ledger, 7).expect("noted");
        assert_eq!((adoption.why(&ledger), adoption.adopted(&ledger)), (None, Some(NOW)));
        adoption.note_copied("its files are others".into()).expect("noted");
        for adoption in [adoption, Adoption::read(directory.path()).expect("readable")] {
            let why = adoption.why(&ledger).expect("not adopted");
            assert!(why.contains("its files are others"), "{why}");
            assert_eq!((adoption.adopted(&ledger), adoption.new_since_ms(&ledger)), (None, 7));
        }
    }

    #[test]
    fn a_mark_that_cannot_be_read_is_not_passed_over() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join(FILE), "{").expect("written");
        assert!(Adoption::read(directory.path()).is_err());
    }
}
