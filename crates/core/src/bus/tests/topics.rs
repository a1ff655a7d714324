//! Topics and subscriptions as such: names, settings, listing, deletion.

use alloc::vec;

use super::world::{World, event, name};
use crate::command::{Command, Start};
use crate::event::{OffsetRange, PlacedEvent};
use crate::ids::{Digest, Lsn, Offset, ProducerId, SessionId, SubscriptionId, TopicId};
use crate::output::Reply;
use crate::record::{Published, Record, SubscriptionSettings, TopicSettings};
use crate::refusal::Code;

fn create(topic: &str) -> Command {
    Command::CreateTopic { name: name(topic), settings: TopicSettings::default() }
}

fn delete(topic: &str) -> Command {
    Command::DeleteTopic { name: name(topic) }
}

#[test]
fn a_topic_is_created_once() {
    let mut world = World::new();
    let created =
        |created| Reply::Topic { name: name("t"), settings: TopicSettings::default(), created };
    assert_eq!(world.ask(1, create("t")), created(true));
    assert_eq!(world.ask(1, create("t")), created(false));
    let other = TopicSettings { retain_ms: Some(1), ..TopicSettings::default() };
    let command = Command::CreateTopic { name: name("t"), settings: other.clone() };
    assert_eq!(world.refused(1, command), Code::TopicExists);
    world.ask(1, Command::AlterTopic { name: name("t"), settings: other.clone() });
    let command = Command::CreateTopic { name: name("t"), settings: other };
    assert!(matches!(world.ask(1, command), Reply::Topic { created: false, .. }));
    world.check_fold();
}

#[test]
fn answers_wait_for_what_they_reveal() {
    let mut world = World::new();
    let first = world.send(1, create("t"));
    let other = TopicSettings { retain_ms: Some(1), ..TopicSettings::default() };
    let second = world.send(1, Command::CreateTopic { name: name("t"), settings: other });
    let list = world.send(1, Command::ListTopics);
    world.accept();
    assert!(world.replies.is_empty(), "{:?}", world.replies);
    world.make_durable();
    for request in [first, second, list] {
        assert!(world.replies.contains_key(&request));
    }
    world.ask(1, delete("t"));
    let gone = world.send(1, create("u"));
    let deleted = world.send(1, delete("u"));
    world.accept();
    let refused = world.send(1, delete("u"));
    assert!(world.replies.keys().all(|request| ![gone, deleted, refused].contains(request)));
    world.settle();
    let reply = world.replies.remove(&refused);
    assert!(matches!(reply, Some(Reply::Refused(r)) if r.code == Code::UnknownTopic));
}

#[test]
fn limits_of_topics_and_subscriptions() {
    let mut world = World::new();
    world.limits.topics = 1;
    world.limits.subscriptions = 1;
    world.ask(1, create("t"));
    assert_eq!(world.refused(1, create("u")), Code::LimitReached);
    let subscribe = |text: &str| Command::CreateSubscription {
        name: name(text),
        topic: name("t"),
        start: Start::Latest,
        settings: SubscriptionSettings::default(),
    };
    world.ask(1, subscribe("a"));
    assert_eq!(world.refused(1, subscribe("b")), Code::LimitReached);
    world.ask(1, delete("t"));
    world.room = 10;
    assert_eq!(world.refused(1, create("u")), Code::NoSpace);
}

#[test]
fn settings_of_a_subscription_are_checked() {
    let mut world = World::new();
    world.ask(1, create("t"));
    let good = SubscriptionSettings::default();
    let bad = [
        SubscriptionSettings { lease_ms: 0, ..good.clone() },
        SubscriptionSettings { lease_ms: u64::MAX, ..good.clone() },
        SubscriptionSettings { max_attempts: Some(0), ..good.clone() },
        SubscriptionSettings { backoff_max_ms: 1, ..good.clone() },
    ];
    let create = |settings: &SubscriptionSettings, topic: &str| Command::CreateSubscription {
        name: name("s"),
        topic: name(topic),
        start: Start::Earliest,
        settings: settings.clone(),
    };
    for settings in &bad {
        assert_eq!(world.refused(1, create(settings, "t")), Code::InvalidArgument);
    }
    assert_eq!(world.refused(1, create(&good, "u")), Code::UnknownTopic);
    assert!(matches!(world.ask(1, create(&good, "t")), Reply::Subscription { created: true, .. }));
    assert!(matches!(world.ask(1, create(&good, "t")), Reply::Subscription { created: false, .. }));
    let other = SubscriptionSettings { max_attempts: None, ..good };
    assert_eq!(world.refused(1, create(&other, "t")), Code::SubscriptionExists);
}

#[test]
fn a_topic_takes_its_subscriptions_and_streams_along() {
    let mut world = World::with_subscription(SubscriptionSettings::default());
    world.subscribe(7, "s", 1);
    world.publish("t", 0, "x");
    world.settle();
    world.ask(1, delete("t"));
    assert_eq!(world.ended, [(SessionId(7), Code::UnknownTopic)]);
    let reply = world.ask(1, Command::ListSubscriptions);
    assert_eq!(reply, Reply::Subscriptions(vec![]));
    assert_eq!(world.bus.next_deadline().map(|_| ()), Some(()), "the producer is left");
    world.pass(10_000_000);
    assert_eq!(world.bus.next_deadline(), None);
    // A new one of the same name inherits nothing.
    world.create_topic("t", TopicSettings::default());
    world.publish("t", 0, "y");
    world.settle();
    assert_eq!(world.stored[&TopicId(1)].keys().copied().collect::<vec::Vec<_>>(), [Offset(0)]);
}

