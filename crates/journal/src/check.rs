//! Looking at a whole store without opening it. Nothing on disk is changed.
//!
//! Unlike recovery, which reads only the newest segment, this reads everything there is and goes
//! on after damage where it can.

use std::collections::BTreeSet;

use handfast_core::ids::{Lsn, StoreId};
use handfast_core::record::Record;

use crate::corruption::Corruption;
use crate::error::Error;
use crate::files::{Files, Lock};
use crate::index::Tail;
use crate::inventory::{self, Inventory};
use crate::layout::end::EndMark;
use crate::layout::header::SegmentHeader;
use crate::layout::names;
use crate::recovery::Progress;
use crate::scan::{Frame, Scan, read_header};
use crate::sealed::{self, Found};

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The store.
    pub store: StoreId,
    /// Segments that were read.
    pub segments: Vec<u64>,
    /// Frames that check.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// The last record.
    pub last: Lsn,
    /// Bytes of a torn last group, which the next opening drops.
    pub torn_bytes: u64,
    /// Segments of which the index is missing or damaged; the next opening builds it again, or
    /// the first reader that needs it.
    pub stale_indexes: Vec<u64>,
    /// Files that the next opening removes.
    pub leftovers: Vec<String>,
    /// Damage. The store does not open, or some of what it holds cannot be read.
    pub damage: Vec<Corruption>,
}

impl Report {
    /// Nothing durable is altered or missing.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

/// Reads a whole store and reports what does not check.
///
/// # Errors
/// [`Error::Locked`] if the store is open, [`Error::NoStore`] if there is none; [`Error::Corrupt`]
/// and [`Error::Format`] for the store file itself, without which nothing else can be judged.
pub fn check(files: &dyn Files, progress: &mut dyn FnMut(Progress)) -> Result<Report, Error> {
    let Entered { _lock, inventory, store } = enter(files)?;
    let mut checking = Checking {
        files,
        report: Report { store, leftovers: inventory.unfinished.clone(), ..Report::default() },
        expected: None,
        progress,
        total: total_bytes(files, &inventory)?,
        newest: None,
    };
    checking.segments(&inventory)?;
    checking.end(&inventory)?;
    Ok(checking.report)
}

/// A store that is looked at and not opened.
pub(crate) struct Entered {
    pub(crate) _lock: Option<Box<dyn Lock>>,
    pub(crate) inventory: Inventory,
    pub(crate) store: StoreId,
}

/// Locks the store if it has a lock file, and reads which it is.
pub(crate) fn enter(files: &dyn Files) -> Result<Entered, Error> {
    let inventory = Inventory::take(files)?;
    if !inventory.store {
        inventory.refuse_foreign()?;
        return Err(Error::NoStore);
    }
    let lock = if inventory.lock {
        let lock = files.lock(names::LOCK).map_err(Error::io("lock", names::LOCK))?;
        Some(lock.ok_or(Error::Locked)?)
    } else {
        None
    };
    let inventory = Inventory::take(files)?;
    let store = inventory::read_store(files)?;
    Ok(Entered { _lock: lock, inventory, store })
}

fn total_bytes(files: &dyn Files, inventory: &Inventory) -> Result<u64, Error> {
    let mut total = 0;
    for segment in &inventory.logs {
        let name = names::log(*segment);
        let file = files.open(&name).map_err(Error::io("open", &name))?;
        total += file.length().map_err(Error::io("measure", &name))?;
    }
    Ok(total)
}

/// How a segment ended.
struct Ending {
    header: SegmentHeader,
    last: Lsn,
    tail: Tail,
}

struct Checking<'a> {
    files: &'a dyn Files,
    report: Report,
    /// What the newest checkpoint and the drops behind it say there should be.
    expected: Option<BTreeSet<u64>>,
    progress: &'a mut dyn FnMut(Progress),
    total: u64,
    /// The newest segment, where its last good frame ends, and how long its file is.
    newest: Option<(u64, u64, u64)>,
}

