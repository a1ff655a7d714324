//! Opening a store: what is there is read and judged first, and only then is anything changed.
//!
//! Nothing that was read has an effect before it is durable again, because after a failed sync the
//! page cache may hold what the disk does not: the newest segment is copied to a fresh file, synced,
//! renamed, and the directory synced; or, where there is no room for a copy, written once more
//! where it is. The table of cases is in `docs/format.md`.

use std::collections::BTreeSet;
use std::sync::Arc;

use handfast_core::ids::{Lsn, OpeningId, StoreId};
use handfast_core::record::{Opened, Record};

use crate::create;
use crate::error::Error;
use crate::files::pool::Pool;
use crate::files::{File, Files, is_no_space};
use crate::group::encode_frame;
use crate::index::MemoryIndex;
use crate::inventory::{self, Inventory};
use crate::layout::end::EndMark;
use crate::layout::frame::{FrameContext, Place};
use crate::layout::header::{self, SegmentHeader};
use crate::layout::{names, seed};
use crate::options::Options;
use crate::recent::Recent;
use crate::scan::{Placed, Scan, read_header};
use crate::sealed::{self, Found, Sealed};
use crate::source::Source;
use crate::state::{Active, Journal};
use crate::view::{ActiveView, Shared, View};

/// How far opening, or a check, has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that were read.
    pub done: u64,
    /// Bytes to read in all.
    pub total: u64,
}

/// What opening found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovered {
    /// The store.
    pub store: StoreId,
    /// The epoch of this opening, one higher than any before.
    pub epoch: u32,
    /// Log time at the opening: what `log_time` said, and never before the newest time in the log.
    pub wall_ms: u64,
    /// The newest time that was in the log, in records or in ids; 0: none was.
    pub newest_ms: u64,
    /// The place of the next record.
    pub next_lsn: Lsn,
    /// Bytes of a torn last group that were dropped. On a disk that keeps what it was told to keep
    /// it was never acknowledged.
    pub dropped_bytes: u64,
    /// Every segment, the active one last.
    pub segments: Vec<u64>,
    /// Indexes that were missing or damaged and were built again.
    pub rebuilt_indexes: Vec<u64>,
    /// Every segment that should be there is there, and their ends fit together. (Otherwise the
    /// store does not open.)
    pub whole: bool,
    /// The store was made by this opening.
    pub created: bool,
}

/// How much is copied at a time.
const CHUNK: usize = 1 << 20;

type Apply<'a> = &'a mut dyn FnMut(Lsn, Arc<Record>);

pub(crate) fn open(
    files: Arc<dyn Files>,
    options: Options,
    log_time: &mut dyn FnMut(u64) -> u64,
    new_store: StoreId,
    opening: OpeningId,
    progress: &mut dyn FnMut(Progress),
    apply: Apply<'_>,
) -> Result<(Journal, Recovered), Error> {
    Inventory::take(&*files)?.refuse_foreign()?;
    let lock = files.lock(names::LOCK).map_err(Error::io("lock", names::LOCK))?;
    let lock = lock.ok_or(Error::Locked)?;
    // Looked at again, because before the lock somebody else may have been at work.
    let mut inventory = Inventory::take(&*files)?;
    let created = !inventory.store;
    if created {
        inventory.refuse_foreign()?;
        create::create(&*files, &inventory, new_store)?;
        inventory = Inventory::take(&*files)?;
    }
    let store = inventory::read_store(&*files)?;
    let segment = inventory.newest()?;
    let bounds = Bounds::read(&*files, store, &inventory, segment);
    let mut newest = Newest::read(&*files, store, segment, &bounds, progress, apply)?;
    let pool = Pool::new(files.clone(), options.open_files);
    if let Some(mark) = EndMark::read(&*files, store)? {
        mark.check(segment, newest.scan.at, newest.scan.length())?;
    }
    let older = Older::look(&*files, &pool, store, &newest)?;

    let opened = newest.opened(&options, log_time, opening)?;
    for name in &inventory.unfinished {
        files.remove(name).map_err(Error::io("remove", name))?;
    }
    let active = newest.make_durable(&*files, &options, &opened)?;
    older.remove_leftovers(&*files, &inventory, segment)?;
    let (sealed, rebuilt_indexes) = older.complete(&*files, &pool)?;

    let place = active.1;
    let Opened { epoch, wall_ms, newest_ms, .. } = opened;
    let record = Arc::new(Record::Opened(opened));
    newest.index.add(place, active.2, &record, &|lsn| bounds.holding(lsn));
    let mut recent = Recent::new(place.lsn, options.recent_bytes);
    recent.push(record.clone(), place.length);
    let active = active.0;
    let mut view = View {
        sealed,
        active: ActiveView {
            source: Source::new(active.file.clone(), &active.header),
            header: active.header.clone(),
            index: newest.index,
        },
        recent,
        durable: place.lsn,
        removed_ms: None,
    };
    view.note_removed();
    let room = files.room().map_err(Error::io("measure", "."))?;
    let journal = Journal {
        shared: Arc::new(Shared::new(files, pool, store, view)),
        options,
        epoch,
        active,
        next: Lsn(place.lsn.0 + 1),
        dropped: BTreeSet::new(),
        buffer: Vec::new(),
        poisoned: false,
        room,
        prepared: None,
        marked: None,
        lock,
    };
    apply(place.lsn, record);
    let recovered = Recovered {
        store,
        epoch: journal.epoch,
        wall_ms,
        newest_ms,
        next_lsn: journal.next,
        dropped_bytes: newest.dropped_bytes,
        segments: journal.segments(),
        rebuilt_indexes,
        whole: true,
        created,
    };
    Ok((journal, recovered))
}

