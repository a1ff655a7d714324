//! Subscribers: they take deliveries, acknowledge, reject, extend, forget them, give them back, or
//! hand them to a client's transaction; they stand still and read nothing, and they die.

use handfast_core::command::Command;
use handfast_core::event::DeliveryRef;
use handfast_core::ids::SessionId;
use handfast_core::output::Reply;

use super::{Down, Peer, World, numbered};

/// One subscriber.
#[derive(Debug)]
pub(super) struct Subscriber {
    /// The subscription, by number.
    pub subscription: usize,
    session: Option<SessionId>,
    subscribed: bool,
    /// Deliveries that it has to do something about.
    pub held: Vec<DeliveryRef>,
    /// Credit that it has used up.
    used: u32,
    /// It stands still: it reads nothing and says nothing.
    pub stands_still: bool,
    /// When it last said that it is there, although it had nothing to say.
    word_ms: u64,
}

impl Subscriber {
    /// A subscriber.
    #[must_use]
    pub(super) fn new(subscription: usize) -> Self {
        let (session, subscribed, held) = (None, false, Vec::new());
        Self { subscription, session, subscribed, held, used: 0, stands_still: false, word_ms: 0 }
    }
}

impl World {
    pub(super) fn subscriber_act(&mut self, at: usize) {
        let Some(session) = self.subscribers[at].session else {
            let session = self.open(Peer::Subscriber(at));
            let subscription = numbered("s", self.subscribers[at].subscription);
            let credit = self.rng.between(1, 4) as u32;
            self.send(session, Command::Subscribe { subscription, credit });
            let subscriber = &mut self.subscribers[at];
            (subscriber.session, subscriber.subscribed, subscriber.used) =
                (Some(session), false, 0);
            return;
        };
        if !self.healing && self.rng.percent(2) {
            self.subscribers[at].stands_still ^= true;
        }
        if !self.healing && self.rng.percent(2) {
            // It dies, with whatever it had.
            return self.break_stream(session);
        }
        if !self.subscribers[at].subscribed || self.subscribers[at].stands_still {
            return;
        }
        let now_ms = self.now.mono_ms;
        if self.healing && self.subscribers[at].word_ms + 1_000 <= now_ms {
            // What it gave to a client may never be answered; then it has to say a word.
            self.subscribers[at].word_ms = now_ms;
            self.send(session, Command::Credit { more: 0 });
        }
        let used = self.subscribers[at].used;
        if used > 0 && (self.healing || self.rng.percent(40)) {
            self.subscribers[at].used = 0;
            self.send(session, Command::Credit { more: used });
        }
        if self.subscribers[at].held.is_empty() {
            return;
        }
        let which = self.rng.index(self.subscribers[at].held.len());
        match self.rng.below(if self.healing { 1 } else { 20 }) {
            0..10 => {
                let all = self.healing || self.rng.percent(50);
                let held = &mut self.subscribers[at].held;
                let deliveries =
                    if all { std::mem::take(held) } else { vec![held.swap_remove(which)] };
                self.send(session, Command::Acknowledge { deliveries });
            }
            10..13 => {
                let delivery = self.subscribers[at].held.swap_remove(which);
                let dead = self.rng.percent(15);
                let reason = "it does not suit".into();
                self.send(session, Command::Reject { delivery, reason, dead });
            }
            13 => {
                let deliveries = vec![self.subscribers[at].held[which]];
                self.send(session, Command::ExtendLease { deliveries });
            }
            14 => {
                self.subscribers[at].held.swap_remove(which);
            }
            15 => {
                let deliveries = vec![self.subscribers[at].held.swap_remove(which)];
                self.send(session, Command::GiveBack { deliveries });
            }
            _ => {}
        }
    }

    pub(super) fn subscriber_told(&mut self, at: usize, message: Down) {
        match message {
            Down::Deliver(delivery) => {
                self.subscribers[at].used += 1;
                self.subscribers[at].held.push(delivery.reference);
            }
            Down::Gap(gap) => {
                let Some(session) = self.subscribers[at].session else { return };
                let subscription = numbered("s", self.subscribers[at].subscription);
                self.send(session, Command::AcknowledgeGap { subscription, to: gap.to });
            }
            Down::Reply(_, Reply::Subscription { .. }) => self.subscribers[at].subscribed = true,
            Down::Reply(..) | Down::ToService(_) | Down::Finish { .. } | Down::End => {}
        }
    }

    pub(super) fn subscriber_lost(&mut self, at: usize, session: SessionId) {
        let subscriber = &mut self.subscribers[at];
        if subscriber.session == Some(session) {
            subscriber.session = None;
            subscriber.subscribed = false;
            // Sometimes a subscriber goes on with what it had got.
            if self.rng.percent(70) {
                self.subscribers[at].held.clear();
            }
        }
    }

    /// Whoever forgot deliveries or stood still is started anew: a stream that does not say a word
    /// is sent nothing.
    pub(super) fn subscribers_start_anew(&mut self) {
        for at in 0..self.subscribers.len() {
            self.subscribers[at].stands_still = false;
            if let Some(session) = self.subscribers[at].session {
                self.break_stream(session);
            }
        }
    }

    /// A delivery that some subscriber holds, to be acknowledged by a transaction.
    pub(super) fn take_held(&mut self) -> Option<DeliveryRef> {
        let holders: Vec<usize> = (0..self.subscribers.len())
            .filter(|at| !self.subscribers[*at].held.is_empty())
            .collect();
        let at = *self.rng.pick(&holders)?;
        let which = self.rng.index(self.subscribers[at].held.len());
        Some(self.subscribers[at].held.swap_remove(which))
    }
}
