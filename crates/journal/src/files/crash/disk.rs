//! The crash disk itself: the calls of the seam, counted, with faults where they were asked for.
//!
//! Its lock is never held while a hook runs, so a hook may use the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::image::{Image, Snapshot};
use super::inode::{Content, Inode};
use super::names::NameChange;
use crate::files::{File, Files, Identity, Lock, Room};

/// What goes wrong at a chosen call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call fails and does nothing.
    Io,
    /// The call fails for want of room and does nothing.
    NoSpace,
    /// A write stops half way and fails; any other call fails and does nothing.
    ShortWrite,
    /// A sync fails and leaves in doubt for ever what it was to make durable; any other call
    /// fails and does nothing.
    FailedSync,
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone)]
pub struct CrashDisk {
    state: Arc<Mutex<State>>,
    hook: Arc<Mutex<Option<Hook>>>,
}

type Hook = Box<dyn FnMut(&Snapshot) + Send>;

#[derive(Default)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    next: u64,
    durable_names: BTreeMap<String, u64>,
    names: BTreeMap<String, u64>,
    pending: Vec<NameChange>,
    locked: BTreeSet<String>,
    calls: u64,
    syncs: u64,
    faults: BTreeMap<u64, Fault>,
    capacity: Option<u64>,
}

impl Image {
    /// A disk that holds exactly this, all of it durable, not locked, without faults.
    #[must_use]
    pub fn into_disk(self) -> CrashDisk {
        CrashDisk::holding(self.files)
    }
}

impl Default for CrashDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for CrashDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("CrashDisk")
            .field("names", &state.names)
            .field("calls", &state.calls)
            .field("syncs", &state.syncs)
            .finish_non_exhaustive()
    }
}

impl CrashDisk {
    /// An empty disk of 1 TiB.
    #[must_use]
    pub fn new() -> Self {
        Self { state: Arc::default(), hook: Arc::default() }
    }

    pub(super) fn holding(files: BTreeMap<String, Content>) -> Self {
        let disk = Self::new();
        {
            let mut state = disk.state();
            for (name, content) in files {
                let id = state.add(Inode::durable(content));
                state.names.insert(name.clone(), id);
                state.durable_names.insert(name, id);
            }
        }
        disk
    }

    /// How many calls there were, of any kind, reads included.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// How many syncs there were, of files and of the directory.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Makes the call with this number fail, counted as [`CrashDisk::calls`] counts, from 0.
    pub fn fail_at(&self, call: u64, fault: Fault) {
        self.state().faults.insert(call, fault);
    }

    /// Makes the next call fail.
    pub fn fail_next(&self, fault: Fault) {
        let mut state = self.state();
        let call = state.calls;
        state.faults.insert(call, fault);
    }

    /// Forgets the faults that have not happened.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// Sets how many bytes of files the disk holds; none: 1 TiB.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Bytes of all files that have a name.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// Calls this with a snapshot just before each sync takes effect, when most is undecided.
    pub fn before_each_sync(&self, hook: impl FnMut(&Snapshot) + Send + 'static) {
        *lock(&self.hook) = Some(Box::new(hook));
    }

