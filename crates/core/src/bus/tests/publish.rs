//! Publishing: limits, all or none, deduplication.

use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use super::world::{World, event, name};
use crate::command::{Command, Start};
use crate::event::EventRequest;
use crate::ids::{Digest, Offset, ProducerId, TopicId};
use crate::limits::{BATCH_ITEMS, EVENT_BYTES, PRODUCER_BATCHES};
use crate::output::Reply;
use crate::record::{SubscriptionSettings, TopicSettings};
use crate::refusal::Code;

fn publish(producer: u128, sequence: u64, events: Vec<EventRequest>) -> Command {
    // Any digest will do that tells these batches apart.
    let digest = events.iter().flat_map(|event| event.body.iter()).map(|b| u64::from(*b)).sum();
    let digest = Digest(digest);
    Command::Publish { producer: ProducerId(producer), sequence, digest, events }
}

fn one(producer: u128, sequence: u64) -> Command {
    publish(producer, sequence, vec![event("t", 0, "x")])
}

fn world() -> World {
    let mut world = World::new();
    world.create_topic("t", TopicSettings::default());
    world
}

#[test]
fn a_batch_is_answered_with_its_places_when_durable() {
    let mut world = world();
    world.create_topic("u", TopicSettings::default());
    let events = vec![event("t", 0, "a"), event("u", 0, "b"), event("t", 0, "c")];
    let request = world.send(1, publish(1, 1, events));
    world.accept();
    assert!(!world.replies.contains_key(&request));
    world.make_durable();
    let places = vec![(TopicId(0), Offset(0)), (TopicId(1), Offset(0)), (TopicId(0), Offset(1))];
    assert_eq!(world.replies[&request], Reply::Published { places, repeated: false });
    world.check_fold();
}

#[test]
fn a_batch_is_refused_as_a_whole_and_its_number_stays_free() {
    let mut world = world();
    let refused = world.refused(1, publish(1, 1, vec![event("t", 0, "a"), event("u", 0, "b")]));
    assert_eq!(refused, Code::UnknownTopic);
    let body = Bytes::from(vec![0; EVENT_BYTES + 1]);
    let large = EventRequest { topic: name("t"), key: None, body };
    assert_eq!(world.refused(1, publish(1, 1, vec![large])), Code::TooLarge);
    let body = Bytes::from(vec![0; EVENT_BYTES]);
    let nine = vec![EventRequest { topic: name("t"), key: None, body }; 9];
    assert_eq!(world.refused(1, publish(1, 1, nine)), Code::TooLarge);
    let many = vec![event("t", 0, ""); BATCH_ITEMS + 1];
    assert_eq!(world.refused(1, publish(1, 1, many)), Code::TooMany);
    assert_eq!(world.refused(1, publish(1, 1, vec![])), Code::InvalidArgument);
    world.room = 100;
    assert_eq!(world.refused(1, one(1, 1)), Code::NoSpace);
    world.room = 10_000;
    let places = vec![(TopicId(0), Offset(0))];
    assert_eq!(world.ask(1, one(1, 1)), Reply::Published { places, repeated: false });
}

#[test]
fn a_batch_that_comes_twice_is_published_once() {
    let mut world = world();
    let repeated = Reply::Published { places: vec![], repeated: true };
    let first = world.send(1, one(1, 1));
    let second = world.send(2, one(1, 1));
    world.accept();
    assert!(!world.replies.contains_key(&first) && !world.replies.contains_key(&second));
    world.make_durable();
    assert_eq!(world.replies[&second], repeated);
    assert_eq!(world.ask(2, one(1, 1)), repeated);
    assert!(matches!(world.ask(2, one(2, 1)), Reply::Published { repeated: false, .. }));
    world.crash();
    assert_eq!(world.ask(2, one(1, 1)), repeated);
    assert_eq!(world.stored[&TopicId(0)].len(), 2);
    world.check_fold();
}

/// A number stands for one batch, under way, durable and after a crash. (Whatever came under a
/// number that was used was answered "repeated" and was gone without a word: every test sent again
/// what it had sent before.)
#[test]
fn a_number_is_refused_for_another_batch() {
    let mut world = world();
    let other = || publish(1, 1, vec![event("t", 0, "y")]);
    let first = world.send(1, one(1, 1));
    let second = world.send(2, other());
    world.accept();
    assert!(!world.replies.contains_key(&second), "it tells of a batch that a crash may take back");
    world.make_durable();
    assert!(matches!(world.replies[&first], Reply::Published { repeated: false, .. }));
    let Reply::Refused(refusal) = &world.replies[&second] else { panic!("it is another batch") };
    assert_eq!(refusal.code, Code::SequenceConflict);
    assert_eq!(world.refused(2, other()), Code::SequenceConflict);
    world.crash();
    assert_eq!(world.refused(2, other()), Code::SequenceConflict);
    assert!(matches!(world.ask(1, one(1, 1)), Reply::Published { repeated: true, .. }));
    assert_eq!(world.stored[&TopicId(0)].len(), 1);
    // What was refused has not used the number.
    assert_eq!(world.refused(1, publish(1, 2, vec![event("nowhere", 0, "x")])), Code::UnknownTopic);
    world.ask(1, publish(1, 2, vec![event("t", 0, "z")]));
    world.check_fold();
}

