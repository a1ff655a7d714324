//! Reading a segment from its first frame to its last.
//!
//! A scan yields only frames that check as a whole and continue the one before. Where it stops it
//! says why; what that means (a torn tail, damage, nothing) is for others to judge.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use handfast_core::ids::{Lsn, StoreId};
use handfast_core::record::Record;

use crate::codec;
use crate::error::Error;
use crate::files::File;
use crate::layout::frame::{self, ALIGN, FrameHeader, HEADER, MAGIC, Place};
use crate::layout::header::{self, SegmentHeader};
use crate::layout::{names, seed};

/// How much is read at a time where frames are not followed.
const CHUNK: usize = 1 << 20;

/// Reads ahead, so that small reads one after the other are few. What it holds may be older than
/// the file: whoever finds that it does not check has to [`Window::forget`] it and look again.
pub(crate) struct Window {
    /// Of this file.
    file: Option<Arc<dyn File>>,
    buffer: Vec<u8>,
    start: u64,
    ahead: usize,
}

impl Window {
    /// Reads at least `ahead` bytes at a time.
    pub(crate) fn new(ahead: usize) -> Self {
        Self { file: None, buffer: Vec::new(), start: 0, ahead }
    }

    pub(crate) fn forget(&mut self) {
        self.buffer.clear();
    }

    /// The bytes at a position; fewer than asked for only where the file ends.
    pub(crate) fn bytes(
        &mut self,
        file: &Arc<dyn File>,
        at: u64,
        length: usize,
    ) -> io::Result<&[u8]> {
        if self.file.as_ref().is_none_or(|held| !Arc::ptr_eq(held, file)) {
            self.file = Some(file.clone());
            self.forget();
        }
        let end = at + length as u64;
        if at < self.start || end > self.start + self.buffer.len() as u64 {
            self.buffer.resize(length.max(self.ahead), 0);
            let read = file.read_at(&mut self.buffer, at);
            self.buffer.truncate(*read.as_ref().unwrap_or(&0));
            self.start = at;
            read?;
        }
        let from = (at - self.start) as usize;
        let to = self.buffer.len().min(from + length);
        Ok(&self.buffer[from..to])
    }
}

/// A frame that checks.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) position: u64,
    pub(crate) header: FrameHeader,
    /// Its records, without padding.
    pub(crate) area: Bytes,
}

impl Frame {
    /// Where its records begin in the file.
    pub(crate) fn area_position(&self) -> u64 {
        self.position + HEADER as u64
    }

    /// Where its records end in the file.
    pub(crate) fn area_end(&self) -> u64 {
        self.area_position() + self.area.len() as u64
    }

    /// Its last record's LSN; none if the area is not what the header says.
    pub(crate) fn last(&self) -> Option<Lsn> {
        let mut last = None;
        for split in frame::split(&self.area, 0) {
            last = Some(split?.place.lsn);
        }
        last
    }
}

/// A record that was read, with its place.
pub(crate) struct Placed {
    pub(crate) place: Place,
    pub(crate) area_end: u64,
    pub(crate) record: Arc<Record>,
}

/// Reads frames from a segment.
pub(crate) struct Scan {
    pub(crate) file: Arc<dyn File>,
    pub(crate) name: String,
    pub(crate) header: SegmentHeader,
    seed: u32,
    length: u64,
    window: Window,
    /// Where the next frame should begin.
    pub(crate) at: u64,
    /// The last record read, or the one before the segment.
    pub(crate) last: Lsn,
    pub(crate) epoch: u32,
    /// Checksum of the last frame.
    pub(crate) checksum: u32,
    /// Checksum over all the frames that were read, to compare a copy with.
    pub(crate) content: u32,
}

/// Reads the header of a segment.
pub(crate) fn read_header(
    file: &dyn File,
    store: StoreId,
    segment: u64,
) -> Result<SegmentHeader, Error> {
    let mut bytes = [0; header::BYTES];
    let n = file.read_at(&mut bytes, 0).map_err(Error::io("read", &names::log(segment)))?;
    SegmentHeader::decode(&bytes[..n], store, segment)
}

impl Scan {
    pub(crate) fn new(file: Arc<dyn File>, header: SegmentHeader) -> Result<Self, Error> {
        let name = names::log(header.segment);
        let length = file.length().map_err(Error::io("measure", &name))?;
        Ok(Self {
            seed: seed(header.store, header.segment),
            last: Lsn(header.first.0.saturating_sub(1)),
            checksum: header.before,
            epoch: 0,
            content: 0,
            at: header::BYTES as u64,
            window: Window::new(CHUNK),
            file,
            name,
            header,
            length,
        })
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn corrupt(&self, position: u64, detail: impl Into<String>) -> Error {
        Error::corrupt(&self.name, position, detail)
    }

    /// The next frame; none where nothing continues the last one, with the reason in the error
    /// half of the answer.
    pub(crate) fn next(&mut self) -> Result<Result<Frame, &'static str>, Error> {
        let frame = match self.frame_at(self.at)? {
            Ok(frame) => frame,
            Err(why) => return Ok(Err(why)),
        };
        let header = &frame.header;
        if header.previous != self.checksum {
            return Ok(Err("the frame does not continue the one before it"));
        }
        if header.epoch < self.epoch {
            return Ok(Err("the epoch is lower than the one before"));
        }
        let compacted = self.header.generation > 0;
        let follows =
            if compacted { header.first > self.last } else { header.first.0 == self.last.0 + 1 };
        if !follows {
            return Ok(Err("the LSN does not follow"));
        }
        let last = frame.last().ok_or_else(|| {
            self.corrupt(frame.position, "the frame checks, but its records do not fit into it")
        })?;
        let counted = last.0.checked_sub(header.first.0).map(|n| n + 1);
        if !compacted && counted != Some(u64::from(header.records)) {
            return Err(self.corrupt(frame.position, "the frame checks, but miscounts its records"));
        }
        let length = header.frame_bytes() as usize;
        let failed = Error::io("read", &self.name);
        let whole = self.window.bytes(&self.file, frame.position, length).map_err(failed)?;
        self.content = crc32c::crc32c_append(self.content, whole);
        self.at = frame.position + header.frame_bytes();
        self.last = last;
        self.epoch = header.epoch;
        self.checksum = header.checksum;
        Ok(Ok(frame))
    }

