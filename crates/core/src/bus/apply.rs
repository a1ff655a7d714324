//! The fold: what a record changes in the facts. The same live and in recovery; it emits nothing
//! and looks at nothing but the facts.

use super::Bus;
use super::subscription::Subscription;
use super::topics::{Leaving, Topic};
use crate::event::{OffsetRange, PlacedEvent};
use crate::ids::{Lsn, SubscriptionId, TopicId};
use crate::record::{
    Acknowledged, Commit, DeadLettered, DeadLettersTaken, GapAcknowledged, Record,
    SubscriptionCreated, SubscriptionDeleted, SubscriptionRestated, SubscriptionSought,
    TopicAltered, TopicCreated, TopicDeleted, TopicRestated, TopicTruncated,
};

impl Bus {
    /// The fold: what a record changes in topics, subscriptions and producers. Called once per
    /// record in log order, live when it is accepted, and in recovery. Never emits anything.
    pub(crate) fn apply(&mut self, lsn: Lsn, record: &Record) {
        match record {
            Record::Opened(opened) => self.tokens.enter(opened.epoch),
            Record::Commit(commit) => self.apply_commit(commit),
            Record::Published(published) => {
                self.producers.apply(published);
                self.apply_events(&published.events, published.wall_ms);
            }
            Record::TopicCreated(created) => self.apply_topic_created(created),
            Record::TopicAltered(altered) => self.apply_topic_altered(altered),
            Record::TopicDeleted(deleted) => self.apply_topic_deleted(deleted),
            Record::TopicTruncated(truncated) => self.apply_truncated(lsn, truncated),
            Record::SubscriptionCreated(created) => self.apply_subscription_created(created),
            Record::SubscriptionSought(sought) => self.apply_sought(sought),
            Record::SubscriptionDeleted(deleted) => self.apply_subscription_deleted(deleted),
            Record::Acknowledged(acknowledged) => self.apply_acknowledged(acknowledged),
            Record::GapAcknowledged(noted) => self.apply_gap_acknowledged(noted),
            Record::DeadLettered(letter) => self.apply_dead_lettered(letter),
            Record::DeadLettersTaken(taken) => self.apply_taken(taken),
            Record::CheckpointStart(start) => {
                self.next_topic = self.next_topic.max(start.next_topic);
                self.next_subscription = self.next_subscription.max(start.next_subscription);
                self.tokens.enter(start.epoch);
            }
            Record::TopicRestated(restated) => self.apply_topic_restated(restated),
            Record::SubscriptionRestated(restated) => self.apply_subscription_restated(restated),
            Record::ProducersRestated(producers) => {
                for producer in producers {
                    self.producers.apply_restated(producer);
                }
            }
            // The coordinator's, or the journal's.
            Record::Begin(_)
            | Record::Abort(_)
            | Record::Operated(_)
            | Record::End(_)
            | Record::SegmentDropped(_)
            | Record::TransactionRestated(_)
            | Record::UnseenRestated(_)
            | Record::KeysEnded(_)
            | Record::KeysRestated(_)
            | Record::CheckpointEnd => {}
        }
    }

    fn apply_commit(&mut self, commit: &Commit) {
        self.apply_events(&commit.events, commit.wall_ms);
        for (id, offset) in &commit.acknowledged {
            if let Some(subscription) = self.subscriptions.get_mut(id) {
                subscription.facts.acknowledge_one(*offset);
            }
        }
    }

    fn apply_events(&mut self, events: &[PlacedEvent], wall_ms: u64) {
        for event in events {
            let Some(topic) = self.topics.get_mut(&event.topic) else { continue };
            assert!(event.offset >= topic.end, "offsets of {} fell (I11)", topic.created.name);
            let hole = OffsetRange { from: topic.end, to: event.offset };
            topic.add(event.offset, u64::from(event.body.size()), wall_ms);
            if hole.from < hole.to {
                // Nobody has to acknowledge what never was.
                for id in &topic.subscriptions {
                    if let Some(subscription) = self.subscriptions.get_mut(id) {
                        subscription.facts.progress.acknowledge(hole);
                    }
                }
            }
        }
    }

    fn apply_topic_created(&mut self, created: &TopicCreated) {
        let id = created.topic;
        self.next_topic = self.next_topic.max(TopicId(id.0.saturating_add(1)));
        self.topic_names.insert(created.name.clone(), id);
        self.topics.entry(id).or_insert_with(|| Topic::new(created.clone())).exists = true;
    }

    fn apply_topic_altered(&mut self, altered: &TopicAltered) {
        if let Some(topic) = self.topics.get_mut(&altered.topic) {
            topic.created.settings = altered.settings.clone();
        }
    }

