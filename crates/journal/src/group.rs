//! What is appended as one, and how much room there is for it.

use std::sync::Arc;

use handfast_core::ids::Lsn;
use handfast_core::record::Record;

use crate::codec;
use crate::layout::frame::{AREA_BYTES, FrameBuilder, FrameContext, HEADER, Place, RECORD_HEADER};

/// Records that become durable together.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// The records with their places, which continue the log without a hole.
    pub records: Vec<(Lsn, Arc<Record>)>,
    /// The records are a complete checkpoint, from `CheckpointStart` to `CheckpointEnd`, and a new
    /// segment begins with them.
    pub roll: bool,
}

/// Room in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that can be appended without an allocation. A record takes what
    /// [`record_bytes`] says, a group [`GROUP_BYTES`] more.
    pub free: u64,
    /// The file system, or what the store may take, is 90 % full.
    pub low: bool,
    /// The active segment is full, and at least four times as large as its checkpoint.
    pub wants_roll: bool,
    /// Bytes that a new segment has for its checkpoint and, behind it, for as much as is free now,
    /// whatever happens to the disk meanwhile; 0: none is made ready.
    pub next: u64,
    /// Bytes that the file system, or what the store may take, has besides what is allocated.
    pub left: u64,
    /// All the room that the store could ever have.
    pub total: u64,
}

/// Most bytes that a group takes besides its records (one that is split takes this for each
/// frame of 16 MiB).
pub const GROUP_BYTES: u64 = HEADER as u64 + 8;

/// Bytes that a record takes in the log.
#[must_use]
pub fn record_bytes(record: &Record) -> u64 {
    let mut out = Vec::new();
    codec::encode(record, &mut out);
    (RECORD_HEADER + out.len()) as u64
}

/// A frame that was encoded and not written yet.
pub(crate) struct Encoded {
    /// Its bytes in the buffer.
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Its records, counted from the start of the buffer.
    pub(crate) places: Vec<Place>,
    pub(crate) area_end: u64,
    pub(crate) checksum: u32,
}

/// Encodes as many records as one frame holds, at the end of the buffer; the iterator is left at
/// the first record that did not fit.
pub(crate) fn encode_frame(
    out: &mut Vec<u8>,
    seed: u32,
    context: FrameContext,
    records: &mut &[(Lsn, Arc<Record>)],
) -> Encoded {
    let start = out.len();
    let mut places = Vec::with_capacity(records.len());
    let mut frame = FrameBuilder::new(out, seed);
    while let Some(((lsn, record), rest)) = records.split_first() {
        let place = frame.push(*lsn, record);
        if frame.area() > AREA_BYTES {
            frame.pop(place);
            break;
        }
        places.push(place);
        *records = rest;
    }
    assert!(!frame.is_empty(), "a frame holds at least one record");
    let area_end = (start + HEADER + frame.area()) as u64;
    let checksum = frame.finish(context);
    Encoded { start, end: out.len(), places, area_end, checksum }
}