/// The newest segment: the only one of which the end may be torn.
struct Newest {
    scan: Scan,
    index: MemoryIndex,
    /// Older segments that the checkpoint lists and no later record drops.
    expected: BTreeSet<u64>,
    checkpoint: u64,
    dropped_bytes: u64,
}

impl Newest {
    fn read(
        files: &dyn Files,
        store: StoreId,
        segment: u64,
        bounds: &Bounds,
        progress: &mut dyn FnMut(Progress),
        apply: Apply<'_>,
    ) -> Result<Self, Error> {
        let name = names::log(segment);
        let file = files.open(&name).map_err(Error::io("open", &name))?;
        let header = read_header(&*file, store, segment)?;
        let mut newest = Self {
            index: MemoryIndex::new(segment, 0, header.first),
            scan: Scan::new(file, header)?,
            expected: BTreeSet::new(),
            checkpoint: 0,
            dropped_bytes: 0,
        };
        let total = newest.scan.length();
        let why = loop {
            match newest.scan.next()? {
                Ok(frame) => {
                    for placed in newest.scan.records(&frame)? {
                        let Placed { place, area_end, record } = &placed;
                        newest.index.add(*place, *area_end, record, &|lsn| bounds.holding(lsn));
                        newest.note(placed.place.lsn, &placed.record)?;
                        apply(placed.place.lsn, placed.record);
                    }
                    progress(Progress { done: newest.scan.at, total });
                }
                Err(why) => break why,
            }
        };
        newest.judge_end(why)?;
        progress(Progress { done: total, total });
        Ok(newest)
    }

    /// Follows the checkpoint and what drops segments behind it.
    fn note(&mut self, lsn: Lsn, record: &Record) -> Result<(), Error> {
        if lsn == self.scan.header.first {
            let Record::CheckpointStart(start) = record else {
                let at = header::BYTES as u64;
                return Err(self.scan.corrupt(at, "the segment does not begin with a checkpoint"));
            };
            self.expected = start.segments.iter().copied().collect();
        }
        match record {
            Record::CheckpointEnd => self.checkpoint = self.scan.at,
            Record::SegmentDropped(dropped) => {
                self.expected.remove(&dropped.segment);
            }
            _ => {}
        }
        Ok(())
    }

    /// Decides what it means that no frame continues the last one.
    fn judge_end(&mut self, why: &'static str) -> Result<(), Error> {
        let at = self.scan.at;
        if at < self.scan.header.whole_to || self.checkpoint == 0 {
            return Err(self.scan.corrupt(at, why));
        }
        let Some(written) = self.scan.last_written_byte()? else { return Ok(()) };
        if let Some(behind) = self.scan.frame_behind()? {
            let detail = format!("{why}, but a later frame at byte {behind} is whole");
            return Err(self.scan.corrupt(at, detail));
        }
        self.dropped_bytes = written + 1 - at;
        Ok(())
    }

    fn opened(
        &self,
        options: &Options,
        log_time: &mut dyn FnMut(u64) -> u64,
        opening: OpeningId,
    ) -> Result<Opened, Error> {
        let epoch = self.scan.epoch.checked_add(1);
        let epoch = epoch.and_then(|epoch| epoch.checked_add(options.skipped_epochs));
        let epoch = epoch.ok_or_else(|| self.scan.corrupt(self.scan.at, "no epochs are left"))?;
        let newest_ms = self.scan.header.newest_ms.max(self.index.newest_ms());
        let wall_ms = log_time(newest_ms).max(newest_ms);
        Ok(Opened { store: self.scan.header.store, epoch, opening, wall_ms, newest_ms })
    }

