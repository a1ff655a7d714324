//! Delivering: what to fetch next, whom to hand it to, and the short way for a subscriber that
//! reads at the end of its topic.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::flow::Waiting;
use super::subscription::{Outstanding, Subscription};
use super::window::{Entry, Phase, Sending};
use super::{Bus, Reach};
use crate::effects::Effects;
use crate::event::{Body, Delivery, DeliveryRef, PlacedEvent, StoredEvent};
use crate::ids::{Now, Offset, SessionId, SubscriptionId, TransactionId};
use crate::limits::WINDOW;
use crate::output::{Fetch, Output, Wanted};
use crate::record::Record;

/// Most events of one fetch.
const FETCH_EVENTS: usize = 1_024;
/// Most bytes of one fetch, beyond its first event.
const FETCH_BYTES: u32 = 1 << 20;

impl Bus {
    /// Delivers what a subscription can deliver.
    pub(super) fn pump(&mut self, id: SubscriptionId, now: Now, effects: &mut Effects) {
        if let Some((subscription, mut reach)) = self.reach(id, now, effects) {
            subscription.pump(&mut reach);
        }
    }

    /// Events were read from the journal.
    pub(crate) fn fetched(
        &mut self,
        now: Now,
        fetch: u64,
        events: Vec<StoredEvent>,
        next: Offset,
        effects: &mut Effects,
    ) {
        self.wake(effects);
        // An answer that nobody waits for any more: its subscription is gone or went elsewhere.
        let Some(id) = self.fetches.remove(&fetch) else { return };
        let Some((subscription, mut reach)) = self.reach(id, now, effects) else { return };
        if subscription.fetch.as_ref().is_none_or(|outstanding| outstanding.fetch != fetch) {
            return;
        }
        let Some(outstanding) = subscription.fetch.take() else { return };
        if subscription.can_deliver(&reach) {
            if outstanding.offsets.is_empty() {
                subscription.fetched_range(&mut reach, events, next);
            } else {
                subscription.fetched_offsets(&mut reach, &outstanding.offsets, events);
            }
        }
        subscription.pump(&mut reach);
    }

    /// The events of a record are durable: they are visible, and go straight to whoever waits at
    /// the end of their topic.
    pub(super) fn make_visible(
        &mut self,
        now: Now,
        record: &Record,
        (transaction, wall_ms): (Option<TransactionId>, u64),
        effects: &mut Effects,
    ) {
        let mut behind: Vec<SubscriptionId> = Vec::new();
        for event in record.events() {
            let Some(topic) = self.topics.get_mut(&event.topic) else { continue };
            let before = topic.visible;
            topic.visible = topic.visible.max(Offset(event.offset.0 + 1));
            // Out of the topic while they are walked, which changes none of them.
            let readers = core::mem::take(&mut topic.subscriptions);
            for id in readers.iter().copied() {
                let Some((subscription, mut reach)) = self.reach(id, now, effects) else {
                    continue;
                };
                let at_end = subscription.cursor >= before && subscription.cursor <= event.offset;
                if !at_end || !subscription.offer_at_end(&mut reach, event, (transaction, wall_ms))
                {
                    behind.push(id);
                }
            }
            if let Some(topic) = self.topics.get_mut(&event.topic) {
                topic.subscriptions = readers;
            }
        }
        behind.sort_unstable();
        behind.dedup();
        for id in behind {
            self.pump(id, now, effects);
        }
    }
}

impl Subscription {
    /// Fetches what can be delivered next, or tells of a gap.
    pub(super) fn pump(&mut self, reach: &mut Reach<'_>) {
        self.take_back(reach);
        if !self.is_released(reach) {
            return;
        }
        if self.facts.gap.is_some() {
            self.notify_of_gap(reach);
            return;
        }
        if self.fetch.is_some() || self.stands_still(reach) || self.fetch_suspects(reach) {
            return;
        }
        if self.credit == 0 {
            return;
        }
        self.cursor = self.cursor.max(reach.topic_start);
        let most = usize::try_from(self.credit).unwrap_or(usize::MAX).min(FETCH_EVENTS);
        let to = reach.visible.min(self.horizon());
        let has_new = self.cursor < to;
        let (wanted, offsets) = if self.window.has_ready() && !(self.new_next && has_new) {
            let offsets: Vec<Offset> = self.window.ready().take(most).collect();
            self.new_next = true;
            (Wanted::Offsets(offsets.clone()), offsets)
        } else if has_new {
            self.new_next = false;
            let max_events = u32::try_from(most).unwrap_or(u32::MAX);
            (Wanted::Range { from: self.cursor, to, max_events }, Vec::new())
        } else {
            return;
        };
        self.ask(reach, wanted, offsets);
    }

    /// Fetches events.
    pub(super) fn ask(&mut self, reach: &mut Reach<'_>, wanted: Wanted, offsets: Vec<Offset>) {
        let fetch = reach.number_fetch(self.id());
        self.fetch = Some(Outstanding { fetch, offsets });
        let topic = self.topic();
        let fetch = Fetch { fetch, topic, wanted, max_bytes: FETCH_BYTES };
        reach.effects.emit(Output::Fetch(fetch));
    }

    /// Nothing that is not durable yet stands in the way of delivering.
    fn is_released(&self, reach: &Reach<'_>) -> bool {
        self.exists && self.hold <= reach.effects.durable()
    }

    fn can_deliver(&self, reach: &Reach<'_>) -> bool {
        self.is_released(reach) && self.facts.gap.is_none()
    }