    /// Everything that a power cut at this instant may leave behind.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let state = self.state();
        let mut wanted: BTreeSet<u64> = state.durable_names.values().copied().collect();
        wanted.extend(state.names.values());
        for change in &state.pending {
            match change {
                NameChange::Link { inode, .. } | NameChange::Rename { inode, .. } => {
                    wanted.insert(*inode);
                }
                NameChange::Unlink { .. } => {}
            }
        }
        let inodes = wanted.into_iter().filter_map(|id| Some((id, state.inodes.get(&id)?.clone())));
        Snapshot {
            inodes: inodes.collect(),
            names: state.durable_names.clone(),
            pending: state.pending.clone(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn run_hook(&self) {
        let taken = lock(&self.hook).take();
        if let Some(mut hook) = taken {
            hook(&self.snapshot());
            lock(&self.hook).get_or_insert(hook);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that panicked elsewhere does not make the disk's contents wrong.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn add(&mut self, inode: Inode) -> u64 {
        self.next += 1;
        self.inodes.insert(self.next, inode);
        self.next
    }

    fn used(&self) -> u64 {
        self.names.values().filter_map(|id| self.inodes.get(id)).map(|i| i.written.length).sum()
    }

    /// Counts the call and says whether it is one that goes wrong.
    fn call(&mut self) -> Option<Fault> {
        let number = self.calls;
        self.calls += 1;
        self.faults.remove(&number)
    }

    /// For calls that either happen or do not.
    fn plain_call(&mut self) -> io::Result<()> {
        self.call().map_or(Ok(()), |fault| Err(error_of(fault)))
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    fn room_for(&self, more: u64) -> io::Result<()> {
        match self.capacity {
            Some(capacity) if more > 0 && self.used() + more > capacity => {
                Err(error_of(Fault::NoSpace))
            }
            _ => Ok(()),
        }
    }

    fn named(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn error_of(fault: Fault) -> io::Error {
    match fault {
        Fault::NoSpace => io::ErrorKind::StorageFull.into(),
        Fault::Io | Fault::ShortWrite | Fault::FailedSync => io::Error::other("planted fault"),
    }
}

impl Files for CrashDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.plain_call()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut state = self.state();
        state.plain_call()?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.add(Inode::default());
        state.change(NameChange::Link { name: name.to_owned(), inode });
        Ok(Arc::new(CrashFile { disk: self.clone(), inode }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut state = self.state();
        state.plain_call()?;
        let inode = state.named(name)?;
        Ok(Arc::new(CrashFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.plain_call()?;
        let inode = state.named(from)?;
        state.change(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), inode });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.plain_call()?;
        state.named(name)?;
        state.change(NameChange::Unlink { name: name.to_owned() });
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.run_hook();
        let mut state = self.state();
        state.syncs += 1;
        // A failed sync of the directory leaves its operations undecided.
        state.plain_call()?;
        state.pending.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        let mut state = self.state();
        state.plain_call()?;
        if !state.locked.insert(name.to_owned()) {
            return Ok(None);
        }
        let inode = match state.names.get(name).copied() {
            Some(inode) => inode,
            None => {
                let inode = state.add(Inode::default());
                state.change(NameChange::Link { name: name.to_owned(), inode });
                inode
            }
        };
        Ok(Some(Box::new(CrashLock { disk: self.clone(), name: name.to_owned(), inode })))
    }

    fn identity(&self, name: &str) -> io::Result<Option<Identity>> {
        Ok(self.state().names.get(name).map(|inode| Identity(0, *inode)))
    }

    fn room(&self) -> io::Result<Room> {
        let mut state = self.state();
        state.plain_call()?;
        let total = state.capacity.unwrap_or(1 << 40);
        Ok(Room { free: total.saturating_sub(state.used()), total })
    }
}

struct CrashLock {
    disk: CrashDisk,
    name: String,
    inode: u64,
}

impl Lock for CrashLock {
    fn identity(&self) -> io::Result<Identity> {
        Ok(Identity(0, self.inode))
    }
}

impl Drop for CrashLock {
    fn drop(&mut self) {
        self.disk.state().locked.remove(&self.name);
    }
}

struct CrashFile {
    disk: CrashDisk,
    inode: u64,
}

impl CrashFile {
    fn with<T>(&self, act: impl FnOnce(&mut Inode) -> T) -> T {
        let mut state = self.disk.state();
        act(state.inodes.entry(self.inode).or_default())
    }

    fn grow(&self, to: u64, state: &mut State) -> io::Result<()> {
        let length = state.inodes.get(&self.inode).map_or(0, |i| i.written.length);
        state.room_for(to.saturating_sub(length))
    }
}

impl File for CrashFile {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.disk.state().plain_call()?;
        Ok(self.with(|inode| inode.written.read(buffer, at)))
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let fault = {
            let mut state = self.disk.state();
            let fault = state.call();
            self.grow(at + bytes.len() as u64, &mut state)?;
            fault
        };
        match fault {
            None => {
                self.with(|inode| inode.write(bytes, at));
                Ok(())
            }
            Some(fault) => {
                if fault == Fault::ShortWrite {
                    self.with(|inode| inode.write(&bytes[..bytes.len() / 2], at));
                }
                Err(error_of(fault))
            }
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.run_hook();
        let fault = {
            let mut state = self.disk.state();
            state.syncs += 1;
            state.call()
        };
        match fault {
            None => {
                self.with(Inode::sync);
                Ok(())
            }
            Some(fault) => {
                if fault == Fault::FailedSync {
                    self.with(Inode::lose);
                }
                Err(error_of(fault))
            }
        }
    }

    fn length(&self) -> io::Result<u64> {
        self.disk.state().plain_call()?;
        Ok(self.with(|inode| inode.written.length))
    }

    fn preallocate(&self, length: u64) -> io::Result<()> {
        {
            let mut state = self.disk.state();
            state.plain_call()?;
            self.grow(length, &mut state)?;
        }
        self.with(|inode| inode.written.length = inode.written.length.max(length));
        Ok(())
    }

    fn written(&self, from: u64) -> io::Result<Vec<Range<u64>>> {
        self.disk.state().plain_call()?;
        Ok(self.with(|inode| inode.written.ranges(from)))
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.disk.state().plain_call()?;
        self.with(|inode| inode.truncate(length));
        Ok(())
    }

    fn identity(&self) -> io::Result<Identity> {
        Ok(Identity(0, self.inode))
    }

    fn is_named(&self) -> io::Result<bool> {
        Ok(self.disk.state().names.values().any(|inode| *inode == self.inode))
    }
}
