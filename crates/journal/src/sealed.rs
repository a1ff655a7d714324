//! A segment that takes no more records, with its index.

use std::sync::Arc;

use handfast_core::ids::{Lsn, StoreId, TopicId, TransactionId};

use crate::error::Error;
use crate::files::pool::Pool;
use crate::files::{File, Files, is_no_descriptor, is_no_space};
use crate::index::{
    self, Damaged, Entry, Index, IndexFile, Mark, MemoryIndex, SegmentOf, SegmentSummary, Tail,
};
use crate::layout::header::SegmentHeader;
use crate::layout::{names, seed};
use crate::scan::{Scan, read_header};
use crate::source::Source;

pub(crate) struct Sealed {
    pub(crate) header: SegmentHeader,
    pub(crate) source: Source,
    pub(crate) summary: Arc<SegmentSummary>,
    pub(crate) tail: Tail,
    index: SealedIndex,
}

enum SealedIndex {
    File(IndexFile),
    /// Where the file could not be written.
    Memory(Arc<MemoryIndex>),
}

/// A segment that was read from end to end.
pub(crate) struct Built {
    pub(crate) file: Arc<dyn File>,
    pub(crate) header: SegmentHeader,
    pub(crate) index: Arc<MemoryIndex>,
    pub(crate) last: Lsn,
    pub(crate) tail: Tail,
}

/// A segment that was only looked at: its index file is there and fits, or not.
pub(crate) enum Found {
    Indexed(Sealed),
    Unindexed { file: Arc<dyn File>, header: SegmentHeader },
}

impl Found {
    /// The same with its files open only while they are read.
    pub(crate) fn on_demand(self, pool: &Arc<Pool>) -> Result<Self, Error> {
        Ok(match self {
            Self::Indexed(sealed) => Self::Indexed(sealed.on_demand(pool)?),
            Self::Unindexed { file, header } => {
                let name = names::log(header.segment);
                let file = pool.take(&name, file).map_err(Error::io("look at", &name))?;
                Self::Unindexed { file, header }
            }
        })
    }

    pub(crate) fn header(&self) -> &SegmentHeader {
        match self {
            Self::Indexed(sealed) => &sealed.header,
            Self::Unindexed { header, .. } => header,
        }
    }
}

/// In which of these segments a record was written.
pub(crate) fn holding(sealed: &[Arc<Sealed>], lsn: Lsn) -> Option<u64> {
    find(sealed, lsn).map(|s| s.header.segment)
}

/// The segment in which a record was written.
pub(crate) fn find(sealed: &[Arc<Sealed>], lsn: Lsn) -> Option<&Arc<Sealed>> {
    let after = sealed.partition_point(|s| s.header.first <= lsn);
    sealed.get(after.checked_sub(1)?).filter(|s| lsn <= s.summary.last)
}

/// Opens a sealed segment and its index, and compares the two.
pub(crate) fn look(files: &dyn Files, store: StoreId, segment: u64) -> Result<Found, Error> {
    let name = names::log(segment);
    let file = match files.open(&name) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::corrupt(&name, 0, "the segment is missing"));
        }
        other => other.map_err(Error::io("open", &name))?,
    };
    let header = read_header(&*file, store, segment)?;
    let length = file.length().map_err(Error::io("measure", &name))?;
    let unindexed = || Found::Unindexed { file: file.clone(), header: header.clone() };
    let index_name = names::index(segment);
    let index_file = match files.open(&index_name) {
        Ok(index_file) => index_file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(unindexed()),
        Err(e) => return Err(Error::io("open", &index_name)(e)),
    };
    let index = match IndexFile::open(index_file, seed(store, segment)) {
        Ok(index) => index,
        Err(Damaged::Page) => return Ok(unindexed()),
        Err(Damaged::Io(e)) => return Err(Error::io("read", &index_name)(e)),
    };
    let summary = index.summary.clone();
    if summary.segment != segment
        || summary.generation != header.generation
        || summary.first != header.first
    {
        return Ok(unindexed());
    }
    if length < index.tail.end {
        return Err(Error::corrupt(&name, length, "the end of the segment is missing"));
    }
    Ok(Found::Indexed(Sealed {
        source: Source::new(file, &header),
        header,
        summary,
        tail: index.tail,
        index: SealedIndex::File(index),
    }))
}

/// Reads a sealed segment from end to end. Whatever does not check in it is damage.
pub(crate) fn build(
    file: Arc<dyn File>,
    header: SegmentHeader,
    segment_of: SegmentOf<'_>,
) -> Result<Built, Error> {
    let mut index = MemoryIndex::new(header.segment, header.generation, header.first);
    let mut scan = Scan::new(file.clone(), header)?;
    let why = loop {
        match scan.next()? {
            Ok(frame) => {
                for placed in scan.records(&frame)? {
                    index.add(placed.place, placed.area_end, &placed.record, segment_of);
                }
            }
            Err(why) => break why,
        }
    };
    let (at, header) = (scan.at, scan.header.clone());
    if at < header.whole_to || scan.last_written_byte()?.is_some() {
        return Err(scan.corrupt(at, why));
    }
    let compacted = header.generation > 0;
    let closing = if compacted { header.closing } else { scan.checksum };
    let last = if compacted { header.last } else { scan.last };
    let index = Arc::new(index);
    Ok(Built { file, header, index, last, tail: Tail { end: at, closing } })
}