    /// Makes what is valid durable, with the record of this opening behind it: in a copy, or in its
    /// place if there is no room for one.
    fn make_durable(
        &mut self,
        files: &dyn Files,
        options: &Options,
        opened: &Opened,
    ) -> Result<(Active, Place, u64), Error> {
        let scan = &self.scan;
        let segment = scan.header.segment;
        let seed = seed(scan.header.store, segment);
        let context = FrameContext { segment, epoch: opened.epoch, previous: scan.checksum };
        let lsn = Lsn(scan.last.0 + 1);
        let record = [(lsn, Arc::new(Record::Opened(opened.clone())))];
        let mut frame = Vec::new();
        let encoded = encode_frame(&mut frame, seed, context, &mut record.as_slice());
        let tail = scan.at + frame.len() as u64;
        // As much as it has now, so that what was kept for open transactions is kept.
        let length = scan.length().max(tail + options.preallocate_bytes);
        let (file, header, allocated) = match self.copy(files, &frame, length) {
            Err(Error::NoSpace { .. }) => {
                let (file, allocated) = self.rewrite(&frame, length)?;
                (file, self.scan.header.clone(), allocated)
            }
            copied => copied?,
        };
        let name = self.scan.name.clone();
        let at = self.scan.at;
        let place = Place { position: at + encoded.places[0].position, ..encoded.places[0] };
        let (checksum, checkpoint) = (encoded.checksum, self.checkpoint);
        let active = Active {
            header,
            file,
            name,
            seed,
            tail,
            allocated,
            length: allocated,
            checksum,
            checkpoint,
        };
        Ok((active, place, at + encoded.area_end))
    }

    /// Copies what is valid to a fresh file of this length, which takes the name when it is durable.
    fn copy(
        &self,
        files: &dyn Files,
        frame: &[u8],
        length: u64,
    ) -> Result<(Arc<dyn File>, SegmentHeader, u64), Error> {
        let scan = &self.scan;
        let unfinished = names::unfinished(&scan.name);
        let room = files.room().map_err(Error::io("measure", "."))?;
        if room.free < length {
            return Err(Error::NoSpace { needed: length });
        }
        let header =
            SegmentHeader { whole_to: scan.at + frame.len() as u64, ..scan.header.clone() };
        let file = files
            .create(&unfinished)
            .map_err(|e| Error::io("create", &unfinished)(e).or_no_space(length))?;
        // First of all, so that there is no room for half of it.
        let taken = file.preallocate(length).map_err(Error::io("preallocate", &unfinished));
        let filled = taken.and_then(|()| {
            let failed = Error::io("write", &unfinished);
            file.write_at(&header.encode(), 0).map_err(failed)?;
            self.write_again(&*file, &unfinished)?;
            file.write_at(frame, scan.at).map_err(Error::io("write", &unfinished))
        });
        if let Err(e) = filled.map_err(|e| e.or_no_space(length)) {
            if e.is_no_space() {
                files.remove(&unfinished).map_err(Error::io("remove", &unfinished))?;
            }
            return Err(e);
        }
        file.sync_data().map_err(Error::io("sync", &unfinished))?;
        files.rename(&unfinished, &scan.name).map_err(Error::io("rename", &unfinished))?;
        files.sync_directory().map_err(Error::io("sync", "."))?;
        Ok((file, header, length))
    }

    /// Writes what is valid once more where it is, and the frame behind it. The same bytes: whatever
    /// part of them a power cut leaves, what was there is there. Says how much room the file has.
    fn rewrite(&self, frame: &[u8], length: u64) -> Result<(Arc<dyn File>, u64), Error> {
        let Scan { file, name, at, .. } = &self.scan;
        let tail = at + frame.len() as u64;
        let write_failed = || Error::io("write", name);
        let mut allocated = self.scan.length();
        for longer in [length, tail].into_iter().filter(|longer| *longer > allocated) {
            match file.preallocate(longer) {
                Ok(()) => {
                    allocated = longer;
                    break;
                }
                Err(e) if is_no_space(&e) => {}
                Err(e) => return Err(Error::io("preallocate", name)(e)),
            }
        }
        if allocated < tail {
            return Err(Error::NoSpace { needed: tail - allocated });
        }
        let mut head = vec![0; header::BYTES];
        file.read_at(&mut head, 0).map_err(Error::io("read", name))?;
        file.write_at(&head, 0).map_err(write_failed())?;
        self.write_again(&**file, name)?;
        // What a torn group left goes first, for good: nothing of it may turn up behind the frame.
        for range in file.written(*at).map_err(Error::io("seek", name))? {
            let from = range.start.max(*at);
            for start in (from..range.end).step_by(CHUNK) {
                let zeros = vec![0; (range.end - start).min(CHUNK as u64) as usize];
                file.write_at(&zeros, start).map_err(write_failed())?;
            }
        }
        file.sync_data().map_err(Error::io("sync", name))?;
        file.write_at(frame, *at).map_err(write_failed())?;
        file.sync_data().map_err(Error::io("sync", name))?;
        Ok((file.clone(), allocated))
    }

