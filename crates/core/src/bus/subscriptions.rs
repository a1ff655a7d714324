//! The commands that make, move, list and delete subscriptions.

use alloc::format;

use super::subscription::Subscription;
use super::topics::{ADMIN_BYTES, Leaving, Topic, next_id};
use super::window::Phase;
use super::{Answer, Bus, Call};
use crate::command::Start;
use crate::effects::Effects;
use crate::ids::{Lsn, Name, Now, Offset, SubscriptionId};
use crate::limits::LEASE_MS;
use crate::output::Reply;
use crate::record::{
    Record, SubscriptionCreated, SubscriptionDeleted, SubscriptionSettings, SubscriptionSought,
};
use crate::refusal::{Code, Refusal};
use crate::view::{Standing, SubscriptionView};

impl Bus {
    /// The subscription of this name.
    pub(super) fn known_subscription(&self, name: &Name) -> Result<&Subscription, Refusal> {
        let known = self.subscription_names.get(name).and_then(|id| self.subscriptions.get(id));
        known.ok_or_else(|| {
            Refusal::new(Code::UnknownSubscription, format!("there is no subscription {name}"))
        })
    }

    pub(super) fn create_subscription(
        &mut self,
        call: &mut Call<'_>,
        name: &Name,
        topic: &Name,
        start: Start,
        settings: SubscriptionSettings,
    ) -> Result<Answer, Refusal> {
        check_settings(&settings)?;
        let topic_id = self.open_topic(topic)?.created.topic;
        if let Ok(known) = self.known_subscription(name) {
            if known.leaving != Leaving::Staying {
                let detail = format!("subscription {name} is being deleted");
                return Err(Refusal::new(Code::Deleting, detail));
            }
            if known.topic() != topic_id || *known.settings() != settings {
                let detail = format!("subscription {name} exists and is another one");
                return Err(Refusal::new(Code::SubscriptionExists, detail));
            }
            return Ok(Answer::after(known.created_lsn, self.describe(known, false)));
        }
        let start = resolve(self.open_topic(topic)?, start)?;
        call.need_room(call.limits.subscriptions, self.subscriptions.len(), "subscriptions")?;
        let id = self.next_subscription;
        self.next_subscription = SubscriptionId(next_id(id.0, "subscription")?);
        let created = SubscriptionCreated {
            subscription: id,
            name: name.clone(),
            topic: topic_id,
            settings,
            start,
            wall_ms: call.now.wall_ms,
        };
        let mut subscription = Subscription::new(created.clone());
        let lsn = self.append(call.effects, Record::SubscriptionCreated(created));
        subscription.created_lsn = lsn;
        subscription.hold = lsn;
        let reply = self.describe(&subscription, true);
        self.insert_subscription(subscription);
        Ok(Answer::after(lsn, reply))
    }

    pub(super) fn seek(
        &mut self,
        call: &mut Call<'_>,
        name: &Name,
        to: Start,
    ) -> Result<Answer, Refusal> {
        let subscription = self.known_subscription(name)?;
        let id = subscription.id();
        if subscription.staged > 0 {
            let detail = format!("transactions hold deliveries of {name}");
            return Err(Refusal::new(Code::DeliveryStaged, detail));
        }
        let topic = self.topics.get(&subscription.topic());
        let offset = resolve(topic.expect("a subscription's topic is kept"), to)?;
        call.need_upkeep(ADMIN_BYTES)?;
        let sought = SubscriptionSought { subscription: id, offset };
        let lsn = self.append(call.effects, Record::SubscriptionSought(sought));
        if let Some(subscription) = self.subscriptions.get_mut(&id) {
            subscription.hold = lsn;
            subscription.sought_lsn = lsn;
            subscription.restart_at(&mut self.timers, offset);
        }
        Ok(Answer::after(lsn, Reply::Sought { offset }))
    }

    pub(super) fn delete_subscription(
        &mut self,
        call: &mut Call<'_>,
        name: &Name,
    ) -> Result<Answer, Refusal> {
        let subscription = self.known_subscription(name)?;
        let id = subscription.id();
        if subscription.leaving != Leaving::Staying {
            let detail = format!("subscription {name} is being deleted");
            return Err(Refusal::new(Code::Deleting, detail));
        }
        call.need_upkeep(ADMIN_BYTES)?;
        if let Some(subscription) = self.subscriptions.get_mut(&id) {
            subscription.leaving = Leaving::Emptying;
        }
        if !self.finish_subscription(id, call.effects) {
            let deleted = SubscriptionDeleted { subscription: id, gone: false };
            self.append(call.effects, Record::SubscriptionDeleted(deleted));
        }
        Ok(Answer::after(self.last, Reply::Done))
    }

    pub(super) fn list_subscriptions(&self, call: &Call<'_>) -> Answer {
        let known = self.subscription_names.values().filter_map(|id| self.subscriptions.get(id));
        let views = known.filter(|subscription| subscription.exists);
        let durable = call.effects.durable();
        let views = views.map(|subscription| self.view(subscription, call.now, durable));
        Answer::after(call.effects.last(), Reply::Subscriptions(views.collect()))
    }

