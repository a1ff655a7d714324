//! What the bus still needs of the log: for whoever removes old parts of it.

use alloc::vec::Vec;

use super::Bus;
use crate::ids::{Offset, TopicId};
use crate::machine::TopicBounds;

impl Bus {
    /// A checkpoint is made: what topics hold is in sealed segments from here on.
    pub(crate) fn begin_segment(&mut self) {
        for topic in self.topics.values_mut() {
            topic.parts.clear();
        }
    }

    /// The topics with what retention needs to know of them, by id.
    pub(crate) fn bounds(&self) -> Vec<TopicBounds> {
        let bounds = |(topic, t): (&TopicId, &super::topics::Topic)| TopicBounds {
            topic: *topic,
            settings: t.created.settings.clone(),
            start: t.start,
            bytes: t.bytes,
            wanted: t.wanted,
            parts: t.newest_parts(),
        };
        self.topics.iter().map(bounds).collect()
    }

    /// Events that stay readable whatever retention says: dead letters, also those that are tried
    /// again.
    pub(crate) fn dead_letters(&self) -> Vec<(TopicId, Offset)> {
        let mut letters = Vec::new();
        for subscription in self.subscriptions.values() {
            let facts = &subscription.facts;
            let offsets = facts.dead.keys().chain(&facts.retried);
            letters.extend(offsets.map(|offset| (facts.created.topic, *offset)));
        }
        letters
    }
}
