//! Handing out everything that is in a store, without opening it. Nothing on disk is changed.

use std::sync::Arc;

use handfast_core::ids::Lsn;
use handfast_core::record::Record;

use crate::check::{Entered, enter};
use crate::error::Error;
use crate::files::Files;
use crate::layout::names;
use crate::scan::{Scan, read_header};

/// One thing in a store, in the order of the files.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum DumpItem {
    /// A segment begins.
    Segment {
        /// Its number.
        segment: u64,
        /// The first LSN it was written with.
        first: Lsn,
        /// How often it was compacted.
        generation: u32,
    },
    /// A frame, which checks.
    Frame {
        /// Its segment.
        segment: u64,
        /// Its first byte in the file.
        position: u64,
        /// The epoch in which it was written.
        epoch: u32,
        /// How many records it holds.
        records: u32,
        /// Its length with header and padding.
        bytes: u64,
    },
    /// A record of the frame before it.
    Record {
        /// Its segment.
        segment: u64,
        /// Its first byte in the file.
        position: u64,
        /// Its place in the log.
        lsn: Lsn,
        /// Its bytes with the header.
        bytes: u32,
        /// The record.
        record: Arc<Record>,
    },
    /// The segment goes on for this many bytes which are not frames: at the end of the newest
    /// segment a torn group, elsewhere damage.
    Rest {
        /// Its segment.
        segment: u64,
        /// Where the rest begins.
        position: u64,
        /// Bytes up to the last one that is not zero.
        bytes: u64,
        /// Why no frame is there.
        why: &'static str,
    },
}

/// Hands out everything that is in a store.
///
/// # Errors
/// As [`crate::check`]; besides that [`Error::Corrupt`] for a segment whose header does not check or
/// records that cannot be read. Damage behind the last good frame is handed out as
/// [`DumpItem::Rest`].
pub fn dump(files: &dyn Files, item: &mut dyn FnMut(DumpItem)) -> Result<(), Error> {
    let Entered { _lock, inventory, store } = enter(files)?;
    for segment in inventory.logs {
        let name = names::log(segment);
        let file = files.open(&name).map_err(Error::io("open", &name))?;
        let header = read_header(&*file, store, segment)?;
        let (first, generation) = (header.first, header.generation);
        item(DumpItem::Segment { segment, first, generation });
        let mut scan = Scan::new(file, header)?;
        let why = loop {
            let frame = match scan.next()? {
                Ok(frame) => frame,
                Err(why) => break why,
            };
            item(DumpItem::Frame {
                segment,
                position: frame.position,
                epoch: frame.header.epoch,
                records: frame.header.records,
                bytes: frame.header.frame_bytes(),
            });
            for placed in scan.records(&frame)? {
                item(DumpItem::Record {
                    segment,
                    position: placed.place.position,
                    lsn: placed.place.lsn,
                    bytes: placed.place.length,
                    record: placed.record,
                });
            }
        };
        if let Some(last) = scan.last_written_byte()? {
            let position = scan.at;
            item(DumpItem::Rest { segment, position, bytes: last + 1 - position, why });
        }
    }
    Ok(())
}
