//! Events of a topic, by their offsets.

use std::sync::Arc;

use bytes::Bytes;
use handfast_core::event::{Body, PlacedEvent, StoredEvent};
use handfast_core::ids::{Lsn, Offset, TopicId};
use handfast_core::output::{Fetch, Wanted};
use handfast_core::record::{Commit, Record};

use super::{Reader, Stop, WINDOW, stop};
use crate::damage::Lost;
use crate::error::Error;
use crate::files::pool::moved;
use crate::index::{Entry, Index};
use crate::scan::Window;
use crate::sealed::Sealed;
use crate::source::Source;
use crate::view::View;

/// Entries of an index are taken so many at a time.
const BATCH: usize = 256;
/// Neighbouring records are read together.
const READ_AHEAD: usize = 32 << 10;

/// Where to go on looking.
enum Step {
    /// Records with events of the topic, in order: those in memory are there already.
    Records(Vec<(Entry, Option<Arc<Record>>)>, Source),
    Sealed(Arc<Sealed>),
    End,
}

impl Reader {
    /// Reads events of a topic.
    ///
    /// For a range, the answer's offset is the first one that was not covered: everything before
    /// it that still exists is in the answer. For single offsets it is the first one that was not
    /// looked for, or the one behind the last. At least one event is read, however large, if
    /// there is one and any may be read.
    ///
    /// # Errors
    /// [`Error::Unreadable`] if the first of them are in a damaged place of a sealed segment: those
    /// before it are answered first. [`Error::Corrupt`] or [`Error::Io`] if the active segment
    /// cannot be read.
    pub fn fetch(&self, fetch: &Fetch) -> Result<(Vec<StoredEvent>, Offset), Error> {
        let found = self.with_indexes(|| {
            let mut reading = Reading {
                reader: self,
                topic: fetch.topic,
                max_bytes: fetch.max_bytes as usize,
                bytes: 0,
                events: Vec::new(),
                begin: None,
                last: None,
                records: Window::new(READ_AHEAD),
                begins: Window::new(WINDOW),
            };
            let next = match &fetch.wanted {
                Wanted::Range { from, to, max_events } => {
                    reading.range(*from, *to, *max_events as usize)?
                }
                Wanted::Offsets(offsets) => reading.offsets(offsets)?,
            };
            Ok((reading.events, next))
        });
        // An index that could not be built again: then nothing is known but what the segment holds.
        found.map_err(|error| {
            let from = match &fetch.wanted {
                Wanted::Range { from, .. } => *from,
                Wanted::Offsets(offsets) => offsets.first().copied().unwrap_or_default(),
            };
            let part = {
                let view = self.shared.read();
                let holding = |s: &Arc<Sealed>| {
                    let part = s.summary.topic(fetch.topic).filter(|t| t.last >= from)?;
                    Some((s.segment(), part.first.max(from), Offset(part.last.0 + 1)))
                };
                view.sealed.iter().find_map(holding)
            };
            match part {
                Some((segment, from, to)) if !matches!(error, Error::Unreadable(_)) => {
                    self.unreadable(segment, Some(Lost { topic: fetch.topic, from, to }), error)
                }
                _ => error,
            }
        })
    }

    /// The events of an entry cannot be read: up to where the next entry begins.
    fn lost(&self, segment: u64, topic: TopicId, from: Offset, error: Error) -> Error {
        let Some(sealed) = self.shared.read().sealed(segment).cloned() else { return error };
        let last = sealed.summary.topic(topic).map_or(from, |t| t.last);
        let next = sealed.entry_reaching(topic, from).and_then(|at| {
            let next = sealed.entries(topic, at, 2)?;
            Ok(next.into_iter().map(|entry| entry.first).find(|first| *first > from))
        });
        let to = next.ok().flatten().unwrap_or(Offset(last.0 + 1));
        self.unreadable(segment, Some(Lost { topic, from, to }), error)
    }

