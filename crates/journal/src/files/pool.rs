//! Files that are opened when they are read, so that a store of many segments needs few
//! descriptors. Only so many are open at a time; the one that was opened first is closed first.
//!
//! A file is what it was when it was taken in: one that has another identity under its name, or no
//! name any more, is [`moved`], and never read as if it were the same.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::{File, Files, Identity, is_no_descriptor};

/// See the file's head.
pub(crate) struct Pool {
    files: Arc<dyn Files>,
    most: usize,
    /// Those that are open, the one that was opened first in front.
    open: Mutex<VecDeque<Weak<Slot>>>,
}

/// The open file, while it is open.
type Slot = Mutex<Option<Arc<dyn File>>>;

/// A file that is open only now and then.
struct OnDemand {
    pool: Arc<Pool>,
    name: String,
    identity: Identity,
    slot: Arc<Slot>,
}

/// The error means that the file that was meant has been replaced or removed since.
pub(crate) fn moved(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::StaleNetworkFileHandle)
}

impl Pool {
    pub(crate) fn new(files: Arc<dyn Files>, most: usize) -> Arc<Self> {
        Arc::new(Self { files, most: most.max(1), open: Mutex::default() })
    }

    /// Takes in an open file of this name, which is closed when others are read.
    pub(crate) fn take(
        self: &Arc<Self>,
        name: &str,
        file: Arc<dyn File>,
    ) -> io::Result<Arc<dyn File>> {
        let identity = file.identity()?;
        let slot = Arc::new(Mutex::new(Some(file)));
        self.opened(&slot);
        let (pool, name) = (Arc::clone(self), name.to_owned());
        Ok(Arc::new(OnDemand { pool, name, identity, slot }))
    }

    /// One more is open: those that are too many are closed.
    fn opened(&self, slot: &Arc<Slot>) {
        let closed: Vec<Weak<Slot>> = {
            let mut open = lock(&self.open);
            open.push_back(Arc::downgrade(slot));
            let many = open.len().saturating_sub(self.most);
            open.drain(..many).collect()
        };
        close(closed);
    }

    /// Closes all of them.
    fn close_all(&self) {
        let all = std::mem::take(&mut *lock(&self.open));
        close(all);
    }
}

/// Closes files. Whoever is reading one closes it afterwards.
fn close(slots: impl IntoIterator<Item = Weak<Slot>>) {
    for slot in slots.into_iter().filter_map(|slot| slot.upgrade()) {
        drop(lock(&slot).take());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked has left an open file or none.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OnDemand {
    fn file(&self) -> io::Result<Arc<dyn File>> {
        if let Some(file) = &*lock(&self.slot) {
            return Ok(Arc::clone(file));
        }
        let file = match self.pool.files.open(&self.name) {
            Err(e) if is_no_descriptor(&e) => {
                self.pool.close_all();
                self.pool.files.open(&self.name)?
            }
            opened => opened?,
        };
        if file.identity()? != self.identity {
            return Err(io::ErrorKind::StaleNetworkFileHandle.into());
        }
        // Two that open it at a time both may: one of them is closed after its reading.
        *lock(&self.slot) = Some(Arc::clone(&file));
        self.pool.opened(&self.slot);
        Ok(file)
    }
}

impl File for OnDemand {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.file()?.read_at(buffer, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file()?.write_at(bytes, at)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file()?.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        self.file()?.length()
    }

    fn preallocate(&self, length: u64) -> io::Result<()> {
        self.file()?.preallocate(length)
    }

    fn written(&self, from: u64) -> io::Result<Vec<Range<u64>>> {
        self.file()?.written(from)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.file()?.truncate(length)
    }

    fn identity(&self) -> io::Result<Identity> {
        Ok(self.identity)
    }

    fn is_named(&self) -> io::Result<bool> {
        self.file()?.is_named()
    }
}
