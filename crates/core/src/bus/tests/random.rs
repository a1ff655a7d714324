//! Random schedules: whatever is acknowledged, rejected, staged, lost or restarted, in whatever
//! order the log and the reader answer, every event is delivered and nothing is delivered wrongly.
//! The world checks each delivery; here are the schedules, and what must be true at the end.

use alloc::vec;
use alloc::vec::Vec;

use super::world::{World, event, name};
use crate::bus::Staged;
use crate::bus::window::Phase;
use crate::command::{Command, Start};
use crate::event::DeliveryRef;
use crate::ids::{Digest, Offset, ProducerId, SubscriptionId, TopicId, TransactionId};
use crate::output::Reply;
use crate::record::{Begin, Record, SubscriptionSettings, TopicSettings};

/// A linear congruential generator: good enough to choose, the same everywhere.
struct Roll(u64);

impl Roll {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % n
    }
}

/// The body of a batch that must not be published.
const REPEAT: &str = "repeated";

/// What may happen besides publishing and delivering.
#[derive(Clone, Copy, Default)]
struct Mix {
    crashes: bool,
    dead: bool,
    seeks: bool,
    retention: bool,
}

struct Schedule {
    world: World,
    roll: Roll,
    mix: Mix,
    sequence: u64,
    sessions: Vec<u64>,
    next_session: u64,
    next_transaction: u128,
    /// Open transactions, and whether each is local.
    open: Vec<(u128, Staged, bool)>,
    held: Vec<DeliveryRef>,
    floors: Vec<Offset>,
}

impl Schedule {
    fn new(seed: u64, mix: Mix) -> Self {
        let mut world = World::new();
        world.limits.dead_letters = 20;
        world.create_topic("t", TopicSettings::default());
        for (text, max_attempts) in [("a", Some(4)), ("b", None)] {
            let settings = SubscriptionSettings {
                lease_ms: 500,
                max_attempts: max_attempts.filter(|_| mix.dead),
                backoff_ms: 20,
                backoff_max_ms: 100,
            };
            world.create_subscription(text, "t", Start::Earliest, settings);
        }
        Self {
            world,
            roll: Roll(seed),
            mix,
            sequence: 0,
            sessions: Vec::new(),
            next_session: 100,
            next_transaction: 1,
            open: Vec::new(),
            held: Vec::new(),
            floors: vec![Offset(0); 2],
        }
    }

    fn step(&mut self) {
        match self.roll.below(20) {
            0..4 => self.publish(),
            4..6 => self.world.accept(),
            6..9 => {
                self.world.accept();
                self.world.make_durable();
            }
            9..12 => {
                self.world.short_reads = self.roll.below(3) == 0;
                self.world.read();
            }
            12 => self.subscribe_or_credit(),
            13..16 => self.acknowledge(),
            16 => self.transact(),
            17 => {
                let ms = self.roll.below(300);
                self.world.pass(ms);
            }
            18 => self.fail(),
            _ => self.rare(),
        }
        self.held.extend(self.world.took_refs());
        self.check_floors();
    }

    fn publish(&mut self) {
        self.sequence += 1;
        let count = 1 + self.roll.below(4);
        let events = (0..count).map(|_| event("t", self.roll.below(5), "body")).collect();
        let (producer, sequence) = (ProducerId(1), self.sequence);
        let digest = Digest(sequence);
        self.world.send(1, Command::Publish { producer, sequence, digest, events });
    }

    fn subscribe_or_credit(&mut self) {
        if self.sessions.len() < 4 {
            let subscription = name(if self.roll.below(2) == 0 { "a" } else { "b" });
            let credit = u32::try_from(self.roll.below(4)).expect("it is small");
            self.world.send(self.next_session, Command::Subscribe { subscription, credit });
            self.sessions.push(self.next_session);
            self.next_session += 1;
            return;
        }
        let at = self.pick(self.sessions.len());
        let session = self.sessions[at];
        let more = u32::try_from(self.roll.below(5)).expect("it is small");
        self.world.send(session, Command::Credit { more });
    }

    fn acknowledge(&mut self) {
        let mut deliveries = Vec::new();
        for _ in 0..self.roll.below(4) {
            deliveries.extend(self.choose());
        }
        self.world.send(1, Command::Acknowledge { deliveries });
    }

