//! Finding an event by its time.

use std::sync::Arc;

use handfast_core::ids::{Offset, TopicId};

use super::{Reader, Stop, stop};
use crate::error::Error;
use crate::index::{Entry, Index, partition};
use crate::scan::Window;
use crate::sealed::Sealed;
use crate::source::Source;

impl Reader {
    /// The first event of a topic at or after a time; none if all are older. Times rise along the
    /// log.
    ///
    /// # Errors
    /// [`Error::Unreadable`] if the search leads into a damaged place of a sealed segment,
    /// [`Error::Corrupt`] or [`Error::Io`] if the active segment cannot be read.
    pub fn offset_at(&self, topic: TopicId, wall_ms: u64) -> Result<Option<Offset>, Error> {
        let found = self.with_indexes(|| {
            let (entries, source) = {
                let view = self.shared.read();
                let late_enough = |s: &&Arc<Sealed>| {
                    s.summary.topic(topic).is_some_and(|t| t.newest_ms >= wall_ms)
                };
                if let Some(sealed) = view.sealed.iter().find(late_enough).cloned() {
                    drop(view);
                    return search(&*sealed, &sealed.source, topic, wall_ms);
                }
                if view.active.index.topic(topic).is_none_or(|t| t.newest_ms < wall_ms) {
                    return Ok(None);
                }
                let entries = view.active.index.entries_of(topic).to_vec();
                (Entries(entries), view.active.source.clone())
            };
            search(&entries, &source, topic, wall_ms)
        });
        found.map_err(|error| self.unreadable_by_file(error))
    }
}

/// The entries of one topic, copied out of the active index.
struct Entries(Vec<Entry>);

/// The two questions that a search asks.
trait Search {
    fn count(&self, topic: TopicId) -> usize;
    fn entry(&self, topic: TopicId, number: usize, segment: u64) -> Result<Entry, Stop>;
}

impl Search for Entries {
    fn count(&self, _: TopicId) -> usize {
        self.0.len()
    }

    fn entry(&self, _: TopicId, number: usize, segment: u64) -> Result<Entry, Stop> {
        self.0.get(number).copied().ok_or(Stop::Index(segment))
    }
}

impl<T: Index> Search for T {
    fn count(&self, topic: TopicId) -> usize {
        self.entry_count(topic)
    }

    fn entry(&self, topic: TopicId, number: usize, segment: u64) -> Result<Entry, Stop> {
        let entries = self.entries(topic, number, 1).map_err(stop(segment))?;
        entries.first().copied().ok_or(Stop::Index(segment))
    }
}

fn search(
    index: &impl Search,
    source: &Source,
    topic: TopicId,
    wall_ms: u64,
) -> Result<Option<Offset>, Stop> {
    let mut window = Window::new(0);
    let count = index.count(topic);
    let at = partition(count, |i| {
        let entry = index.entry(topic, i, source.segment)?;
        let record = source.record_at(entry.position, entry.lsn, &mut window)?;
        Ok::<_, Stop>(record.wall_ms().unwrap_or(0) < wall_ms)
    })?;
    // Never behind the last: the caller has seen that it is not older.
    let at = at.min(count.saturating_sub(1));
    Ok(Some(index.entry(topic, at, source.segment)?.first))
}
