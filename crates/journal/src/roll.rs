//! Beginning a new segment with a checkpoint, and sealing the one before.
//!
//! A segment gets its name only when its checkpoint is durable in it, so an incomplete checkpoint
//! is never seen: until then the old segment goes on.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use handfast_core::ids::Lsn;
use handfast_core::record::Record;

use crate::error::Error;
use crate::files::{File, is_no_descriptor, is_no_space};
use crate::group::encode_frame;
use crate::index::Tail;
use crate::layout::frame::{FrameContext, Place};
use crate::layout::header::{self, SegmentHeader};
use crate::layout::{names, seed};
use crate::sealed::{self, Built};
use crate::source::Source;
use crate::state::{Active, Journal, Prepared};
use crate::view::{ActiveView, Shared};

type Written = Vec<(Place, u64, Arc<Record>)>;

/// What is left to do about a segment that takes no more records: give back the room that it does
/// not use, and store its index. Nothing depends on it; it may be done on any thread, while the
/// journal goes on, but before the next [`Journal::drop_segment`] or
/// [`Journal::compact_segment`]. Left undone it is done by the next opening.
#[must_use = "the segment keeps room that it does not use"]
pub struct Sealing {
    shared: Arc<Shared>,
    built: Built,
    name: String,
}

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealing").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Sealing {
    /// Does it.
    ///
    /// # Errors
    /// The journal must not be used any more after one.
    pub fn finish(self) -> Result<(), Error> {
        let Self { shared, built, name } = self;
        let _held = shared.maintenance();
        built.file.truncate(built.tail.end).map_err(Error::io("truncate", &name))?;
        let sealed = sealed::store_index(&*shared.files, built, None)?;
        shared.replace(sealed)
    }
}

impl Journal {
    pub(crate) fn roll(&mut self, records: &[(Lsn, Arc<Record>)]) -> Result<Sealing, Error> {
        self.check_checkpoint(records);
        let segment = self.active.header.segment + 1;
        let name = names::log(segment);
        let unfinished = names::unfinished(&name);
        let files = self.shared.files.clone();
        let prepared = match self.prepared.take() {
            Some(prepared) => prepared,
            None => {
                let file = files.create(&unfinished);
                let file = file.map_err(|e| Error::io("create", &unfinished)(e).or_no_space(0))?;
                Prepared { file, allocated: 0 }
            }
        };
        let (active, written) = match self.write_checkpoint(prepared, segment, records) {
            Err(e @ Error::NoSpace { .. }) => {
                files.remove(&unfinished).map_err(Error::io("remove", &unfinished))?;
                return Err(e);
            }
            other => other?,
        };
        active.file.sync_data().map_err(Error::io("sync", &unfinished))?;
        files.rename(&unfinished, &name).map_err(Error::io("rename", &unfinished))?;
        files.sync_directory().map_err(Error::io("sync", "."))?;
        self.note_written(records);
        Ok(self.seal(active, written))
    }

    fn check_checkpoint(&self, records: &[(Lsn, Arc<Record>)]) {
        let start = records.first().map(|(_, record)| &**record);
        let Some(Record::CheckpointStart(start)) = start else {
            panic!("a checkpoint begins with its start");
        };
        let ended = matches!(records.last(), Some((_, r)) if **r == Record::CheckpointEnd);
        assert!(ended, "a checkpoint ends with its end");
        let listed: BTreeSet<u64> = start.segments.iter().copied().collect();
        let there: BTreeSet<u64> = self.segments().into_iter().collect();
        assert!(listed == there, "the checkpoint lists {listed:?}, but there are {there:?}");
    }

    /// Takes room for the next segment's file, which is made if there is none.
    pub(crate) fn make_next(&mut self, length: u64) -> Result<(), Error> {
        let name = names::unfinished(&names::log(self.active.header.segment + 1));
        let has = self.prepared.as_ref().map_or(0, |p| p.allocated);
        let more = length.saturating_sub(has);
        if more == 0 || self.limit().is_some_and(|limit| self.store_bytes() + more > limit) {
            return Ok(());
        }
        let file = match &self.prepared {
            Some(prepared) => prepared.file.clone(),
            None => match self.shared.files.create(&name) {
                Ok(file) => file,
                Err(e) if is_no_space(&e) || is_no_descriptor(&e) => return Ok(()),
                Err(e) => return Err(Error::io("create", &name)(e)),
            },
        };
        match file.preallocate(length) {
            Ok(()) => {
                self.prepared = Some(Prepared { file, allocated: length });
                self.refresh_room()
            }
            Err(e) if is_no_space(&e) && self.prepared.is_some() => Ok(()),
            Err(e) if is_no_space(&e) => {
                self.shared.files.remove(&name).map_err(Error::io("remove", &name))
            }
            Err(e) => Err(Error::io("preallocate", &name)(e)),
        }
    }

