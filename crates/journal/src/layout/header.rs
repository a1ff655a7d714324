//! The first bytes of a segment.
//!
//! A header is written with the file, before the file has its name, and never changed in place.

use handfast_core::ids::{Lsn, StoreId};

use super::{FORMAT, u32_at, u64_at, u128_at};
use crate::error::Error;
use crate::layout::names;

const MAGIC: &[u8; 8] = b"HFSEGMNT";
/// Length of a segment's header: the first frame begins here.
pub(crate) const BYTES: usize = 96;
const CHECKSUM: usize = BYTES - 4;

/// What a segment says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) store: StoreId,
    pub(crate) segment: u64,
    /// How often it was compacted. Only from 1 on may LSNs be missing in it.
    pub(crate) generation: u32,
    /// The first LSN it was written with.
    pub(crate) first: Lsn,
    /// Up to here the file was durable before it got its name: damage there is no torn write.
    pub(crate) whole_to: u64,
    /// The newest time in any segment before this one (records and ids).
    pub(crate) newest_ms: u64,
    /// The newest time of what compaction took out of it; 0: nothing.
    pub(crate) removed_ms: u64,
    /// Checksum of the frame before its first one, at the end of the segment before.
    pub(crate) before: u32,
    /// After compaction: the checksum that its last frame had, to which the next segment refers.
    pub(crate) closing: u32,
    /// After compaction: the last LSN it was written with.
    pub(crate) last: Lsn,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; BYTES] {
        let mut out = [0; BYTES];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        out[12..16].copy_from_slice(&self.generation.to_le_bytes());
        out[16..32].copy_from_slice(&self.store.0.to_be_bytes());
        let words = [self.segment, self.first.0, self.whole_to, self.newest_ms, self.removed_ms];
        for (i, word) in words.iter().enumerate() {
            out[32 + 8 * i..40 + 8 * i].copy_from_slice(&word.to_le_bytes());
        }
        out[72..76].copy_from_slice(&self.before.to_le_bytes());
        out[76..80].copy_from_slice(&self.closing.to_le_bytes());
        out[80..88].copy_from_slice(&self.last.0.to_le_bytes());
        let checksum = crc32c::crc32c(&out[..CHECKSUM]);
        out[CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads the header of a segment of this store with this number.
    pub(crate) fn decode(bytes: &[u8], store: StoreId, segment: u64) -> Result<Self, Error> {
        let header = Self::decode_any(bytes, segment)?;
        if header.store != store || header.segment != segment {
            let detail = format!("it says segment {} of store {}", header.segment, header.store);
            return Err(Error::corrupt(&names::log(segment), 0, detail));
        }
        Ok(header)
    }

    /// Reads a header, whatever store it says it belongs to.
    pub(crate) fn decode_any(bytes: &[u8], segment: u64) -> Result<Self, Error> {
        let file = names::log(segment);
        if bytes.len() < BYTES || bytes[..8] != MAGIC[..] {
            return Err(Error::corrupt(&file, 0, "no segment begins here"));
        }
        if crc32c::crc32c(&bytes[..CHECKSUM]) != u32_at(bytes, CHECKSUM) {
            return Err(Error::corrupt(&file, 0, "the checksum of the header does not fit"));
        }
        let found = u32_at(bytes, 8);
        if found != FORMAT {
            return Err(Error::Format { file, found, known: FORMAT });
        }
        Ok(Self {
            generation: u32_at(bytes, 12),
            store: StoreId(u128_at(bytes, 16)),
            segment: u64_at(bytes, 32),
            first: Lsn(u64_at(bytes, 40)),
            whole_to: u64_at(bytes, 48),
            newest_ms: u64_at(bytes, 56),
            removed_ms: u64_at(bytes, 64),
            before: u32_at(bytes, 72),
            closing: u32_at(bytes, 76),
            last: Lsn(u64_at(bytes, 80)),
        })
    }
}