    fn frame_at(&mut self, at: u64) -> Result<Result<Frame, &'static str>, Error> {
        let failed = Error::io("read", &self.name);
        let head = match self.window.bytes(&self.file, at, HEADER) {
            Ok(bytes) => bytes,
            Err(e) => return Err(failed(e)),
        };
        let Some(header) = FrameHeader::decode(head, self.seed, self.header.segment) else {
            return Ok(Err("no frame begins here"));
        };
        if header.records == 0 || header.frame_bytes() > self.length - at {
            return Ok(Err("the frame is longer than the file"));
        }
        let whole = match self.window.bytes(&self.file, at, header.frame_bytes() as usize) {
            Ok(bytes) => bytes,
            Err(e) => return Err(failed(e)),
        };
        if whole.len() as u64 != header.frame_bytes()
            || !frame::checks(whole, self.seed, header.checksum)
        {
            return Ok(Err("the checksum of the frame does not fit"));
        }
        let area = Bytes::copy_from_slice(&whole[HEADER..HEADER + header.length as usize]);
        Ok(Ok(Frame { position: at, header, area }))
    }

    /// The records of a frame. Bytes that checked and cannot be read are damage, or from a later
    /// version; never a torn write.
    pub(crate) fn records(&self, frame: &Frame) -> Result<Vec<Placed>, Error> {
        let area_end = frame.area_end();
        let mut records = Vec::with_capacity(frame.header.records.min(1 << 16) as usize);
        let mut expected = frame.header.first;
        for split in frame::split(&frame.area, frame.area_position()) {
            let split =
                split.ok_or_else(|| self.corrupt(frame.position, "a record does not fit"))?;
            let place = split.place;
            if place.lsn < expected || (self.header.generation == 0 && place.lsn != expected) {
                return Err(self.corrupt(place.position, "the LSN of a record does not follow"));
            }
            expected = Lsn(place.lsn.0 + 1);
            let record = codec::decode(split.body)
                .map_err(|e| self.corrupt(place.position, e.to_string()))?;
            records.push(Placed { place, area_end, record: Arc::new(record) });
        }
        Ok(records)
    }

    /// Verifies the checksum that each record has of its own, which readers rely on.
    pub(crate) fn check_records(&self, frame: &Frame) -> Result<(), Error> {
        for split in frame::split(&frame.area, frame.area_position()).flatten() {
            if !split.header.checks(&split.body, self.seed) {
                let at = split.place.position;
                return Err(self.corrupt(at, "the checksum of the record does not fit"));
            }
        }
        Ok(())
    }

    /// The last byte that is not zero, from where the scan stands; none if all are.
    pub(crate) fn last_written_byte(&mut self) -> Result<Option<u64>, Error> {
        let mut last = None;
        self.chunks(self.at, |at, chunk| {
            if let Some(i) = chunk.iter().rposition(|b| *b != 0) {
                last = Some(at + i as u64);
            }
            None::<()>
        })?;
        Ok(last)
    }

    /// Looks behind the place where the scan stopped for a frame that checks and that can only
    /// have been written after everything before it was durable: proof that what is here was
    /// durable too, and is damaged.
    pub(crate) fn frame_behind(&mut self) -> Result<Option<u64>, Error> {
        let mut at = self.at + ALIGN as u64;
        // Inside a frame whose header checks no other frame begins.
        let failed = Error::io("read", &self.name);
        let head = self.window.bytes(&self.file, self.at, HEADER).map_err(failed)?;
        if let Some(header) = FrameHeader::decode(head, self.seed, self.header.segment) {
            at = self.at + header.frame_bytes();
        }
        while let Some(candidate) = self.magic_from(at)? {
            if let Ok(frame) = self.frame_at(candidate)?
                && frame.header.first > self.last
                && frame.header.epoch >= self.epoch
            {
                return Ok(Some(candidate));
            }
            at = candidate + ALIGN as u64;
        }
        Ok(None)
    }

    /// The next place, at a multiple of eight, where a frame may begin.
    fn magic_from(&mut self, from: u64) -> Result<Option<u64>, Error> {
        self.chunks(from, |at, chunk| {
            let found = chunk.chunks_exact(ALIGN).position(|word| *word == MAGIC)?;
            Some(at + (found * ALIGN) as u64)
        })
    }

    /// Reads what may have been written from a position on, a multiple of eight, in pieces that
    /// begin at such multiples, until `look` has found something.
    fn chunks<T>(
        &mut self,
        from: u64,
        mut look: impl FnMut(u64, &[u8]) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let written = self.file.written(from).map_err(Error::io("seek", &self.name))?;
        for range in written {
            let mut at = range.start / ALIGN as u64 * ALIGN as u64;
            let end = range.end.min(self.length);
            while at < end {
                let failed = Error::io("read", &self.name);
                let length = (end - at).min(CHUNK as u64) as usize;
                let chunk = self.window.bytes(&self.file, at, length).map_err(failed)?;
                if let Some(found) = look(at, chunk) {
                    return Ok(Some(found));
                }
                if chunk.len() < length {
                    break;
                }
                at += length as u64;
            }
        }
        Ok(None)
    }
}
