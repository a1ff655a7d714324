//! Staging: the bus's YES for a transaction, and what becomes of it.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;

use super::acknowledge::Standing;
use super::ending::By;
use super::refusals::{expired, staged};
use super::topics::Leaving;
use super::window::{Phase, Unjudged};
use super::{Bus, Staged};
use crate::command::bytes_of_events;
use crate::effects::Effects;
use crate::event::{Body, DeliveryRef, EventRequest, PlacedEvent, StagedEvent};
use crate::ids::{Now, Offset, SubscriptionId, TopicId, TransactionId};
use crate::limits::Limits;
use crate::record::{Begin, Commit, Record, SubscriptionDeleted};
use crate::refusal::{Code, Refusal};

/// Room that an event takes in COMMIT besides its bytes.
const PLACED_BYTES: u64 = 64;

impl Bus {
    /// Checks events and acknowledgements and takes them: the bus's YES. All or none; nothing but
    /// [`Bus::release`] or the commit of the transaction gives them back. The caller has checked
    /// the limits of the transaction as a whole ([`crate::limits::BATCH_ITEMS`] and so on) and the
    /// room in the log. A refusal may reveal what [`Bus::last`] says and has to wait for it.
    pub(crate) fn stage(
        &mut self,
        limits: &Limits,
        id: TransactionId,
        events: Vec<EventRequest>,
        acknowledgements: &[DeliveryRef],
        into: &mut Staged,
    ) -> Result<(), Refusal> {
        self.take_up();
        let topics = self.check_events(&events)?;
        let bytes = bytes_of_events(&events);
        if self.staged_bytes.saturating_add(bytes) > limits.staged_bytes {
            let detail = format!("at most {} bytes are staged at a time", limits.staged_bytes);
            return Err(Refusal::new(Code::StagedBytesFull, detail));
        }
        self.check_acknowledgements(acknowledgements)?;
        // Nothing is refused from here on.
        for (event, topic) in events.into_iter().zip(topics) {
            let size = u32::try_from(event.body.len()).expect("its size was checked");
            self.take_event(topic, size);
            into.bytes += size as usize;
            into.events.push(StagedEvent { topic, key: event.key, body: event.body, size });
        }
        for delivery in acknowledgements {
            let Some(subscription) = self.subscriptions.get_mut(&delivery.subscription) else {
                continue;
            };
            subscription.staged += 1;
            let phase = Phase::Staged { transaction: id };
            subscription.set_phase(&mut self.timers, delivery.offset, phase, By::Transaction);
            into.acknowledgements.push((delivery.subscription, delivery.offset));
        }
        Ok(())
    }

    /// The transaction failed: deliveries return, quotas are free again.
    pub(crate) fn release(&mut self, now: Now, staged: Staged, effects: &mut Effects) {
        for event in &staged.events {
            self.return_event(event.topic, event.size);
            self.finish_topic(event.topic, effects);
        }
        let mut touched = BTreeSet::new();
        for (id, offset) in staged.acknowledgements {
            if let Some((subscription, mut reach)) = self.reach(id, now, effects) {
                subscription.staged = subscription.staged.saturating_sub(1);
                subscription.give_back(&mut reach, offset, Unjudged::Transaction);
                touched.insert(id);
            }
        }
        self.after_decision(now, &touched, effects);
    }

    /// Gives every staged event its offset, for COMMIT. With `in_begin` the bytes stay in BEGIN.
    /// What is staged stays staged until COMMIT is durable, or until [`Bus::release`].
    pub(crate) fn place(&mut self, staged: &mut Staged, in_begin: bool) -> Vec<PlacedEvent> {
        self.take_up();
        let mut placed = Vec::with_capacity(staged.events.len());
        for (item, event) in (0u32..).zip(&staged.events) {
            let body = if in_begin {
                Body::InBegin { item, size: event.size }
            } else {
                Body::Here(event.body.clone())
            };
            placed.push(self.place_one(event.topic, event.key, body));
        }
        placed
    }

    /// Recovery of an open local transaction: takes again what its BEGIN had staged. Called when
    /// the whole log has been applied, before anything else happens.
    pub(crate) fn restage(&mut self, begin: &Begin) -> Staged {
        let mut staged = Staged::default();
        let Some(local) = &begin.local else { return staged };
        for event in &local.events {
            self.take_event(event.topic, event.size);
            staged.bytes += event.size as usize;
            staged.events.push(StagedEvent { body: bytes::Bytes::new(), ..event.clone() });
        }
        for (id, offset) in &local.acknowledged {
            let Some(subscription) = self.subscriptions.get_mut(id) else { continue };
            subscription.staged += 1;
            subscription.window.admit_unknown(*offset, Phase::Staged { transaction: begin.id });
            staged.acknowledgements.push((*id, *offset));
        }
        staged
    }

