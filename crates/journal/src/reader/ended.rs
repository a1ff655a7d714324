//! Transactions that have ended, in the order of their ends.
//!
//! Times rise along the log, so nothing is read that is older than what is asked for but a few
//! stretches in which a search by halves looks. Of what is read only ENDs are decoded.

use std::sync::Arc;

use bytes::Bytes;
use handfast_core::ids::{Lsn, TransactionId};
use handfast_core::record::{End, Record};

use super::{Reader, Stop, stop};
use crate::codec;
use crate::error::Error;
use crate::index::{Index, Mark, partition};
use crate::layout::frame::{HEADER, aligned};
use crate::layout::header;
use crate::scan::Window;
use crate::sealed::Sealed;
use crate::source::Source;

/// So many bytes of records are read by one call.
const SCAN_BYTES: u64 = 16 << 20;
/// Neighbouring records are read together.
const READ_AHEAD: usize = 256 << 10;
/// So far behind a mark a record with a time is looked for.
const PROBE_BYTES: u64 = 64 << 10;

/// Some of the transactions that have ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Each with the place of its END, in the order of the log.
    pub found: Vec<(Lsn, TransactionId)>,
    /// There may be more: go on from here. None: these were the last.
    pub next: Option<Lsn>,
    /// What ended up to this Unix time in milliseconds may be gone, with its segment or by
    /// compaction; none: nothing is gone.
    pub removed_ms: Option<u64>,
}

impl Reader {
    /// Transactions that ended at or after a time and are `wanted`, from a place in the log on or
    /// from the beginning. One call finds at most `most` of them (and one at least may be found),
    /// reads at most 16 MiB of records and one more record, and says where to go on.
    ///
    /// # Errors
    /// [`Error::Unreadable`] if the search leads into a damaged place of a sealed segment,
    /// [`Error::Corrupt`] or [`Error::Io`] if the active segment cannot be read.
    pub fn ended(
        &self,
        from: Option<Lsn>,
        since_ms: u64,
        wanted: &dyn Fn(&End) -> bool,
        most: usize,
    ) -> Result<Ended, Error> {
        let found = self.with_indexes(|| {
            let removed_ms = self.shared.read().removed_ms;
            let mut search =
                Search { since_ms, wanted, most: most.max(1), found: Vec::new(), scanned: 0 };
            let mut from = from;
            let mut next = None;
            while let Some(part) = self.part(from, since_ms) {
                next = search.walk(&part, from)?;
                if next.is_some() || part.end.is_none() {
                    break;
                }
                from = Some(Lsn(part.last.0 + 1));
            }
            Ok(Ended { found: search.found, next, removed_ms })
        });
        found.map_err(|error| self.unreadable_by_file(error))
    }

    /// The first segment that may have what is looked for.
    fn part(&self, from: Option<Lsn>, since_ms: u64) -> Option<Part> {
        let view = self.shared.read();
        let may_have = |s: &&Arc<Sealed>| {
            s.summary.ended > 0
                && s.summary.wall_ms.is_some_and(|(_, newest_ms)| newest_ms >= since_ms)
                && from.is_none_or(|from| s.summary.last >= from)
        };
        if let Some(sealed) = view.sealed.iter().find(may_have) {
            return Some(Part {
                source: sealed.source.clone(),
                first: sealed.summary.first,
                last: sealed.summary.last,
                end: Some(sealed.tail.end),
                marks: Marks::Sealed(sealed.clone()),
            });
        }
        let active = &view.active;
        let is_beyond = from.is_some_and(|from| from > view.durable);
        // Between its checkpoint and the first record it has nothing.
        (!is_beyond && active.header.first <= view.durable).then(|| Part {
            source: active.source.clone(),
            first: active.header.first,
            last: view.durable,
            end: None,
            marks: Marks::Active(active.index.marks().to_vec()),
        })
    }
}

/// One segment, as it stood when it was looked up.
struct Part {
    source: Source,
    first: Lsn,
    last: Lsn,
    /// Where its records end; none: it is being written, and ends with `last`.
    end: Option<u64>,
    marks: Marks,
}

enum Marks {
    Sealed(Arc<Sealed>),
    /// Copied out of the active index.
    Active(Vec<Mark>),
}

