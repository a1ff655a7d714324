//! The mark of a restored backup, a file in the data directory: this store is older than it was,
//! so its databases may know more than it does. Each is left alone until an operator adopts it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use handfast_core::ids::Name;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The file's name. To the journal it is nobody's.
pub(crate) const FILE: &str = "restored";

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// When the backup was restored, for people.
    at: String,
    /// The same, Unix time in milliseconds.
    at_unix_ms: u64,
    /// Where the backup was.
    source: String,
    /// Databases that an operator has adopted since.
    #[serde(default)]
    adopted: Vec<String>,
}

impl Mark {
    /// Restored now, from there.
    pub(crate) fn new(source: &Path) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at_unix_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let at = Timestamp::now();
        let source = source.to_string_lossy().into_owned();
        Self { at: format!("{at:.0}"), at_unix_ms, source, adopted: Vec::new() }
    }

    /// The file's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("it has nothing but texts");
        bytes.push(b'\n');
        bytes
    }
}

/// A store that was restored from a backup.
#[derive(Debug)]
pub(crate) struct Restored {
    data_dir: PathBuf,
    mark: Mutex<Mark>,
}

impl Restored {
    /// Reads the mark; none: the store was not restored.
    ///
    /// # Errors
    /// The mark cannot be read. Nothing may be taken for granted then.
    pub(crate) fn read(data_dir: &Path) -> Result<Option<Self>, String> {
        let path = data_dir.join(FILE);
        let failed = |problem: &dyn std::fmt::Display| format!("{}: {problem}", path.display());
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|error| failed(&error))?,
        };
        let mark = serde_json::from_slice(&bytes).map_err(|error| failed(&error))?;
        Ok(Some(Self { data_dir: data_dir.to_path_buf(), mark: Mutex::new(mark) }))
    }

    /// Why nothing is resolved in a database; none: it was adopted.
    pub(crate) fn why(&self, database: &Name) -> Option<String> {
        let mark = self.mark.lock().unwrap_or_else(PoisonError::into_inner);
        let is_adopted = mark.adopted.iter().any(|name| name == database.as_str());
        (!is_adopted).then(|| {
            format!(
                "this store was restored from the backup {} at {}; `handfast database adopt \
                 {database}` if the databases were restored to the same moment too",
                mark.source, mark.at
            )
        })
    }

    /// Transactions that began before this may have been decided by the store that was lost.
    pub(crate) fn at_unix_ms(&self) -> u64 {
        self.mark.lock().unwrap_or_else(PoisonError::into_inner).at_unix_ms
    }

    /// Notes durably that a database was adopted. Blocks on the disk.
    ///
    /// # Errors
    /// It was not noted, or nobody knows whether it will be after a power cut.
    pub(crate) fn adopt(&self, database: &Name) -> io::Result<()> {
        let mut mark = self.mark.lock().unwrap_or_else(PoisonError::into_inner);
        if mark.adopted.iter().any(|name| name == database.as_str()) {
            return Ok(());
        }
        let mut noted = mark.clone();
        noted.adopted.push(database.as_str().to_owned());
        let unfinished = self.data_dir.join(format!("{FILE}.new"));
        let mut file = File::create(&unfinished)?;
        file.write_all(&noted.encode())?;
        file.sync_all()?;
        fs::rename(&unfinished, self.data_dir.join(FILE))?;
        File::open(&self.data_dir)?.sync_all()?;
        *mark = noted;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_adopted_is_remembered() {
        let directory = tempfile::tempdir().expect("a directory");
        let (ledger, stock) =
            (Name::new("ledger").expect("a name"), Name::new("stock").expect("a name"));
        assert!(Restored::read(directory.path()).expect("readable").is_none());
        let mark = Mark::new(Path::new("/backups/monday"));
        fs::write(directory.path().join(FILE), mark.encode()).expect("written");
        let read = || Restored::read(directory.path()).expect("readable").expect("restored");
        let restored = read();
        let why = restored.why(&ledger).expect("not adopted");
        assert!(why.contains("/backups/monday") && why.contains("adopt ledger"), "{why}");
        restored.adopt(&ledger).expect("noted");
        restored.adopt(&ledger).expect("noted");
        for restored in [restored, read()] {
            assert_eq!(restored.why(&ledger), None);
            assert!(restored.why(&stock).is_some());
            assert_eq!(restored.at_unix_ms(), mark.at_unix_ms);
        }
    }

    #[test]
    fn a_mark_that_cannot_be_read_is_not_passed_over() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join(FILE), "{").expect("written");
        assert!(Restored::read(directory.path()).is_err());
    }
}
