//! What is where in a segment: derived from its records and never the only copy of anything.
//!
//! One in memory for the active segment, one in a file beside each sealed one; both answer the
//! same four questions.

mod file;
mod memory;
mod pages;
mod summary;

use std::io;

use handfast_core::ids::{Lsn, Offset, TopicId, TransactionId};

pub(crate) use file::{IndexFile, Tail, encode};
pub(crate) use memory::{MemoryIndex, SegmentOf};
pub use summary::{Reference, SegmentSummary, TopicSummary};

/// A mark is kept for the first record in every stretch of this many bytes.
pub(crate) const MARK_BYTES: u64 = 16 << 10;

/// A record with events of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The lowest offset in it.
    pub(crate) first: Offset,
    pub(crate) lsn: Lsn,
    pub(crate) position: u64,
}

/// Where a record begins; those behind it are found by reading on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) lsn: Lsn,
    pub(crate) position: u64,
    /// Where the records of its frame end.
    pub(crate) area_end: u64,
}

/// An index could not be asked.
#[derive(Debug)]
pub(crate) enum Damaged {
    /// The file could not be read.
    Io(io::Error),
    /// A page does not check: build it again.
    Page,
}

impl From<io::Error> for Damaged {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// The questions that readers ask.
pub(crate) trait Index {
    /// How many records have events of this topic.
    fn entry_count(&self, topic: TopicId) -> usize;

    /// The entries `from..from + limit` of a topic, fewer at the end.
    fn entries(&self, topic: TopicId, from: usize, limit: usize) -> Result<Vec<Entry>, Damaged>;

    /// The last record of a transaction, as far as this index has to know it: in a sealed segment
    /// only those that ended there.
    fn last_of(&self, id: TransactionId) -> Result<Option<Lsn>, Damaged>;

    /// The last mark at or before an LSN.
    fn mark(&self, lsn: Lsn) -> Result<Option<Mark>, Damaged>;

    /// The number of the first entry that may hold events at or after an offset: the last one
    /// that begins at or before it, or the first of all.
    fn entry_reaching(&self, topic: TopicId, offset: Offset) -> Result<usize, Damaged> {
        let after = partition(self.entry_count(topic), |i| {
            Ok::<_, Damaged>(self.entries(topic, i, 1)?.first().is_some_and(|e| e.first <= offset))
        })?;
        Ok(after.saturating_sub(1))
    }
}

/// The first number in `0..count` for which the question, which turns from yes to no once, is
/// answered no.
pub(crate) fn partition<E>(
    count: usize,
    mut is_before: impl FnMut(usize) -> Result<bool, E>,
) -> Result<usize, E> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if is_before(middle)? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}
