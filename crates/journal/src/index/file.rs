//! The index of a sealed segment, in a file; only its summary is held in memory.
//!
//! A page that does not check is reported and never guessed at.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use handfast_core::ids::{Lsn, Offset, TopicId, TransactionId};

use super::pages::{Cursor, Items, PAGE, PAYLOAD, PageWriter, read};
use super::summary::SegmentSummary;
use super::{Damaged, Entry, Index, Mark, MemoryIndex, partition};
use crate::codec::{Codec, Input, Malformed};
use crate::files::File;
use crate::files::pool::Pool;
use crate::layout::{FORMAT, u32_at, u64_at, u128_at};

const MAGIC: &[u8; 8] = b"HFINDEX\n";
/// Magic, format and length of the summary.
const HEAD: usize = 16;
const ENTRY: usize = 16;
const ENDED: usize = 20;
const MARK: usize = 12;

/// How the segment ends, by which it is recognised and tied to the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    /// Where its last frame ends.
    pub(crate) end: u64,
    /// Checksum of its last frame, as the next segment states it.
    pub(crate) closing: u32,
}

/// Writes the file's bytes. `summary` is the index's own, perhaps with older references.
pub(crate) fn encode(
    index: &MemoryIndex,
    summary: &SegmentSummary,
    tail: Tail,
    seed: u32,
) -> Vec<u8> {
    let mut head = Vec::new();
    summary.put(&mut head);
    tail.end.put(&mut head);
    tail.closing.put(&mut head);
    let ended = index.ended();
    for count in [ended.len(), index.marks().len()] {
        (count as u64).put(&mut head);
    }
    let mut start = Vec::with_capacity(HEAD + head.len());
    start.extend_from_slice(MAGIC);
    start.extend_from_slice(&FORMAT.to_le_bytes());
    start.extend_from_slice(&(head.len() as u32).to_le_bytes());
    start.extend_from_slice(&head);

    let delta = |lsn: Lsn| ((lsn.0 - summary.first.0) as u32).to_le_bytes();
    let entries = summary.topics.iter().flat_map(|t| index.entries_of(t.topic)).map(|e| {
        let mut item = [0; ENTRY];
        item[..8].copy_from_slice(&e.first.0.to_le_bytes());
        item[8..12].copy_from_slice(&delta(e.lsn));
        item[12..].copy_from_slice(&(e.position as u32).to_le_bytes());
        item
    });
    let ended = ended.iter().map(|(id, lsn)| {
        let mut item = [0; ENDED];
        item[..16].copy_from_slice(&id.0.to_be_bytes());
        item[16..].copy_from_slice(&delta(*lsn));
        item
    });
    let marks = index.marks().iter().map(|m| {
        let mut item = [0; MARK];
        item[..4].copy_from_slice(&delta(m.lsn));
        item[4..8].copy_from_slice(&(m.position as u32).to_le_bytes());
        item[8..].copy_from_slice(&(m.area_end as u32).to_le_bytes());
        item
    });
    let mut out = Vec::new();
    let mut pages = PageWriter::new(&mut out, seed);
    let page = pages.items(0, start.iter().map(|byte| [*byte]));
    let page = pages.items(page, entries);
    let page = pages.items(page, ended);
    pages.items(page, marks);
    out
}

/// An open index file.
pub(crate) struct IndexFile {
    file: Arc<dyn File>,
    seed: u32,
    pub(crate) summary: Arc<SegmentSummary>,
    pub(crate) tail: Tail,
    entries: Items,
    /// Where each topic's entries begin, in the order of the summary.
    topic_starts: Vec<u64>,
    ended: Items,
    marks: Items,
}

impl IndexFile {
    /// From here on the file is open only while it is read.
    pub(crate) fn on_demand(&mut self, pool: &Arc<Pool>, name: &str) -> io::Result<()> {
        self.file = pool.take(name, Arc::clone(&self.file))?;
        Ok(())
    }

    /// Reads the summary. Whether it belongs to the segment is for the caller to compare.
    pub(crate) fn open(file: Arc<dyn File>, seed: u32) -> Result<Self, Damaged> {
        let first = read(&*file, seed, 0)?;
        if first[..8] != MAGIC[..] || u32_at(&first, 8) != FORMAT {
            return Err(Damaged::Page);
        }
        let length = u32_at(&first, 12) as usize;
        let pages = ((HEAD + length).div_ceil(PAYLOAD)) as u64;
        if file.length()? < pages * PAGE as u64 {
            return Err(Damaged::Page);
        }
        let mut head = first[HEAD..PAYLOAD].to_vec();
        for page in 1..pages {
            head.extend_from_slice(&read(&*file, seed, page)?[..PAYLOAD]);
        }
        head.truncate(length);
        let parsed = Self::parse(file, seed, pages, head).map_err(|_| Damaged::Page)?;
        if parsed.file.length()? == parsed.marks.end() * PAGE as u64 {
            Ok(parsed)
        } else {
            Err(Damaged::Page)
        }
    }

