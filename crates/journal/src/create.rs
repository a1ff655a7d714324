//! Making a store in an empty directory.
//!
//! The store file comes last: without it there is no store, and whatever an interrupted attempt
//! left is taken away by the next. A segment that holds more than an attempt can have left is
//! never taken away.

use std::sync::Arc;

use handfast_core::ids::{Lsn, StoreId, SubscriptionId, TopicId};
use handfast_core::record::{CheckpointStart, Record};

use crate::error::Error;
use crate::files::Files;
use crate::group::encode_frame;
use crate::inventory::Inventory;
use crate::layout::frame::FrameContext;
use crate::layout::header::{self, SegmentHeader};
use crate::layout::{names, seed, store as store_file};
use crate::scan::Scan;

pub(crate) fn create(
    files: &dyn Files,
    inventory: &Inventory,
    store: StoreId,
) -> Result<(), Error> {
    let log = names::log(1);
    let mut leftovers = inventory.unfinished.clone();
    if inventory.logs.contains(&1) {
        refuse_used(files)?;
        leftovers.push(log.clone());
    }
    for name in &leftovers {
        files.remove(name).map_err(Error::io("remove", name))?;
    }
    write_durable(files, &log, &first_segment(store))?;
    write_durable(files, names::STORE, &store_file::encode(store))
}

/// Damage if the first segment holds more than the empty checkpoint: then the store file has
/// been lost.
fn refuse_used(files: &dyn Files) -> Result<(), Error> {
    let log = names::log(1);
    let file = files.open(&log).map_err(Error::io("open", &log))?;
    let mut bytes = [0; header::BYTES];
    let n = file.read_at(&mut bytes, 0).map_err(Error::io("read", &log))?;
    let header = SegmentHeader::decode_any(&bytes[..n], 1)?;
    let fresh = header.first == Lsn(1) && header.generation == 0;
    let mut scan = Scan::new(file, header)?;
    let two = matches!(scan.next()?, Ok(frame) if frame.last() == Some(Lsn(2)));
    if fresh && two && scan.last_written_byte()?.is_none() {
        return Ok(());
    }
    Err(Error::corrupt(names::STORE, 0, "the file is missing"))
}

/// A segment with nothing but the checkpoint of an empty state.
fn first_segment(store: StoreId) -> Vec<u8> {
    let start = CheckpointStart {
        store,
        epoch: 0,
        next_topic: TopicId(1),
        next_subscription: SubscriptionId(1),
        segments: Vec::new(),
        keys: Vec::new(),
        openings: Vec::new(),
        away: Vec::new(),
    };
    let records = [
        (Lsn(1), Arc::new(Record::CheckpointStart(start))),
        (Lsn(2), Arc::new(Record::CheckpointEnd)),
    ];
    let mut bytes = vec![0; header::BYTES];
    let context = FrameContext { segment: 1, epoch: 0, previous: 0 };
    encode_frame(&mut bytes, seed(store, 1), context, &mut records.as_slice());
    let header = SegmentHeader {
        store,
        segment: 1,
        generation: 0,
        first: Lsn(1),
        whole_to: bytes.len() as u64,
        newest_ms: 0,
        removed_ms: 0,
        before: 0,
        closing: 0,
        last: Lsn(0),
    };
    bytes[..header::BYTES].copy_from_slice(&header.encode());
    bytes
}

/// Writes a file that takes its name when it is durable.
pub(crate) fn write_durable(files: &dyn Files, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let unfinished = names::unfinished(name);
    let needed = bytes.len() as u64;
    let file = files
        .create(&unfinished)
        .map_err(|e| Error::io("create", &unfinished)(e).or_no_space(needed))?;
    file.write_at(bytes, 0).map_err(|e| Error::io("write", &unfinished)(e).or_no_space(needed))?;
    file.sync_data().map_err(Error::io("sync", &unfinished))?;
    files.rename(&unfinished, name).map_err(Error::io("rename", &unfinished))?;
    files.sync_directory().map_err(Error::io("sync", "."))
}
