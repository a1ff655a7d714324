//! The one writer of a store.
//!
//! It never writes a group before the sync of the one before it returned, and never does anything
//! more after a write or a sync that failed.

use std::sync::Arc;

use handfast_core::ids::{Lsn, OpeningId, StoreId};
use handfast_core::record::Record;

use crate::error::Error;
use crate::files::{Files, Room, is_no_descriptor, is_no_space};
use crate::group::{Encoded, Group, Space, encode_frame};
use crate::index::SegmentSummary;
use crate::layout::end::EndMark;
use crate::layout::frame::{FrameContext, Place};
use crate::layout::header;
use crate::layout::names;
use crate::options::Options;
use crate::reader::Reader;
use crate::recovery::{self, Progress, Recovered};
use crate::roll::Sealing;
use crate::state::{Active, Journal};

/// Positions in a segment are stored in 32 bits.
const SEGMENT_LIMIT: u64 = u32::MAX as u64;
/// A small disk is for this many segments at least.
const SEGMENTS: u64 = 16;
/// A segment takes this many bytes at least, however small the disk is.
const LEAST_SEGMENT: u64 = 1 << 20;
/// A buffer that grew beyond this is given back.
const BUFFER_BYTES: usize = 64 << 20;

impl Journal {
    /// Opens a store, or makes one in an empty directory, with the id `new_store`. `opening` has to
    /// be random: it tells this opening from those of every copy of the store.
    ///
    /// `apply` is called for every record from the checkpoint of the newest segment on, in order,
    /// the last one being this opening itself; what it builds is worth nothing unless the call
    /// succeeds. On return everything that was read is durable, and the epoch is raised.
    ///
    /// The newest segment is copied if the disk has room for it once more, and made durable where it
    /// is if not: a store on a full disk can be opened.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::NotAStore`], [`Error::Format`] and [`Error::Corrupt`] leave the
    /// directory as it is. [`Error::NoSpace`]: there is no room to make a store, or the newest
    /// segment has none for the record of this opening.
    pub fn open(
        files: Arc<dyn Files>,
        options: Options,
        log_time: &mut dyn FnMut(u64) -> u64,
        new_store: StoreId,
        opening: OpeningId,
        progress: &mut dyn FnMut(Progress),
        apply: &mut dyn FnMut(Lsn, Arc<Record>),
    ) -> Result<(Self, Recovered), Error> {
        recovery::open(files, options, log_time, new_store, opening, progress, apply)
    }

    /// Appends a group and returns when it is durable.
    ///
    /// A group whose records exceed 16 MiB becomes several frames, each durable before the next
    /// is written.
    ///
    /// # Errors
    /// [`Error::NoSpace`]: nothing was written, and the journal goes on. Every other error poisons
    /// the journal; the group may or may not be there when the store is opened again.
    ///
    /// # Panics
    /// If the records do not continue the log, one is longer than
    /// [`RECORD_BYTES`](crate::codec::RECORD_BYTES), or a checkpoint is not complete or lists
    /// other segments than there are.
    pub fn append(&mut self, group: &Group) -> Result<(), Error> {
        let sealed = match self.append_and_seal_later(group)? {
            Some(sealing) => sealing.finish().and_then(|()| self.refresh_room()),
            None => Ok(()),
        };
        self.poison_unless_clean(sealed)
    }

    /// Does what [`Journal::append`] does, but leaves to the caller what is not needed for the
    /// group to be durable. There is something only when a segment was rolled.
    ///
    /// # Errors
    /// As [`Journal::append`].
    ///
    /// # Panics
    /// As [`Journal::append`].
    pub fn append_and_seal_later(&mut self, group: &Group) -> Result<Option<Sealing>, Error> {
        self.usable()?;
        for (expected, (lsn, _)) in (self.next.0..).zip(&group.records) {
            assert!(lsn.0 == expected, "record {lsn} where {expected} is due");
        }
        if group.records.is_empty() {
            return Ok(None);
        }
        let done = if group.roll {
            self.roll(&group.records).map(Some)
        } else {
            self.write(&group.records).map(|()| None)
        };
        self.poison_unless_clean(done)
    }