    /// The records that may hold the first events of a topic at or after an offset.
    fn step(&self, topic: TopicId, from: Offset, limit: usize) -> Result<Step, Stop> {
        let sealed = {
            let view = self.shared.read();
            match next_segment(&view, topic, from) {
                Step::Sealed(sealed) => sealed,
                Step::End => return Ok(Step::End),
                Step::Records(..) => {
                    let index = &view.active.index;
                    let segment = view.active.source.segment;
                    let at = index.entry_reaching(topic, from).map_err(stop(segment))?;
                    let entries = index.entries(topic, at, limit).map_err(stop(segment))?;
                    let loaded =
                        entries.into_iter().map(|entry| (entry, view.recent.record(entry.lsn)));
                    return Ok(Step::Records(loaded.collect(), view.active.source.clone()));
                }
            }
        };
        let segment = sealed.segment();
        let at = sealed.entry_reaching(topic, from).map_err(stop(segment))?;
        let entries = sealed.entries(topic, at, limit).map_err(stop(segment))?;
        let source = sealed.source.clone();
        Ok(Step::Records(entries.into_iter().map(|entry| (entry, None)).collect(), source))
    }
}

/// The first segment with events of the topic at or after an offset.
fn next_segment(view: &View, topic: TopicId, from: Offset) -> Step {
    let active = view.active.index.topic(topic);
    // Most readers are near the end.
    let in_active = active.is_some_and(|t| t.first <= from);
    let older = if in_active {
        None
    } else {
        let reaching = |s: &&Arc<Sealed>| s.summary.topic(topic).is_some_and(|t| t.last >= from);
        view.sealed.iter().find(reaching)
    };
    match older {
        Some(sealed) => Step::Sealed(sealed.clone()),
        None if active.is_some_and(|t| t.last >= from) => {
            Step::Records(Vec::new(), view.active.source.clone())
        }
        None => Step::End,
    }
}

struct Reading<'a> {
    reader: &'a Reader,
    topic: TopicId,
    max_bytes: usize,
    bytes: usize,
    events: Vec<StoredEvent>,
    /// The last BEGIN that bodies were taken from.
    begin: Option<(Lsn, Arc<Record>)>,
    /// The last record that was read: the next event may be in it too.
    last: Option<(Lsn, Arc<Record>)>,
    records: Window,
    begins: Window,
}