    fn fail(&mut self) {
        match self.roll.below(5) {
            0 if !self.sessions.is_empty() => {
                let at = self.pick(self.sessions.len());
                let session = self.sessions.swap_remove(at);
                self.world.end_session(session);
            }
            2 if !self.sessions.is_empty() => {
                let at = self.pick(self.sessions.len());
                let session = self.sessions[at];
                let behind = self.roll.below(2) == 0;
                self.world.behind(session, behind);
            }
            1 => {
                let deliveries = self.held.clone().into_iter().rev().take(3).collect();
                self.world.send(1, Command::ExtendLease { deliveries });
            }
            _ => {
                let Some(delivery) = self.choose() else { return };
                let dead = self.mix.dead && self.roll.below(3) == 0;
                self.world.send(1, Command::Reject { delivery, reason: "no".into(), dead });
            }
        }
    }

    fn transact(&mut self) {
        if !self.open.is_empty() && self.roll.below(2) == 0 {
            let at = self.pick(self.open.len());
            let (id, staged, local) = self.open.swap_remove(at);
            if local || self.roll.below(2) == 0 {
                self.world.commit(id, staged);
            } else {
                self.world.abort(staged);
            }
            return;
        }
        let mut events = Vec::new();
        for _ in 0..self.roll.below(3) {
            events.push(event("t", self.roll.below(5), "transaction"));
        }
        let mut acknowledgements = Vec::new();
        for _ in 0..self.roll.below(3) {
            acknowledgements.extend(self.choose());
        }
        let id = self.next_transaction;
        self.next_transaction += 1;
        if let Ok(staged) = self.world.stage(id, events, &acknowledgements) {
            let local = self.roll.below(3) == 0;
            if local {
                self.world.begin_local(id, &staged);
            }
            self.open.push((id, staged, local));
        }
    }

    fn rare(&mut self) {
        match self.roll.below(12) {
            0 if self.mix.crashes => self.crash(),
            1 if self.mix.dead => {
                let subscription = name("a");
                let retry = self.roll.below(3) > 0;
                let offsets = Vec::new();
                self.world.send(1, Command::TakeDeadLetters { subscription, offsets, retry });
            }
            2 if self.mix.seeks => {
                let end = self.world.bus.topics[&TopicId(0)].visible.0;
                let to = Start::At(Offset(self.roll.below(end + 1)));
                self.floors[0] = Offset(0);
                self.world.send(1, Command::Seek { subscription: name("a"), to });
            }
            3 if self.mix.retention => {
                let topic = &self.world.bus.topics[&TopicId(0)];
                let (start, end) = (topic.start.0, topic.visible.0);
                let to = start + self.roll.below(end.saturating_sub(start) + 1) / 2;
                self.world.expire(0, to, 1);
            }
            4..8 if self.mix.retention => self.note_gaps(),
            _ => {
                let (producer, sequence) = (ProducerId(1), self.sequence);
                let events = vec![event("t", 1, REPEAT)];
                if sequence > 0 && !self.mix.crashes {
                    // The same batch again, or another one under its number: never an event more.
                    let digest = Digest(sequence + self.roll.below(2));
                    self.world.send(1, Command::Publish { producer, sequence, digest, events });
                }
            }
        }
    }

    fn note_gaps(&mut self) {
        for (session, gap) in core::mem::take(&mut self.world.gaps) {
            let Some(stream) = self.world.bus.streams.get(&session) else { continue };
            let id = stream.subscription;
            let subscription = name(if id == SubscriptionId(0) { "a" } else { "b" });
            self.world.send(session.0, Command::AcknowledgeGap { subscription, to: gap.to });
        }
    }

    /// The process ends. Local transactions whose BEGIN is durable go on.
    fn crash(&mut self) {
        self.world.crash();
        self.sessions.clear();
        let decided = |id: TransactionId, log: &[(_, Record)]| {
            log.iter().any(|(_, r)| matches!(r, Record::Commit(c) if c.id == id))
        };
        let begun: Vec<Begin> = self
            .world
            .log
            .iter()
            .filter_map(|(_, record)| match record {
                Record::Begin(begin) => Some(begin.clone()),
                _ => None,
            })
            .collect();
        self.open.clear();
        for begin in begun {
            if !decided(begin.id, &self.world.log) {
                let staged = self.world.bus.restage(&begin);
                self.open.push((begin.id.0, staged, true));
            }
        }
    }

    fn choose(&mut self) -> Option<DeliveryRef> {
        if self.held.is_empty() {
            return None;
        }
        let at = self.pick(self.held.len());
        // Sometimes it is kept and named again when it is over.
        if self.roll.below(5) == 0 {
            return Some(self.held[at]);
        }
        Some(self.held.swap_remove(at))
    }

    fn pick(&mut self, n: usize) -> usize {
        usize::try_from(self.roll.below(n as u64)).expect("it is below n")
    }