#[test]
fn a_topic_with_staged_events_goes_when_they_are_decided() {
    for commit in [false, true] {
        let mut world = World::with_subscription(SubscriptionSettings::default());
        let staged = world.stage(1, vec![event("t", 0, "x")], &[]).expect("it fits");
        world.ask(1, delete("t"));
        assert_eq!(world.stage(2, vec![event("t", 0, "x")], &[]), Err(Code::Deleting));
        let publish = Command::Publish {
            producer: ProducerId(1),
            sequence: 1,
            digest: Digest(1),
            events: vec![event("t", 0, "x")],
        };
        assert_eq!(world.refused(1, publish), Code::Deleting);
        assert_eq!(world.refused(1, create("t")), Code::Deleting);
        world.check_fold();
        assert_eq!(world.bus.topics.len(), 1);
        if commit {
            world.commit(1, staged);
        } else {
            world.abort(staged);
        }
        world.check_fold();
        assert_eq!((world.bus.topics.len(), world.bus.subscriptions.len()), (0, 0));
        assert_eq!(world.bus.staged_bytes(), 0);
    }
}

#[test]
fn a_restart_finishes_a_deletion_that_waited_for_undecided_transactions() {
    let mut world = World::with_subscription(SubscriptionSettings::default());
    world.stage(1, vec![event("t", 0, "x")], &[]).expect("it fits");
    world.ask(1, delete("t"));
    world.crash();
    assert_eq!(world.bus.topics.len(), 1);
    world.pass(0);
    world.settle();
    assert!(world.bus.topics.is_empty());
}

#[test]
fn a_subscription_with_staged_acknowledgements_goes_when_they_are_decided() {
    let mut world = World::with_subscription(SubscriptionSettings::default());
    world.subscribe(7, "s", 2);
    world.publish("t", 0, "x");
    world.publish("t", 0, "y");
    world.settle();
    let refs = world.took_refs();
    let staged = world.stage(1, vec![], &refs[..1]).expect("it is current");
    world.ask(1, Command::DeleteSubscription { subscription: name("s") });
    assert!(world.ended.is_empty());
    assert_eq!(world.stage(2, vec![], &refs[1..]), Err(Code::Deleting));
    let again = Command::Subscribe { subscription: name("s"), credit: 1 };
    assert_eq!(world.refused(8, again), Code::Deleting);
    world.check_fold();
    world.commit(1, staged);
    world.check_fold();
    assert!(world.bus.subscriptions.is_empty());
    assert_eq!(world.ended, [(SessionId(7), Code::UnknownSubscription)]);
}

#[test]
fn holes_count_as_acknowledged() {
    let mut world = World::with_subscription(SubscriptionSettings::default());
    world.publish("t", 1, "a");
    world.settle();
    // Offsets 1 to 4 are never used.
    let placed = PlacedEvent {
        topic: TopicId(0),
        offset: Offset(5),
        key: None,
        body: crate::event::Body::Here("b".into()),
    };
    world.effects.append(Record::Published(Published {
        producer: ProducerId(9),
        sequence: 1,
        digest: Digest(1),
        wall_ms: 0,
        events: vec![placed],
    }));
    world.pass(0);
    world.settle();
    world.publish("t", 1, "c");
    world.settle();
    assert_eq!(world.stored[&TopicId(0)].len(), 3);
    // This one learns of the hole only by reading.
    world.create_subscription("late", "t", Start::Earliest, SubscriptionSettings::default());
    for (session, text) in [(7, "s"), (8, "late")] {
        world.subscribe(session, text, 10);
        let refs = world.took_refs();
        assert_eq!(refs.len(), 2, "the third has the key of the first");
        world.acknowledge(&refs[..1]);
        let more = world.took_refs();
        assert_eq!(more[0].offset, Offset(6));
        assert_eq!(world.acknowledge(&[refs[1], more[0]]), []);
    }
    world.check_fold();
    let late = &world.bus.subscriptions[&SubscriptionId(1)];
    assert_eq!(late.passed(), Offset(7));
    world.expire(0, 7, 3);
    world.settle();
    assert_eq!(world.gaps, []);
    world.check_fold();
    let topic = &world.bus.topics[&TopicId(0)];
    assert_eq!((topic.start, topic.bytes), (Offset(7), 0));
    let s = &world.bus.subscriptions[&SubscriptionId(0)];
    assert_eq!(s.facts.progress.ranges(), [] as [OffsetRange; 0]);
    assert_eq!(s.facts.progress.floor(), Offset(7));
    assert!(world.effects.durable() > Lsn(0));
}

/// Everything was refused while the store was full, shorter retention and deleting too: then only a
/// larger disk helped (I13, I15).
#[test]
fn what_makes_room_is_taken_while_there_is_none() {
    let mut world = World::with_subscription(SubscriptionSettings::default());
    world.publish("t", 0, "one");
    world.settle();
    world.subscribe(2, "s", 10);
    let leased = world.took_refs();
    assert_eq!(leased.len(), 1);
    world.room = 0;
    let publish = Command::Publish {
        producer: ProducerId(1),
        sequence: 1,
        digest: Digest(1),
        events: vec![event("t", 0, "two")],
    };
    assert_eq!(world.refused(1, publish), Code::NoSpace);
    assert_eq!(world.acknowledge(&leased), []);
    let settings = TopicSettings { retain_bytes: Some(1), ..TopicSettings::default() };
    let commands = [
        Command::AlterTopic { name: name("t"), settings },
        Command::Seek { subscription: name("s"), to: Start::Latest },
        Command::DeleteSubscription { subscription: name("s") },
        Command::DeleteTopic { name: name("t") },
    ];
    for command in commands {
        let reply = world.ask(1, command.clone());
        assert!(!matches!(reply, Reply::Refused(_)), "{command:?}: {reply:?}");
    }
}