impl Reading<'_> {
    fn range(&mut self, from: Offset, to: Offset, max_events: usize) -> Result<Offset, Stop> {
        let mut from = from;
        while from < to {
            // The first one may begin before `from` and have nothing behind it: two at least.
            let limit = max_events.saturating_sub(self.events.len()).clamp(2, BATCH);
            let Step::Records(records, source) = self.reader.step(self.topic, from, limit)? else {
                return Ok(to);
            };
            let before = from;
            for (entry, record) in records {
                if entry.first >= to {
                    return Ok(to);
                }
                let record = match self.record(&source, entry, record) {
                    Ok(record) => record,
                    Err(e) => {
                        return self.stopped_at(source.segment, entry.first.max(from), e.into());
                    }
                };
                for event in events_of(&record, self.topic) {
                    if event.offset < from {
                        continue;
                    }
                    if event.offset >= to {
                        return Ok(to);
                    }
                    if self.events.len() >= max_events || self.is_full(event) {
                        return Ok(event.offset);
                    }
                    if let Err(stop) = self.take(&record, event) {
                        return self.stopped_at(source.segment, event.offset, stop);
                    }
                    from = Offset(event.offset.0 + 1);
                }
            }
            if from == before {
                // The summary promised an event that the records do not have.
                let detail = format!("no event of topic {} at or after {from}", self.topic);
                return Err(Error::corrupt(&source.name(), 0, detail).into());
            }
        }
        Ok(to)
    }

    fn offsets(&mut self, offsets: &[Offset]) -> Result<Offset, Stop> {
        for offset in offsets {
            let Step::Records(records, source) = self.reader.step(self.topic, *offset, 1)? else {
                continue;
            };
            for (entry, record) in records {
                if entry.first > *offset {
                    break;
                }
                let record = match self.record(&source, entry, record) {
                    Ok(record) => record,
                    Err(e) => return self.stopped_at(source.segment, *offset, e.into()),
                };
                let found = events_of(&record, self.topic).find(|e| e.offset == *offset);
                if let Some(event) = found {
                    if self.is_full(event) {
                        return Ok(*offset);
                    }
                    if let Err(stop) = self.take(&record, event) {
                        return self.stopped_at(source.segment, *offset, stop);
                    }
                }
            }
        }
        Ok(offsets.last().map_or(Offset(0), |last| Offset(last.0 + 1)))
    }

    /// What comes at this offset cannot be read: what was read before it is an answer first.
    fn stopped_at(&self, segment: u64, at: Offset, stop: Stop) -> Result<Offset, Stop> {
        match stop {
            Stop::Error(e) if e.corruption().is_some() && !is_moved(&e) => {
                if self.events.is_empty() {
                    return Err(self.reader.lost(segment, self.topic, at, e).into());
                }
                Ok(at)
            }
            other => Err(other),
        }
    }

    /// At least one event is always taken.
    fn is_full(&self, event: &PlacedEvent) -> bool {
        !self.events.is_empty() && self.bytes + event.body.size() as usize > self.max_bytes
    }

    fn record(
        &mut self,
        source: &Source,
        entry: Entry,
        loaded: Option<Arc<Record>>,
    ) -> Result<Arc<Record>, Error> {
        match (loaded, &self.last) {
            (Some(record), _) => Ok(record),
            (None, Some((lsn, record))) if *lsn == entry.lsn => Ok(record.clone()),
            (None, _) => {
                let record = source.record_at(entry.position, entry.lsn, &mut self.records)?;
                self.last = Some((entry.lsn, record.clone()));
                Ok(record)
            }
        }
    }

    fn take(&mut self, record: &Record, event: &PlacedEvent) -> Result<(), Stop> {
        let (transaction, wall_ms) = match record {
            Record::Commit(r) => (Some(r.id), r.wall_ms),
            Record::Published(r) => (None, r.wall_ms),
            // Only these two have events.
            _ => return Ok(()),
        };
        let body = match (&event.body, record) {
            (Body::Here(body), _) => body.clone(),
            (Body::InBegin { item, size }, Record::Commit(commit)) => {
                self.staged(commit, *item, *size)?
            }
            (Body::InBegin { .. }, _) => return Err(lost_body(Lsn(0)).into()),
        };
        self.bytes += body.len();
        let (offset, key) = (event.offset, event.key);
        self.events.push(StoredEvent { offset, key, transaction, wall_ms, body });
        Ok(())
    }

    /// The bytes of an event that a local transaction staged with its BEGIN.
    fn staged(&mut self, commit: &Commit, item: u32, size: u32) -> Result<Bytes, Stop> {
        let lsn = commit.previous;
        let begin = match &self.begin {
            Some((held, begin)) if *held == lsn => begin.clone(),
            _ => {
                let begin = self.reader.load(lsn, &mut self.begins)?;
                begin.ok_or_else(|| lost_body(lsn))?
            }
        };
        let Record::Begin(fields) = &*begin else { return Err(lost_body(lsn).into()) };
        let items = fields.local.as_ref().filter(|_| fields.id == commit.id);
        let body = items
            .and_then(|items| items.events.get(item as usize))
            .filter(|staged| staged.body.len() == size as usize)
            .map(|staged| staged.body.clone());
        self.begin = Some((lsn, begin));
        body.ok_or_else(|| lost_body(lsn).into())
    }
}

fn events_of(record: &Record, topic: TopicId) -> impl Iterator<Item = &PlacedEvent> {
    record.events().iter().filter(move |e| e.topic == topic)
}

/// The segment was replaced meanwhile: the query is to be asked again.
fn is_moved(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if moved(source))
}

fn lost_body(lsn: Lsn) -> Error {
    let detail = format!("record {lsn} should hold the bytes of an event and does not");
    Error::corrupt("the chain", lsn.0, detail)
}