    /// Room as it is now.
    #[must_use]
    pub fn space(&self) -> Space {
        let Active { tail, allocated, checkpoint, .. } = self.active;
        let full = tail >= self.segment_bytes() && tail >= 4 * checkpoint;
        let next = self.prepared.as_ref().map_or(0, |p| p.allocated - header::BYTES as u64);
        Space {
            free: allocated - tail,
            low: self.is_low(),
            wants_roll: full || tail >= SEGMENT_LIMIT / 2,
            next,
            left: self.left(),
            total: self.total(),
        }
    }

    /// Makes sure that at least this many bytes can be appended without an allocation, if there is
    /// room for them; [`Space::free`] says whether there was.
    ///
    /// # Errors
    /// Every error poisons the journal; want of room is none.
    pub fn reserve(&mut self, bytes: u64) -> Result<Space, Error> {
        self.usable()?;
        let done = match self.extend(bytes) {
            Err(Error::NoSpace { .. }) => Ok(()),
            other => other,
        };
        let done = done.and_then(|()| self.refresh_room());
        self.poison_unless_clean(done)?;
        Ok(self.space())
    }

    /// Makes the next segment ready, so that a roll needs nothing of the disk: with room for this
    /// many bytes, if there is; [`Space::next`] says how much it has.
    ///
    /// # Errors
    /// Every error poisons the journal; want of room or of descriptors is none.
    pub fn prepare(&mut self, bytes: u64) -> Result<Space, Error> {
        self.usable()?;
        let done = self.make_next(header::BYTES as u64 + bytes);
        self.poison_unless_clean(done)?;
        Ok(self.space())
    }

    /// Looks at the disk: how much room it has now, of which others take and give too, and whether
    /// the files that are written to still have their names. To be called every second or so.
    ///
    /// # Errors
    /// [`Error::Removed`]: what was acknowledged since the last look may be lost. Every error
    /// poisons the journal.
    pub fn look(&mut self) -> Result<Space, Error> {
        self.usable()?;
        let done = self.check_names().and_then(|()| self.refresh_room());
        let done = done.and_then(|()| self.mark_end());
        self.poison_unless_clean(done)?;
        Ok(self.space())
    }

