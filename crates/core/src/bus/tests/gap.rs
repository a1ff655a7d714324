//! Retention that overtakes a subscription.

use super::world::{World, name};
use crate::command::Command;
use crate::event::OffsetRange;
use crate::ids::{Offset, SessionId, SubscriptionId};
use crate::output::Reply;
use crate::record::SubscriptionSettings;
use crate::refusal::Code;

fn range(from: u64, to: u64) -> OffsetRange {
    OffsetRange { from: Offset(from), to: Offset(to) }
}

fn world(events: u64) -> World {
    let mut world = World::with_subscription(SubscriptionSettings::default());
    for _ in 0..events {
        world.publish("t", 1, "x");
    }
    world.settle();
    world
}

fn note(to: u64) -> Command {
    Command::AcknowledgeGap { subscription: name("s"), to: Offset(to) }
}

#[test]
fn a_gap_is_noted_before_the_next_event() {
    let mut world = world(5);
    world.subscribe(6, "s", 0);
    world.expire(0, 3, 3);
    world.accept();
    world.send(7, Command::Subscribe { subscription: name("s"), credit: 10 });
    assert_eq!(world.gaps, [], "the truncation is not durable");
    world.settle();
    assert_eq!(world.gaps, [(SessionId(7), range(0, 3))]);
    world.subscribe(8, "s", 10);
    world.credit(6, 1);
    world.credit(6, 1);
    assert_eq!(world.gaps.len(), 3, "each stream is told once, when it has credit");
    assert_eq!(world.took(), []);
    world.crash();
    world.gaps.clear();
    world.subscribe(9, "s", 10);
    assert_eq!(world.gaps, [(SessionId(9), range(0, 3))]);
    let noted = world.send(9, note(3));
    world.accept();
    world.send(9, Command::Credit { more: 1 });
    while world.read() {}
    assert_eq!(world.took(), [], "the note is not durable");
    world.settle();
    assert_eq!(world.replies[&noted], Reply::Done);
    assert_eq!(world.took(), [(3, 1)]);
    assert_eq!(world.ask(9, note(3)), Reply::Done);
    world.check_fold();
}

#[test]
fn a_gap_grows_with_the_next_truncation() {
    let mut world = world(5);
    world.subscribe(7, "s", 10);
    world.took();
    world.expire(0, 2, 2);
    world.settle();
    world.expire(0, 4, 2);
    world.settle();
    assert_eq!(world.gaps, [(SessionId(7), range(0, 2)), (SessionId(7), range(0, 4))]);
    world.ask(7, note(2));
    assert_eq!(world.took(), [], "the rest of the gap is not noted");
    assert_eq!(world.bus.subscriptions[&SubscriptionId(0)].facts.gap, Some(range(2, 4)));
    world.ask(7, note(100));
    world.pass(30_000);
    // A word, after a lease without one.
    world.credit(7, 0);
    assert_eq!(world.took(), [(4, 1)]);
    world.check_fold();
}

#[test]
fn what_is_acknowledged_makes_no_gap() {
    let mut world = world(3);
    world.subscribe(7, "s", 10);
    let refs = world.took_refs();
    world.acknowledge(&refs);
    let second = world.took_refs();
    world.expire(0, 1, 1);
    world.settle();
    assert_eq!(world.gaps, []);
    // A delivery that is overtaken may still be acknowledged, and is not delivered again.
    world.expire(0, 2, 1);
    world.settle();
    assert_eq!(world.gaps, [(SessionId(7), range(1, 2))]);
    assert_eq!(world.acknowledge(&second), []);
    world.ask(7, note(2));
    assert_eq!(world.took(), [(2, 1)]);
    world.check_fold();
}

#[test]
fn an_overtaken_delivery_that_fails_is_not_delivered_again() {
    let mut world = world(3);
    world.subscribe(7, "s", 10);
    let refs = world.took_refs();
    world.expire(0, 1, 1);
    world.settle();
    world.ask(7, note(1));
    assert_eq!(world.took(), [], "it still holds its key");
    world.reject(refs[0], false);
    world.settle();
    assert_eq!(world.took(), [(1, 1)]);
    world.end_session(7);
    world.expire(0, 3, 2);
    world.settle();
    assert!(world.bus.subscriptions[&SubscriptionId(0)].window.entries().next().is_none());
    assert_eq!(world.bus.subscriptions[&SubscriptionId(0)].window.parked(), 0);
    assert_eq!(
        world.refused(
            1,
            Command::Seek { subscription: name("s"), to: crate::command::Start::At(Offset(2)) }
        ),
        Code::OffsetOutOfRange
    );
    world.check_fold();
}
