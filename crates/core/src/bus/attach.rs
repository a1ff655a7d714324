//! Streams that receive the deliveries of a subscription, and their credit.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use super::ending::By;
use super::flow::{Flow, Waiting};
use super::subscription::Subscription;
use super::topics::Leaving;
use super::window::{Phase, Unjudged, Window};
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
    /// How many deliveries it takes at once.
    pub(super) granted: u32,
    /// How many are under way to it.
    pub(super) under_way: u32,
    /// Those of them whose lease runs.
    pub(super) running: u32,
    /// How many more it is sent now; a part of its subscription's `credit`.
    pub(super) room: u32,
    /// It is behind with reading what it was given.
    pub(super) behind: bool,
    /// It has let a lease pass without a word: it is sent nothing before it sends one (D6).
    pub(super) silent: bool,
    /// It has an event that is delivered alone (D7).
    pub(super) alone: bool,
    /// What it has and has not answered.
    pub(super) flow: Flow,
    /// The end of the last gap that it was told of.
    pub(super) gap_sent: Option<Offset>,
    /// Its subscribe call, which is answered when the subscription's creation is durable.
    pub(super) unanswered: Option<Caller>,
}

impl Stream {
    /// It could be sent something, if it had nothing.
    pub(super) fn is_able(&self) -> bool {
        self.granted > 0 && !self.behind && !self.silent
    }

    /// It could be sent an event that is delivered alone.
    pub(super) fn is_idle(&self) -> bool {
        self.is_able() && self.under_way == 0
    }