    /// A reader of what is durable. It stays valid as long as it is kept.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(self.shared.clone())
    }

    /// The sealed segments, oldest first, without those that are dropped already.
    #[must_use]
    pub fn sealed(&self) -> Vec<Arc<SegmentSummary>> {
        let view = self.shared.read();
        let left = view.sealed.iter().filter(|s| !self.dropped.contains(&s.segment()));
        left.map(|s| s.summary.clone()).collect()
    }

    /// Every segment that exists, the active one last: what the next checkpoint has to list.
    #[must_use]
    pub fn segments(&self) -> Vec<u64> {
        let sealed = self.sealed();
        sealed.iter().map(|s| s.segment).chain([self.active.header.segment]).collect()
    }

    /// The number of the segment that is being written.
    #[must_use]
    pub fn active_segment(&self) -> u64 {
        self.active.header.segment
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> StoreId {
        self.shared.store
    }

    /// The epoch of this opening.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The place of the next record.
    #[must_use]
    pub fn next_lsn(&self) -> Lsn {
        self.next
    }

    /// How many entries of indexes and recent records are held in memory: bounded by the size of
    /// a segment and of the recent records, not by that of the store.
    #[must_use]
    pub fn items_in_memory(&self) -> usize {
        let view = self.shared.read();
        let sealed: usize = view.sealed.iter().map(|s| s.items_in_memory()).sum();
        sealed + view.active.index.items() + view.recent.len()
    }

    pub(crate) fn usable(&self) -> Result<(), Error> {
        if self.poisoned { Err(Error::Poisoned) } else { Ok(()) }
    }

    pub(crate) fn poison_unless_clean<T>(&mut self, done: Result<T, Error>) -> Result<T, Error> {
        if let Err(e) = &done
            && !matches!(
                e,
                Error::NoSpace { .. }
                    | Error::NoSuchSegment(_)
                    | Error::NotDropped(_)
                    | Error::Unreadable(_)
            )
        {
            self.poisoned = true;
        }
        done
    }

    pub(crate) fn context(&self) -> FrameContext {
        FrameContext {
            segment: self.active.header.segment,
            epoch: self.epoch,
            previous: self.active.checksum,
        }
    }

    fn write(&mut self, records: &[(Lsn, Arc<Record>)]) -> Result<(), Error> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let done = self.write_with(&mut buffer, records);
        if buffer.capacity() <= BUFFER_BYTES {
            self.buffer = buffer;
        }
        done
    }

    fn write_with(
        &mut self,
        buffer: &mut Vec<u8>,
        records: &[(Lsn, Arc<Record>)],
    ) -> Result<(), Error> {
        let mut frames = Vec::new();
        let mut context = self.context();
        let mut rest = records;
        while !rest.is_empty() {
            let frame = encode_frame(buffer, self.active.seed, context, &mut rest);
            context.previous = frame.checksum;
            frames.push(frame);
        }
        let whole = buffer.len() as u64;
        if self.active.tail + whole > self.active.allocated {
            self.extend_for_accepted(whole)?;
        }
        let mut records = records;
        for frame in frames {
            let (now, later) = records.split_at(frame.places.len());
            self.write_frame(buffer, &frame, now)?;
            records = later;
        }
        Ok(())
    }

    fn write_frame(
        &mut self,
        buffer: &[u8],
        frame: &Encoded,
        records: &[(Lsn, Arc<Record>)],
    ) -> Result<(), Error> {
        let Active { file, name, tail, .. } = &self.active;
        let at = *tail;
        file.write_at(&buffer[frame.start..frame.end], at).map_err(Error::io("write", name))?;
        file.sync_data().map_err(Error::io("sync", name))?;
        self.active.length = self.active.allocated;
        let Active { file, name, .. } = &self.active;
        // What has no name any more is gone with the process: nobody may be told that it stands.
        if !file.is_named().map_err(Error::io("look at", name))? {
            return Err(Error::Removed { file: name.clone() });
        }
        self.active.tail += (frame.end - frame.start) as u64;
        self.active.checksum = frame.checksum;
        self.note_written(records);
        let in_file = |position: u64| position - frame.start as u64 + at;
        let places = frame.places.iter().zip(records).map(|(place, (_, record))| {
            let place = Place { position: in_file(place.position), ..*place };
            (place, in_file(frame.area_end), record.clone())
        });
        self.shared.write().publish(places.collect());
        Ok(())
    }

    pub(crate) fn note_written(&mut self, records: &[(Lsn, Arc<Record>)]) {
        self.next = Lsn(self.next.0 + records.len() as u64);
        for (_, record) in records {
            if let Record::SegmentDropped(dropped) = &**record {
                self.dropped.insert(dropped.segment);
            }
        }
    }

    /// Makes room for what was accepted. It should have been there; if it is not, the room of the
    /// next segment is better spent on this.
    fn extend_for_accepted(&mut self, bytes: u64) -> Result<(), Error> {
        match self.extend(bytes) {
            Err(Error::NoSpace { .. }) if self.prepared.is_some() => {
                self.give_up_next()?;
                self.extend(bytes)
            }
            done => done,
        }
    }

    /// Makes room for this many bytes behind the tail.
    fn extend(&mut self, bytes: u64) -> Result<(), Error> {
        let needed = self.active.tail + bytes;
        let no_space = Error::NoSpace { needed: needed.saturating_sub(self.active.allocated) };
        if needed <= self.active.allocated {
            return Ok(());
        }
        if needed > SEGMENT_LIMIT {
            return Err(no_space);
        }
        // A step more than is needed, or else just what is needed.
        let step = self.active.allocated + self.options.preallocate_bytes;
        for length in [needed.max(step.min(SEGMENT_LIMIT)), needed] {
            let grows_by = length - self.active.allocated;
            if self.limit().is_some_and(|limit| self.store_bytes() + grows_by > limit) {
                continue;
            }
            match self.active.file.preallocate(length) {
                Ok(()) => {
                    self.active.allocated = length;
                    return self.refresh_room();
                }
                Err(e) if is_no_space(&e) => {}
                Err(e) => return Err(Error::io("preallocate", &self.active.name)(e)),
            }
        }
        Err(no_space)
    }

    pub(crate) fn limit(&self) -> Option<u64> {
        self.options.max_store_bytes
    }

    /// Bytes of all segments.
    pub(crate) fn store_bytes(&self) -> u64 {
        let view = self.shared.read();
        let sealed: u64 = view.sealed.iter().map(|s| s.tail.end).sum();
        sealed + self.active.allocated + self.prepared.as_ref().map_or(0, |p| p.allocated)
    }

    /// What is not allocated.
    fn left(&self) -> u64 {
        let limit = self.limit().map_or(u64::MAX, |limit| limit.saturating_sub(self.store_bytes()));
        limit.min(self.room.free)
    }

    /// All the room that the store could ever have.
    fn total(&self) -> u64 {
        self.limit().unwrap_or(u64::MAX).min(self.room.total)
    }

    /// A segment is full at this many bytes: a store on a small disk is not one segment.
    fn segment_bytes(&self) -> u64 {
        self.options.segment_bytes.min((self.total() / SEGMENTS).max(LEAST_SEGMENT))
    }

    /// Writes down how far the log is durable, so that a log which has lost its end can be told from
    /// one that never had it. Not synced: it may say less than is durable, and never more.
    fn mark_end(&mut self) -> Result<(), Error> {
        let Active { tail, length, .. } = self.active;
        let (segment, last) = (self.active.header.segment, Lsn(self.next.0 - 1));
        let mark = EndMark { segment, tail, length, last };
        let failed = |action| Error::io(action, names::END);
        let file = match &self.marked {
            Some((_, written)) if *written == mark => return Ok(()),
            Some((file, _)) => file.clone(),
            None => match self.shared.files.open(names::END) {
                Ok(file) => file,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    match self.shared.files.create(names::END) {
                        Ok(file) => file,
                        Err(e) if is_no_space(&e) || is_no_descriptor(&e) => return Ok(()),
                        Err(e) => return Err(failed("create")(e)),
                    }
                }
                Err(e) if is_no_descriptor(&e) => return Ok(()),
                Err(e) => return Err(failed("open")(e)),
            },
        };
        match file.write_at(&mark.encode(self.shared.store), 0) {
            Ok(()) => self.marked = Some((file, mark)),
            // It says what it said.
            Err(e) if is_no_space(&e) => {}
            Err(e) => return Err(failed("write")(e)),
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), Error> {
        let Active { file, name, .. } = &self.active;
        let lock = self.lock.identity().map_err(Error::io("look at", names::LOCK))?;
        let log = file.identity().map_err(Error::io("look at", name))?;
        for (name, expected) in [(name.as_str(), log), (names::LOCK, lock)] {
            let found = self.shared.files.identity(name).map_err(Error::io("look at", name))?;
            if found != Some(expected) {
                return Err(Error::Removed { file: name.to_owned() });
            }
        }
        Ok(())
    }

    fn is_low(&self) -> bool {
        let Room { free, total } = self.room;
        let of_limit = self.limit().is_some_and(|limit| {
            let unused = self.active.allocated - self.active.tail;
            self.store_bytes() - unused >= limit - limit / 10
        });
        // What is allocated and not used yet counts as free.
        of_limit || free + (self.active.allocated - self.active.tail) <= total / 10
    }

    pub(crate) fn refresh_room(&mut self) -> Result<(), Error> {
        self.room = self.shared.files.room().map_err(Error::io("measure", "."))?;
        Ok(())
    }
}
