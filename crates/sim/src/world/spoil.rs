//! Planted bugs of the server: what they make of its inputs and outputs. Without a planted bug
//! everything passes unchanged.

use handfast_core::command::{Caller, Command, Vote};
use handfast_core::event::{Delivery, DeliveryRef};
use handfast_core::ids::{DeliveryToken, Digest, Offset, SessionId, TransactionId};
use handfast_core::input::Input;
use handfast_core::output::{Output, PublicState, Reply, ToService};
use handfast_core::refusal::{Code, Refusal};

use super::World;
use crate::fault::Fault;

impl World {
    /// What a planted bug makes of an input.
    pub(super) fn spoil_input(&mut self, input: &mut Input) {
        let Some(fault) = self.fault else { return };
        let Input::Command { command, .. } = input else { return };
        match command {
            Command::Vote { vote, .. } => {
                let spoilt = fault == Fault::YesTakenForNo && *vote == Vote::Yes;
                if spoilt && self.rng.percent(10) {
                    *vote = Vote::No { reason: "it was a YES".into(), retryable: true };
                }
            }
            Command::Publish { producer, sequence, digest, .. } => {
                if fault == Fault::NumbersForAnything {
                    *digest = Digest(0);
                }
                let again = !self.past.batches.insert((producer.0, *sequence));
                if again && fault == Fault::DedupForgotten {
                    *sequence += 1_000_000 + self.inputs;
                }
            }
            Command::Begin(begin) => {
                self.past.begun.push(begin.id);
                let bodies = begin.events.iter().map(|e| (e.key, e.body.clone()));
                self.past.staged.entry(begin.id).or_default().extend(bodies);
            }
            Command::Stage { id, events, .. } => {
                let bodies = events.iter().map(|e| (e.key, e.body.clone()));
                self.past.staged.entry(*id).or_default().extend(bodies);
            }
            _ => {}
        }
    }

    /// The server takes whatever it has for what the caller has counted.
    pub(super) fn ignore_counts(&self, input: &mut Input) {
        let Input::Command { command: Command::Commit { id, request }, .. } = input else { return };
        if let Some(intent) = self.facts.intents.get(id) {
            request.branches = intent.branches as u32;
            request.items = intent.items as u32;
        }
    }

    /// Attempts are counted that were nobody's judgement, as if the event had been rejected.
    pub(super) fn count_attempts(&mut self, input: &Input) {
        let over: Vec<DeliveryRef> = match (self.fault, input) {
            (Some(Fault::AttemptsCountedAtStreamEnd), Input::SessionEnded { session }) => {
                let of_it = self.past.sent.iter().filter(|(_, to, _)| to == session);
                of_it.map(|(_, _, delivery)| delivery.reference).collect()
            }
            (Some(Fault::AttemptsCountedUnread), Input::Tick) => {
                let now_ms = self.now.mono_ms;
                let over = self.past.sent.iter().filter(|(at, _, d)| at + d.lease_ms <= now_ms);
                over.map(|(_, _, delivery)| delivery.reference).collect()
            }
            _ => return,
        };
        // Of nobody whom the checkers know.
        let caller = Caller { session: SessionId(u64::MAX), request: self.inputs };
        for delivery in over {
            self.past.sent.retain(|(_, _, sent)| sent.reference != delivery);
            let reason = "nobody has judged it".into();
            let command = Command::Reject { delivery, reason, dead: false };
            self.core.handle(self.now, Input::Command { caller, command });
            self.drain();
        }
    }

    /// What a planted bug makes of an output; more may follow it.
    pub(super) fn spoil_output(&mut self, mut output: Output) -> Option<Output> {
        let Some(fault) = self.fault else { return Some(output) };
        match &mut output {
            Output::ToService { session, message } => {
                self.spoil_message(fault, *session, message).then_some(output)
            }
            Output::FinishBranch { id, database, .. } => {
                let new = self.past.decisions.insert((*id, database.to_string()));
                (new || fault != Fault::DecisionNotRepeated).then_some(output)
            }
            Output::Deliver { session, delivery } => {
                let session = *session;
                if self.spoil_delivery(fault, session, delivery) { Some(output) } else { None }
            }
            Output::Reply { to, reply } => {
                let to = *to;
                self.spoil_reply(fault, reply);
                if fault == Fault::ReplySentTwice && self.rng.percent(3) {
                    self.planted.push_back(Output::Reply { to, reply: reply.clone() });
                }
                Some(output)
            }
            _ => Some(output),
        }
    }

