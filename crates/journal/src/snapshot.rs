//! The store as it is at one moment, to be copied elsewhere while it goes on being written.
//!
//! A snapshot is a list of open files and lengths. It costs the writer no time and no bytes: a
//! sealed segment is never written again, a compacted one takes the name of the old file but not
//! its bytes, and the active one only grows behind what is durable.

use std::fmt;
use std::sync::Arc;

use handfast_core::ids::{Lsn, StoreId};

use crate::check;
use crate::create::write_durable;
use crate::error::Error;
use crate::files::{File, Files, Lock};
use crate::layout::names::{self, Kind};
use crate::layout::store;
use crate::recovery::Progress;
use crate::state::Journal;

/// Bytes that are copied at a time.
const CHUNK: usize = 1 << 20;
/// Bytes after which a copy is synced, so that the disk under a live journal has never much more
/// than this to write for somebody else.
const SYNC_BYTES: u64 = 16 << 20;

/// A store at one moment. As long as it is kept, files that were removed since take up room.
pub struct Snapshot {
    store: StoreId,
    last: Option<Lsn>,
    parts: Vec<Part>,
    /// Of a store that nobody has open, so that nobody opens it meanwhile.
    _lock: Option<Box<dyn Lock>>,
}

/// So many bytes of a file.
struct Part {
    name: String,
    file: Arc<dyn File>,
    length: u64,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("store", &self.store)
            .field("last", &self.last)
            .field("files", &self.parts.len())
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// Everything that is durable now. Nothing is read or written; every file of the store is opened.
    ///
    /// # Errors
    /// [`Error::Poisoned`]; [`Error::Io`] if a file cannot be opened, such as for want of
    /// descriptors: the journal goes on.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        self.usable()?;
        let view = self.shared.read();
        let mut parts = Vec::with_capacity(2 * view.sealed.len() + 1);
        for sealed in view.sealed.iter().filter(|s| !self.dropped.contains(&s.segment())) {
            let name = names::log(sealed.segment());
            let file = self.shared.files.open(&name).map_err(Error::io("open", &name))?;
            parts.push(Part { name, file, length: sealed.tail.end });
            // One that is in memory only is built again by the copy's opening, and so is one that
            // the disk has lost.
            let name = names::index(sealed.segment());
            if sealed.has_index_file()
                && let Ok(file) = self.shared.files.open(&name)
                && let Ok(length) = file.length()
            {
                parts.push(Part { name, file, length });
            }
        }
        let (name, file) = (self.active.name.clone(), self.active.file.clone());
        parts.push(Part { name, file, length: self.active.tail });
        let last = Some(Lsn(self.next.0 - 1));
        Ok(Snapshot { store: self.shared.store, last, parts, _lock: None })
    }
}

impl Snapshot {
    /// A store that nobody has open, such as a backup. Whether it is sound is for
    /// [`crate::check`] to say.
    ///
    /// # Errors
    /// As [`crate::check`].
    pub fn of(files: &dyn Files) -> Result<Self, Error> {
        let entered = check::enter(files)?;
        let (logs, indexes) = (&entered.inventory.logs, &entered.inventory.indexes);
        let names = logs.iter().map(|n| names::log(*n));
        let names = names.chain(indexes.iter().map(|n| names::index(*n)));
        let part = |name: String| {
            let file = files.open(&name).map_err(Error::io("open", &name))?;
            let length = file.length().map_err(Error::io("measure", &name))?;
            Ok(Part { name, file, length })
        };
        let parts: Result<Vec<Part>, Error> = names.map(part).collect();
        Ok(Self { store: entered.store, last: None, parts: parts?, _lock: entered._lock })
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> StoreId {
        self.store
    }

    /// The last record in it; none: that was not looked at.
    #[must_use]
    pub fn last(&self) -> Option<Lsn> {
        self.last
    }

    /// Bytes of all its files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.length).sum()
    }

    /// Copies it into an empty directory; `beside` are further files by name, of the caller's.
    ///
    /// The store file comes last, when everything else is durable: an interrupted copy is not a
    /// store. `progress` says whether to go on. False: it did not, and nothing is left of the
    /// copy.
    ///
    /// # Errors
    /// [`Error::NotEmpty`]: the directory is as it was. [`Error::NoSpace`], [`Error::Io`]: what
    /// was copied has been removed again as far as that was possible.
    pub fn copy_to(
        &self,
        to: &dyn Files,
        beside: &[(&str, &[u8])],
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<bool, Error> {
        for name in to.list().map_err(Error::io("list", "."))? {
            if names::kind(&name) != Kind::Neutral {
                return Err(Error::NotEmpty { name });
            }
        }
        let copied = self.copy(to, beside, progress);
        if !matches!(copied, Ok(true)) {
            let beside = beside.iter().map(|(name, _)| *name);
            let store = [names::STORE];
            let names = self.parts.iter().map(|p| p.name.as_str()).chain(beside).chain(store);
            for name in names {
                // It may not have come so far, and what failed is told already.
                let _ = to.remove(name);
                let _ = to.remove(&names::unfinished(name));
            }
        }
        copied
    }

    fn copy(
        &self,
        to: &dyn Files,
        beside: &[(&str, &[u8])],
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<bool, Error> {
        let total = self.bytes();
        let mut copied = 0;
        let mut told = |more| {
            copied += more;
            progress(Progress { done: copied, total })
        };
        for part in &self.parts {
            if !part.copy(to, &mut told)? {
                return Ok(false);
            }
        }
        for (name, bytes) in beside {
            write_durable(to, name, bytes)?;
        }
        to.sync_directory().map_err(Error::io("sync", "."))?;
        write_durable(to, names::STORE, &store::encode(self.store))?;
        Ok(true)
    }
}

impl Part {
    fn copy(&self, to: &dyn Files, told: &mut dyn FnMut(u64) -> bool) -> Result<bool, Error> {
        let Self { name, file, length } = self;
        let io = |action| Error::io(action, name);
        let copy = to.create(name).map_err(|e| io("create")(e).or_no_space(*length))?;
        let mut chunk = vec![0; CHUNK];
        let (mut at, mut synced) = (0, 0);
        while at < *length {
            let wanted = (*length - at).min(CHUNK as u64) as usize;
            let read = file.read_at(&mut chunk[..wanted], at).map_err(io("read"))?;
            if read < wanted {
                return Err(Error::corrupt(
                    name,
                    at + read as u64,
                    "the end of the file is missing",
                ));
            }
            let needed = *length - at;
            let write = copy.write_at(&chunk[..wanted], at);
            write.map_err(|e| io("write")(e).or_no_space(needed))?;
            at += wanted as u64;
            if at - synced >= SYNC_BYTES {
                copy.sync_data().map_err(io("sync"))?;
                synced = at;
            }
            if !told(wanted as u64) {
                return Ok(false);
            }
        }
        copy.sync_data().map_err(io("sync"))?;
        Ok(true)
    }
}
