//! I8 no phantom event: a delivered event was published or committed, byte for byte.
//!
//! Violated by: a delivery whose bytes, key or topic nobody has asked to publish, whose bytes are
//! not those of the log at that place, or whose transaction is not committed.

use std::collections::BTreeMap;

use bytes::Bytes;
use handfast_core::command::Command;
use handfast_core::event::{Delivery, EventRequest};
use handfast_core::ids::KeyHash;
use handfast_core::input::Input;
use handfast_core::output::Output;

use super::{Facts, Invariant, Seen, ensure};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct NoPhantom {
    asked: BTreeMap<Bytes, Option<KeyHash>>,
}

impl Invariant for NoPhantom {
    fn name(&self) -> &'static str {
        "I8"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Input(Input::Command { command, .. }) => {
                match command {
                    Command::Begin(begin) => self.note(&begin.events),
                    Command::Stage { events, .. } | Command::Publish { events, .. } => {
                        self.note(events);
                    }
                    _ => {}
                }
                Ok(())
            }
            Seen::Output(Output::Deliver { delivery, .. }, _) => self.delivered(facts, delivery),
            _ => Ok(()),
        }
    }
}

impl NoPhantom {
    fn note(&mut self, events: &[EventRequest]) {
        for event in events {
            self.asked.insert(event.body.clone(), event.key);
        }
    }

    fn delivered(&self, facts: &Facts, delivery: &Delivery) -> Result<(), String> {
        let event = &delivery.event;
        let what = || format!("offset {} with {:?}", event.offset, event.body);
        ensure(self.asked.get(&event.body) == Some(&event.key), || {
            format!("{}: nobody has published that", what())
        })?;
        let subscription = facts.subscriptions.get(&delivery.reference.subscription);
        let Some((_, created)) = subscription else {
            return Err(format!("{}: there is no such subscription", what()));
        };
        let Some(placed) = facts.events.get(&(created.topic, event.offset)) else {
            return Err(format!("{}: the log holds no event there", what()));
        };
        ensure(placed.body == event.body && placed.key == event.key, || {
            format!("{}: the log holds {:?} there", what(), placed.body)
        })?;
        ensure(placed.transaction == event.transaction, || {
            format!("{}: of transaction {:?}", what(), event.transaction)
        })
    }
}
