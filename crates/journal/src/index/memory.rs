//! The index of the active segment, built record by record; sealing writes it to a file.
//!
//! Its size is bounded by the segment's.

use handfast_core::event::Body;
use handfast_core::ids::{Lsn, Offset, TopicId, TransactionId};
use handfast_core::record::{Commit, End, Operated, Record};
use hashbrown::HashMap;

use super::summary::{Reference, SegmentSummary, TopicSummary};
use super::{Damaged, Entry, Index, MARK_BYTES, Mark};
use crate::layout::frame::Place;

/// Says in which older segment a record was written, if that segment is still there.
pub(crate) type SegmentOf<'a> = &'a dyn Fn(Lsn) -> Option<u64>;

#[derive(Clone, Debug)]
pub(crate) struct MemoryIndex {
    segment: u64,
    generation: u32,
    first: Lsn,
    last: Lsn,
    records: u64,
    topics: HashMap<TopicId, Topic>,
    transactions: HashMap<TransactionId, Known>,
    marks: Vec<Mark>,
    wall_ms: Option<(u64, u64)>,
    newest_ms: u64,
    newest_end_ms: Option<u64>,
    newest_keyed_end_ms: Option<u64>,
    references: Vec<Reference>,
}

#[derive(Clone, Debug)]
struct Topic {
    entries: Vec<Entry>,
    summary: TopicSummary,
}

/// A transaction of which something is in this segment.
#[derive(Clone, Copy, Debug)]
struct Known {
    last: Lsn,
    /// Zero if that is not known.
    begin: Lsn,
    /// Had a key; unknown counts as yes.
    keyed: bool,
    ended: bool,
}

impl MemoryIndex {
    pub(crate) fn new(segment: u64, generation: u32, first: Lsn) -> Self {
        Self {
            segment,
            generation,
            first,
            last: Lsn(first.0.saturating_sub(1)),
            records: 0,
            topics: HashMap::new(),
            transactions: HashMap::new(),
            marks: Vec::new(),
            wall_ms: None,
            newest_ms: 0,
            newest_end_ms: None,
            newest_keyed_end_ms: None,
            references: Vec::new(),
        }
    }

    /// That of the next segment, with room for as many transactions: moving them again and again
    /// into larger places would be in the way of commits.
    pub(crate) fn next(&self, segment: u64, first: Lsn) -> Self {
        let transactions = HashMap::with_capacity(self.transactions.len());
        Self { transactions, ..Self::new(segment, 0, first) }
    }

    /// Takes a record in, in the order of the log.
    pub(crate) fn add(
        &mut self,
        place: Place,
        area_end: u64,
        record: &Record,
        segment_of: SegmentOf<'_>,
    ) {
        self.last = place.lsn;
        self.records += 1;
        let stretch = self.marks.last().map_or(0, |m| m.position + MARK_BYTES);
        if place.position >= stretch {
            self.marks.push(Mark { lsn: place.lsn, position: place.position, area_end });
        }
        let wall_ms = record.wall_ms();
        if let Some(wall_ms) = wall_ms {
            let (oldest, newest) = self.wall_ms.unwrap_or((wall_ms, wall_ms));
            self.wall_ms = Some((oldest.min(wall_ms), newest.max(wall_ms)));
        }
        self.newest_ms = self.newest_ms.max(record.newest_ms());
        self.add_events(place, wall_ms.unwrap_or(0), record);
        self.add_transaction(place.lsn, record, segment_of);
    }

    fn add_events(&mut self, place: Place, wall_ms: u64, record: &Record) {
        for event in record.events() {
            let offset = event.offset;
            let topic = self.topics.entry(event.topic).or_insert_with(|| Topic {
                entries: Vec::new(),
                summary: TopicSummary {
                    topic: event.topic,
                    first: offset,
                    last: offset,
                    events: 0,
                    bytes: 0,
                    newest_ms: 0,
                    entries: 0,
                },
            });
            let summary = &mut topic.summary;
            summary.first = summary.first.min(offset);
            summary.last = summary.last.max(offset);
            summary.events += 1;
            summary.bytes += u64::from(event.body.size());
            summary.newest_ms = summary.newest_ms.max(wall_ms);
            match topic.entries.last_mut() {
                Some(entry) if entry.lsn == place.lsn => entry.first = entry.first.min(offset),
                _ => {
                    let position = place.position;
                    topic.entries.push(Entry { first: offset, lsn: place.lsn, position });
                    summary.entries += 1;
                }
            }
        }
    }

    fn add_transaction(&mut self, lsn: Lsn, record: &Record, segment_of: SegmentOf<'_>) {
        match record {
            Record::Begin(r) => {
                let known = Known { last: lsn, begin: lsn, keyed: r.key.is_some(), ended: false };
                self.transactions.insert(r.id, known);
            }
            Record::TransactionRestated(r) => {
                let keyed = r.begin.key.is_some();
                let known = Known { last: r.last, begin: r.begin_lsn, keyed, ended: false };
                self.transactions.insert(r.begin.id, known);
            }
            Record::Commit(r) => {
                self.continue_transaction(r.id, lsn, r.previous);
                self.refer_to_bodies(r, segment_of);
            }
            Record::Abort(r) => self.continue_transaction(r.id, lsn, Lsn(0)),
            Record::Operated(r) if r.follows_end() => self.note_ended(lsn, r, segment_of),
            Record::Operated(r) => self.continue_transaction(r.id, lsn, Lsn(0)),
            Record::End(r) => self.end_transaction(lsn, r, segment_of),
            _ => {}
        }
    }

