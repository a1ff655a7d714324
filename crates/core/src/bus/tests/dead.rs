//! Dead letters.

use alloc::vec;
use alloc::vec::Vec;

use super::world::{World, name};
use crate::command::{Command, Start};
use crate::ids::Offset;
use crate::output::Reply;
use crate::record::{DeadLettered, SubscriptionSettings};
use crate::refusal::Code;

fn world() -> World {
    let settings = SubscriptionSettings {
        max_attempts: Some(2),
        backoff_ms: 0,
        ..SubscriptionSettings::default()
    };
    let mut world = World::with_subscription(settings);
    world.subscribe(7, "s", 100);
    for _ in 0..3 {
        world.publish("t", 1, "x");
    }
    world.settle();
    world
}

fn letters(world: &mut World) -> Vec<DeadLettered> {
    let list = Command::ListDeadLetters { subscription: name("s"), from: Offset(0), limit: 10 };
    match world.ask(1, list) {
        Reply::DeadLetters { letters, .. } => letters,
        other => panic!("{other:?}"),
    }
}

fn take(offsets: &[u64], retry: bool) -> Command {
    let offsets = offsets.iter().map(|o| Offset(*o)).collect();
    Command::TakeDeadLetters { subscription: name("s"), offsets, retry }
}

fn bury_first(world: &mut World) {
    let refs = world.took_refs();
    assert_eq!(world.reject(refs[0], true), Reply::Done);
}

#[test]
fn an_event_that_failed_too_often_is_a_dead_letter() {
    let mut world = world();
    let first = world.took_refs();
    world.reject(first[0], false);
    let second = world.took_refs();
    let reject = Command::Reject { delivery: second[0], reason: "é".repeat(400), dead: false };
    let request = world.send(7, reject);
    world.accept();
    assert!(!world.replies.contains_key(&request) && world.took().is_empty());
    world.settle();
    assert_eq!(world.took(), [(1, 1)], "its key is free");
    let letters = letters(&mut world);
    assert_eq!((letters[0].offset, letters[0].attempts), (Offset(0), 2));
    assert_eq!(letters[0].reason, "é".repeat(256));
    world.check_fold();
    world.crash();
    world.subscribe(8, "s", 10);
    assert_eq!(world.took(), [(1, 1)]);
    world.check_fold();
}

#[test]
fn dead_letters_are_bounded_and_failing_events_are_tried_on() {
    let mut world = world();
    world.limits.dead_letters = 1;
    bury_first(&mut world);
    let second = world.took_refs()[0];
    assert_eq!(second.offset, Offset(1));
    let dead = Command::Reject { delivery: second, reason: "no".into(), dead: true };
    assert_eq!(world.refused(7, dead), Code::LimitReached);
    let mut delivery = second;
    for attempt in 2..6 {
        world.reject(delivery, false);
        assert_eq!(world.deliveries[0].1.attempt, attempt);
        delivery = world.took_refs()[0];
        assert_eq!(delivery.offset, Offset(1));
    }
    assert_eq!(world.ask(1, take(&[], false)), Reply::Taken(1));
    world.reject(delivery, false);
    assert_eq!(world.took(), [(2, 1)]);
    assert_eq!(letters(&mut world)[0].offset, Offset(1));
}

#[test]
fn a_dead_letter_can_be_tried_again() {
    let mut world = world();
    bury_first(&mut world);
    assert_eq!(world.refused(1, take(&[0, 1], true)), Code::UnknownDeadLetter);
    let refs = world.took_refs();
    let request = world.send(1, take(&[0], true));
    world.accept();
    while world.read() {}
    assert_eq!(world.refused(1, take(&[0], true)), Code::UnknownDeadLetter);
    assert_eq!(world.replies[&request], Reply::Taken(1));
    assert_eq!(world.took(), [], "an event of its key is under way");
    world.check_fold();
    world.acknowledge(&refs);
    let retried = world.took_refs();
    assert_eq!(retried[0].offset, Offset(0));
    world.crash();
    world.subscribe(8, "s", 10);
    let again = world.took_refs();
    assert_eq!(again[0].offset, Offset(0), "also after a restart");
    world.acknowledge(&again);
    assert_eq!(world.took(), [(2, 1)]);
    world.check_fold();
    world.crash();
    world.subscribe(8, "s", 10);
    assert_eq!(world.took(), [(2, 1)]);
}

#[test]
fn a_dead_letter_survives_retention() {
    let mut world = world();
    bury_first(&mut world);
    let refs = world.took_refs();
    world.acknowledge(&refs);
    let refs = world.took_refs();
    world.acknowledge(&refs);
    world.expire(0, 3, 3);
    world.settle();
    assert_eq!(letters(&mut world).len(), 1);
    world.ask(1, take(&[0], true));
    let retried = world.took_refs();
    assert_eq!(retried[0].offset, Offset(0));
    world.reject(retried[0], false);
    let retried = world.took_refs();
    assert_eq!(retried[0].offset, Offset(0), "it is not lost below the topic's start");
    assert_eq!(world.acknowledge(&retried), []);
    assert_eq!(world.gaps, vec![]);
    world.check_fold();
}

#[test]
fn a_seek_back_delivers_dead_letters_once() {
    let mut world = world();
    bury_first(&mut world);
    world.ask(1, Command::Seek { subscription: name("s"), to: Start::Earliest });
    world.took();
    let first = world.ask(1, take(&[0], true));
    assert_eq!(first, Reply::Taken(1));
    assert_eq!(world.took(), []);
    world.check_fold();
}

/// An acknowledgement of a dead letter that is tried again was on its way when a seek came: what
/// the seek puts back must not bring the event back.
#[test]
fn a_seek_does_not_bring_back_what_is_being_acknowledged() {
    let mut world = world();
    bury_first(&mut world);
    let refs = world.took_refs();
    world.acknowledge(&refs);
    let refs = world.took_refs();
    world.acknowledge(&refs);
    world.ask(1, take(&[0], true));
    let retried = world.took_refs();
    assert_eq!(retried[0].offset, Offset(0));
    world.send(7, Command::Acknowledge { deliveries: retried });
    world.send(1, Command::Seek { subscription: name("s"), to: Start::At(Offset(2)) });
    world.settle();
    let refs = world.took_refs();
    assert_eq!(refs[0].offset, Offset(2));
    world.acknowledge(&refs);
    assert_eq!(world.took(), []);
    world.check_fold();
}
