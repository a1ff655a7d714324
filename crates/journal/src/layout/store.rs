//! The store file: which store this directory is, and in which format. Written once, for ever.

use handfast_core::ids::StoreId;

use super::{FORMAT, u32_at, u128_at};
use crate::error::Error;
use crate::layout::names;

const MAGIC: &[u8; 8] = b"HFSTORE\n";
/// Length of the file.
pub(crate) const BYTES: usize = 32;

pub(crate) fn encode(store: StoreId) -> Vec<u8> {
    let mut out = Vec::with_capacity(BYTES);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&FORMAT.to_le_bytes());
    out.extend_from_slice(&store.0.to_be_bytes());
    let checksum = crc32c::crc32c(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// Reads the file; `bytes` may be longer than it should be, by one at least if the file is.
pub(crate) fn decode(bytes: &[u8]) -> Result<StoreId, Error> {
    if bytes.len() != BYTES || bytes[..8] != MAGIC[..] {
        return Err(Error::corrupt(names::STORE, 0, "this is not a store file"));
    }
    if crc32c::crc32c(&bytes[..28]) != u32_at(bytes, 28) {
        return Err(Error::corrupt(names::STORE, 0, "the checksum does not fit"));
    }
    match u32_at(bytes, 8) {
        FORMAT => Ok(StoreId(u128_at(bytes, 12))),
        found => Err(Error::Format { file: names::STORE.to_owned(), found, known: FORMAT }),
    }
}