    fn parse(file: Arc<dyn File>, seed: u32, page: u64, head: Vec<u8>) -> Result<Self, Malformed> {
        let mut input = Input::new(Bytes::from(head));
        let summary = SegmentSummary::take(&mut input)?;
        let tail = Tail { end: Codec::take(&mut input)?, closing: Codec::take(&mut input)? };
        let (ended, marks) = (u64::take(&mut input)?, u64::take(&mut input)?);
        input.finish()?;
        let mut count = 0u64;
        let mut topic_starts = Vec::with_capacity(summary.topics.len());
        for topic in &summary.topics {
            topic_starts.push(count);
            count = count.checked_add(topic.entries).ok_or(Malformed("too many entries"))?;
        }
        let limit = 1 << 40;
        if count > limit || ended > limit || marks > limit {
            return Err(Malformed("too many items"));
        }
        let entries = Items { page, count, width: ENTRY };
        let ended = Items { page: entries.end(), count: ended, width: ENDED };
        let marks = Items { page: ended.end(), count: marks, width: MARK };
        let summary = Arc::new(summary);
        Ok(Self { file, seed, summary, tail, entries, topic_starts, ended, marks })
    }

    /// Reads every page, for [`crate::check`].
    pub(crate) fn verify(&self) -> Result<(), Damaged> {
        for page in 0..self.marks.end() {
            read(&*self.file, self.seed, page)?;
        }
        Ok(())
    }

    fn cursor(&self) -> Cursor<'_> {
        Cursor::new(&*self.file, self.seed)
    }

    fn lsn(&self, delta: u32) -> Lsn {
        Lsn(self.summary.first.0 + u64::from(delta))
    }

    /// First entry and number of entries of a topic.
    fn run(&self, topic: TopicId) -> (u64, u64) {
        match self.summary.topics.binary_search_by_key(&topic, |t| t.topic) {
            Ok(i) => (self.topic_starts[i], self.summary.topics[i].entries),
            Err(_) => (0, 0),
        }
    }

    fn entry(&self, bytes: &[u8]) -> Entry {
        Entry {
            first: Offset(u64_at(bytes, 0)),
            lsn: self.lsn(u32_at(bytes, 8)),
            position: u64::from(u32_at(bytes, 12)),
        }
    }
}

impl Index for IndexFile {
    fn entry_count(&self, topic: TopicId) -> usize {
        self.run(topic).1 as usize
    }

    fn entries(&self, topic: TopicId, from: usize, limit: usize) -> Result<Vec<Entry>, Damaged> {
        let (start, count) = self.run(topic);
        let from = (from as u64).min(count);
        let to = count.min(from.saturating_add(limit as u64));
        let mut cursor = self.cursor();
        (start + from..start + to).map(|i| Ok(self.entry(cursor.item(&self.entries, i)?))).collect()
    }

    fn last_of(&self, id: TransactionId) -> Result<Option<Lsn>, Damaged> {
        let mut cursor = self.cursor();
        let at = partition(self.ended.count as usize, |i| {
            Ok::<_, Damaged>(u128_at(cursor.item(&self.ended, i as u64)?, 0) < id.0)
        })? as u64;
        if at == self.ended.count {
            return Ok(None);
        }
        let item = cursor.item(&self.ended, at)?;
        Ok((u128_at(item, 0) == id.0).then(|| self.lsn(u32_at(item, 16))))
    }

    fn mark(&self, lsn: Lsn) -> Result<Option<Mark>, Damaged> {
        let mut cursor = self.cursor();
        let after = partition(self.marks.count as usize, |i| {
            Ok::<_, Damaged>(self.lsn(u32_at(cursor.item(&self.marks, i as u64)?, 0)) <= lsn)
        })?;
        let Some(at) = after.checked_sub(1) else { return Ok(None) };
        let item = cursor.item(&self.marks, at as u64)?;
        Ok(Some(Mark {
            lsn: self.lsn(u32_at(item, 0)),
            position: u64::from(u32_at(item, 4)),
            area_end: u64::from(u32_at(item, 8)),
        }))
    }

    fn entry_reaching(&self, topic: TopicId, offset: Offset) -> Result<usize, Damaged> {
        let (start, count) = self.run(topic);
        let mut cursor = self.cursor();
        let after = partition(count as usize, |i| {
            let item = cursor.item(&self.entries, start + i as u64)?;
            Ok::<_, Damaged>(u64_at(item, 0) <= offset.0)
        })?;
        Ok(after.saturating_sub(1))
    }
}
