//! Giving room back: dropping segments that nobody needs, rewriting those that are mostly dead.
//!
//! What is needed is not decided here.

use std::sync::Arc;

use handfast_core::ids::Lsn;
use handfast_core::record::Record;

use crate::damage::Damage;
use crate::error::Error;
use crate::files::File;
use crate::index::{MemoryIndex, Tail};
use crate::layout::frame::{FrameBuilder, FrameContext, HEADER, Place};
use crate::layout::header::{self, SegmentHeader};
use crate::layout::{names, seed};
use crate::scan::{Placed, Scan};
use crate::sealed::{self, Built, Sealed};
use crate::state::Journal;

/// Frames of a compacted segment are closed beyond this.
const COMPACTED_AREA: usize = 1 << 20;

/// What compaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// Bytes of the segment before.
    pub bytes_before: u64,
    /// Bytes of the segment now.
    pub bytes_after: u64,
    /// Records that went.
    pub removed: u64,
}

impl Journal {
    /// Removes a sealed segment. The record `SegmentDropped` has to be durable.
    ///
    /// # Errors
    /// [`Error::NoSuchSegment`] and [`Error::NotDropped`] change nothing; every other error
    /// poisons the journal.
    pub fn drop_segment(&mut self, segment: u64) -> Result<(), Error> {
        self.usable()?;
        if self.shared.read().sealed(segment).is_none() {
            return Err(Error::NoSuchSegment(segment));
        }
        if !self.dropped.contains(&segment) {
            return Err(Error::NotDropped(segment));
        }
        let done = self.remove_files(segment);
        self.poison_unless_clean(done)
    }

    fn remove_files(&mut self, segment: u64) -> Result<(), Error> {
        let shared = self.shared.clone();
        let _held = shared.maintenance();
        {
            let mut view = shared.write();
            view.sealed.retain(|s| s.segment() != segment);
            view.note_removed();
        }
        let files = &*shared.files;
        let index = names::index(segment);
        match files.remove(&index) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &index)(e));
            }
            _ => {}
        }
        let log = names::log(segment);
        files.remove(&log).map_err(Error::io("remove", &log))?;
        files.sync_directory().map_err(Error::io("sync", "."))?;
        self.dropped.remove(&segment);
        self.refresh_room()
    }

    /// Rewrites a sealed segment without the records that `keep` refuses. LSNs stay. Readers that
    /// are under way go on with the old file.
    ///
    /// # Errors
    /// [`Error::NoSuchSegment`], [`Error::NoSpace`] and [`Error::Unreadable`] change nothing; every
    /// other error poisons the journal.
    pub fn compact_segment(
        &mut self,
        segment: u64,
        keep: &mut dyn FnMut(Lsn, &Record) -> bool,
    ) -> Result<Compaction, Error> {
        self.usable()?;
        let old = self.shared.read().sealed(segment).cloned();
        let old = old.ok_or(Error::NoSuchSegment(segment))?;
        let done = self.rewrite(&old, keep);
        self.poison_unless_clean(done)
    }

    fn rewrite(
        &mut self,
        old: &Sealed,
        keep: &mut dyn FnMut(Lsn, &Record) -> bool,
    ) -> Result<Compaction, Error> {
        let shared = self.shared.clone();
        let _held = shared.maintenance();
        let files = &*shared.files;
        let name = names::log(old.segment());
        let unfinished = names::unfinished(&name);
        let file = files
            .create(&unfinished)
            .map_err(|e| Error::io("create", &unfinished)(e).or_no_space(old.tail.end))?;
        let mut rewriting = Rewriting::new(file, old);
        let known = shared.read().sealed.clone();
        let done = rewriting.run(old, keep, &|lsn| sealed::holding(&known, lsn));
        // Nothing has changed if the old one cannot be read.
        let done = done.map_err(|error| match error.corruption() {
            Some(why) if why.file == name => {
                let damage = Damage { segment: old.segment(), events: None, why };
                shared.damage().note(&damage);
                Error::Unreadable(Box::new(damage))
            }
            _ => error,
        });
        let unchanged = done.is_ok() && rewriting.removed == 0;
        if unchanged || matches!(done, Err(Error::NoSpace { .. } | Error::Unreadable(_))) {
            files.remove(&unfinished).map_err(Error::io("remove", &unfinished))?;
            self.refresh_room()?;
        }
        done?;
        let bytes_before = old.tail.end;
        if unchanged {
            return Ok(Compaction { bytes_before, bytes_after: bytes_before, removed: 0 });
        }
        let Rewriting { file, header, index, tail, removed, .. } = rewriting;
        file.sync_data().map_err(Error::io("sync", &unfinished))?;
        files.rename(&unfinished, &name).map_err(Error::io("rename", &unfinished))?;
        files.sync_directory().map_err(Error::io("sync", "."))?;
        let closing = header.closing;
        let last = header.last;
        let index = Arc::new(index);
        let built = Built { file, header, index, last, tail: Tail { end: tail, closing } };
        let sealed = sealed::store_index(files, built, Some(&old.summary))?;
        shared.replace(sealed)?;
        self.refresh_room()?;
        Ok(Compaction { bytes_before, bytes_after: tail, removed })
    }
}

