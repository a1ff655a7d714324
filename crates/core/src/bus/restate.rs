//! The bus's part of a checkpoint.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::Bus;
use crate::ids::{SubscriptionId, TopicId};
use crate::record::{Record, TopicRestated};

/// Most producers in one record.
const PRODUCERS: usize = 1_000;
/// Most batches of producers in one record, unless one alone has more: about a megabyte.
const BATCHES: usize = 65_536;

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
        self.restate_producers(out);
    }

    fn restate_producers(&self, out: &mut Vec<Record>) {
        let (mut together, mut batches) = (Vec::new(), 0);
        for producer in self.producers.restate() {
            let more = producer.batches.len();
            if together.len() == PRODUCERS || (batches + more > BATCHES && batches > 0) {
                out.push(Record::ProducersRestated(core::mem::take(&mut together)));
                batches = 0;
            }
            batches += more;
            together.push(producer);
        }
        if !together.is_empty() {
            out.push(Record::ProducersRestated(together));
        }
    }

    /// The ids that the next topic and the next subscription get.
    pub(crate) fn next_ids(&self) -> (TopicId, SubscriptionId) {
        (self.next_topic, self.next_subscription)
    }
}