    /// Where a subscription stops looking ahead.
    fn horizon(&self) -> Offset {
        Offset(self.passed().0.saturating_add(WINDOW))
    }

    fn is_beyond_horizon(&self, offset: Offset) -> bool {
        // What is passed begins with the floor, which is known without a look into the window.
        offset.0 >= self.facts.progress.floor().0.saturating_add(WINDOW) && offset >= self.horizon()
    }

    fn fetched_range(&mut self, reach: &mut Reach<'_>, events: Vec<StoredEvent>, next: Offset) {
        for event in events {
            if event.offset < self.cursor {
                continue;
            }
            if !self.offer(reach, event) {
                return;
            }
        }
        // What did not come up to here does not exist.
        self.cursor = self.cursor.max(next.min(reach.visible));
    }

    /// Takes the next event of the topic, unless it could only be delivered and nobody has credit.
    fn offer(&mut self, reach: &mut Reach<'_>, event: StoredEvent) -> bool {
        let (offset, key) = (event.offset, event.key);
        let after = Offset(offset.0 + 1);
        if self.window.entry(offset).is_some() {
            // Staged over a restart: only now its key is known. It holds it until its COMMIT is
            // durable, although it counts as acknowledged as soon as that is accepted.
            self.cursor = after;
            self.window.learn_key(offset, key);
            return true;
        }
        if self.facts.progress.contains(offset) {
            self.cursor = after;
            return true;
        }
        if self.credit == 0 && !self.window.is_busy(key) {
            return false;
        }
        self.cursor = after;
        if self.window.claim(offset, key) {
            self.hand_out(reach, event);
        }
        true
    }

    fn fetched_offsets(
        &mut self,
        reach: &mut Reach<'_>,
        wanted: &[Offset],
        events: Vec<StoredEvent>,
    ) {
        // A reader stops after so many bytes, but reads one event at least: what is missing
        // before the last that came (or if none came) does not exist.
        let last = events.last().map_or(Offset(u64::MAX), |event| event.offset);
        let mut events = events.into_iter().peekable();
        for offset in wanted {
            while events.next_if(|event| event.offset < *offset).is_some() {}
            let event = events.next_if(|event| event.offset == *offset);
            let is_ready = self.window.entry(*offset).is_some_and(|e| e.phase() == Phase::Ready);
            if !is_ready {
                continue;
            }
            let Some(event) = event else {
                if *offset <= last {
                    self.drop_entry(reach.timers, *offset);
                }
                continue;
            };
            if !self.window.learn_key(*offset, event.key) {
                continue;
            }
            if self.window.entry(*offset).is_some_and(Entry::is_suspect) {
                self.hand_out_alone(reach, event);
            } else if self.credit > 0 {
                self.hand_out(reach, event);
            }
        }
    }

    /// Takes an event that has just become durable, if the subscription waits for exactly it.
    /// False if it has to be fetched later.
    fn offer_at_end(
        &mut self,
        reach: &mut Reach<'_>,
        event: &PlacedEvent,
        (transaction, wall_ms): (Option<TransactionId>, u64),
    ) -> bool {
        if !self.can_deliver(reach) || self.is_beyond_horizon(event.offset) || self.fetch.is_some()
        {
            return false;
        }
        let stored = |body: &bytes::Bytes| StoredEvent {
            offset: event.offset,
            key: event.key,
            transaction,
            wall_ms,
            body: body.clone(),
        };
        match &event.body {
            Body::Here(body) => self.offer(reach, stored(body)),
            Body::InBegin { .. } if self.window.is_busy(event.key) => {
                self.offer(reach, stored(&bytes::Bytes::new()))
            }
            Body::InBegin { .. } => false,
        }
    }

    /// Gives an event that holds its key to the next stream in line.
    fn hand_out(&mut self, reach: &mut Reach<'_>, event: StoredEvent) {
        let Some(session) = self.next_stream(reach) else {
            unreachable!("credit is checked before an event is handed out")
        };
        self.hand_to(reach, session, event);
    }

    /// Gives an event that holds its key to a stream, which has made room for it. Its lease begins
    /// when the stream has answered everything before it (D2).
    pub(super) fn hand_to(
        &mut self,
        reach: &mut Reach<'_>,
        session: SessionId,
        event: StoredEvent,
    ) {
        let (offset, key) = (event.offset, event.key);
        let (token, sent_ms) = (reach.next_token(), reach.now.mono_ms);
        let lease_ms = self.settings().lease_ms;
        let stream = reach.streams.get_mut(&session).expect("a stream that has room is attached");
        stream.under_way += 1;
        let is_first = stream.running == 0 && stream.flow.is_empty();
        let until_ms = sent_ms.saturating_add(lease_ms);
        let phase = if is_first { Phase::Leased { sent_ms, until_ms } } else { Phase::Sent };
        let attempts = self.window.send(offset, key, Sending { token, session, phase });
        if is_first {
            stream.running += 1;
            let id = self.id();
            self.leases.begin(reach.timers, id, &self.window, (until_ms, offset));
        } else {
            stream.flow.push(Waiting { token, offset, sent_ms });
        }
        let reference = DeliveryRef { subscription: self.id(), offset, token };
        let attempt = attempts.saturating_add(1);
        let delivery = Box::new(Delivery { reference, attempt, lease_ms, event });
        reach.effects.emit(Output::Deliver { session, delivery });
    }
}
