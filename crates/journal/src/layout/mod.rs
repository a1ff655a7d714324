//! The bytes of the files: names, the store file, segment headers, frames and record headers.
//!
//! `docs/format.md` draws them. Nothing but the end mark reads a file by itself.

pub(crate) mod end;
pub(crate) mod frame;
pub(crate) mod header;
pub(crate) mod names;
pub(crate) mod store;

use handfast_core::ids::StoreId;

/// The version of everything in this module and in the codec.
pub(crate) const FORMAT: u32 = 2;

/// Starts the checksums of a segment, so that bytes of another store or another segment never
/// check, wherever they turn up.
pub(crate) fn seed(store: StoreId, segment: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&store.0.to_be_bytes()), &segment.to_le_bytes())
}

/// A little-endian number at a place that is known to be inside the bytes.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |b| u32::from_le_bytes(*b))
}

/// See [`u32_at`].
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b))
}

/// See [`u32_at`]; most significant byte first.
pub(crate) fn u128_at(bytes: &[u8], at: usize) -> u128 {
    bytes[at..].first_chunk().map_or(0, |b| u128::from_be_bytes(*b))
}
