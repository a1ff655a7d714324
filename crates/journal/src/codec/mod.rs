//! Records as bytes and back.
//!
//! The encoding is written by hand and drawn in `docs/format.md`; numbers of variants are fixed for
//! ever. Decoding is strict: an unknown number, a length that does not fit or a byte too many is
//! [`Malformed`], never a panic and never a large allocation. Nothing here knows files or frames.

mod parts;
mod record;
mod wire;

use bytes::Bytes;
use handfast_core::record::Record;

pub(crate) use record::is_end;
pub(crate) use wire::{Codec, Input};

/// Most bytes that one record may take. The largest transaction is half of it.
pub const RECORD_BYTES: usize = 15 << 20;

/// The bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a record: {0}")]
pub struct Malformed(pub(crate) &'static str);

/// Appends the encoding of a record to a buffer.
pub fn encode(record: &Record, out: &mut Vec<u8>) {
    record.put(out);
}

/// Reads a record; event bodies are slices of `bytes`, not copies.
///
/// # Errors
/// [`Malformed`] if the bytes are not exactly one record.
pub fn decode(bytes: Bytes) -> Result<Record, Malformed> {
    let mut input = Input::new(bytes);
    let record = Record::take(&mut input)?;
    input.finish()?;
    Ok(record)
}