    fn continue_transaction(&mut self, id: TransactionId, lsn: Lsn, begin: Lsn) {
        let known = Known { last: lsn, begin, keyed: true, ended: false };
        self.transactions.entry(id).or_insert(known).last = lsn;
    }

    fn refer_to_bodies(&mut self, commit: &Commit, segment_of: SegmentOf<'_>) {
        if commit.previous >= self.first {
            return;
        }
        for event in &commit.events {
            if matches!(event.body, Body::InBegin { .. })
                && let Some(segment) = segment_of(commit.previous)
            {
                self.reference(segment).event(event.topic, event.offset);
            }
        }
    }

    fn end_transaction(&mut self, lsn: Lsn, end: &End, segment_of: SegmentOf<'_>) {
        let unknown = Known { last: lsn, begin: Lsn(0), keyed: true, ended: true };
        let known = self.transactions.entry(end.id).or_insert(unknown);
        known.last = lsn;
        known.ended = true;
        let (begin, keyed) = (known.begin, known.keyed);
        for older in [begin, end.previous] {
            if older < self.first
                && older > Lsn(0)
                && let Some(segment) = segment_of(older)
            {
                self.reference(segment).end(end.wall_ms, keyed);
            }
        }
        let newest = if keyed { &mut self.newest_keyed_end_ms } else { &mut self.newest_end_ms };
        *newest = (*newest).max(Some(end.wall_ms));
    }

    /// What an operator noted after END is the last of the chain from then on.
    fn note_ended(&mut self, lsn: Lsn, noted: &Operated, segment_of: SegmentOf<'_>) {
        let unknown = Known { last: lsn, begin: Lsn(0), keyed: true, ended: true };
        let known = self.transactions.entry(noted.id).or_insert(unknown);
        (known.last, known.ended) = (lsn, true);
        let wall_ms = noted.note.wall_ms;
        if noted.previous < self.first
            && let Some(segment) = segment_of(noted.previous)
        {
            self.reference(segment).end(wall_ms, true);
        }
        self.newest_keyed_end_ms = self.newest_keyed_end_ms.max(Some(wall_ms));
    }

    fn reference(&mut self, segment: u64) -> &mut Reference {
        let at = self.references.iter().position(|r| r.segment == segment).unwrap_or_else(|| {
            self.references.push(Reference::to(segment));
            self.references.len() - 1
        });
        &mut self.references[at]
    }

    /// The newest time in any record or id so far.
    pub(crate) fn newest_ms(&self) -> u64 {
        self.newest_ms
    }

    /// Whether the topic has an event at or before this offset here.
    pub(crate) fn topic(&self, topic: TopicId) -> Option<&TopicSummary> {
        self.topics.get(&topic).map(|t| &t.summary)
    }

    /// How many things are held, for the bound on memory.
    pub(crate) fn items(&self) -> usize {
        self.marks.len()
            + self.transactions.len()
            + self.topics.values().map(|t| t.entries.len()).sum::<usize>()
    }

    pub(crate) fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// Topics in the order of the summary, each with its entries.
    pub(crate) fn entries_of(&self, topic: TopicId) -> &[Entry] {
        self.topics.get(&topic).map_or(&[], |t| &t.entries)
    }

    /// The transactions that ended here, by id, each with the LSN of its END.
    pub(crate) fn ended(&self) -> Vec<(TransactionId, Lsn)> {
        let ended = self.transactions.iter().filter(|(_, known)| known.ended);
        let mut ended: Vec<_> = ended.map(|(id, known)| (*id, known.last)).collect();
        ended.sort_unstable();
        ended
    }

    /// What a sealed segment is known by. `last` and `bytes` are the segment's.
    pub(crate) fn summary(&self, last: Lsn, bytes: u64) -> SegmentSummary {
        let mut topics: Vec<_> = self.topics.values().map(|t| t.summary.clone()).collect();
        topics.sort_unstable_by_key(|t| t.topic);
        let ended = self.ended();
        let ids = ended.iter().map(|(id, _)| id.unix_ms());
        SegmentSummary {
            segment: self.segment,
            bytes,
            generation: self.generation,
            first: self.first,
            last,
            records: self.records,
            wall_ms: self.wall_ms,
            topics,
            ended: ended.len() as u64,
            ended_ids_ms: ids.clone().min().zip(ids.max()),
            newest_end_ms: self.newest_end_ms,
            newest_keyed_end_ms: self.newest_keyed_end_ms,
            references: self.references.clone(),
        }
    }
}

impl Index for MemoryIndex {
    fn entry_count(&self, topic: TopicId) -> usize {
        self.entries_of(topic).len()
    }

    fn entries(&self, topic: TopicId, from: usize, limit: usize) -> Result<Vec<Entry>, Damaged> {
        let entries = self.entries_of(topic);
        let from = from.min(entries.len());
        let to = entries.len().min(from.saturating_add(limit));
        Ok(entries[from..to].to_vec())
    }

    fn last_of(&self, id: TransactionId) -> Result<Option<Lsn>, Damaged> {
        Ok(self.transactions.get(&id).map(|known| known.last))
    }

    fn mark(&self, lsn: Lsn) -> Result<Option<Mark>, Damaged> {
        let after = self.marks.partition_point(|mark| mark.lsn <= lsn);
        Ok(after.checked_sub(1).map(|i| self.marks[i]))
    }

    fn entry_reaching(&self, topic: TopicId, offset: Offset) -> Result<usize, Damaged> {
        let entries = self.entries_of(topic);
        Ok(entries.partition_point(|e| e.first <= offset).saturating_sub(1))
    }
}