    /// How many more it may be sent, unless it is being emptied.
    fn wants(&self) -> u32 {
        if !self.is_able() || self.alone {
            return 0;
        }
        self.granted.min(self.flow.window()).saturating_sub(self.under_way)
    }
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
            granted: credit,
            under_way: 0,
            running: 0,
            room: 0,
            behind: false,
            silent: false,
            alone: false,
            flow: Flow::new(call.now.mono_ms),
            gap_sent: None,
            unanswered,
        };
        self.streams.insert(session, stream);
        if let Some((subscription, mut reach)) = self.reach(id, call.now, call.effects) {
            subscription.sessions.insert(session);
            subscription.damaged = None;
            subscription.make_room(&mut reach, session);
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
        let granted = stream.granted.checked_add(more).filter(|granted| *granted <= CREDIT);
        stream.granted = granted.ok_or_else(too_much_credit)?;
        let id = stream.subscription;
        if let Some((subscription, mut reach)) = self.reach(id, call.now, call.effects) {
            subscription.make_room(&mut reach, session);
            subscription.pump(&mut reach);
        }
        Ok(Answer::now(Reply::Done))
    }

    /// A stream has sent a word. One that had fallen silent gets events again.
    pub(super) fn hear(&mut self, call: &mut Call<'_>) {
        let session = call.caller.session;
        let Some(stream) = self.streams.get_mut(&session) else { return };
        stream.flow.heard_ms = call.now.mono_ms;
        if core::mem::take(&mut stream.silent) {
            let id = stream.subscription;
            if let Some((subscription, mut reach)) = self.reach(id, call.now, call.effects) {
                subscription.make_room(&mut reach, session);
                subscription.pump(&mut reach);
            }
        }
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
        let id = stream.subscription;
        let Some((subscription, mut reach)) = self.reach(id, now, effects) else { return };
        subscription.make_room(&mut reach, session);
        subscription.pump(&mut reach);
    }

    /// A stream ended: its deliveries return. That is an attempt only of one that it had alone.
    pub(crate) fn session_ended(&mut self, now: Now, session: SessionId, effects: &mut Effects) {
        self.wake(effects);
        let Some(stream) = self.streams.remove(&session) else { return };
        let Some((subscription, mut reach)) = self.reach(stream.subscription, now, effects) else {
            return;
        };
        subscription.sessions.remove(&session);
        subscription.line.retain(|s| *s != session);
        subscription.credit -= u64::from(stream.room);
        let under_way = subscription.under_way_to(session);
        match under_way.as_slice() {
            // What it was behind with it has not read.
            [offset] if !stream.behind => subscription.stream_ended_on(&mut reach, *offset),
            _ => {
                for offset in under_way {
                    subscription.give_back(&mut reach, offset, Unjudged::Death);
                }
            }
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
    /// The stream whose turn it is to be sent something.
    pub(super) fn next_stream(&mut self, reach: &mut Reach<'_>) -> Option<SessionId> {
        let session = self.line.pop_front()?;
        let stream = reach.streams.get_mut(&session).expect("a stream in line is attached");
        stream.room -= 1;
        self.credit -= 1;
        if stream.room > 0 {
            self.line.push_back(session);
        }
        Some(session)
    }

    /// Counts anew how much a stream may be sent: something of what decides it has changed.
    pub(super) fn make_room(&mut self, reach: &mut Reach<'_>, session: SessionId) {
        let Some(stream) = reach.streams.get_mut(&session) else { return };
        let before = stream.room;
        stream.room = if self.emptied == Some(session) { 0 } else { stream.wants() };
        self.credit = self.credit - u64::from(before) + u64::from(stream.room);
        if before == 0 && stream.room > 0 {
            self.line.push_back(session);
        } else if before > 0 && stream.room == 0 {
            self.line.retain(|other| *other != session);
        }
    }

    /// Deliveries that are over leave their streams, if those live: others may follow, and the
    /// leases of those that are next begin.
    pub(super) fn take_back(&mut self, reach: &mut Reach<'_>) {
        if self.returned.is_empty() {
            return;
        }
        let mut returned = core::mem::take(&mut self.returned);
        for of_one in returned.chunk_by(|one, other| one.session == other.session) {
            let Some(first) = of_one.first() else { continue };
            let Some(stream) = reach.streams.get_mut(&first.session) else { continue };
            let mut answers = 0;
            for left in of_one {
                stream.under_way -= 1;
                stream.running -= u32::from(left.ran);
                let was_heard = match left.by {
                    By::Stream(session) => session == left.session,
                    By::Transaction => false,
                    By::Server => continue,
                };
                answers += 1;
                if !left.ran {
                    stream.flow.answer(left.token);
                }
                if !was_heard {
                    stream.flow.heard_ms = reach.now.mono_ms;
                    stream.silent = false;
                }
            }
            if answers > 0 {
                let lease_ms = self.facts.created.settings.lease_ms;
                stream.flow.count_answers(reach.now.mono_ms, answers, lease_ms);
            }
            stream.alone &= stream.under_way > 0;
            self.look_after(reach, first.session);
        }
        returned.clear();
        self.returned = returned;
    }

    /// What a stream has been sent: the leases begin of what it has taken up since (D2).
    fn look_after(&mut self, reach: &mut Reach<'_>, session: SessionId) {
        let now_ms = reach.now.mono_ms;
        let lease_ms = self.settings().lease_ms;
        let id = self.id();
        let Some(stream) = reach.streams.get_mut(&session) else { return };
        while let Some(first) = stream.flow.front() {
            let waits = waits(&self.window, &first);
            let is_passed = stream.flow.is_passed(first.token);
            if waits && !is_passed && stream.running > 0 {
                break;
            }
            stream.flow.pop();
            if is_passed || waits {
                stream.flow.took_up(now_ms.saturating_sub(first.sent_ms), lease_ms);
            }
            if waits {
                let until_ms = now_ms.saturating_add(lease_ms);
                let phase = Phase::Leased { sent_ms: first.sent_ms, until_ms };
                self.window.set_phase(first.offset, phase);
                self.leases.begin(reach.timers, id, &self.window, (until_ms, first.offset));
                stream.running += 1;
            }
        }
        stream.flow.tidy(stream.under_way, |waiting| waits(&self.window, waiting));
        self.make_room(reach, session);
    }

    /// What waits in a stream goes back, as if it had never been sent (D6).
    pub(super) fn recall(&mut self, reach: &mut Reach<'_>, session: SessionId) {
        let Some(stream) = reach.streams.get_mut(&session) else { return };
        for waiting in stream.flow.take() {
            if waits(&self.window, &waiting) {
                self.give_back(reach, waiting.offset, Unjudged::Untouched);
            }
        }
    }

    fn under_way_to(&self, session: SessionId) -> Vec<Offset> {
        let entries = self.window.entries();
        let of_it = entries.filter(|(_, e)| e.session == session && e.phase().is_under_way());
        of_it.map(|(offset, _)| offset).collect()
    }
}

/// Whether a delivery still waits in its stream.
fn waits(window: &Window, waiting: &Waiting) -> bool {
    let entry = window.entry(waiting.offset).filter(|entry| entry.token == waiting.token);
    entry.is_some_and(|entry| entry.phase() == Phase::Sent)
}

fn too_much_credit() -> Refusal {
    Refusal::new(Code::InvalidArgument, format!("a stream has a credit of at most {CREDIT}"))
}
