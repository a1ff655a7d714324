//! The bus's part of a checkpoint.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::Bus;
use crate::ids::{SubscriptionId, TopicId};
use crate::record::{Record, TopicRestated};

/// Most producers in one record.
const PRODUCERS: usize = 1_000;

impl Bus {
    /// The bus's part of a checkpoint: records that, applied to an empty bus, make it again
    /// (as accepted so far; leases and credit are not part of it).
    pub(crate) fn restate(&self, out: &mut Vec<Record>) {
        for topic in self.topics.values().filter(|topic| topic.exists) {
            out.push(Record::TopicRestated(TopicRestated {
                created: topic.created.clone(),
                deleting: topic.deleting,
                start: topic.start,
                end: topic.end,
                bytes: topic.bytes,
            }));
        }
        for subscription in self.subscriptions.values().filter(|s| s.exists) {
            out.push(Record::SubscriptionRestated(Box::new(subscription.facts.restate())));
        }
        for producers in self.producers.restate().chunks(PRODUCERS) {
            out.push(Record::ProducersRestated(producers.to_vec()));
        }
    }

    /// The ids that the next topic and the next subscription get.
    pub(crate) fn next_ids(&self) -> (TopicId, SubscriptionId) {
        (self.next_topic, self.next_subscription)
    }
}
