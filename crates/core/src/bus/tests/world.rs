//! A world around a bus: it plays the log and the reader by hand, and checks with every output
//! what must hold whatever happens.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use bytes::Bytes;

use super::model::Model;
use crate::bus::window::Entry;
use crate::bus::{Bus, Room, Staged};
use crate::command::{Caller, Command, Start};
use crate::effects::Effects;
use crate::event::{
    Body, Delivery, DeliveryRef, EventRequest, OffsetRange, PlacedEvent, StoredEvent,
};
use crate::ids::{
    DeliveryToken, Digest, KeyHash, Lsn, Name, Now, Offset, ProducerId, SessionId, SubscriptionId,
    TopicId, TransactionId,
};
use crate::limits::{Limits, UPKEEP_BYTES};
use crate::output::{Fetch, Output, Reply};
use crate::record::{Begin, Commit, LocalItems, Record, SubscriptionSettings, TopicSettings};
use crate::refusal::Code;

pub(super) fn name(text: &str) -> Name {
    Name::new(text).expect("a name of a test is one")
}

pub(super) fn event(topic: &str, key: u64, body: &str) -> EventRequest {
    let key = (key != 0).then_some(KeyHash(key));
    EventRequest { topic: name(topic), key, body: Bytes::copy_from_slice(body.as_bytes()) }
}

/// See the file's head.
#[derive(Debug)]
pub(super) struct World {
    pub(super) bus: Bus,
    pub(super) effects: Effects,
    pub(super) limits: Limits,
    pub(super) now: Now,
    pub(super) room: u64,
    /// Every record that was appended.
    pub(super) log: Vec<(Lsn, Record)>,
    /// What can be read.
    pub(super) stored: BTreeMap<TopicId, BTreeMap<Offset, StoredEvent>>,
    begun: BTreeMap<TransactionId, Begin>,
    pub(super) fetches: VecDeque<Fetch>,
    pub(super) replies: BTreeMap<(SessionId, u64), Reply>,
    pub(super) deliveries: Vec<(SessionId, Delivery)>,
    pub(super) gaps: Vec<(SessionId, OffsetRange)>,
    pub(super) ended: Vec<(SessionId, Code)>,
    pub(super) credit: BTreeMap<SessionId, u64>,
    pub(super) models: BTreeMap<SubscriptionId, Model>,
    /// The reader gives one event at a time, as if each were large.
    pub(super) short_reads: bool,
    tokens: BTreeSet<DeliveryToken>,
    next_request: u64,
    pub(super) epoch: u32,
}

impl World {
    /// An opened store with nothing in it.
    pub(super) fn new() -> Self {
        let mut world = Self {
            bus: Bus::default(),
            effects: Effects::default(),
            limits: Limits::default(),
            now: Now { mono_ms: 1_000, wall_ms: 5_000_000 },
            room: u64::MAX,
            log: Vec::new(),
            stored: BTreeMap::new(),
            begun: BTreeMap::new(),
            fetches: VecDeque::new(),
            replies: BTreeMap::new(),
            deliveries: Vec::new(),
            gaps: Vec::new(),
            ended: Vec::new(),
            credit: BTreeMap::new(),
            models: BTreeMap::new(),
            short_reads: false,
            tokens: BTreeSet::new(),
            next_request: 0,
            epoch: 0,
        };
        world.crash();
        world
    }

    /// With a topic `t` and a subscription `s` that reads it from its start.
    pub(super) fn with_subscription(settings: SubscriptionSettings) -> Self {
        let mut world = Self::new();
        world.create_topic("t", TopicSettings::default());
        world.create_subscription("s", "t", Start::Earliest, settings);
        world
    }

    pub(super) fn create_topic(&mut self, topic: &str, settings: TopicSettings) {
        let reply = self.ask(1, Command::CreateTopic { name: name(topic), settings });
        assert!(matches!(reply, Reply::Topic { .. }), "{reply:?}");
    }

    pub(super) fn create_subscription(
        &mut self,
        subscription: &str,
        topic: &str,
        start: Start,
        settings: SubscriptionSettings,
    ) {
        let (subscription, topic) = (name(subscription), name(topic));
        let command = Command::CreateSubscription { name: subscription, topic, start, settings };
        let reply = self.ask(1, command);
        assert!(matches!(reply, Reply::Subscription { .. }), "{reply:?}");
    }

    /// Sends a command and lets nothing else happen.
    pub(super) fn send(&mut self, session: u64, command: Command) -> (SessionId, u64) {
        self.next_request += 1;
        let caller = Caller { session: SessionId(session), request: self.next_request };
        let credit = match &command {
            Command::Subscribe { credit, .. } => u64::from(*credit),
            Command::Credit { more } => u64::from(*more),
            _ => 0,
        };
        // Generous where it is refused: what counts is that it is never exceeded.
        *self.credit.entry(caller.session).or_default() += credit;
        let Self { bus, effects, limits, now, room, .. } = self;
        let room = Room { work: *room, upkeep: (*room).max(UPKEEP_BYTES) };
        bus.command(*now, limits, room, caller, command, effects);
        self.drain();
        (caller.session, caller.request)
    }

