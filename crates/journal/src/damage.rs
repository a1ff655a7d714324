//! Damage in sealed segments: what of it is known. It is noted where it is found, by a reader or by
//! the check that goes through all segments, and ends nobody but who wanted to read there.

use std::collections::BTreeMap;

use handfast_core::ids::{Offset, TopicId};

use crate::corruption::Corruption;

/// Places that are remembered at most. Of more, only how many segments have any matters.
const NOTED: usize = 1_000;

/// A place in a sealed segment that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{why}", .events.map(|e| format!("{e} cannot be read: ")).unwrap_or_default())]
#[non_exhaustive]
pub struct Damage {
    /// The segment.
    pub segment: u64,
    /// The events that are lost; none: records of transactions only.
    pub events: Option<Lost>,
    /// What does not check, and where.
    pub why: Corruption,
}

/// Events that cannot be read: offsets `from..to` of a topic, or some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("offsets {from} to {} of topic number {topic}", .to.0.saturating_sub(1))]
pub struct Lost {
    /// The topic.
    pub topic: TopicId,
    /// The first of them.
    pub from: Offset,
    /// One past the last of them.
    pub to: Offset,
}

/// The damage that is known.
#[derive(Debug, Default)]
pub(crate) struct Known(BTreeMap<(u64, Option<Lost>), Damage>);

impl Known {
    /// Notes a place; says whether it was not known.
    pub(crate) fn note(&mut self, damage: &Damage) -> bool {
        let place = (damage.segment, damage.events);
        self.0.len() < NOTED && self.0.insert(place, damage.clone()).is_none()
    }

    /// Places in segments that are there yet.
    pub(crate) fn of(&self, is_there: impl Fn(u64) -> bool) -> Vec<Damage> {
        self.0.values().filter(|damage| is_there(damage.segment)).cloned().collect()
    }
}
