//! Frames (one commit group each) and the records in them, as bytes.
//!
//! A frame that does not check as a whole is never looked into.

use bytes::Bytes;
use handfast_core::ids::Lsn;
use handfast_core::record::Record;

use super::{u32_at, u64_at};
use crate::codec;

/// The first bytes of a frame.
pub(crate) const MAGIC: [u8; 8] = *b"HFFRAME\n";
/// Length of a frame's header.
pub(crate) const HEADER: usize = 48;
/// Frames begin at multiples of this.
pub(crate) const ALIGN: usize = 8;
/// Most bytes of records in one frame.
pub(crate) const AREA_BYTES: usize = 16 << 20;
/// Length of a record's header.
pub(crate) const RECORD_HEADER: usize = 16;

/// Rounds up to where a frame may begin.
pub(crate) fn aligned(length: u64) -> u64 {
    length.next_multiple_of(ALIGN as u64)
}

/// The header of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) epoch: u32,
    pub(crate) records: u32,
    pub(crate) first: Lsn,
    /// Bytes of records, without the padding behind them.
    pub(crate) length: u32,
    /// Checksum of the frame before it.
    pub(crate) previous: u32,
    /// Checksum over everything.
    pub(crate) checksum: u32,
}

impl FrameHeader {
    /// Reads a header that checks by itself; none if it does not.
    pub(crate) fn decode(bytes: &[u8], seed: u32, segment: u64) -> Option<Self> {
        let bytes = bytes.get(..HEADER)?;
        let fits = bytes[..8] == MAGIC
            && crc32c::crc32c_append(seed, &bytes[..40]) == u32_at(bytes, 40)
            && u64_at(bytes, 16) == segment
            && u32_at(bytes, 32) as usize <= AREA_BYTES;
        fits.then(|| Self {
            epoch: u32_at(bytes, 8),
            records: u32_at(bytes, 12),
            first: Lsn(u64_at(bytes, 24)),
            length: u32_at(bytes, 32),
            previous: u32_at(bytes, 36),
            checksum: u32_at(bytes, 44),
        })
    }

    /// Length of the whole frame with header and padding.
    pub(crate) fn frame_bytes(&self) -> u64 {
        aligned(HEADER as u64 + u64::from(self.length))
    }
}

/// True if a frame, as bytes from header to padding, checks as a whole.
pub(crate) fn checks(frame: &[u8], seed: u32, checksum: u32) -> bool {
    let head = crc32c::crc32c_append(seed, &frame[..HEADER - 4]);
    crc32c::crc32c_append(head, &frame[HEADER..]) == checksum
}

/// A record with its place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) lsn: Lsn,
    /// Where its header begins.
    pub(crate) position: u64,
    /// Its bytes with the header.
    pub(crate) length: u32,
}

/// Writes one frame at the end of a buffer.
pub(crate) struct FrameBuilder<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    seed: u32,
    first: Lsn,
    records: u32,
}

/// What a finished frame needs to know of its surroundings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameContext {
    pub(crate) segment: u64,
    pub(crate) epoch: u32,
    pub(crate) previous: u32,
}

