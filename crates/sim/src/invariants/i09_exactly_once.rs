//! I9 exactly-once effect: once per (participant, transaction) and (subscription, event).
//!
//! Violated by: the effect of a branch twice in a participant's store; the same bytes at two places
//! of the log (every request in the simulator has bytes of its own); a delivery of what was
//! acknowledged (a batch that comes again after the time for which its number is remembered is a
//! new one, and is excused); two transactions that acknowledge the same event.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use handfast_core::ids::{Lsn, Offset, SubscriptionId};
use handfast_core::output::Output;
use handfast_core::record::Record;

use super::{Facts, Invariant, Seen, ensure};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct ExactlyOnce {
    bodies: BTreeMap<Bytes, Lsn>,
    by_transaction: BTreeSet<(SubscriptionId, Offset)>,
}

impl Invariant for ExactlyOnce {
    fn name(&self) -> &'static str {
        "I9"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Effect(place, id, times) => {
                ensure(*times <= 1, || format!("{} applied {id} {times} times", place.0))
            }
            Seen::Appended(lsn, record) => self.appended(facts, *lsn, record),
            Seen::Crash => {
                self.bodies.retain(|_, lsn| facts.is_durable(*lsn));
                let done = &facts.done;
                self.by_transaction.retain(|at| done.contains_key(at));
                Ok(())
            }
            Seen::Output(Output::Deliver { delivery, .. }, _) => {
                let at = (delivery.reference.subscription, delivery.reference.offset);
                let done = facts.done.get(&at);
                ensure(done.is_none(), || {
                    format!("{at:?} is delivered, but it was done with at {done:?}")
                })
            }
            _ => Ok(()),
        }
    }
}

impl ExactlyOnce {
    fn appended(&mut self, facts: &Facts, lsn: Lsn, record: &Record) -> Result<(), String> {
        for event in record.events() {
            let id = record.transaction().unwrap_or_default();
            let body = facts.body(id, &event.body);
            if let Some(before) = self.bodies.insert(body.clone(), lsn)
                && !is_forgotten(facts, before)
            {
                return Err(format!("{body:?} is in the log at {before} and at {lsn}"));
            }
        }
        if let Record::Commit(commit) = record {
            for at in &commit.acknowledged {
                ensure(self.by_transaction.insert(*at), || {
                    format!("{at:?} is acknowledged by a second transaction, {}", commit.id)
                })?;
                ensure(facts.done.get(at) == Some(&lsn), || {
                    format!("{at:?} was done with before {} acknowledged it", commit.id)
                })?;
            }
        }
        Ok(())
    }
}

/// Whether a batch is older than the time for which its number is remembered.
fn is_forgotten(facts: &Facts, lsn: Lsn) -> bool {
    match facts.record(lsn) {
        Some(Record::Published(_)) => {
            let appended_ms = facts.appended_ms[lsn.0 as usize - 1];
            facts.now.mono_ms >= appended_ms + facts.limits.dedup_ms
        }
        _ => false,
    }
}
