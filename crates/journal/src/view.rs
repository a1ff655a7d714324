//! What the writer publishes and readers look at: sealed segments, the active segment's index and
//! the newest records. Only durable records are ever in it.
//!
//! The lock is held for look-ups in memory, never while a file is read or written.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use handfast_core::ids::{Lsn, StoreId};
use handfast_core::record::Record;

use crate::damage::Known;
use crate::error::Error;
use crate::files::Files;
use crate::files::pool::Pool;
use crate::index::MemoryIndex;
use crate::layout::frame::Place;
use crate::layout::header::SegmentHeader;
use crate::recent::Recent;
use crate::sealed::{self, Sealed};
use crate::source::Source;

/// The segment that is being written, as readers see it.
pub(crate) struct ActiveView {
    pub(crate) source: Source,
    pub(crate) header: SegmentHeader,
    pub(crate) index: MemoryIndex,
}

/// See the module.
pub(crate) struct View {
    /// By number.
    pub(crate) sealed: Vec<Arc<Sealed>>,
    pub(crate) active: ActiveView,
    pub(crate) recent: Recent,
    /// The last record that is durable.
    pub(crate) durable: Lsn,
    /// The newest time in any segment that is gone or was compacted; none: nothing is gone.
    pub(crate) removed_ms: Option<u64>,
}

impl View {
    /// Makes records visible that are durable now.
    pub(crate) fn publish(&mut self, written: Vec<(Place, u64, Arc<Record>)>) {
        let Self { sealed, active, recent, durable, .. } = self;
        for (place, area_end, record) in written {
            active.index.add(place, area_end, &record, &|lsn| sealed::holding(sealed, lsn));
            recent.push(record, place.length);
            *durable = place.lsn;
        }
    }

    /// The sealed segment of a number.
    pub(crate) fn sealed(&self, segment: u64) -> Option<&Arc<Sealed>> {
        let at = self.sealed.binary_search_by_key(&segment, |s| s.header.segment).ok()?;
        self.sealed.get(at)
    }

    /// Works out again how far back everything is there.
    pub(crate) fn note_removed(&mut self) {
        let headers = self.sealed.iter().map(|s| &s.header).chain([&self.active.header]);
        let mut expected = 1;
        let mut removed = None;
        for header in headers {
            if header.segment != expected {
                removed = removed.max(Some(header.newest_ms));
            }
            if header.removed_ms > 0 {
                removed = removed.max(Some(header.removed_ms));
            }
            expected = header.segment + 1;
        }
        self.removed_ms = removed;
    }
}

/// What the journal and its readers share.
pub(crate) struct Shared {
    pub(crate) files: Arc<dyn Files>,
    pub(crate) store: StoreId,
    /// Files of sealed segments.
    pub(crate) pool: Arc<Pool>,
    view: RwLock<View>,
    maintenance: Mutex<()>,
    damage: Mutex<Known>,
}

impl Shared {
    pub(crate) fn new(files: Arc<dyn Files>, pool: Arc<Pool>, store: StoreId, view: View) -> Self {
        Self {
            files,
            store,
            pool,
            view: RwLock::new(view),
            maintenance: Mutex::new(()),
            damage: Mutex::default(),
        }
    }

    /// A thread that panicked while it held the lock leaves a view that is at worst behind.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, View> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held by whoever changes files of sealed segments.
    pub(crate) fn maintenance(&self) -> MutexGuard<'_, ()> {
        self.maintenance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of damage in sealed segments.
    pub(crate) fn damage(&self) -> MutexGuard<'_, Known> {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts another form of a sealed segment in the place of the one that is there.
    pub(crate) fn replace(&self, sealed: Sealed) -> Result<(), Error> {
        let sealed = sealed.on_demand(&self.pool)?;
        let mut view = self.write();
        let number = sealed.header.segment;
        if let Ok(at) = view.sealed.binary_search_by_key(&number, |s| s.header.segment) {
            view.sealed[at] = Arc::new(sealed);
        }
        view.note_removed();
        Ok(())
    }

    /// Builds the index of a sealed segment again, from the segment.
    pub(crate) fn rebuild_index(&self, segment: u64) -> Result<(), Error> {
        let _held = self.maintenance();
        let (old, known) = {
            let view = self.read();
            let Some(old) = view.sealed(segment) else { return Ok(()) };
            (old.clone(), view.sealed.clone())
        };
        let segment_of = |lsn| sealed::holding(&known, lsn);
        let built = sealed::build(old.source.file.clone(), old.header.clone(), &segment_of)?;
        self.replace(sealed::store_index(&*self.files, built, Some(&old.summary))?)
    }
}
