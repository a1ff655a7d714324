//! What the writer of a store knows: the segment that it writes, the next one, and the disk.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use handfast_core::ids::Lsn;

use crate::files::{File, Lock, Room};
use crate::layout::end::EndMark;
use crate::layout::header::SegmentHeader;
use crate::options::Options;
use crate::view::Shared;

/// The durable log, open for appending. There is one per store.
///
/// Every call may block on the disk. After an error other than [`NoSpace`], [`NoSuchSegment`],
/// [`NotDropped`] and [`Unreadable`] the journal is poisoned and every later call fails: end the
/// process and open the store again.
///
/// [`NoSpace`]: crate::Error::NoSpace
/// [`NoSuchSegment`]: crate::Error::NoSuchSegment
/// [`NotDropped`]: crate::Error::NotDropped
/// [`Unreadable`]: crate::Error::Unreadable
pub struct Journal {
    pub(crate) shared: Arc<Shared>,
    pub(crate) options: Options,
    pub(crate) epoch: u32,
    pub(crate) active: Active,
    pub(crate) next: Lsn,
    /// Segments that a durable record has dropped and that are still there.
    pub(crate) dropped: BTreeSet<u64>,
    pub(crate) buffer: Vec<u8>,
    pub(crate) poisoned: bool,
    pub(crate) room: Room,
    /// The next segment, if there was room for it: what it needs it has, so that neither a full
    /// disk nor a want of descriptors is in the way of a roll.
    pub(crate) prepared: Option<Prepared>,
    /// The file of the end mark, and what was written to it last.
    pub(crate) marked: Option<(Arc<dyn File>, EndMark)>,
    pub(crate) lock: Box<dyn Lock>,
}

/// A file for the next segment that holds nothing yet.
pub(crate) struct Prepared {
    pub(crate) file: Arc<dyn File>,
    /// Up to here it has room.
    pub(crate) allocated: u64,
}

/// The segment that is being written.
pub(crate) struct Active {
    pub(crate) header: SegmentHeader,
    pub(crate) file: Arc<dyn File>,
    pub(crate) name: String,
    pub(crate) seed: u32,
    /// Where the next frame goes.
    pub(crate) tail: u64,
    /// Up to here the file has room.
    pub(crate) allocated: u64,
    /// The file is this long for good: its length when it was last synced.
    pub(crate) length: u64,
    /// Checksum of the last frame.
    pub(crate) checksum: u32,
    /// Where its checkpoint ends.
    pub(crate) checkpoint: u64,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("epoch", &self.epoch)
            .field("segment", &self.active.header.segment)
            .field("tail", &self.active.tail)
            .field("next", &self.next)
            .field("poisoned", &self.poisoned)
            .finish_non_exhaustive()
    }
}