impl Part {
    /// Where to begin to read on to a record.
    fn mark(&self, lsn: Lsn) -> Result<Mark, Stop> {
        let known = match &self.marks {
            Marks::Sealed(sealed) => sealed.mark(lsn).map_err(stop(self.source.segment))?,
            Marks::Active(marks) => {
                let after = marks.partition_point(|mark| mark.lsn <= lsn);
                after.checked_sub(1).and_then(|at| marks.get(at)).copied()
            }
        };
        // Before the first record that is left of it.
        let start = header::BYTES as u64;
        Ok(known.unwrap_or(Mark { lsn: self.first, position: start, area_end: start }))
    }

    /// Where to begin so that nothing is missed that is not older.
    fn late(&self, since_ms: u64) -> Result<Mark, Stop> {
        let count = self.last.0.saturating_sub(self.first.0) + 1;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let lsn = |number: usize| Lsn(self.first.0 + number as u64);
        let at = partition(count, |number| {
            // Without a record that tells the time nothing may be left out.
            let time = self.time_at(self.mark(lsn(number))?)?;
            Ok::<_, Stop>(time.is_some_and(|wall_ms| wall_ms < since_ms))
        })?;
        self.mark(lsn(at.saturating_sub(1)))
    }

    /// The first time in a record soon behind a mark.
    fn time_at(&self, mark: Mark) -> Result<Option<u64>, Stop> {
        let mut window = Window::new(PROBE_BYTES as usize);
        let mut place = Walk::new(self, mark);
        while place.at < mark.position + PROBE_BYTES {
            let Some((_, body)) = place.next(&mut window)? else { return Ok(None) };
            let record = self.source.decode(place.at, Bytes::copy_from_slice(body))?;
            if let Some(wall_ms) = record.wall_ms() {
                return Ok(Some(wall_ms));
            }
        }
        Ok(None)
    }
}

/// Goes from record to record of a segment. Each is verified, so that damage is never taken for
/// absence.
struct Walk<'a> {
    part: &'a Part,
    /// Behind the last record.
    at: u64,
    area_end: u64,
    is_over: bool,
}

impl<'a> Walk<'a> {
    fn new(part: &'a Part, mark: Mark) -> Self {
        Self { part, at: mark.position, area_end: mark.area_end, is_over: false }
    }

    /// The next record, encoded; none behind the last one.
    fn next<'w>(&mut self, window: &'w mut Window) -> Result<Option<(Lsn, &'w [u8])>, Stop> {
        let source = &self.part.source;
        if self.is_over {
            return Ok(None);
        }
        if self.at >= self.area_end {
            self.at = aligned(self.at);
            if self.part.end.is_some_and(|end| self.at >= end) {
                return Ok(None);
            }
            let Some(frame) = source.frame_at(self.at, window)? else {
                let detail = "no frame begins here";
                return Err(Error::corrupt(&source.name(), self.at, detail).into());
            };
            self.at += HEADER as u64;
            self.area_end = self.at + u64::from(frame.length);
        }
        let (header, body) = source.checked_at(self.at, window)?;
        self.at += header.record_bytes() as u64;
        // What is behind the last durable record of the active segment is not there yet.
        self.is_over = self.part.end.is_none() && header.lsn >= self.part.last;
        Ok((header.lsn <= self.part.last).then_some((header.lsn, body)))
    }
}

/// What is looked for, and what was found.
struct Search<'a> {
    since_ms: u64,
    wanted: &'a dyn Fn(&End) -> bool,
    most: usize,
    found: Vec<(Lsn, TransactionId)>,
    scanned: u64,
}

impl Search<'_> {
    /// Reads a segment to its end, or says where to go on.
    fn walk(&mut self, part: &Part, from: Option<Lsn>) -> Result<Option<Lsn>, Stop> {
        let mark = match from {
            Some(from) => part.mark(from)?,
            None => part.late(self.since_ms)?,
        };
        let mut window = Window::new(READ_AHEAD);
        let mut place = Walk::new(part, mark);
        loop {
            let before = place.at;
            let Some((lsn, body)) = place.next(&mut window)? else { return Ok(None) };
            if from.is_some_and(|from| lsn < from) {
                continue;
            }
            if self.found.len() >= self.most || self.scanned >= SCAN_BYTES {
                return Ok(Some(lsn));
            }
            if codec::is_end(body) {
                let record = part.source.decode(before, Bytes::copy_from_slice(body))?;
                if let Record::End(end) = &*record
                    && end.wall_ms >= self.since_ms
                    && (self.wanted)(end)
                {
                    self.found.push((lsn, end.id));
                }
            }
            self.scanned += place.at - before;
        }
    }
}
