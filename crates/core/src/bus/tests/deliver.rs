//! Delivering: credit, keys, the window, the short way and the reader's.

use alloc::vec;
use alloc::vec::Vec;

use super::world::{World, event, name};
use crate::command::{Command, Start};
use crate::ids::{Digest, Offset, ProducerId, SessionId, SubscriptionId};
use crate::limits::{CREDIT, WINDOW};
use crate::output::Reply;
use crate::record::{SubscriptionSettings, TopicSettings};
use crate::refusal::Code;
use crate::view::Standing;

fn world() -> World {
    World::with_subscription(SubscriptionSettings::default())
}

#[test]
fn a_subscriber_at_the_end_needs_no_reader() {
    let mut world = world();
    world.subscribe(7, "s", 5);
    for body in ["a", "b"] {
        world.publish("t", 0, body);
    }
    world.accept();
    assert_eq!(world.took(), []);
    world.make_durable();
    assert_eq!(world.took(), [(0, 1), (1, 1)]);
    assert!(world.fetches.is_empty());
}

#[test]
fn events_before_the_subscriber_are_read() {
    let mut world = world();
    for body in ["a", "b", "c"] {
        world.publish("t", 0, body);
    }
    world.settle();
    world.subscribe(7, "s", 2);
    assert_eq!(world.took(), [(0, 1), (1, 1)]);
    world.credit(7, 1);
    assert_eq!(world.took(), [(2, 1)]);
    world.credit(7, 1);
    assert_eq!(world.took(), []);
}

#[test]
fn latest_starts_with_the_next_event() {
    let mut world = world();
    world.publish("t", 0, "before");
    let create = Command::CreateSubscription {
        name: name("late"),
        topic: name("t"),
        start: Start::Latest,
        settings: SubscriptionSettings::default(),
    };
    // Before the event is durable, and read before it is durable itself.
    world.send(1, create);
    let subscribed = world.send(8, Command::Subscribe { subscription: name("late"), credit: 5 });
    world.publish("t", 0, "after");
    world.accept();
    assert_eq!(world.took(), []);
    world.settle();
    assert_eq!(world.took(), [(1, 1)]);
    assert!(matches!(world.replies[&subscribed], Reply::Subscription { created: false, .. }));
}

#[test]
fn credit_is_bounded_and_needs_a_subscription() {
    let mut world = world();
    let subscribe = |credit| Command::Subscribe { subscription: name("s"), credit };
    assert_eq!(world.refused(7, Command::Credit { more: 1 }), Code::NotSubscribed);
    assert_eq!(world.refused(7, subscribe(CREDIT + 1)), Code::InvalidArgument);
    let nobody = Command::Subscribe { subscription: name("nobody"), credit: 1 };
    assert_eq!(world.refused(7, nobody), Code::UnknownSubscription);
    world.subscribe(7, "s", CREDIT);
    assert_eq!(world.refused(7, subscribe(1)), Code::InvalidArgument);
    assert_eq!(world.refused(7, Command::Credit { more: 1 }), Code::InvalidArgument);
    assert_eq!(world.refused(7, Command::Credit { more: u32::MAX }), Code::InvalidArgument);
    world.publish("t", 0, "x");
    world.settle();
    assert_eq!(world.refused(7, Command::Credit { more: 1 }), Code::InvalidArgument);
}

/// A subscriber fell silent after as many events as it had credit: nothing gave it back.
#[test]
fn credit_comes_back_when_a_delivery_is_over() {
    let mut world = world();
    for _ in 0..6 {
        world.publish("t", 0, "x");
    }
    world.settle();
    world.subscribe(7, "s", 1);
    let first = world.took_refs();
    world.acknowledge(&first);
    world.settle();
    let second = world.took_refs();
    assert_eq!(second.len(), 1, "acknowledged");
    let reject = Command::Reject { delivery: second[0], reason: "no".into(), dead: false };
    assert_eq!(world.ask(7, reject), Reply::Done);
    assert_eq!(world.took().len(), 1, "rejected");
    world.pass(60_000);
    world.settle();
    assert_eq!(world.took(), [], "the stream has not said a word for a lease");
    world.credit(7, 0);
    assert_eq!(world.took().len(), 1, "expired");
}

