//! Streams that receive the deliveries of a subscription, and their credit.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use super::subscription::Subscription;
use super::topics::Leaving;
use super::window::Phase;
use super::{Answer, Bus, Call, Reach};
use crate::command::Caller;
use crate::effects::Effects;
use crate::ids::{Name, Now, Offset, SessionId, SubscriptionId, TopicId};
use crate::limits::CREDIT;
use crate::output::{Output, Reply};
use crate::refusal::{Code, Refusal};

/// A stream that is attached to a subscription.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    /// The subscription.
    pub(super) subscription: SubscriptionId,
    /// The topic that it reads.
    pub(super) topic: TopicId,
    /// How many more deliveries it takes; each gives one back when it is over.
    pub(super) credit: u32,
    /// Credit that is kept from it, because it is behind with reading.
    pub(super) withheld: u32,
    /// It is behind with reading what it was given.
    pub(super) behind: bool,
    /// How many it takes at once: what it was given, under way or not.
    pub(super) granted: u32,
    /// The end of the last gap that it was told of.
    pub(super) gap_sent: Option<Offset>,
    /// Its subscribe call, which is answered when the subscription's creation is durable.
    pub(super) unanswered: Option<Caller>,
}

/// All attached streams.
pub(super) type Streams = BTreeMap<SessionId, Stream>;

impl Bus {
    /// Answers by itself, because the answer comes before the first delivery.
    pub(super) fn subscribe(
        &mut self,
        call: &mut Call<'_>,
        name: &Name,
        credit: u32,
    ) -> Result<(), Refusal> {
        let session = call.caller.session;
        if credit > CREDIT {
            return Err(too_much_credit());
        }
        if self.streams.contains_key(&session) {
            let detail = "the stream has subscribed already";
            return Err(Refusal::new(Code::InvalidArgument, detail));
        }
        let subscription = self.known_subscription(name)?;
        if subscription.leaving != Leaving::Staying {
            let detail = format!("subscription {name} is being deleted");
            return Err(Refusal::new(Code::Deleting, detail));
        }
        let (id, topic) = (subscription.id(), subscription.topic());
        let is_durable = subscription.created_lsn <= call.effects.durable();
        let unanswered = if is_durable {
            call.effects.reply(call.caller, self.describe(subscription, false));
            None
        } else {
            Some(call.caller)
        };
        let stream = Stream {
            subscription: id,
            topic,
            credit,
            withheld: 0,
            behind: false,
            granted: credit,
            gap_sent: None,
            unanswered,
        };
        self.streams.insert(session, stream);
        if let Some((subscription, mut reach)) = self.reach(id, call.now, call.effects) {
            subscription.sessions.insert(session);
            subscription.credit += u64::from(credit);
            if credit > 0 {
                subscription.line.push_back(session);
            }
            subscription.pump(&mut reach);
        }
        Ok(())
    }

    pub(super) fn add_credit(&mut self, call: &mut Call<'_>, more: u32) -> Result<Answer, Refusal> {
        let session = call.caller.session;
        let Some(stream) = self.streams.get_mut(&session) else {
            let detail = "the stream has not subscribed";
            return Err(Refusal::new(Code::NotSubscribed, detail));
        };
        let had = stream.credit;
        let granted = stream.granted.checked_add(more).filter(|granted| *granted <= CREDIT);
        stream.granted = granted.ok_or_else(too_much_credit)?;
        if stream.behind {
            stream.withheld += more;
            return Ok(Answer::now(Reply::Done));
        }
        stream.credit += more;
        let id = stream.subscription;
        if let Some((subscription, mut reach)) = self.reach(id, call.now, call.effects) {
            subscription.credit += u64::from(more);
            if had == 0 && more > 0 {
                subscription.line.push_back(session);
            }
            subscription.pump(&mut reach);
        }
        Ok(Answer::now(Reply::Done))
    }