    fn apply_topic_deleted(&mut self, deleted: &TopicDeleted) {
        if !deleted.gone {
            if let Some(topic) = self.topics.get_mut(&deleted.topic) {
                topic.deleting = true;
                topic.leaving = topic.leaving.max(Leaving::Emptying);
            }
            return;
        }
        let Some(topic) = self.topics.remove(&deleted.topic) else { return };
        self.topic_names.remove(&topic.created.name);
        for id in topic.subscriptions {
            self.remove_subscription(id);
        }
    }

    fn apply_truncated(&mut self, lsn: Lsn, truncated: &TopicTruncated) {
        let Some(topic) = self.topics.get_mut(&truncated.topic) else { return };
        topic.start = topic.start.max(truncated.start);
        topic.parts.forget_below(topic.start);
        topic.bytes = topic.bytes.saturating_sub(truncated.bytes);
        if topic.start >= topic.end {
            // What was taken may have been an estimate; an empty topic is known exactly.
            topic.bytes = 0;
        }
        for id in &topic.subscriptions {
            let Some(subscription) = self.subscriptions.get_mut(id) else { continue };
            if subscription.facts.overtake(truncated.start) {
                subscription.gap_lsn = lsn;
            }
        }
    }

    fn apply_subscription_created(&mut self, created: &SubscriptionCreated) {
        let id = created.subscription;
        self.next_subscription = self.next_subscription.max(SubscriptionId(id.0.saturating_add(1)));
        if !self.subscriptions.contains_key(&id) {
            self.insert_subscription(Subscription::new(created.clone()));
        }
        if let Some(subscription) = self.subscriptions.get_mut(&id) {
            subscription.exists = true;
        }
    }

    fn apply_sought(&mut self, sought: &SubscriptionSought) {
        if let Some(subscription) = self.subscriptions.get_mut(&sought.subscription) {
            subscription.facts.seek(sought.offset);
        }
    }

    fn apply_subscription_deleted(&mut self, deleted: &SubscriptionDeleted) {
        if deleted.gone {
            self.remove_subscription(deleted.subscription);
        } else if let Some(subscription) = self.subscriptions.get_mut(&deleted.subscription) {
            subscription.facts.deleting = true;
            subscription.leaving = subscription.leaving.max(Leaving::Emptying);
        }
    }

    fn apply_acknowledged(&mut self, acknowledged: &Acknowledged) {
        if let Some(subscription) = self.subscriptions.get_mut(&acknowledged.subscription) {
            for range in &acknowledged.ranges {
                subscription.facts.acknowledge(*range);
            }
        }
    }

    fn apply_gap_acknowledged(&mut self, noted: &GapAcknowledged) {
        if let Some(subscription) = self.subscriptions.get_mut(&noted.subscription) {
            subscription.facts.note_gap(noted.to);
        }
    }

    fn apply_dead_lettered(&mut self, letter: &DeadLettered) {
        if let Some(subscription) = self.subscriptions.get_mut(&letter.subscription) {
            subscription.facts.acknowledge_one(letter.offset);
            subscription.facts.dead.insert(letter.offset, letter.clone());
        }
    }

    fn apply_taken(&mut self, taken: &DeadLettersTaken) {
        if let Some(subscription) = self.subscriptions.get_mut(&taken.subscription) {
            for offset in &taken.offsets {
                subscription.facts.take_dead(*offset, taken.retry);
            }
        }
    }

    fn apply_topic_restated(&mut self, restated: &TopicRestated) {
        // A checkpoint in the middle of a log says nothing new.
        if self.topics.contains_key(&restated.created.topic) {
            return;
        }
        self.apply_topic_created(&restated.created);
        let Some(topic) = self.topics.get_mut(&restated.created.topic) else { return };
        topic.deleting = restated.deleting;
        if restated.deleting {
            topic.leaving = Leaving::Emptying;
        }
        topic.start = restated.start;
        topic.end = restated.end;
        topic.next = restated.end;
        topic.bytes = restated.bytes;
    }

    fn apply_subscription_restated(&mut self, restated: &SubscriptionRestated) {
        let id = restated.created.subscription;
        if self.subscriptions.contains_key(&id) {
            return;
        }
        self.apply_subscription_created(&restated.created);
        let Some(subscription) = self.subscriptions.get_mut(&id) else { return };
        if restated.deleting {
            subscription.leaving = Leaving::Emptying;
        }
        subscription.facts.restore(restated);
    }

    fn remove_subscription(&mut self, id: SubscriptionId) {
        let Some(mut subscription) = self.subscriptions.remove(&id) else { return };
        self.subscription_names.remove(&subscription.facts.created.name);
        if let Some(topic) = self.topics.get_mut(&subscription.topic()) {
            topic.subscriptions.remove(&id);
        }
        subscription.stop_timers(&mut self.timers);
    }
}