/// The number of a batch that a crash took is free, for another batch too.
#[test]
fn a_number_whose_batch_was_lost_is_free() {
    let mut world = world();
    world.send(1, one(1, 1));
    world.accept();
    world.crash();
    let other = publish(1, 1, vec![event("t", 0, "y")]);
    assert!(matches!(world.ask(1, other), Reply::Published { repeated: false, .. }));
    assert_eq!(world.refused(1, one(1, 1)), Code::SequenceConflict);
}

/// More batches than are remembered: what a low number stood for is not known, so it is neither
/// "repeated" nor published.
#[test]
fn a_number_that_is_forgotten_is_refused_and_a_gap_is_not() {
    let mut world = world();
    let most = PRODUCER_BATCHES as u64;
    for n in 0..=most {
        world.send(1, one(1, 2 * n + 1));
    }
    world.settle();
    assert_eq!(world.refused(1, one(1, 1)), Code::SequenceConflict);
    assert_eq!(world.refused(1, one(1, 0)), Code::SequenceConflict);
    assert!(matches!(world.ask(1, one(1, 3)), Reply::Published { repeated: true, .. }));
    assert!(matches!(world.ask(1, one(1, 4)), Reply::Published { repeated: false, .. }));
    world.crash();
    assert_eq!(world.refused(1, one(1, 1)), Code::SequenceConflict);
    assert!(matches!(world.ask(1, one(1, 4)), Reply::Published { repeated: true, .. }));
    world.check_fold();
}

#[test]
fn a_batch_that_was_lost_with_a_crash_may_come_again() {
    let mut world = world();
    world.send(1, one(1, 1));
    world.accept();
    world.crash();
    assert!(matches!(world.ask(1, one(1, 1)), Reply::Published { repeated: false, .. }));
}

#[test]
fn producers_are_forgotten_after_a_while() {
    let mut world = world();
    world.limits.producers = 2;
    world.ask(1, one(1, 1));
    world.pass(1_000);
    world.ask(1, one(2, 1));
    assert_eq!(world.refused(1, one(3, 1)), Code::TooManyProducers);
    world.pass(world.limits.dedup_ms - 1_000);
    world.ask(1, one(3, 1));
    assert!(matches!(world.ask(1, one(2, 1)), Reply::Published { repeated: true, .. }));
    world.crash();
    world.pass(0);
    // One too many was found in the log: the one that has been idle longest goes.
    assert!(matches!(world.ask(1, one(2, 1)), Reply::Published { repeated: true, .. }));
    assert!(matches!(world.ask(1, one(3, 1)), Reply::Published { repeated: true, .. }));
    assert_eq!(world.refused(1, one(1, 1)), Code::TooManyProducers);
    world.pass(world.limits.dedup_ms);
    assert!(matches!(world.ask(1, one(2, 1)), Reply::Published { repeated: false, .. }));
}

#[test]
fn a_topic_that_retains_until_acknowledged_refuses_when_full() {
    let mut world = World::new();
    let settings =
        TopicSettings { retain_ms: None, retain_bytes: Some(3), retain_unacknowledged: true };
    world.create_topic("t", settings);
    world.create_topic("other", TopicSettings::default());
    world.create_subscription("s", "t", Start::Earliest, SubscriptionSettings::default());
    world.ask(1, one(1, 1));
    let staged = world.stage(1, vec![event("t", 0, "y")], &[]).expect("it fits");
    let two = publish(1, 2, vec![event("t", 0, "a"), event("t", 0, "b")]);
    assert_eq!(world.refused(1, two.clone()), Code::TopicFull);
    assert_eq!(world.stage(2, vec![event("t", 0, "yz")], &[]), Err(Code::TopicFull));
    world.ask(1, publish(1, 3, vec![event("other", 0, "abcdef")]));
    world.abort(staged);
    world.ask(1, two);
    assert_eq!(world.refused(1, one(1, 4)), Code::TopicFull);
    // Retention takes only what is acknowledged.
    world.expire(0, 2, 2);
    world.settle();
    assert_eq!(world.refused(1, one(1, 4)), Code::TopicFull);
    world.subscribe(7, "s", 1);
    let refs = world.took_refs();
    world.acknowledge(&refs);
    world.expire(0, 2, 2);
    world.settle();
    let topic = &world.bus.topics[&TopicId(0)];
    assert_eq!((topic.start, topic.bytes), (Offset(1), 2));
    world.ask(1, one(1, 4));
    world.check_fold();
}

#[test]
fn a_checkpoint_holds_what_is_accepted_and_nothing_else() {
    let mut world = world();
    world.ask(1, one(1, 1));
    let mut before = Vec::new();
    world.bus.restate(&mut before);
    world.send(1, one(1, 2));
    world.send(1, one(2, 1));
    let settings = TopicSettings::default();
    world.send(1, Command::CreateTopic { name: name("u"), settings });
    world.send(1, Command::DeleteTopic { name: name("t") });
    let mut after = Vec::new();
    world.bus.restate(&mut after);
    assert_eq!(before, after);
    world.check_fold();
}