impl Checking<'_> {
    /// The newest segment reaches as far as it was durable once.
    fn end(&mut self, inventory: &Inventory) -> Result<(), Error> {
        let Some((newest, tail, length)) = self.newest else { return Ok(()) };
        if inventory.logs.last() != Some(&newest) {
            return Ok(());
        }
        match EndMark::read(self.files, self.report.store)? {
            Some(mark) => mark.check(newest, tail, length).or_else(|e| self.note(e)),
            None => Ok(()),
        }
    }

    fn segments(&mut self, inventory: &Inventory) -> Result<(), Error> {
        let newest = match inventory.newest() {
            Ok(newest) => newest,
            Err(e) => {
                self.note(e)?;
                let Some(newest) = inventory.logs.last() else { return Ok(()) };
                *newest
            }
        };
        let mut endings = Vec::new();
        for segment in &inventory.logs {
            match self.segment(*segment, *segment == newest) {
                Ok(ending) => endings.push(ending),
                Err(e) => self.note(e)?,
            }
        }
        let expected = self.expected.take().unwrap_or_default();
        for segment in expected.iter().filter(|n| !inventory.logs.contains(n)) {
            self.note(Error::corrupt(&names::log(*segment), 0, "the segment is missing"))?;
        }
        let dead = |segment: &u64| *segment != newest && !expected.contains(segment);
        let logs = inventory.logs.iter().filter(|n| dead(n)).map(|n| names::log(*n));
        let indexes = inventory.indexes.iter().filter(|n| dead(n)).map(|n| names::index(*n));
        self.report.leftovers.extend(logs.chain(indexes));
        endings.retain(|e| e.header.segment == newest || expected.contains(&e.header.segment));
        for pair in endings.windows(2) {
            let joint =
                sealed::check_joint(&pair[0].header, pair[0].last, pair[0].tail, &pair[1].header);
            if let Err(e) = joint {
                self.note(e)?;
            }
        }
        for segment in &expected {
            if inventory.logs.contains(segment) {
                self.index(*segment)?;
            }
        }
        Ok(())
    }

    /// Damage is noted, everything else ends the check.
    fn note(&mut self, error: Error) -> Result<(), Error> {
        match error {
            Error::Corrupt(corruption) => {
                self.report.damage.push(corruption);
                Ok(())
            }
            other => Err(other),
        }
    }

    fn segment(&mut self, segment: u64, newest: bool) -> Result<Ending, Error> {
        let name = names::log(segment);
        let file = self.files.open(&name).map_err(Error::io("open", &name))?;
        let header = read_header(&*file, self.report.store, segment)?;
        self.report.segments.push(segment);
        let mut scan = Scan::new(file, header)?;
        let mut complete = false;
        let why = loop {
            match scan.next()? {
                Ok(frame) => complete |= self.frame(&scan, &frame, newest)?,
                Err(why) => break why,
            }
            self.report.last = self.report.last.max(scan.last);
        };
        self.report.bytes += scan.length();
        (self.progress)(Progress { done: self.report.bytes, total: self.total });
        let at = scan.at;
        if newest {
            self.newest = Some((segment, at, scan.length()));
        }
        if at < scan.header.whole_to || (newest && !complete) {
            return Err(scan.corrupt(at, why));
        }
        if let Some(written) = scan.last_written_byte()? {
            let behind = scan.frame_behind()?;
            if !newest || behind.is_some() {
                return Err(scan.corrupt(at, why));
            }
            self.report.torn_bytes = written + 1 - at;
        }
        let compacted = scan.header.generation > 0;
        let header = scan.header.clone();
        let last = if compacted { header.last } else { scan.last };
        let closing = if compacted { header.closing } else { scan.checksum };
        Ok(Ending { header, last, tail: Tail { end: at, closing } })
    }

    /// Reads every record of a frame; says whether one of them ends a checkpoint.
    fn frame(&mut self, scan: &Scan, frame: &Frame, newest: bool) -> Result<bool, Error> {
        scan.check_records(frame)?;
        self.report.frames += 1;
        let mut complete = false;
        for placed in scan.records(frame)? {
            self.report.records += 1;
            match &*placed.record {
                Record::CheckpointStart(start) if newest => {
                    self.expected = Some(start.segments.iter().copied().collect());
                }
                Record::SegmentDropped(dropped) if newest => {
                    if let Some(expected) = &mut self.expected {
                        expected.remove(&dropped.segment);
                    }
                }
                Record::CheckpointEnd => complete = true,
                _ => {}
            }
        }
        Ok(complete)
    }

    fn index(&mut self, segment: u64) -> Result<(), Error> {
        let stale = match sealed::look(self.files, self.report.store, segment) {
            Ok(Found::Indexed(sealed)) => sealed.verify_index().is_err(),
            Ok(Found::Unindexed { .. }) => true,
            // Already noted when the segment was read.
            Err(Error::Corrupt(_)) => false,
            Err(e) => return Err(e),
        };
        if stale {
            self.report.stale_indexes.push(segment);
        }
        Ok(())
    }
}