    /// What a creator or a subscriber is told of a subscription.
    pub(super) fn describe(&self, subscription: &Subscription, created: bool) -> Reply {
        let topic = self.topics.get(&subscription.topic());
        Reply::Subscription {
            subscription: subscription.id(),
            name: subscription.facts.created.name.clone(),
            topic: topic.expect("a subscription's topic is kept").created.name.clone(),
            settings: subscription.settings().clone(),
            created,
        }
    }

    /// Puts a subscription where its name and its topic find it.
    pub(super) fn insert_subscription(&mut self, subscription: Subscription) {
        let id = subscription.id();
        if let Some(topic) = self.topics.get_mut(&subscription.topic()) {
            topic.subscriptions.insert(id);
        }
        self.subscription_names.insert(subscription.facts.created.name.clone(), id);
        self.subscriptions.insert(id, subscription);
    }

    /// A subscription goes on elsewhere, durably.
    pub(super) fn sought(
        &mut self,
        now: Now,
        lsn: Lsn,
        record: &SubscriptionSought,
        effects: &mut Effects,
    ) {
        let Some(subscription) = self.subscriptions.get_mut(&record.subscription) else { return };
        // Once more, because acknowledgements were on their way when it was asked; but not if
        // another seek was asked since.
        if subscription.sought_lsn == lsn {
            subscription.restart_at(&mut self.timers, record.offset);
        }
        self.pump(record.subscription, now, effects);
    }

    /// How many subscriptions stand so, in the order of [`Standing::ALL`].
    pub(crate) fn standings(&self, durable: Lsn) -> [u32; Standing::ALL.len()] {
        let mut counts = [0; Standing::ALL.len()];
        for subscription in self.subscriptions.values().filter(|s| s.exists) {
            counts[self.stands(subscription, durable) as usize] += 1;
        }
        counts
    }

    fn view(&self, subscription: &Subscription, now: Now, durable: Lsn) -> SubscriptionView {
        let standing = self.stands(subscription, durable);
        let facts = &subscription.facts;
        let topic = self.topics.get(&subscription.topic());
        let topic = topic.expect("a subscription's topic is kept");
        let (mut leased, mut staged, mut waiting) = (0u32, 0u32, subscription.window.parked());
        for (_, entry) in subscription.window.entries() {
            match entry.phase() {
                Phase::Sent | Phase::Leased { .. } => leased += 1,
                Phase::Staged { .. } => staged += 1,
                Phase::Ready | Phase::Waiting { .. } => waiting += 1,
                Phase::Acknowledging { .. } | Phase::Burying { .. } => {}
            }
        }
        let streams = subscription.sessions.iter().filter_map(|s| self.streams.get(s));
        let silent = streams.filter(|stream| stream.silent);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        SubscriptionView {
            subscription: subscription.id(),
            name: facts.created.name.clone(),
            topic: topic.created.name.clone(),
            settings: facts.created.settings.clone(),
            acknowledged_below: facts.progress.floor(),
            end: topic.end,
            leased,
            staged,
            waiting: count(waiting),
            backlog: facts.progress.missing_below(topic.end),
            dead: count(facts.dead.len()),
            gap: facts.gap,
            subscribers: count(subscription.sessions.len()),
            silent: count(silent.count()),
            rejected: subscription.tally.rejected,
            expired: subscription.tally.expired,
            lost: subscription.tally.lost,
            died: subscription.tally.dead,
            deleting: facts.deleting,
            standing: Some(standing),
            note: self.note(subscription, standing, now),
        }
    }
}

/// The offset that a start means now.
fn resolve(topic: &Topic, start: Start) -> Result<Offset, Refusal> {
    match start {
        Start::Earliest => Ok(topic.first()),
        // Whatever is in the log already, durable or not, is not "the next event".
        Start::Latest => Ok(topic.next),
        Start::At(offset) if offset >= topic.first() && offset <= topic.visible => Ok(offset),
        Start::At(offset) => {
            let (first, end) = (topic.first(), topic.visible);
            let detail = format!("offset {offset} is outside {first} to {end}");
            Err(Refusal::new(Code::OffsetOutOfRange, detail))
        }
    }
}

fn check_settings(settings: &SubscriptionSettings) -> Result<(), Refusal> {
    let problem = if settings.lease_ms == 0 || settings.lease_ms > LEASE_MS {
        format!("a lease of {} ms, from 1 to {LEASE_MS}", settings.lease_ms)
    } else if settings.max_attempts == Some(0) {
        "an event is attempted once at least".into()
    } else if settings.backoff_max_ms > LEASE_MS || settings.backoff_ms > settings.backoff_max_ms {
        let (first, most) = (settings.backoff_ms, settings.backoff_max_ms);
        format!("pauses from {first} to {most} ms, rising, at most {LEASE_MS}")
    } else {
        return Ok(());
    };
    Err(Refusal::new(Code::InvalidArgument, problem))
}