    /// False: it is not sent.
    fn spoil_message(&mut self, fault: Fault, session: SessionId, message: &mut ToService) -> bool {
        let (ToService::Commit { id, .. } | ToService::Abort { id }) = *message else {
            return true;
        };
        let commit = matches!(message, ToService::Commit { .. });
        let place = self.facts.attached.get(&session).cloned();
        match fault {
            Fault::DecisionNotRepeated => {
                return self.past.decisions.insert((id, format!("{place:?}")));
            }
            Fault::AbortSentAfterCommit if commit && self.rng.percent(10) => {
                *message = ToService::Abort { id };
            }
            Fault::CommitSentToStranger if commit => {
                let others = self.facts.attached.iter().filter(|(_, p)| Some(*p) != place.as_ref());
                let others: Vec<SessionId> = others.map(|(session, _)| *session).collect();
                if let Some(other) = self.rng.pick(&others) {
                    let (session, message) = (*other, message.clone());
                    self.planted.push_back(Output::ToService { session, message });
                }
            }
            Fault::ForgetBeforeEnd if commit => {
                let message = ToService::Forget { ids: vec![id] };
                self.planted.push_back(Output::ToService { session, message });
            }
            _ => {}
        }
        true
    }

    /// False: it is not sent.
    fn spoil_delivery(
        &mut self,
        fault: Fault,
        session: SessionId,
        delivery: &mut Delivery,
    ) -> bool {
        match fault {
            Fault::AttemptsCountedAtStreamEnd | Fault::AttemptsCountedUnread => {
                self.past.sent.push((self.now.mono_ms, session, delivery.clone()));
            }
            Fault::DeliverySkipped if self.rng.percent(10) => {
                let deliveries = vec![delivery.reference];
                self.send(session, Command::Acknowledge { deliveries });
                return false;
            }
            Fault::FailedEventDelivered if self.rng.percent(20) => {
                let failed = |id: &TransactionId| self.facts.decision(*id) == Some(false);
                let staged = self.past.staged.iter().filter(|(id, _)| failed(id));
                let bodies = staged.flat_map(|(id, all)| all.iter().map(|b| (*id, b.clone())));
                let bodies: Vec<_> = bodies.collect();
                if let Some((id, (key, body))) = self.rng.pick(&bodies).cloned() {
                    let mut phantom = delivery.clone();
                    phantom.event.transaction = Some(id);
                    phantom.event.key = key;
                    phantom.event.body = body;
                    phantom.event.offset = Offset(delivery.event.offset.0 + 100);
                    phantom.reference.offset = phantom.event.offset;
                    self.planted
                        .push_back(Output::Deliver { session, delivery: Box::new(phantom) });
                }
            }
            Fault::TwoOfAKey if delivery.event.key.is_some() => self.plant_next(session, delivery),
            Fault::DeliveredAfterAcknowledgement => {
                let done = |d: &DeliveryRef| {
                    let at = (d.subscription, d.offset);
                    self.facts.done.get(&at).is_some_and(|lsn| self.facts.is_durable(*lsn))
                };
                let over = self.past.deliveries.iter().find(|(_, d)| done(&d.reference)).cloned();
                self.past.deliveries.push((session, delivery.clone()));
                if let Some((_, delivery)) = over {
                    self.planted
                        .push_back(Output::Deliver { session, delivery: Box::new(delivery) });
                }
            }
            _ => {}
        }
        true
    }

    fn plant_next(&mut self, session: SessionId, delivery: &Delivery) {
        let id = delivery.reference.subscription;
        let Some((_, created)) = self.facts.subscriptions.get(&id) else { return };
        let after = (created.topic, Offset(delivery.event.offset.0 + 1));
        let next = self.facts.events.range(after..).find(|((topic, _), placed)| {
            *topic == created.topic
                && placed.key == delivery.event.key
                && self.facts.is_durable(placed.lsn)
        });
        if let Some(((_, offset), placed)) = next {
            let mut second = delivery.clone();
            second.reference.offset = *offset;
            second.reference.token = DeliveryToken(u64::MAX - offset.0);
            second.event.offset = *offset;
            second.event.body = placed.body.clone();
            second.event.transaction = placed.transaction;
            self.planted.push_back(Output::Deliver { session, delivery: Box::new(second) });
        }
    }

    fn spoil_reply(&mut self, fault: Fault, reply: &mut Reply) {
        match reply {
            Reply::Outcome(outcome) if fault == Fault::StaleStatus && self.rng.percent(20) => {
                outcome.state = PublicState::Preparing;
                outcome.reason = None;
            }
            Reply::Outcome(outcome)
                if fault == Fault::ForgetTooSoon && outcome.state == PublicState::Committed =>
            {
                for session in self.facts.attached.keys().copied() {
                    let message = ToService::Forget { ids: vec![outcome.id] };
                    self.planted.push_back(Output::ToService { session, message });
                }
            }
            Reply::Outcome(outcome) if fault == Fault::FinishedTooEarly => {
                outcome.finished |= outcome.state == PublicState::Committing;
            }
            Reply::Begun { .. } if fault == Fault::RefusedAndBegun && self.rng.percent(10) => {
                *reply = Reply::Refused(Refusal::new(Code::TooManyTransactions, "no place"));
            }
            Reply::Begun { id, repeated: true, .. } if fault == Fault::KeysMixedUp => {
                if let Some(other) = self.past.begun.first() {
                    *id = *other;
                }
            }
            _ => {}
        }
    }
}