    /// Writes the frames that were read to a file, at their places. Damage if they have changed
    /// since.
    fn write_again(&self, file: &dyn File, name: &str) -> Result<(), Error> {
        let end = self.scan.at;
        let write_failed = || Error::io("write", name);
        let mut at = header::BYTES as u64;
        let mut chunk = vec![0; CHUNK];
        let mut content = 0;
        while at < end {
            let length = (end - at).min(chunk.len() as u64) as usize;
            let read = self.scan.file.read_at(&mut chunk[..length], at);
            let n = read.map_err(Error::io("read", &self.scan.name))?;
            if n < length {
                return Err(self.scan.corrupt(at + n as u64, "the file became shorter"));
            }
            content = crc32c::crc32c_append(content, &chunk[..length]);
            file.write_at(&chunk[..length], at).map_err(write_failed())?;
            at += length as u64;
        }
        if content != self.scan.content {
            let from = header::BYTES as u64;
            return Err(self.scan.corrupt(from, "the file changed while it was read"));
        }
        Ok(())
    }
}

/// Which LSNs the older segments begin with, as far as that can be told.
struct Bounds(Vec<(Lsn, u64)>);

impl Bounds {
    fn read(files: &dyn Files, store: StoreId, inventory: &Inventory, newest: u64) -> Self {
        let older = inventory.logs.iter().filter(|segment| **segment < newest);
        let firsts = older.filter_map(|segment| {
            // What cannot be read here is found again, and judged, when it is needed.
            let file = files.open(&names::log(*segment)).ok()?;
            Some((read_header(&*file, store, *segment).ok()?.first, *segment))
        });
        Self(firsts.collect())
    }

    fn holding(&self, lsn: Lsn) -> Option<u64> {
        let after = self.0.partition_point(|(first, _)| *first <= lsn);
        self.0.get(after.checked_sub(1)?).map(|(_, segment)| *segment)
    }
}

/// The older segments that have to be there.
struct Older {
    found: Vec<Found>,
    expected: BTreeSet<u64>,
}

impl Older {
    /// Looks at each and at how it joins the next. Nothing is changed.
    fn look(
        files: &dyn Files,
        pool: &Arc<Pool>,
        store: StoreId,
        newest: &Newest,
    ) -> Result<Self, Error> {
        let expected = newest.expected.clone();
        let mut found = Vec::with_capacity(expected.len());
        for segment in &expected {
            found.push(sealed::look(files, store, *segment)?.on_demand(pool)?);
        }
        let headers: Vec<&SegmentHeader> =
            found.iter().map(Found::header).chain([&newest.scan.header]).collect();
        for (i, found) in found.iter().enumerate() {
            match found {
                Found::Indexed(sealed) => {
                    let next = headers[i + 1];
                    sealed::check_joint(&sealed.header, sealed.summary.last, sealed.tail, next)?;
                }
                // Without an index only reading it shows whether it is whole.
                Found::Unindexed { file, header, .. } => {
                    let built = sealed::build(file.clone(), header.clone(), &|_| None)?;
                    sealed::check_joint(header, built.last, built.tail, headers[i + 1])?;
                }
            }
        }
        Ok(Self { found, expected })
    }

    /// Removes what a crash left behind: segments that a durable record dropped, indexes without
    /// a segment. An index that does not fit goes too, before it is written again.
    fn remove_leftovers(
        &self,
        files: &dyn Files,
        inventory: &Inventory,
        newest: u64,
    ) -> Result<(), Error> {
        let indexes = inventory.indexes.iter().filter(|n| !self.expected.contains(n));
        let logs = inventory.logs.iter().filter(|n| **n != newest && !self.expected.contains(n));
        let leftovers: Vec<String> =
            indexes.map(|n| names::index(*n)).chain(logs.map(|n| names::log(*n))).collect();
        for name in &leftovers {
            files.remove(name).map_err(Error::io("remove", name))?;
        }
        if !leftovers.is_empty() {
            files.sync_directory().map_err(Error::io("sync", "."))?;
        }
        Ok(())
    }

    /// Writes the indexes that are missing.
    fn complete(
        self,
        files: &dyn Files,
        pool: &Arc<Pool>,
    ) -> Result<(Vec<Arc<Sealed>>, Vec<u64>), Error> {
        let mut sealed = Vec::with_capacity(self.found.len());
        let mut rebuilt = Vec::new();
        for found in self.found {
            let one = match found {
                Found::Indexed(one) => one,
                Found::Unindexed { file, header, .. } => {
                    rebuilt.push(header.segment);
                    let segment_of = |lsn| sealed::holding(&sealed, lsn);
                    let built = sealed::build(file, header, &segment_of)?;
                    sealed::store_index(files, built, None)?.on_demand(pool)?
                }
            };
            sealed.push(Arc::new(one));
        }
        Ok((sealed, rebuilt))
    }
}
