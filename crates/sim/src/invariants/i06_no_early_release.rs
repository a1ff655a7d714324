//! I6 no early release: nothing is applied, visible or told before what it reveals is durable;
//! refusals that reveal undurable state wait too.
//!
//! Violated by: a reply, a commit to a participant or a database, a delivery or a `forget` at a
//! moment when the record behind it is not on disk. (ABORT of a distributed transaction need only
//! be accepted: every restart aborts what is undecided. That of a local one has to be durable.)

use std::collections::BTreeMap;

use handfast_core::command::{Caller, Command};
use handfast_core::event::DeliveryRef;
use handfast_core::ids::{DeliveryToken, Lsn, Offset, SubscriptionId};
use handfast_core::input::Input;
use handfast_core::output::{Outcome, Output, PublicState, Reply, ToService};
use handfast_core::participant::BranchState;
use handfast_core::record::{ParticipantKind, Record};
use handfast_core::refusal::Code;

use super::facts::Asked;
use super::{Facts, Invariant, Seen, ensure};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct NoEarlyRelease {
    /// The newest attempt to deliver each event.
    attempts: BTreeMap<(SubscriptionId, Offset), DeliveryToken>,
    /// Staging calls that are not answered, with what stood in the way when they came.
    staging: BTreeMap<Caller, Vec<Lsn>>,
}

impl Invariant for NoEarlyRelease {
    fn name(&self) -> &'static str {
        "I6"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Input(Input::Command { caller, command: Command::Stage { .. } }) => {
                self.stage(facts, *caller);
                Ok(())
            }
            Seen::Output(output, asked) => {
                if let Output::Deliver { delivery, .. } = output {
                    let DeliveryRef { subscription, offset, token } = delivery.reference;
                    self.attempts.insert((subscription, offset), token);
                }
                self.staging_answered(facts, output)?;
                released(facts, output, *asked)
            }
            Seen::Branch(place, id, _, BranchState::Committed) => {
                let durable = facts.durable_decision(*id) == Some(true);
                ensure(durable || facts.disasters.contains(id), || {
                    format!("{} applied {id} before COMMIT was durable", place.0)
                })
            }
            _ => Ok(()),
        }
    }
}

impl NoEarlyRelease {
    /// Who is told that a delivery is over because it was acknowledged learns of that record.
    fn stage(&mut self, facts: &Facts, caller: Caller) {
        let Some(Asked::Stage(_, _, deliveries)) = facts.asked.get(&caller) else { return };
        let newest =
            |d: &&DeliveryRef| self.attempts.get(&(d.subscription, d.offset)) == Some(&d.token);
        let done = |d: &DeliveryRef| facts.done.get(&(d.subscription, d.offset)).copied();
        let undurable = deliveries.iter().filter(newest).filter_map(done);
        let undurable = undurable.filter(|lsn| !facts.is_durable(*lsn)).collect();
        self.staging.insert(caller, undurable);
    }

    fn staging_answered(&mut self, facts: &Facts, output: &Output) -> Result<(), String> {
        let Output::Reply { to, reply } = output else { return Ok(()) };
        let Some(reveals) = self.staging.remove(to) else { return Ok(()) };
        let Reply::Refused(refusal) = reply else { return Ok(()) };
        let over = matches!(refusal.code, Code::DeliveryExpired | Code::DeliveryStaged);
        let early = reveals.iter().find(|lsn| !facts.is_durable(**lsn));
        ensure(!over || early.is_none(), || {
            format!("staging is refused because of the record at {early:?}, not durable")
        })
    }
}

fn released(facts: &Facts, output: &Output, asked: Option<&Asked>) -> Result<(), String> {
    match output {
        Output::ToService { message: ToService::Commit { id, .. }, .. }
        | Output::FinishBranch { id, commit: true, .. }
        | Output::FinishOnSession { id, commit: true, .. } => {
            ensure(facts.durable_decision(*id) == Some(true), || {
                format!("a participant is told to commit {id}, which is not durable")
            })
        }
        Output::ToService { message: ToService::Forget { ids }, .. } => {
            let ended = |id| facts.chains.get(id).and_then(|c| c.end);
            let early = ids.iter().find(|id| ended(id).is_none_or(|lsn| !facts.is_durable(lsn)));
            ensure(early.is_none(), || format!("{early:?} may be forgotten before END is durable"))
        }
        Output::Deliver { delivery, .. } => {
            let subscription = facts.subscriptions.get(&delivery.reference.subscription);
            let Some((created, subscription)) = subscription else { return Ok(()) };
            let at = (subscription.topic, delivery.event.offset);
            let durable = facts.events.get(&at).is_none_or(|p| facts.is_durable(p.lsn));
            ensure(durable && facts.is_durable(*created), || {
                format!("the event at {at:?} is delivered before it is durable")
            })
        }
        Output::Reply { reply, .. } => reply_released(facts, reply, asked),
        _ => Ok(()),
    }
}