    /// A stream is behind with reading what it was given, or has caught up. Others of the same
    /// subscription go on meanwhile.
    pub(crate) fn behind(
        &mut self,
        now: Now,
        session: SessionId,
        behind: bool,
        effects: &mut Effects,
    ) {
        self.wake(effects);
        let Some(stream) = self.streams.get_mut(&session) else { return };
        if stream.behind == behind {
            return;
        }
        stream.behind = behind;
        core::mem::swap(&mut stream.credit, &mut stream.withheld);
        let (id, given, kept) = (stream.subscription, stream.credit, stream.withheld);
        let Some((subscription, mut reach)) = self.reach(id, now, effects) else { return };
        if behind {
            subscription.credit -= u64::from(kept);
            subscription.line.retain(|s| *s != session);
        } else if given > 0 {
            subscription.credit += u64::from(given);
            subscription.line.push_back(session);
            subscription.pump(&mut reach);
        }
    }

    /// A stream ended: its deliveries return at once.
    pub(crate) fn session_ended(&mut self, now: Now, session: SessionId, effects: &mut Effects) {
        self.wake(effects);
        let Some(stream) = self.streams.remove(&session) else { return };
        let Some((subscription, mut reach)) = self.reach(stream.subscription, now, effects) else {
            return;
        };
        subscription.sessions.remove(&session);
        subscription.line.retain(|s| *s != session);
        subscription.credit -= u64::from(stream.credit);
        for offset in subscription.leased_to(session) {
            subscription.give_back(&mut reach, offset);
        }
        subscription.pump(&mut reach);
    }

    /// Answers those who subscribed before the creation was durable.
    pub(super) fn answer_subscribers(&mut self, id: SubscriptionId, effects: &mut Effects) {
        let Some(subscription) = self.subscriptions.get(&id) else { return };
        for session in &subscription.sessions {
            let stream = self.streams.get_mut(session);
            if let Some(caller) = stream.and_then(|stream| stream.unanswered.take()) {
                effects.reply(caller, self.describe(subscription, false));
            }
        }
    }

    /// What the streams were attached to is gone, durably.
    pub(super) fn end_streams(
        &mut self,
        is_gone: impl Fn(&Stream) -> bool,
        refusal: &Refusal,
        effects: &mut Effects,
    ) {
        let gone: Vec<SessionId> =
            self.streams.iter().filter(|(_, s)| is_gone(s)).map(|(session, _)| *session).collect();
        for session in gone {
            let unanswered = self.streams.remove(&session).and_then(|stream| stream.unanswered);
            if let Some(caller) = unanswered {
                effects.refuse(caller, refusal.clone());
            }
            effects.emit(Output::EndSession { session, refusal: refusal.clone() });
        }
    }
}

impl Subscription {
    /// The next stream in line gives one credit for a delivery.
    pub(super) fn next_stream(&mut self, reach: &mut Reach<'_>) -> Option<SessionId> {
        let session = self.line.pop_front()?;
        let stream = reach.streams.get_mut(&session).expect("a stream in line is attached");
        stream.credit -= 1;
        self.credit -= 1;
        if stream.credit > 0 {
            self.line.push_back(session);
        }
        Some(session)
    }

    /// The credit of deliveries that are over goes back to their streams, if those live.
    pub(super) fn take_back_credit(&mut self, reach: &mut Reach<'_>) {
        for session in core::mem::take(&mut self.returned) {
            let Some(stream) = reach.streams.get_mut(&session) else { continue };
            if stream.behind {
                stream.withheld += 1;
                continue;
            }
            if stream.credit == 0 {
                self.line.push_back(session);
            }
            stream.credit += 1;
            self.credit += 1;
        }
    }

    fn leased_to(&self, session: SessionId) -> Vec<Offset> {
        let entries = self.window.entries().filter(|(_, entry)| entry.session == session);
        let leased = entries.filter(|(_, entry)| match entry.phase() {
            Phase::Leased { .. } => true,
            Phase::Ready
            | Phase::Waiting { .. }
            | Phase::Staged { .. }
            | Phase::Acknowledging { .. }
            | Phase::Burying { .. } => false,
        });
        leased.map(|(offset, _)| offset).collect()
    }
}

fn too_much_credit() -> Refusal {
    Refusal::new(Code::InvalidArgument, format!("a stream has a credit of at most {CREDIT}"))
}
