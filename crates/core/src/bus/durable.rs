//! What follows when a record is durable: events are visible, acknowledgements free their keys,
//! what was held back goes on.

use super::Bus;
use crate::effects::Effects;
use crate::ids::{Lsn, Now};
use crate::record::Record;
use crate::refusal::{Code, Refusal};

impl Bus {
    /// The record is durable: its events are visible, its acknowledgements free their keys.
    pub(crate) fn durable(&mut self, now: Now, lsn: Lsn, record: &Record, effects: &mut Effects) {
        self.wake(effects);
        match record {
            Record::Commit(commit) => {
                self.settle(now, commit, effects);
                let origin = (Some(commit.id), commit.wall_ms);
                self.make_visible(now, record, origin, effects);
            }
            Record::Published(published) => {
                self.producers.durable(published);
                for event in &published.events {
                    if let Some(topic) = self.topics.get_mut(&event.topic) {
                        let size = u64::from(event.body.size());
                        topic.reserved = topic.reserved.saturating_sub(size);
                    }
                }
                self.make_visible(now, record, (None, published.wall_ms), effects);
            }
            Record::TopicDeleted(deleted) if deleted.gone => {
                let refusal = Refusal::new(Code::UnknownTopic, "the topic was deleted");
                self.end_streams(|s| s.topic == deleted.topic, &refusal, effects);
            }
            Record::TopicTruncated(truncated) => self.truncated(now, truncated, effects),
            Record::SubscriptionCreated(created) => {
                self.answer_subscribers(created.subscription, effects);
                self.pump(created.subscription, now, effects);
            }
            Record::SubscriptionSought(sought) => self.sought(now, lsn, sought, effects),
            Record::SubscriptionDeleted(deleted) if deleted.gone => {
                let refusal =
                    Refusal::new(Code::UnknownSubscription, "the subscription was deleted");
                self.end_streams(|s| s.subscription == deleted.subscription, &refusal, effects);
            }
            Record::Acknowledged(acknowledged) => {
                self.acknowledged(now, lsn, acknowledged, effects);
            }
            Record::GapAcknowledged(noted) => self.pump(noted.subscription, now, effects),
            Record::DeadLettered(letter) => self.buried(now, lsn, letter, effects),
            Record::DeadLettersTaken(taken) => self.taken(now, taken, effects),
            // Their answers wait for them, and nothing else does.
            Record::TopicCreated(_)
            | Record::TopicAltered(_)
            | Record::TopicDeleted(_)
            | Record::SubscriptionDeleted(_)
            // The coordinator's, or the journal's.
            | Record::Opened(_)
            | Record::Begin(_)
            | Record::Abort(_)
            | Record::Operated(_)
            | Record::End(_)
            | Record::SegmentDropped(_)
            | Record::CheckpointStart(_)
            | Record::TransactionRestated(_)
            | Record::UnseenRestated(_)
            | Record::SubscriptionRestated(_)
            | Record::TopicRestated(_)
            | Record::ProducersRestated(_)
            | Record::KeysEnded(_)
            | Record::KeysRestated(_)
            | Record::CheckpointEnd => {}
        }
    }
}