impl<'a> FrameBuilder<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>, seed: u32) -> Self {
        let start = out.len();
        out.resize(start + HEADER, 0);
        Self { out, start, seed, first: Lsn(0), records: 0 }
    }

    /// Bytes of records so far.
    pub(crate) fn area(&self) -> usize {
        self.out.len() - self.start - HEADER
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Adds a record; its position is counted from the start of the buffer.
    pub(crate) fn push(&mut self, lsn: Lsn, record: &Record) -> Place {
        let at = self.out.len();
        self.out.resize(at + RECORD_HEADER, 0);
        codec::encode(record, self.out);
        self.seal_record(lsn, at)
    }

    fn seal_record(&mut self, lsn: Lsn, at: usize) -> Place {
        let length = self.out.len() - at - RECORD_HEADER;
        assert!(length <= codec::RECORD_BYTES, "record {lsn} has {length} bytes, too many");
        let record = &mut self.out[at..];
        record[8..16].copy_from_slice(&lsn.0.to_le_bytes());
        let checksum = crc32c::crc32c_append(self.seed, &record[8..]);
        record[..4].copy_from_slice(&(length as u32).to_le_bytes());
        record[4..8].copy_from_slice(&checksum.to_le_bytes());
        if self.records == 0 {
            self.first = lsn;
        }
        self.records += 1;
        Place { lsn, position: at as u64, length: (length + RECORD_HEADER) as u32 }
    }

    /// Takes the last record out again, which the next frame will hold.
    pub(crate) fn pop(&mut self, place: Place) {
        self.out.truncate(place.position as usize);
        self.records -= 1;
    }

    /// Completes the frame and says its checksum.
    pub(crate) fn finish(self, context: FrameContext) -> u32 {
        let Self { out, start, seed, first, records } = self;
        let length = out.len() - start - HEADER;
        assert!(length <= AREA_BYTES, "a frame of {length} bytes is too long");
        out.resize(start + aligned((HEADER + length) as u64) as usize, 0);
        let frame = &mut out[start..];
        frame[..8].copy_from_slice(&MAGIC);
        frame[8..12].copy_from_slice(&context.epoch.to_le_bytes());
        frame[12..16].copy_from_slice(&records.to_le_bytes());
        frame[16..24].copy_from_slice(&context.segment.to_le_bytes());
        frame[24..32].copy_from_slice(&first.0.to_le_bytes());
        frame[32..36].copy_from_slice(&(length as u32).to_le_bytes());
        frame[36..40].copy_from_slice(&context.previous.to_le_bytes());
        let head = crc32c::crc32c_append(seed, &frame[..40]);
        frame[40..44].copy_from_slice(&head.to_le_bytes());
        let checksum = crc32c::crc32c_append(seed, &frame[..44]);
        let checksum = crc32c::crc32c_append(checksum, &frame[HEADER..]);
        frame[44..48].copy_from_slice(&checksum.to_le_bytes());
        checksum
    }
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) length: u32,
    checksum: u32,
    pub(crate) lsn: Lsn,
}

impl RecordHeader {
    /// Reads a header; none if it cannot be one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..RECORD_HEADER)?;
        let length = u32_at(bytes, 0);
        let fits = length > 0 && length as usize <= codec::RECORD_BYTES;
        let header = Self { length, checksum: u32_at(bytes, 4), lsn: Lsn(u64_at(bytes, 8)) };
        fits.then_some(header)
    }

    /// Length with the header.
    pub(crate) fn record_bytes(&self) -> usize {
        RECORD_HEADER + self.length as usize
    }

    /// True if these bytes behind the header are the record.
    pub(crate) fn checks(&self, body: &[u8], seed: u32) -> bool {
        let lsn = crc32c::crc32c_append(seed, &self.lsn.0.to_le_bytes());
        crc32c::crc32c_append(lsn, body) == self.checksum
    }
}

/// The records of a frame that checks, one after the other, still encoded. `area_position` is
/// where the area lies in the file.
pub(crate) fn split(area: &Bytes, area_position: u64) -> impl Iterator<Item = Option<Split>> {
    let area = area.clone();
    let mut at = 0;
    std::iter::from_fn(move || {
        if at == area.len() {
            return None;
        }
        let found = RecordHeader::decode(&area[at..])
            .filter(|header| header.record_bytes() <= area.len() - at)
            .map(|header| Split {
                place: Place {
                    lsn: header.lsn,
                    position: area_position + at as u64,
                    length: header.record_bytes() as u32,
                },
                header,
                body: area.slice(at + RECORD_HEADER..at + header.record_bytes()),
            });
        at = found.as_ref().map_or(area.len(), |s| at + s.header.record_bytes());
        Some(found)
    })
}

/// One record of a frame, not decoded yet.
#[derive(Clone, Debug)]
pub(crate) struct Split {
    pub(crate) place: Place,
    pub(crate) header: RecordHeader,
    pub(crate) body: Bytes,
}