fn reply_released(facts: &Facts, reply: &Reply, asked: Option<&Asked>) -> Result<(), String> {
    match (asked, reply) {
        (_, Reply::Outcome(outcome)) => outcome_released(facts, outcome),
        (Some(Asked::Begin(_, key, local)), Reply::Begun { id, .. }) => {
            let begin = facts.chains.get(id).and_then(|chain| chain.begin);
            let waits = key.is_some() || *local;
            ensure(begin.is_some_and(|lsn| !waits || facts.is_durable(lsn)), || {
                format!("begin of {id} is answered before it is durable")
            })
        }
        (Some(Asked::Begin(_, Some(key), _)), Reply::Refused(refusal))
            if refusal.code == Code::KeyConflict =>
        {
            let begun = facts.keys.get(key).into_iter().flatten();
            let durable =
                begun.filter_map(|id| facts.chains.get(id)?.begin).any(|lsn| facts.is_durable(lsn));
            ensure(durable, || format!("a conflict of key {key} is told before it is durable"))
        }
        (Some(Asked::Publish(producer, sequence, bodies)), Reply::Published { .. }) => {
            let lsn = facts.batch((*producer, *sequence), bodies);
            ensure(lsn.is_none_or(|lsn| facts.is_durable(lsn)), || {
                format!("batch {sequence} of {producer} is acknowledged before it is durable")
            })
        }
        (Some(Asked::Publish(producer, sequence, _)), Reply::Refused(refusal))
            if refusal.code == Code::SequenceConflict =>
        {
            let used = facts.batches.get(&(*producer, *sequence)).into_iter().flatten();
            ensure(used.copied().any(|lsn| facts.is_durable(lsn)), || {
                format!("a conflict of batch {sequence} of {producer} is told before it is durable")
            })
        }
        (Some(Asked::Acknowledge(all)), Reply::Acknowledged { refused }) => {
            for delivery in all {
                let is_refused = refused.iter().any(|(d, _)| d == delivery);
                let at = (delivery.subscription, delivery.offset);
                let lsn = facts.done.get(&at);
                ensure(is_refused || lsn.is_some_and(|lsn| facts.is_durable(*lsn)), || {
                    format!("the acknowledgement of {at:?} is told before it is durable")
                })?;
            }
            Ok(())
        }
        (_, Reply::Subscription { subscription, .. }) => {
            let created = facts.subscriptions.get(subscription);
            ensure(created.is_some_and(|(lsn, _)| facts.is_durable(*lsn)), || {
                format!("subscription {subscription} is told before it is durable")
            })
        }
        _ => Ok(()),
    }
}

fn outcome_released(facts: &Facts, outcome: &Outcome) -> Result<(), String> {
    let chain = facts.chains.get(&outcome.id);
    let told = match outcome.state {
        PublicState::Preparing => true,
        PublicState::Committing => facts.durable_decision(outcome.id) == Some(true),
        PublicState::Committed => {
            let end = chain.and_then(|chain| chain.end);
            end.is_some_and(|lsn| facts.is_durable(lsn))
        }
        PublicState::Failed => match chain.and_then(|chain| chain.decision) {
            Some((_, false)) if facts.restarted.contains(&outcome.id) => true,
            Some((lsn, false)) => {
                let local = chain.is_some_and(|chain| chain.local);
                if local { facts.is_durable(lsn) } else { lsn.0 <= facts.accepted }
            }
            _ => false,
        },
    };
    ensure(told, || format!("{} is told as {:?} too early", outcome.id, outcome.state))?;
    ensure(!outcome.finished || is_finished(facts, outcome), || {
        format!("{} is told as finished, and is not", outcome.id)
    })
}

/// No updater that the decision names still holds its branch.
fn is_finished(facts: &Facts, outcome: &Outcome) -> bool {
    let id = outcome.id;
    if outcome.heuristic || facts.disasters.contains(&id) {
        return true;
    }
    let decision = facts.chains.get(&id).and_then(|chain| chain.decision);
    let commit = decision.and_then(|(lsn, _)| facts.record(lsn));
    let Some(Record::Commit(commit)) = commit else { return false };
    commit.updaters.iter().all(|updater| {
        let name = &updater.participant.name;
        match updater.participant.kind {
            ParticipantKind::Service => {
                let branch = facts.branches.get(&((name.clone(), updater.state_id), id));
                branch != Some(&BranchState::Prepared)
            }
            ParticipantKind::Database => !facts.prepared.contains(&(name.clone(), id)),
        }
    })
}