    fn check_floors(&mut self) {
        for (id, before) in (0..).zip(&mut self.floors) {
            let subscription = &self.world.bus.subscriptions[&SubscriptionId(id)];
            let floor = subscription.facts.progress.floor();
            // What was accepted may be lost with a crash, and a seek goes anywhere.
            if !self.mix.seeks && !self.mix.crashes {
                assert!(floor >= *before, "the floor fell");
            }
            *before = floor;
        }
        let (mut pauses, mut leased) = (0, 0);
        for subscription in self.world.bus.subscriptions.values() {
            let has = |is: fn(Phase) -> bool| {
                subscription.window.entries().filter(|(_, entry)| is(entry.phase())).count()
            };
            pauses += has(|phase| matches!(phase, Phase::Waiting { .. }));
            leased += usize::from(has(|phase| matches!(phase, Phase::Leased { .. })) > 0);
            subscription.leases.assert_fits(&subscription.window);
        }
        assert_eq!(self.world.bus.timers.count(), (pauses, leased), "a timer was forgotten");
    }

    /// Acknowledges everything until nothing is left, and looks back.
    fn finish(mut self) -> World {
        self.world.settle();
        for (id, staged, local) in core::mem::take(&mut self.open) {
            if local {
                self.world.commit(id, staged);
            } else {
                self.world.abort(staged);
            }
        }
        for session in core::mem::take(&mut self.sessions) {
            self.world.end_session(session);
        }
        for (session, text) in [(1, "a"), (2, "b")] {
            self.world
                .send(session, Command::Subscribe { subscription: name(text), credit: 1_000 });
        }
        for _ in 0..2_000 {
            self.world.settle();
            self.note_gaps();
            self.world.settle();
            for (session, delivery) in core::mem::take(&mut self.world.deliveries) {
                self.world.answer(session.0, &[delivery.reference]);
            }
            self.world.pass(400);
            let idle = self.world.bus.timers.next().is_none() && self.world.deliveries.is_empty();
            if idle && self.world.fetches.is_empty() {
                break;
            }
        }
        self.world.settle();
        self.world.check_fold();
        for subscription in self.world.bus.subscriptions.values() {
            let left: Vec<_> = subscription.window.entries().collect();
            assert!(left.is_empty(), "{left:?} is under way");
            assert_eq!(subscription.window.parked(), 0);
            assert_eq!(subscription.staged, 0);
            let topic = &self.world.bus.topics[&TopicId(0)];
            assert_eq!(subscription.facts.progress.floor(), topic.end, "no lost event (I7)");
            assert!(subscription.facts.retried.is_empty());
        }
        assert!(self.world.stored[&TopicId(0)].values().all(|event| event.body != REPEAT));
        assert_eq!(self.world.bus.staged_bytes(), 0);
        assert_eq!(self.world.bus.topics[&TopicId(0)].reserved, 0);
        self.world
    }
}

fn run(seeds: core::ops::Range<u64>, mix: Mix) {
    for seed in seeds {
        let mut schedule = Schedule::new(seed, mix);
        for _ in 0..600 {
            schedule.step();
        }
        let world = schedule.finish();
        if mix.seeks || mix.retention {
            continue;
        }
        for id in [SubscriptionId(0), SubscriptionId(1)] {
            let delivered = &world.models[&id].first;
            let stored = &world.stored[&TopicId(0)];
            assert!(stored.keys().eq(delivered.iter()), "seed {seed}: a lost event (I7)");
        }
    }
}

#[test]
fn every_event_is_delivered_in_order() {
    run(0..150, Mix::default());
}

#[test]
fn also_across_restarts() {
    run(1_000..1_150, Mix { crashes: true, ..Mix::default() });
}

#[test]
fn also_with_dead_letters() {
    run(2_000..2_150, Mix { crashes: true, dead: true, ..Mix::default() });
}

#[test]
fn also_with_retention() {
    run(3_000..3_150, Mix { crashes: true, dead: true, retention: true, ..Mix::default() });
}

#[test]
fn also_with_seeks() {
    run(4_000..4_150, Mix { crashes: true, dead: true, seeks: true, ..Mix::default() });
}

#[test]
fn the_same_seed_gives_the_same_log() {
    let log = || {
        let mix = Mix { crashes: true, dead: true, seeks: true, retention: true };
        let mut schedule = Schedule::new(7, mix);
        for _ in 0..600 {
            schedule.step();
        }
        let reply = schedule.world.ask(1, Command::ListTopics);
        assert!(matches!(reply, Reply::Topics(_)));
        (schedule.world.log, schedule.world.deliveries)
    };
    assert_eq!(log(), log());
}
