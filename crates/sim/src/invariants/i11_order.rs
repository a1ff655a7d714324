//! I11 order: per topic and key, first deliveries follow the log, and a subscription has one
//! unacknowledged event of a key at a time.
//!
//! Violated by: a first delivery of an event after one of the same key and a later offset; a
//! delivery while another delivered event of its key is neither acknowledged nor dead, durably.

use std::collections::BTreeMap;

use handfast_core::ids::{KeyHash, Offset, SubscriptionId};
use handfast_core::output::Output;

use super::{Facts, Invariant, Seen, ensure};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// The last first delivery of each key; it holds the key until it is done with.
    last: BTreeMap<(SubscriptionId, KeyHash), Offset>,
}

impl Invariant for Order {
    fn name(&self) -> &'static str {
        "I11"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen<'_>) -> Result<(), String> {
        let Seen::Output(Output::Deliver { delivery, .. }, _) = seen else { return Ok(()) };
        let Some(key) = delivery.event.key else { return Ok(()) };
        let (id, offset) = (delivery.reference.subscription, delivery.event.offset);
        let Some(last) = self.last.insert((id, key), offset) else { return Ok(()) };
        ensure(last <= offset, || {
            format!("subscription {id}: offset {offset} of key {key} comes after {last}")
        })?;
        if last == offset {
            return Ok(());
        }
        let done = facts.done.get(&(id, last)).is_some_and(|lsn| facts.is_durable(*lsn));
        let topic = facts.subscriptions.get(&id).map(|(_, created)| created.topic);
        let gone = topic.is_some_and(|topic| last < facts.durable_start(topic));
        ensure(done || gone, || {
            format!("subscription {id}: offset {offset} of key {key} while {last} is open")
        })
    }
}