#[test]
fn streams_take_turns() {
    let mut world = world();
    for session in [7, 8, 9] {
        world.subscribe(session, "s", 2);
    }
    for _ in 0..7 {
        world.publish("t", 0, "x");
    }
    world.settle();
    let to: Vec<SessionId> = world.deliveries.iter().map(|(session, _)| *session).collect();
    assert_eq!(to, [7, 8, 9, 7, 8, 9].map(SessionId));
}

#[test]
fn one_event_per_key_at_a_time_in_the_order_of_the_log() {
    let mut world = world();
    world.subscribe(7, "s", 100);
    for key in [1, 1, 2, 0, 1, 2] {
        world.publish("t", key, "x");
    }
    world.settle();
    let refs = world.took_refs();
    assert_eq!(refs.iter().map(|r| r.offset.0).collect::<Vec<_>>(), [0, 2, 3]);
    let request = world.send(1, Command::Acknowledge { deliveries: vec![refs[0]] });
    world.accept();
    while world.read() {}
    assert_eq!(world.took(), [], "the key is free when the acknowledgement is durable");
    world.settle();
    assert!(world.replies.contains_key(&request));
    assert_eq!(world.took(), [(1, 1)]);
    world.acknowledge(&[refs[1]]);
    assert_eq!(world.took(), [(5, 1)]);
}

#[test]
fn acknowledging_twice_is_acknowledging_once() {
    let mut world = world();
    world.subscribe(7, "s", 2);
    world.publish("t", 0, "x");
    world.publish("t", 0, "x");
    world.settle();
    let refs = world.took_refs();
    let first = world.send(1, Command::Acknowledge { deliveries: vec![refs[0], refs[0]] });
    world.accept();
    let second = world.send(1, Command::Acknowledge { deliveries: refs.clone() });
    world.pass(60_000);
    world.settle();
    for request in [first, second] {
        assert_eq!(world.replies[&request], Reply::Acknowledged { refused: vec![] });
    }
    assert_eq!(world.acknowledge(&refs), [Code::DeliveryExpired; 2]);
    assert_eq!(world.took(), []);
    world.check_fold();
    let facts = &world.bus.subscriptions[&SubscriptionId(0)].facts;
    assert_eq!(facts.progress.floor(), Offset(2));
}

#[test]
fn a_subscription_looks_a_window_ahead_and_not_further() {
    let mut world = world();
    world.subscribe(7, "s", 10);
    let batch = vec![event("t", 1, "x"); 1_000];
    let batches = WINDOW / 1_000 + 2;
    for sequence in 0..batches {
        let events = batch.clone();
        let (producer, digest) = (ProducerId(1), Digest(sequence));
        world.send(1, Command::Publish { producer, sequence, digest, events });
        world.settle();
    }
    world.publish("t", 2, "beyond");
    world.settle();
    let first = world.took_refs();
    assert_eq!(first.len(), 1);
    let s = &world.bus.subscriptions[&SubscriptionId(0)];
    assert_eq!(s.window.parked() as u64, WINDOW - 1);
    assert_eq!(s.cursor, Offset(WINDOW));
    // Everything stood still, and neither `show` nor a metric said so, nor why (K7).
    let view = |world: &mut World| match world.ask(1, Command::ListSubscriptions) {
        Reply::Subscriptions(views) => views.into_iter().next().unwrap(),
        other => panic!("{other:?}"),
    };
    let stuck = view(&mut world);
    assert_eq!(stuck.standing, Some(Standing::WindowFull));
    assert!(stuck.note.contains(" 0 ") && stuck.note.contains("a subscriber"), "{}", stuck.note);
    let counts = world.bus.standings(world.effects.durable());
    assert_eq!(counts[Standing::WindowFull as usize], 1);
    world.acknowledge(&first);
    assert_eq!(world.took(), [(1, 1)]);
    let s = &world.bus.subscriptions[&SubscriptionId(0)];
    assert_eq!(s.window.parked() as u64, WINDOW - 1);
}