/// A compacted segment that is being written.
struct Rewriting {
    file: Arc<dyn File>,
    header: SegmentHeader,
    seed: u32,
    index: MemoryIndex,
    tail: u64,
    checksum: u32,
    removed: u64,
}

impl Rewriting {
    fn new(file: Arc<dyn File>, old: &Sealed) -> Self {
        let header = SegmentHeader {
            generation: old.header.generation + 1,
            closing: old.tail.closing,
            last: old.summary.last,
            ..old.header.clone()
        };
        Self {
            seed: seed(header.store, header.segment),
            index: MemoryIndex::new(header.segment, header.generation, header.first),
            checksum: header.before,
            header,
            file,
            tail: header::BYTES as u64,
            removed: 0,
        }
    }

    fn run(
        &mut self,
        old: &Sealed,
        keep: &mut dyn FnMut(Lsn, &Record) -> bool,
        segment_of: &dyn Fn(Lsn) -> Option<u64>,
    ) -> Result<(), Error> {
        let mut scan = Scan::new(old.source.file.clone(), old.header.clone())?;
        let mut pending: Vec<Placed> = Vec::new();
        let mut pending_bytes = 0;
        let mut epoch = 0;
        loop {
            let frame = match scan.next()? {
                Ok(frame) => frame,
                Err(_) if scan.at == old.tail.end => break,
                Err(why) => return Err(scan.corrupt(scan.at, why)),
            };
            if frame.header.epoch != epoch {
                self.write(&mut pending, epoch, segment_of)?;
                pending_bytes = 0;
                epoch = frame.header.epoch;
            }
            for placed in scan.records(&frame)? {
                if !keep(placed.place.lsn, &placed.record) {
                    self.remove(&placed.record);
                    continue;
                }
                if pending_bytes + placed.place.length as usize > COMPACTED_AREA {
                    self.write(&mut pending, epoch, segment_of)?;
                    pending_bytes = 0;
                }
                pending_bytes += placed.place.length as usize;
                pending.push(placed);
            }
        }
        self.write(&mut pending, epoch, segment_of)?;
        self.header.whole_to = self.tail;
        let name = names::log(self.header.segment);
        let failed = Error::io("write", &name);
        self.file.write_at(&self.header.encode(), 0).map_err(|e| failed(e).or_no_space(self.tail))
    }

    fn remove(&mut self, record: &Record) {
        self.removed += 1;
        // A restated transaction is a copy: its chain is elsewhere.
        let chain = !matches!(record, Record::TransactionRestated(_));
        if chain && record.transaction().is_some() {
            self.header.removed_ms = self.header.removed_ms.max(record.newest_ms());
        }
    }

    fn write(
        &mut self,
        pending: &mut Vec<Placed>,
        epoch: u32,
        segment_of: &dyn Fn(Lsn) -> Option<u64>,
    ) -> Result<(), Error> {
        if pending.is_empty() {
            return Ok(());
        }
        let mut out = Vec::new();
        let mut frame = FrameBuilder::new(&mut out, self.seed);
        let area_end = |area: usize| self.tail + (HEADER + area) as u64;
        let places: Vec<Place> =
            pending.iter().map(|p| frame.push(p.place.lsn, &p.record)).collect();
        let area_end = area_end(frame.area());
        let segment = self.header.segment;
        let checksum = frame.finish(FrameContext { segment, epoch, previous: self.checksum });
        let name = names::log(segment);
        let failed = Error::io("write", &name);
        let needed = out.len() as u64;
        self.file.write_at(&out, self.tail).map_err(|e| failed(e).or_no_space(needed))?;
        for (placed, place) in pending.drain(..).zip(places) {
            let place = Place { position: self.tail + place.position, ..place };
            self.index.add(place, area_end, &placed.record, segment_of);
        }
        self.tail += needed;
        self.checksum = checksum;
        Ok(())
    }
}
