//! What is known of a sealed segment without reading it: enough to decide whether it is still
//! needed.

use handfast_core::ids::{Lsn, Offset, TopicId};

use crate::codec::{Codec, Input, Malformed};

/// A sealed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentSummary {
    /// Its number.
    pub segment: u64,
    /// Bytes that its records take in the file.
    pub bytes: u64,
    /// How often it was compacted.
    pub generation: u32,
    /// The first LSN it was written with.
    pub first: Lsn,
    /// The last LSN it was written with.
    pub last: Lsn,
    /// How many records are in it now.
    pub records: u64,
    /// Oldest and newest time of its records, Unix time in milliseconds.
    pub wall_ms: Option<(u64, u64)>,
    /// Topics with events in it, by their id.
    pub topics: Vec<TopicSummary>,
    /// How many transactions ended in it.
    pub ended: u64,
    /// Lowest and highest time in the ids of those, Unix time in milliseconds.
    pub ended_ids_ms: Option<(u64, u64)>,
    /// The newest END of a transaction that had no idempotency key, Unix time in milliseconds.
    pub newest_end_ms: Option<u64>,
    /// The newest END of a transaction that had one (or of which that is not known).
    pub newest_keyed_end_ms: Option<u64>,
    /// Older segments that records of this one refer to.
    pub references: Vec<Reference>,
}

/// The events of one topic in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSummary {
    /// The topic.
    pub topic: TopicId,
    /// The lowest offset.
    pub first: Offset,
    /// The highest offset.
    pub last: Offset,
    /// How many.
    pub events: u64,
    /// Their bytes, wherever they are.
    pub bytes: u64,
    /// The newest of their times, Unix time in milliseconds.
    pub newest_ms: u64,
    /// How many records they are in.
    pub(crate) entries: u64,
}

/// That records of a segment need an older one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The older segment. It holds BEGIN or the decision of transactions that ended here, or
    /// bytes of events that a COMMIT here made visible.
    pub segment: u64,
    /// As in [`SegmentSummary`], of the transactions that have records there.
    pub newest_end_ms: Option<u64>,
    /// As in [`SegmentSummary`], of the transactions that have records there.
    pub newest_keyed_end_ms: Option<u64>,
    /// Topics of events whose bytes are there, each with the highest such offset: the older
    /// segment is needed until the topic's start is beyond it.
    pub events: Vec<(TopicId, Offset)>,
}

impl Reference {
    pub(crate) fn to(segment: u64) -> Self {
        Self { segment, newest_end_ms: None, newest_keyed_end_ms: None, events: Vec::new() }
    }

    pub(crate) fn end(&mut self, wall_ms: u64, keyed: bool) {
        let newest = if keyed { &mut self.newest_keyed_end_ms } else { &mut self.newest_end_ms };
        *newest = (*newest).max(Some(wall_ms));
    }

    pub(crate) fn event(&mut self, topic: TopicId, offset: Offset) {
        match self.events.iter_mut().find(|(t, _)| *t == topic) {
            Some((_, last)) => *last = offset.max(*last),
            None => self.events.push((topic, offset)),
        }
    }

    /// Takes over what another one of the same segment says.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.newest_end_ms = self.newest_end_ms.max(other.newest_end_ms);
        self.newest_keyed_end_ms = self.newest_keyed_end_ms.max(other.newest_keyed_end_ms);
        for (topic, offset) in &other.events {
            self.event(*topic, *offset);
        }
    }
}

impl SegmentSummary {
    /// The topic's events in this segment.
    #[must_use]
    pub fn topic(&self, topic: TopicId) -> Option<&TopicSummary> {
        let at = self.topics.binary_search_by_key(&topic, |t| t.topic).ok()?;
        self.topics.get(at)
    }

    /// The older segments that this one refers to, if it is one of them.
    #[must_use]
    pub fn reference(&self, segment: u64) -> Option<&Reference> {
        self.references.iter().find(|r| r.segment == segment)
    }

    /// Keeps what an earlier index of the same segment knew of references, which can not be seen
    /// in its records any more.
    pub(crate) fn merge_references(&mut self, before: &Self) {
        for reference in &before.references {
            match self.references.iter_mut().find(|r| r.segment == reference.segment) {
                Some(known) => known.merge(reference),
                None => self.references.push(reference.clone()),
            }
        }
    }
}

macro_rules! summary_fields {
    ($name:ident { $($field:ident),+ $(,)? }) => {
        impl Codec for $name {
            fn put(&self, out: &mut Vec<u8>) {
                let Self { $($field),+ } = self;
                $($field.put(out);)+
            }

            fn take(input: &mut Input) -> Result<Self, Malformed> {
                Ok(Self { $($field: Codec::take(input)?),+ })
            }
        }
    };
}

summary_fields!(SegmentSummary {
    segment,
    bytes,
    generation,
    first,
    last,
    records,
    wall_ms,
    topics,
    ended,
    ended_ids_ms,
    newest_end_ms,
    newest_keyed_end_ms,
    references,
});
summary_fields!(TopicSummary { topic, first, last, events, bytes, newest_ms, entries });
summary_fields!(Reference { segment, newest_end_ms, newest_keyed_end_ms, events });