/// Each state in which nothing is delivered has a name (K7).
#[test]
fn why_nothing_is_delivered_is_said() {
    let mut world = world();
    let standing = |world: &mut World| match world.ask(1, Command::ListSubscriptions) {
        Reply::Subscriptions(views) => views[0].standing.unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(standing(&mut world), Standing::Done);
    world.publish("t", 1, "x");
    world.settle();
    assert_eq!(standing(&mut world), Standing::NoSubscriber);
    world.subscribe(7, "s", 0);
    assert_eq!(standing(&mut world), Standing::NoCredit);
    world.behind(7, true);
    assert_eq!(standing(&mut world), Standing::NotReading);
    world.behind(7, false);
    world.credit(7, 1);
    world.settle();
    assert_eq!(standing(&mut world), Standing::Leased);
    let taken = world.took_refs();
    world.reject(taken[0], false);
    world.settle();
    assert_eq!(standing(&mut world), Standing::Waiting);
}

#[test]
fn a_slow_subscriber_slows_only_itself() {
    let mut world = world();
    world.create_subscription("quick", "t", Start::Earliest, SubscriptionSettings::default());
    world.subscribe(7, "s", 1);
    world.subscribe(8, "quick", 1_000);
    for _ in 0..500 {
        world.publish("t", 0, "x");
    }
    world.settle();
    let quick = world.deliveries.iter().filter(|(session, _)| *session == SessionId(8)).count();
    assert_eq!(quick, 500);
    assert_eq!(world.deliveries.len(), 501);
    let slow = &world.bus.subscriptions[&SubscriptionId(0)];
    assert_eq!(slow.window.entries().count(), 1);
}

#[test]
fn an_answer_that_comes_too_late_is_ignored() {
    let mut world = world();
    world.publish("t", 0, "x");
    world.settle();
    world.send(7, Command::Subscribe { subscription: name("s"), credit: 1 });
    world.end_session(7);
    world.settle();
    assert_eq!(world.took(), []);
    world.send(8, Command::Subscribe { subscription: name("s"), credit: 1 });
    world.send(1, Command::DeleteSubscription { subscription: name("s") });
    world.accept();
    world.settle();
    assert_eq!(world.took(), []);
    assert!(world.bus.fetches.is_empty());
}

#[test]
fn listing_shows_progress() {
    let mut world = world();
    world.create_topic("a", TopicSettings::default());
    world.subscribe(7, "s", 2);
    for key in [1, 2, 1, 0] {
        world.publish("t", key, "xy");
    }
    world.settle();
    let refs = world.took_refs();
    world.acknowledge(&refs[1..]);
    let Reply::Topics(topics) = world.ask(1, Command::ListTopics) else { panic!() };
    let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
    assert_eq!(names, ["a", "t"]);
    assert_eq!((topics[1].end, topics[1].bytes, topics[1].subscriptions), (Offset(4), 8, 1));
    let Reply::Subscriptions(views) = world.ask(1, Command::ListSubscriptions) else { panic!() };
    let view = &views[0];
    assert_eq!((view.acknowledged_below, view.end), (Offset(0), Offset(4)));
    assert_eq!((view.leased, view.waiting, view.backlog, view.subscribers), (2, 1, 3, 1));
}

/// I15: what one stream has not read yet costs nobody else anything, and it goes on where it was.
#[test]
fn a_stream_that_is_behind_gets_no_more_and_keeps_its_credit() {
    let mut world = world();
    world.subscribe(7, "s", 2);
    world.subscribe(8, "s", 2);
    let publish = |world: &mut World, count: usize| {
        for _ in 0..count {
            world.publish("t", 0, "a");
        }
        world.settle();
    };
    let took = |world: &mut World| {
        let taken = core::mem::take(&mut world.deliveries);
        taken.iter().map(|(session, d)| (session.0, d.reference)).collect::<Vec<_>>()
    };
    let to = |taken: &[(u64, crate::event::DeliveryRef)]| {
        taken.iter().map(|(session, _)| *session).collect::<Vec<_>>()
    };
    publish(&mut world, 1);
    let first = took(&mut world);
    assert_eq!(to(&first), [7]);

    // Said twice, and while everything that may change its credit happens.
    world.behind(7, true);
    world.behind(7, true);
    publish(&mut world, 4);
    assert_eq!(to(&took(&mut world)), [8, 8]);
    world.acknowledge(&[first[0].1]);
    world.credit(7, 1);
    assert_eq!(took(&mut world), []);

    // It had 2, got one back of which it had used one, and one more.
    world.behind(7, false);
    world.behind(7, false);
    publish(&mut world, 5);
    assert_eq!(to(&took(&mut world)), [7, 7, 7]);

    // One that leaves while it is behind takes nothing with it.
    world.behind(7, true);
    world.end_session(7);
    world.settle();
    world.behind(7, false);
    world.credit(8, 1);
    assert_eq!(to(&took(&mut world)), [8]);
}
