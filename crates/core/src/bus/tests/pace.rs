//! Consumers of any pace, in time that is only a number: whatever an event takes, each is done
//! about once and none is dead. With today's defaults one healthy consumer of 250 ms an event came
//! to a stop for good, because the leases of what waited in its buffer ran out (I7, I13).

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use super::world::World;
use crate::event::DeliveryRef;
use crate::ids::SubscriptionId;
use crate::record::SubscriptionSettings;

/// How a consumer chooses what to do next of what it has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    First,
    Any,
}

/// A consumer without any knowledge of leases: it reads what comes and does one after the other.
struct Consumer {
    session: u64,
    buffer: VecDeque<DeliveryRef>,
    at_work: Option<(u64, DeliveryRef)>,
}

struct Shop {
    world: World,
    consumers: Vec<Consumer>,
    next_session: u64,
    credit: u32,
    work_ms: u64,
    choice: Choice,
    roll: u64,
    done: BTreeMap<u64, u32>,
    refused: usize,
}

impl Shop {
    fn new(consumers: usize, work_ms: u64, credit: u32, choice: Choice) -> Self {
        let mut shop = Self {
            world: World::with_subscription(SubscriptionSettings::default()),
            consumers: Vec::new(),
            next_session: 100,
            credit,
            work_ms,
            choice,
            roll: 1,
            done: BTreeMap::new(),
            refused: 0,
        };
        for key in 0..600 {
            shop.world.publish("t", if key % 3 == 0 { 1 + key % 50 } else { 0 }, "x");
        }
        shop.world.settle();
        for _ in 0..consumers {
            shop.join();
        }
        shop
    }

    fn join(&mut self) {
        let session = self.next_session;
        self.next_session += 1;
        self.consumers.push(Consumer { session, buffer: VecDeque::new(), at_work: None });
        self.world.subscribe(session, "s", self.credit);
    }

    fn kill(&mut self, at: usize) {
        let consumer = self.consumers.swap_remove(at % self.consumers.len());
        self.world.end_session(consumer.session);
        self.take();
        self.join();
    }

    /// What was sent arrives.
    fn take(&mut self) {
        for (session, delivery) in core::mem::take(&mut self.world.deliveries) {
            let of_it = self.consumers.iter_mut().find(|c| c.session == session.0);
            of_it.expect("it lives").buffer.push_back(delivery.reference);
        }
    }

    fn work(&mut self) {
        let now = self.world.now.mono_ms;
        for at in 0..self.consumers.len() {
            if let Some((_, delivery)) = self.consumers[at].at_work.take_if(|(end, _)| *end <= now)
            {
                *self.done.entry(delivery.offset.0).or_default() += 1;
                let session = self.consumers[at].session;
                self.refused += self.world.answer(session, &[delivery]).len();
            }
        }
        self.take();
        for consumer in &mut self.consumers {
            if consumer.at_work.is_some() || consumer.buffer.is_empty() {
                continue;
            }
            self.roll = self.roll.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
            let any = usize::try_from(self.roll >> 40).expect("24 bits") % consumer.buffer.len();
            let next = match self.choice {
                Choice::First => consumer.buffer.pop_front(),
                Choice::Any => consumer.buffer.remove(any),
            };
            consumer.at_work = next.map(|delivery| (now + self.work_ms, delivery));
        }
    }

    /// Until nothing is left to do; one is killed now and then.
    fn run(mut self, kill_every_ms: Option<u64>) -> Self {
        let step = self.work_ms.min(50);
        let mut kill_ms = kill_every_ms.map(|every| self.world.now.mono_ms + every);
        for round in 0usize.. {
            assert!(round < 1_000_000, "it comes to an end");
            self.take();
            self.work();
            self.world.pass(step);
            self.world.settle();
            if let (Some(at), Some(every)) = (kill_ms, kill_every_ms)
                && at <= self.world.now.mono_ms
            {
                kill_ms = Some(at + every);
                self.kill(round);
            }
            let subscription = &self.world.bus.subscriptions[&SubscriptionId(0)];
            if subscription.facts.progress.floor().0 == 600 {
                break;
            }
        }
        let facts = &self.world.bus.subscriptions[&SubscriptionId(0)].facts;
        assert!(facts.dead.is_empty(), "{:?}", facts.dead);
        self
    }

    fn times(&self) -> u32 {
        self.done.values().sum()
    }
}

#[test]
fn each_event_is_done_once_at_any_pace() {
    for consumers in [1, 3] {
        for work_ms in [20, 100, 250, 1_000] {
            for credit in [1, 16, 256, 10_000] {
                let shop = Shop::new(consumers, work_ms, credit, Choice::First).run(None);
                assert_eq!(shop.times(), 600, "{consumers} of {work_ms} ms with {credit}");
                assert_eq!(shop.refused, 0);
            }
        }
    }
}

/// What a consumer was at when it was killed is begun again; nothing else is.
#[test]
fn each_event_is_done_once_with_kills() {
    for consumers in [1, 3] {
        for work_ms in [20, 100, 250, 1_000] {
            let shop = Shop::new(consumers, work_ms, 256, Choice::First).run(Some(work_ms * 23));
            assert_eq!(shop.times(), 600, "{consumers} consumers of {work_ms} ms");
            assert_eq!(shop.refused, 0);
        }
    }
}

/// Three share the work also when one has come first, and kills cost no more than they must.
#[test]
fn three_consumers_are_three_times_as_fast() {
    let begun = World::with_subscription(SubscriptionSettings::default()).now.mono_ms;
    let mut shop = Shop::new(1, 1_000, 150, Choice::First);
    shop.join();
    shop.join();
    let shop = shop.run(Some(40_000));
    let took = shop.world.now.mono_ms - begun;
    assert!(took < 300_000, "{took} ms");
    assert_eq!(shop.times(), 600);
}

/// Not every client takes what came first first.
#[test]
fn a_consumer_that_takes_events_in_another_order_comes_to_an_end() {
    for work_ms in [20, 100, 250, 1_000] {
        let shop = Shop::new(1, work_ms, 256, Choice::Any).run(None);
        let (times, refused) = (shop.times(), shop.refused);
        assert!(times <= 1_800, "{work_ms} ms: {times} times, {refused} too late");
    }
}
