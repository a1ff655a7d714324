//! I7 no lost event: a committed event reaches every subscription created before it, until it is
//! acknowledged, visibly dead-lettered, or reported in a gap notice.
//!
//! Violated by: an acknowledgement in the log of an event that was never delivered to its
//! subscription; an event that is neither done nor in a reported gap when all is at rest.

use std::collections::{BTreeMap, BTreeSet};

use handfast_core::event::OffsetRange;
use handfast_core::ids::{Offset, SessionId, SubscriptionId};
use handfast_core::output::{Output, Reply};
use handfast_core::record::Record;

use super::{Facts, Invariant, Seen, ensure};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct NoLostEvent {
    delivered: BTreeSet<(SubscriptionId, Offset)>,
    gaps: Vec<(SubscriptionId, OffsetRange)>,
    streams: BTreeMap<SessionId, SubscriptionId>,
}

impl Invariant for NoLostEvent {
    fn name(&self) -> &'static str {
        "I7"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Output(Output::Deliver { delivery, .. }, _) => {
                self.delivered.insert((delivery.reference.subscription, delivery.event.offset));
                Ok(())
            }
            Seen::Output(
                Output::Reply { to, reply: Reply::Subscription { subscription, .. } },
                _,
            ) => {
                self.streams.insert(to.session, *subscription);
                Ok(())
            }
            Seen::Output(Output::Gap { session, gap }, _) => {
                if let Some(subscription) = self.streams.get(session) {
                    self.gaps.push((*subscription, *gap));
                }
                Ok(())
            }
            Seen::Appended(_, Record::Acknowledged(acknowledged)) => {
                let id = acknowledged.subscription;
                for range in &acknowledged.ranges {
                    for offset in range.from.0..range.to.0 {
                        self.done(facts, id, Offset(offset))?;
                    }
                }
                Ok(())
            }
            Seen::Appended(_, Record::Commit(commit)) => commit
                .acknowledged
                .iter()
                .try_for_each(|(id, offset)| self.done(facts, *id, *offset)),
            Seen::Appended(_, Record::DeadLettered(letter)) => {
                self.done(facts, letter.subscription, letter.offset)
            }
            Seen::End(_) => self.end(facts),
            _ => Ok(()),
        }
    }
}

impl NoLostEvent {
    fn done(&self, facts: &Facts, id: SubscriptionId, offset: Offset) -> Result<(), String> {
        let Some((_, created)) = facts.subscriptions.get(&id) else { return Ok(()) };
        let exists = facts.events.contains_key(&(created.topic, offset));
        ensure(!exists || self.delivered.contains(&(id, offset)), || {
            format!("offset {offset} is done in subscription {id}, which never got it")
        })
    }

    fn end(&self, facts: &Facts) -> Result<(), String> {
        for (id, (_, created)) in &facts.subscriptions {
            for ((topic, offset), placed) in &facts.events {
                if *topic != created.topic || *offset < created.start {
                    continue;
                }
                let done = facts.done.contains_key(&(*id, *offset));
                let in_gap = self
                    .gaps
                    .iter()
                    .any(|(s, gap)| s == id && gap.from <= *offset && *offset < gap.to);
                ensure(done || in_gap, || {
                    format!("offset {offset} ({:?}) never got to subscription {id}", placed.body)
                })?;
            }
        }
        Ok(())
    }
}