    /// Gives the next segment's room back.
    pub(crate) fn give_up_next(&mut self) -> Result<(), Error> {
        let name = names::unfinished(&names::log(self.active.header.segment + 1));
        self.prepared = None;
        self.shared.files.remove(&name).map_err(Error::io("remove", &name))
    }

    /// Writes the new segment without syncing it. Want of room is a clean refusal.
    fn write_checkpoint(
        &mut self,
        prepared: Prepared,
        segment: u64,
        records: &[(Lsn, Arc<Record>)],
    ) -> Result<(Active, Written), Error> {
        let Prepared { file, allocated: ready } = prepared;
        let name = names::log(segment);
        let seed = seed(self.shared.store, segment);
        let mut context =
            FrameContext { segment, epoch: self.epoch, previous: self.active.checksum };
        let mut tail = header::BYTES as u64;
        let mut written = Vec::with_capacity(records.len());
        let mut rest = records;
        let mut buffer = Vec::new();
        while !rest.is_empty() {
            let before = rest;
            buffer.clear();
            let frame = encode_frame(&mut buffer, seed, context, &mut rest);
            context.previous = frame.checksum;
            let write_failed = Error::io("write", &name);
            let needed = buffer.len() as u64;
            file.write_at(&buffer, tail).map_err(|e| write_failed(e).or_no_space(needed))?;
            let in_frame = before.iter().zip(&frame.places);
            written.extend(in_frame.map(|((_, record), place)| {
                let place = Place { position: tail + place.position, ..*place };
                (place, tail + frame.area_end, record.clone())
            }));
            tail += needed;
        }
        let allocated = self.allocate_behind(&*file, &name, tail, ready)?;
        let old = &self.active.header;
        let newest_ms = old.newest_ms.max(self.shared.read().active.index.newest_ms());
        let header = SegmentHeader {
            store: self.shared.store,
            segment,
            generation: 0,
            first: self.next,
            whole_to: tail,
            newest_ms,
            removed_ms: 0,
            before: self.active.checksum,
            closing: 0,
            last: Lsn(0),
        };
        file.write_at(&header.encode(), 0).map_err(Error::io("write", &name))?;
        let checksum = context.previous;
        let checkpoint = tail;
        let length = allocated;
        let active =
            Active { header, file, name, seed, tail, allocated, length, checksum, checkpoint };
        Ok((active, written))
    }

    /// Room for what follows the checkpoint in a new segment, if it has room up to `ready` already.
    fn allocate_behind(
        &self,
        file: &dyn File,
        name: &str,
        tail: u64,
        ready: u64,
    ) -> Result<u64, Error> {
        let failed = |action| Error::io(action, name);
        let free = self.active.allocated - self.active.tail;
        // What was free stays free, as far as a file that was made ready has room for it.
        let promised = if ready >= tail { free.min(ready - tail) } else { free };
        let step = self.options.preallocate_bytes;
        let wanted = tail + promised.max(step);
        if ready > wanted + step {
            // The checkpoint took less than it might have. Nobody knows this file yet, so it may
            // become shorter.
            file.truncate(wanted).map_err(failed("truncate"))?;
            return Ok(wanted);
        }
        let least = tail + promised;
        for length in [wanted, least].into_iter().filter(|length| *length > ready) {
            match file.preallocate(length) {
                Ok(()) => return Ok(length),
                Err(e) if is_no_space(&e) => {}
                Err(e) => return Err(failed("preallocate")(e)),
            }
        }
        if least > ready { Err(Error::NoSpace { needed: least }) } else { Ok(ready) }
    }

    /// Publishes the new segment; the old one has its index in memory until it is stored.
    fn seal(&mut self, active: Active, written: Written) -> Sealing {
        let header = active.header.clone();
        let source = Source::new(active.file.clone(), &header);
        let old = std::mem::replace(&mut self.active, active);
        let built = |index| Built {
            file: old.file.clone(),
            header: old.header.clone(),
            index,
            last: Lsn(header.first.0 - 1),
            tail: Tail { end: old.tail, closing: old.checksum },
        };
        let old_index = {
            let mut view = self.shared.write();
            let view = &mut *view;
            let index = view.active.index.next(header.segment, header.first);
            let new = ActiveView { source, header: header.clone(), index };
            let old_index = Arc::new(std::mem::replace(&mut view.active, new).index);
            view.sealed.push(Arc::new(sealed::in_memory(built(old_index.clone()))));
            view.publish(written);
            view.note_removed();
            old_index
        };
        let built = built(old_index);
        Sealing { shared: self.shared.clone(), built, name: old.name }
    }
}