    /// Bytes that what is staged may take in the log with COMMIT.
    pub(crate) fn reserved_bytes(&self) -> u64 {
        self.staged_bytes as u64 + self.staged_events as u64 * PLACED_BYTES
    }

    /// Bytes staged by all open transactions.
    pub(crate) fn staged_bytes(&self) -> usize {
        self.staged_bytes
    }

    /// COMMIT is durable: what was staged is done.
    pub(super) fn settle(&mut self, now: Now, commit: &Commit, effects: &mut Effects) {
        for event in &commit.events {
            self.return_event(event.topic, event.body.size());
            self.finish_topic(event.topic, effects);
        }
        let mut touched = BTreeSet::new();
        for (id, offset) in &commit.acknowledged {
            let Some(subscription) = self.subscriptions.get_mut(id) else { continue };
            let staged_by = Phase::Staged { transaction: commit.id };
            if subscription.window.entry(*offset).is_some_and(|e| e.phase() == staged_by) {
                subscription.staged = subscription.staged.saturating_sub(1);
                subscription.window.remove(*offset);
                touched.insert(*id);
            }
        }
        self.after_decision(now, &touched, effects);
    }

    /// Lets a subscription go that only waited for staged acknowledgements and has none any more.
    pub(super) fn finish_subscription(
        &mut self,
        id: SubscriptionId,
        effects: &mut Effects,
    ) -> bool {
        let Some(subscription) = self.subscriptions.get_mut(&id) else { return false };
        if subscription.leaving != Leaving::Emptying || subscription.staged > 0 {
            return false;
        }
        subscription.leaving = Leaving::Going;
        let deleted = SubscriptionDeleted { subscription: id, gone: true };
        self.append(effects, Record::SubscriptionDeleted(deleted));
        true
    }

    fn check_acknowledgements(&self, acknowledgements: &[DeliveryRef]) -> Result<(), Refusal> {
        let mut named: BTreeSet<(SubscriptionId, Offset)> = BTreeSet::new();
        for delivery in acknowledgements {
            match self.standing(delivery) {
                Standing::Current => {}
                Standing::Acknowledged(_) | Standing::Over => return Err(expired(delivery)),
                Standing::Staged => return Err(staged(delivery)),
            }
            if !named.insert((delivery.subscription, delivery.offset)) {
                return Err(staged(delivery));
            }
            let Some(subscription) = self.subscriptions.get(&delivery.subscription) else {
                continue;
            };
            let topic = self.topics.get(&subscription.topic());
            let topic_leaves = topic.is_none_or(|topic| topic.leaving != Leaving::Staying);
            if subscription.leaving != Leaving::Staying || topic_leaves {
                let name = &subscription.facts.created.name;
                let detail = format!("subscription {name} is being deleted");
                return Err(Refusal::new(Code::Deleting, detail));
            }
        }
        Ok(())
    }

    fn after_decision(
        &mut self,
        now: Now,
        touched: &BTreeSet<SubscriptionId>,
        effects: &mut Effects,
    ) {
        for id in touched {
            self.pump(*id, now, effects);
            self.finish_subscription(*id, effects);
            if let Some(topic) = self.subscriptions.get(id).map(super::Subscription::topic) {
                self.finish_topic(topic, effects);
            }
        }
    }

    fn take_event(&mut self, topic: TopicId, size: u32) {
        self.staged_bytes += size as usize;
        self.staged_events += 1;
        if let Some(topic) = self.topics.get_mut(&topic) {
            topic.staged += 1;
            topic.reserved += u64::from(size);
        }
    }

    fn return_event(&mut self, topic: TopicId, size: u32) {
        self.staged_bytes = self.staged_bytes.saturating_sub(size as usize);
        self.staged_events = self.staged_events.saturating_sub(1);
        if let Some(topic) = self.topics.get_mut(&topic) {
            topic.staged = topic.staged.saturating_sub(1);
            topic.reserved = topic.reserved.saturating_sub(u64::from(size));
        }
    }
}
