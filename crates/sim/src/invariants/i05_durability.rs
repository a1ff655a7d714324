//! I5 durability: what was told survives: COMMIT, a publish that was acknowledged, an
//! acknowledgement, a keyed begin.
//!
//! Violated by: a crash after which the log no longer holds the record that an answer, a commit to
//! a participant or a delivery has revealed; `unknown` as the answer about such a transaction.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use handfast_core::ids::{Offset, SubscriptionId, TopicId, TransactionId};
use handfast_core::output::{Output, PublicState, Reply, ToService};
use handfast_core::refusal::Code;

use super::facts::Asked;
use super::{Facts, Invariant, Seen, ensure};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Durability {
    committed: BTreeSet<TransactionId>,
    begun: BTreeSet<TransactionId>,
    published: BTreeSet<(u128, u64, Vec<Bytes>)>,
    acknowledged: BTreeSet<(SubscriptionId, Offset)>,
    delivered: BTreeMap<(TopicId, Offset), Bytes>,
}

impl Invariant for Durability {
    fn name(&self) -> &'static str {
        "I5"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Output(output, asked) => self.told(facts, output, *asked),
            Seen::Crash | Seen::End(_) => self.check(facts),
            _ => Ok(()),
        }
    }
}

impl Durability {
    fn told(
        &mut self,
        facts: &Facts,
        output: &Output,
        asked: Option<&Asked>,
    ) -> Result<(), String> {
        match output {
            Output::ToService { message: ToService::Commit { id, .. }, .. } => {
                self.committed.insert(*id);
            }
            Output::FinishBranch { id, commit: true, .. }
            | Output::FinishOnSession { id, commit: true, .. } => {
                self.committed.insert(*id);
            }
            Output::Deliver { delivery, .. } => {
                let subscription = facts.subscriptions.get(&delivery.reference.subscription);
                if let Some((_, created)) = subscription {
                    let at = (created.topic, delivery.event.offset);
                    self.delivered.insert(at, delivery.event.body.clone());
                }
            }
            Output::Reply { reply, .. } => match (asked, reply) {
                (_, Reply::Outcome(outcome)) => {
                    if matches!(outcome.state, PublicState::Committing | PublicState::Committed) {
                        self.committed.insert(outcome.id);
                    }
                }
                (Some(Asked::Begin(_, key, local)), Reply::Begun { id, .. })
                    if key.is_some() || *local =>
                {
                    self.begun.insert(*id);
                }
                (Some(Asked::Publish(producer, sequence, bodies)), Reply::Published { .. }) => {
                    let number = (*producer, *sequence);
                    ensure(facts.batch(number, bodies).is_some(), || {
                        format!("batch {number:?} was acknowledged, and the log has another one")
                    })?;
                    self.published.insert((*producer, *sequence, bodies.clone()));
                }
                (Some(Asked::Acknowledge(all)), Reply::Acknowledged { refused }) => {
                    let refused: BTreeSet<_> = refused.iter().map(|(d, _)| *d).collect();
                    let done = all.iter().filter(|d| !refused.contains(d));
                    self.acknowledged.extend(done.map(|d| (d.subscription, d.offset)));
                }
                (Some(Asked::About(id)), Reply::Refused(refusal)) => {
                    let known = self.committed.contains(id);
                    return ensure(!(known && refusal.code == Code::UnknownTransaction), || {
                        format!("{id} was told as committed and is unknown now")
                    });
                }
                _ => {}
            },
            _ => {}
        }
        Ok(())
    }

    fn check(&self, facts: &Facts) -> Result<(), String> {
        for id in &self.committed {
            ensure(facts.decision(*id) == Some(true), || {
                format!("COMMIT of {id} was told and is lost")
            })?;
        }
        for id in &self.begun {
            let begun = facts.chains.get(id).is_some_and(|chain| chain.begin.is_some());
            ensure(begun, || format!("BEGIN of {id} was told and is lost"))?;
        }
        for (producer, sequence, bodies) in &self.published {
            ensure(facts.batch((*producer, *sequence), bodies).is_some(), || {
                format!("batch {sequence} of {producer} was acknowledged and is lost")
            })?;
        }
        for done in &self.acknowledged {
            ensure(facts.done.contains_key(done), || {
                format!("the acknowledgement of {done:?} was told and is lost")
            })?;
        }
        for (at, body) in &self.delivered {
            let same = facts.events.get(at).is_some_and(|placed| placed.body == *body);
            ensure(same, || format!("the event at {at:?} was delivered and is lost"))?;
        }
        Ok(())
    }
}