/// Damage if the end of a segment is not what the next one began with.
pub(crate) fn check_joint(
    header: &SegmentHeader,
    last: Lsn,
    tail: Tail,
    next: &SegmentHeader,
) -> Result<(), Error> {
    if next.segment != header.segment + 1
        || (next.before == tail.closing && next.first.0 == last.0 + 1)
    {
        return Ok(());
    }
    let detail = format!(
        "the segment ends with record {last}, but segment {} continues from record {}",
        next.segment,
        next.first.0.saturating_sub(1)
    );
    Err(Error::corrupt(&names::log(header.segment), tail.end, detail))
}

/// Writes the index of a segment beside it. The file is not synced: a page that a power cut took
/// does not check, and is built again. Without room the index stays in memory.
pub(crate) fn store_index(
    files: &dyn Files,
    built: Built,
    before: Option<&SegmentSummary>,
) -> Result<Sealed, Error> {
    let Built { file, header, index, last, tail } = built;
    let mut summary = index.summary(last, tail.end);
    if let Some(before) = before {
        summary.merge_references(before);
    }
    let seed = seed(header.store, header.segment);
    let bytes = index::encode(&index, &summary, tail, seed);
    let source = Source::new(file, &header);
    let name = names::index(header.segment);
    let index = match write_new(files, &name, &bytes) {
        Ok(file) => match IndexFile::open(file, seed) {
            Ok(index) => SealedIndex::File(index),
            Err(Damaged::Io(e)) => return Err(Error::io("read", &name)(e)),
            Err(Damaged::Page) => {
                return Err(Error::corrupt(&name, 0, "what was just written does not check"));
            }
        },
        Err(Error::Io { source, .. }) if is_no_space(&source) || is_no_descriptor(&source) => {
            SealedIndex::Memory(index)
        }
        Err(e) => return Err(e),
    };
    Ok(Sealed { header, source, summary: Arc::new(summary), tail, index })
}

/// Seals a segment in memory only, until its index is stored.
pub(crate) fn in_memory(built: Built) -> Sealed {
    let Built { file, header, index, last, tail } = built;
    Sealed {
        source: Source::new(file, &header),
        summary: Arc::new(index.summary(last, tail.end)),
        header,
        tail,
        index: SealedIndex::Memory(index),
    }
}

fn write_new(files: &dyn Files, name: &str, bytes: &[u8]) -> Result<Arc<dyn File>, Error> {
    let unfinished = names::unfinished(name);
    let file = files.create(&unfinished).map_err(Error::io("create", &unfinished))?;
    if let Err(e) = file.write_at(bytes, 0) {
        files.remove(&unfinished).map_err(Error::io("remove", &unfinished))?;
        return Err(Error::io("write", &unfinished)(e));
    }
    files.rename(&unfinished, name).map_err(Error::io("rename", &unfinished))?;
    Ok(file)
}

impl Sealed {
    /// The same with its files open only while they are read.
    pub(crate) fn on_demand(mut self, pool: &Arc<Pool>) -> Result<Self, Error> {
        let name = self.source.name();
        let file = pool.take(&name, self.source.file);
        self.source.file = file.map_err(Error::io("look at", &name))?;
        if let SealedIndex::File(index) = &mut self.index {
            let name = names::index(self.header.segment);
            index.on_demand(pool, &name).map_err(Error::io("look at", &name))?;
        }
        Ok(self)
    }

    pub(crate) fn segment(&self) -> u64 {
        self.header.segment
    }

    /// Whether its index is on disk, and how many things of it are in memory if not.
    pub(crate) fn items_in_memory(&self) -> usize {
        match &self.index {
            SealedIndex::File(_) => 0,
            SealedIndex::Memory(index) => index.items(),
        }
    }

    /// Its index is in a file; or else it is in memory only.
    pub(crate) fn has_index_file(&self) -> bool {
        matches!(self.index, SealedIndex::File(_))
    }

    /// Reads the whole index; damage if a page does not check.
    pub(crate) fn verify_index(&self) -> Result<(), Damaged> {
        match &self.index {
            SealedIndex::File(index) => index.verify(),
            SealedIndex::Memory(_) => Ok(()),
        }
    }

    fn index(&self) -> &dyn Index {
        match &self.index {
            SealedIndex::File(index) => index,
            SealedIndex::Memory(index) => &**index,
        }
    }
}

impl Index for Sealed {
    fn entry_count(&self, topic: TopicId) -> usize {
        self.index().entry_count(topic)
    }

    fn entries(&self, topic: TopicId, from: usize, limit: usize) -> Result<Vec<Entry>, Damaged> {
        self.index().entries(topic, from, limit)
    }

    fn last_of(&self, id: TransactionId) -> Result<Option<Lsn>, Damaged> {
        self.index().last_of(id)
    }

    fn mark(&self, lsn: Lsn) -> Result<Option<Mark>, Damaged> {
        self.index().mark(lsn)
    }

    fn entry_reaching(
        &self,
        topic: TopicId,
        offset: handfast_core::ids::Offset,
    ) -> Result<usize, Damaged> {
        self.index().entry_reaching(topic, offset)
    }
}