    /// Sends a command, lets everything become durable, and gives the answer.
    pub(super) fn ask(&mut self, session: u64, command: Command) -> Reply {
        let request = self.send(session, command);
        self.settle();
        self.replies.remove(&request).expect("every command is answered once")
    }

    pub(super) fn refused(&mut self, session: u64, command: Command) -> Code {
        match self.ask(session, command) {
            Reply::Refused(refusal) => refusal.code,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Publishes in a batch of its own by a producer of its own.
    pub(super) fn publish(&mut self, topic: &str, key: u64, body: &str) {
        self.next_request += 1;
        let producer = ProducerId(0xffff);
        let events = alloc::vec![event(topic, key, body)];
        let sequence = self.next_request;
        let digest = Digest(sequence);
        self.send(1, Command::Publish { producer, sequence, digest, events });
    }

    pub(super) fn subscribe(&mut self, session: u64, subscription: &str, credit: u32) {
        let command = Command::Subscribe { subscription: name(subscription), credit };
        let reply = self.ask(session, command);
        assert!(matches!(reply, Reply::Subscription { .. }), "{reply:?}");
    }

    /// The subscriber of a stream acknowledges: a word of the stream.
    pub(super) fn answer(&mut self, session: u64, deliveries: &[DeliveryRef]) -> Vec<Code> {
        let command = Command::Acknowledge { deliveries: deliveries.to_vec() };
        match self.ask(session, command) {
            Reply::Acknowledged { refused } => refused.iter().map(|(_, r)| r.code).collect(),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn credit(&mut self, session: u64, more: u32) {
        self.send(session, Command::Credit { more });
        self.settle();
    }

    pub(super) fn acknowledge(&mut self, deliveries: &[DeliveryRef]) -> Vec<Code> {
        let command = Command::Acknowledge { deliveries: deliveries.to_vec() };
        match self.ask(1, command) {
            Reply::Acknowledged { refused } => refused.iter().map(|(_, r)| r.code).collect(),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn reject(&mut self, delivery: DeliveryRef, dead: bool) -> Reply {
        self.ask(1, Command::Reject { delivery, reason: "no".into(), dead })
    }

    /// The deliveries since the last call: offset and attempt.
    pub(super) fn took(&mut self) -> Vec<(u64, u32)> {
        let taken = core::mem::take(&mut self.deliveries);
        taken.iter().map(|(_, d)| (d.reference.offset.0, d.attempt)).collect()
    }

    /// The references of the deliveries since the last call.
    pub(super) fn took_refs(&mut self) -> Vec<DeliveryRef> {
        core::mem::take(&mut self.deliveries).iter().map(|(_, d)| d.reference).collect()
    }

    pub(super) fn end_session(&mut self, session: u64) {
        let session = SessionId(session);
        self.credit.remove(&session);
        self.bus.session_ended(self.now, session, &mut self.effects);
        self.drain();
    }

    /// A stream is behind with reading, or is not any more.
    pub(super) fn behind(&mut self, session: u64, behind: bool) {
        self.bus.behind(self.now, SessionId(session), behind, &mut self.effects);
        self.drain();
    }

    pub(super) fn stage(
        &mut self,
        id: u128,
        events: Vec<EventRequest>,
        acknowledgements: &[DeliveryRef],
    ) -> Result<Staged, Code> {
        let mut staged = Staged::default();
        let id = TransactionId(id);
        let Self { bus, limits, .. } = self;
        bus.stage(limits, id, events, acknowledgements, &mut staged).map_err(|r| r.code)?;
        Ok(staged)
    }

    /// BEGIN of a local transaction, with what it has staged.
    pub(super) fn begin_local(&mut self, id: u128, staged: &Staged) {
        let begin = Begin {
            id: TransactionId(id),
            wall_ms: self.now.wall_ms,
            deadline_ms: 1,
            key: None,
            participants: Vec::new(),
            local: Some(LocalItems {
                events: staged.events.clone(),
                acknowledged: staged.acknowledgements.clone(),
            }),
        };
        self.begun.insert(begin.id, begin.clone());
        self.effects.append(Record::Begin(begin));
        self.drain();
    }

    pub(super) fn commit(&mut self, id: u128, mut staged: Staged) {
        let id = TransactionId(id);
        let in_begin = self.begun.contains_key(&id);
        let events = self.bus.place(&mut staged, in_begin);
        self.effects.append(Record::Commit(Commit {
            id,
            previous: Lsn(0),
            wall_ms: self.now.wall_ms,
            updaters: Vec::new(),
            read_only: Vec::new(),
            events,
            acknowledged: staged.acknowledgements,
        }));
        self.drain();
    }

    pub(super) fn abort(&mut self, staged: Staged) {
        self.bus.release(self.now, staged, &mut self.effects);
        self.drain();
    }

    pub(super) fn expire(&mut self, topic: u32, to: u64, bytes: u64) {
        self.bus.expire(TopicId(topic), Offset(to), bytes, &mut self.effects);
        self.drain();
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.wall_ms += ms;
        if self.bus.next_deadline().is_some_and(|at| at <= self.now.mono_ms) {
            self.bus.tick(self.now, &self.limits, &mut self.effects);
        }
        self.drain();
    }

    pub(super) fn drain(&mut self) {
        while let Some(output) = self.effects.poll() {
            match output {
                Output::Append { lsn, record } => self.log.push((lsn, (*record).clone())),
                Output::Reply { to, reply } => {
                    let before = self.replies.insert((to.session, to.request), reply);
                    assert!(before.is_none(), "a command is answered once");
                }
                Output::Deliver { session, delivery } => {
                    self.check_delivery(session, &delivery);
                    self.deliveries.push((session, *delivery));
                }
                Output::Gap { session, gap } => self.gaps.push((session, gap)),
                Output::EndSession { session, refusal } => {
                    self.credit.remove(&session);
                    self.ended.push((session, refusal.code));
                }
                Output::Fetch(fetch) => self.fetches.push_back(fetch),
                other => panic!("not the bus's: {other:?}"),
            }
        }
    }

    fn check_delivery(&mut self, session: SessionId, delivery: &Delivery) {
        let DeliveryRef { subscription, offset, token } = delivery.reference;
        let credit = *self.credit.get(&session).expect("the stream is attached");
        let entries = self.bus.subscriptions[&subscription].window.entries();
        let is_under_way = |e: &Entry| e.session == session && e.phase().is_under_way();
        let under_way = entries.filter(|(_, e)| is_under_way(e)).count();
        assert!(under_way as u64 <= credit, "credit exceeded: {under_way} of {credit}");
        let stream = &self.bus.streams[&session];
        assert!(!stream.behind && !stream.silent, "it has enough to read");
        assert!(!stream.alone || under_way == 1, "it is delivered alone");
        // What was answered counts until it is taken back, which may be later.
        assert!(stream.under_way as usize >= under_way);
        assert!(self.tokens.insert(token), "a token came twice");
        let topic = self.bus.subscriptions[&subscription].topic();
        let stored = self.stored.get(&topic).and_then(|events| events.get(&offset));
        assert_eq!(stored, Some(&delivery.event), "a phantom, or changed (I8)");
        self.models.entry(subscription).or_default().delivered(&delivery.event);
    }

    /// A record became durable: the model learns it.
    pub(super) fn note(&mut self, record: &Record) {
        match record {
            Record::Published(p) => self.store(&p.events, None, p.wall_ms),
            Record::Commit(c) => {
                self.store(&c.events, Some(c.id), c.wall_ms);
                for (id, offset) in &c.acknowledged {
                    self.done(*id, *offset);
                }
            }
            Record::Acknowledged(a) => {
                for range in &a.ranges {
                    for offset in range.from.0..range.to.0 {
                        self.done(a.subscription, Offset(offset));
                    }
                }
            }
            Record::DeadLettered(d) => self.done(d.subscription, d.offset),
            Record::DeadLettersTaken(t) if t.retry => {
                let model = self.models.entry(t.subscription).or_default();
                model.retried.extend(t.offsets.iter().copied());
            }
            Record::SubscriptionSought(s) => {
                self.models.entry(s.subscription).or_default().sought();
            }
            Record::TopicTruncated(t) => {
                for subscription in self.bus.subscriptions.values() {
                    if subscription.topic() == t.topic {
                        let model = self.models.entry(subscription.id()).or_default();
                        model.truncated(t.start);
                    }
                }
            }
            _ => {}
        }
    }

    fn done(&mut self, id: SubscriptionId, offset: Offset) {
        self.models.entry(id).or_default().done_with(offset);
    }

    fn store(&mut self, events: &[PlacedEvent], transaction: Option<TransactionId>, wall_ms: u64) {
        for event in events {
            let body = match &event.body {
                Body::Here(body) => body.clone(),
                Body::InBegin { item, .. } => {
                    let begin = transaction.and_then(|id| self.begun.get(&id));
                    let local = begin.and_then(|b| b.local.as_ref()).expect("BEGIN was written");
                    local.events[*item as usize].body.clone()
                }
            };
            let (offset, key) = (event.offset, event.key);
            let stored = StoredEvent { offset, key, transaction, wall_ms, body };
            self.stored.entry(event.topic).or_default().insert(offset, stored);
        }
    }
}
