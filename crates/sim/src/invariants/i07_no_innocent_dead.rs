//! I7 no lost event, the other half: an event is not made a dead letter by attempts that were
//! nobody's judgement of it (D3 to D6).
//!
//! Violated by: a dead letter with more attempts than there were rejections, ends of leases of what
//! a subscriber may have taken up, and ends of streams that may have had nothing else. Where it
//! cannot be told from outside whether one was, it counts as one.

use std::collections::BTreeMap;

use handfast_core::command::Command;
use handfast_core::event::DeliveryRef;
use handfast_core::ids::{DeliveryToken, Offset, SessionId, SubscriptionId};
use handfast_core::input::Input;
use handfast_core::output::Output;
use handfast_core::record::Record;

use super::{Facts, Invariant, Seen, ensure};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct NoInnocentDead {
    /// The deliveries since the server started.
    sent: BTreeMap<DeliveryToken, Sent>,
    /// The last of each event.
    last: BTreeMap<(SubscriptionId, Offset), DeliveryToken>,
    /// How many attempts may have counted.
    attempts: BTreeMap<(SubscriptionId, Offset), u32>,
    streams: BTreeMap<SessionId, Stream>,
}

#[derive(Debug)]
struct Sent {
    at: (SubscriptionId, Offset),
    session: SessionId,
    sent_ms: u64,
    lease_ms: u64,
    /// The stream has not sent a word since.
    is_unheard: bool,
    /// It is over, as far as it can be told.
    is_over: bool,
}

#[derive(Debug, Default)]
struct Stream {
    tokens: Vec<DeliveryToken>,
    heard_ms: u64,
    /// Somebody else answers for it, at a time that cannot be seen from outside.
    is_spoken_for: bool,
}

impl Invariant for NoInnocentDead {
    fn name(&self) -> &'static str {
        "I7"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen<'_>) -> Result<(), String> {
        let now_ms = facts.now.mono_ms;
        match seen {
            Seen::Input(Input::Command { caller, command }) => {
                self.hear(caller.session, now_ms);
                self.command(command, now_ms);
            }
            Seen::Input(Input::SessionEnded { session }) => self.stream_ended(*session, now_ms),
            Seen::Output(Output::Deliver { session, delivery }, _) => {
                let reference = &delivery.reference;
                let at = (reference.subscription, reference.offset);
                if let Some(before) = self.last.insert(at, reference.token) {
                    self.is_over(before, now_ms);
                }
                let sent = Sent {
                    at,
                    session: *session,
                    sent_ms: now_ms,
                    lease_ms: delivery.lease_ms,
                    is_unheard: true,
                    is_over: false,
                };
                self.sent.insert(reference.token, sent);
                self.streams.entry(*session).or_default().tokens.push(reference.token);
            }
            Seen::Appended(_, Record::DeadLettered(letter)) => {
                let at = (letter.subscription, letter.offset);
                if let Some(last) = self.last.get(&at).copied() {
                    self.is_over(last, now_ms);
                }
                let may = self.attempts.get(&at).copied().unwrap_or(0);
                return ensure(letter.attempts <= may, || {
                    let (attempts, reason) = (letter.attempts, &letter.reason);
                    let (id, offset) = at;
                    format!(
                        "offset {offset} of {id} is dead after {attempts} attempts, of which at \
                         most {may} were somebody's judgement: {reason}"
                    )
                });
            }
            Seen::Crash => *self = Self::default(),
            _ => {}
        }
        Ok(())
    }
}

impl NoInnocentDead {
    fn hear(&mut self, session: SessionId, now_ms: u64) {
        let stream = self.streams.entry(session).or_default();
        stream.heard_ms = now_ms;
        for token in &stream.tokens {
            if let Some(sent) = self.sent.get_mut(token) {
                sent.is_unheard = false;
            }
        }
    }

    fn command(&mut self, command: &Command, now_ms: u64) {
        match command {
            Command::Reject { delivery, .. } => {
                let Some(sent) = self.sent.get_mut(&delivery.token) else { return };
                if !std::mem::replace(&mut sent.is_over, true) {
                    *self.attempts.entry(sent.at).or_default() += 1;
                }
            }
            Command::Acknowledge { deliveries } | Command::GiveBack { deliveries } => {
                for delivery in deliveries {
                    self.is_over(delivery.token, now_ms);
                }
            }
            Command::Begin(begin) => self.staged(&begin.acknowledgements),
            Command::Stage { acknowledgements, .. } => self.staged(acknowledgements),
            _ => {}
        }
    }

    fn staged(&mut self, acknowledgements: &[DeliveryRef]) {
        for delivery in acknowledgements {
            let Some(sent) = self.sent.get(&delivery.token) else { continue };
            self.streams.entry(sent.session).or_default().is_spoken_for = true;
        }
    }

    /// Deliveries of a stream that are surely under way: it has not been silent since they were
    /// sent, and nobody has answered them.
    fn surely_under_way(&self, session: SessionId, now_ms: u64) -> usize {
        let Some(stream) = self.streams.get(&session) else { return 0 };
        let of_it = stream.tokens.iter().filter_map(|token| self.sent.get(token));
        let heard_ms = stream.heard_ms;
        of_it
            .filter(|sent| !sent.is_over && sent.is_unheard && now_ms < heard_ms + sent.lease_ms)
            .count()
    }

    fn stream_ended(&mut self, session: SessionId, now_ms: u64) {
        let surely = self.surely_under_way(session, now_ms);
        let Some(stream) = self.streams.remove(&session) else { return };
        for token in stream.tokens {
            let others = match self.sent.get(&token) {
                Some(sent) if !sent.is_over && !stream.is_spoken_for => {
                    let it = sent.is_unheard && now_ms < stream.heard_ms + sent.lease_ms;
                    surely - usize::from(it)
                }
                Some(_) | None => 0,
            };
            let Some(sent) = self.sent.get_mut(&token) else { continue };
            if others == 0 && !std::mem::replace(&mut sent.is_over, true) {
                *self.attempts.entry(sent.at).or_default() += 1;
            } else {
                self.is_over(token, now_ms);
            }
        }
    }

    /// A delivery is over, not rejected: its lease may have been.
    fn is_over(&mut self, token: DeliveryToken, now_ms: u64) {
        let Some(sent) = self.sent.get(&token).filter(|sent| !sent.is_over) else { return };
        let spoken_for = self.streams.get(&sent.session).is_some_and(|s| s.is_spoken_for);
        let may_have_ended = now_ms >= sent.sent_ms + sent.lease_ms;
        let may_be_taken_up = !sent.is_unheard || spoken_for || !self.has_company(token, sent);
        let counts = may_have_ended && may_be_taken_up;
        if let Some(sent) = self.sent.get_mut(&token) {
            sent.is_over = true;
            *self.attempts.entry(sent.at).or_default() += u32::from(counts);
        }
    }

    /// Whether an unheard stream had others whenever the lease of this one could end.
    fn has_company(&self, token: DeliveryToken, sent: &Sent) -> bool {
        let Some(stream) = self.streams.get(&sent.session) else { return false };
        let others = stream.tokens.iter().filter(|other| **other != token);
        let mut others = others.filter_map(|other| self.sent.get(other));
        others.any(|o| o.is_unheard && o.sent_ms.abs_diff(sent.sent_ms) < sent.lease_ms)
    }
}
