//! A disk that is full, from inside and from outside: new work is refused, what makes room is not,
//! and the node goes on by itself as soon as there is room, and opens again whatever there is.

use std::sync::Arc;

use handfast_core::command::{Command, Start};
use handfast_core::event::EventRequest;
use handfast_core::ids::{Digest, Offset, ProducerId};
use handfast_core::output::Reply;
use handfast_core::record::{SubscriptionSettings, TopicSettings};
use handfast_core::refusal::Code;
use handfast_core::view::TopicView;
use handfast_journal::Options;
use handfast_journal::files::Files;
use handfast_journal::files::crash::CrashDisk;
use handfast_server::node::{Item, Node, NodeOptions};

use crate::support::{call, create_topic, name};

const MIB: u64 = 1 << 20;

fn event(topic: &str, bytes: usize) -> EventRequest {
    EventRequest { topic: name(topic), key: None, body: vec![7; bytes].into() }
}

/// Publishes one event; says with what it was refused.
async fn publish(node: &Node, topic: &str, sequence: u64, bytes: usize) -> Result<(), Code> {
    let events = vec![event(topic, bytes)];
    let (producer, digest) = (ProducerId(9), Digest(sequence));
    match call(node, Command::Publish { producer, sequence, digest, events }).await {
        Reply::Published { .. } => Ok(()),
        Reply::Refused(refusal) => Err(refusal.code),
        other => panic!("{other:?}"),
    }
}

/// Publishes until it is refused; says how often it was taken.
async fn fill(node: &Node, topic: &str, sequence: &mut u64, bytes: usize) -> u64 {
    let mut taken = 0;
    loop {
        *sequence += 1;
        match publish(node, topic, *sequence, bytes).await {
            Ok(()) => taken += 1,
            Err(code) => {
                assert_eq!(code, Code::NoSpace);
                return taken;
            }
        }
    }
}

/// Publishes until the node says that it is full. A refusal alone may be of a roll that has no room
/// yet, before the disk is looked at.
async fn fill_up(node: &Node, sequence: &mut u64) {
    for _ in 0..6_000 {
        fill(node, "t", sequence, 1 << 20).await;
        if node.stats().await.unwrap().low_space {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("never said to be full");
}

/// Publishes as often as it takes until it is taken.
async fn until_taken(node: &Node, topic: &str, sequence: &mut u64, bytes: usize) {
    *sequence += 1;
    while let Err(code) = publish(node, topic, *sequence, bytes).await {
        assert!(matches!(code, Code::NoSpace | Code::TopicFull), "{code:?}");
        tokio::task::yield_now().await;
    }
}

async fn done(node: &Node, command: Command) {
    let reply = call(node, command).await;
    assert!(!matches!(reply, Reply::Refused(_)), "{reply:?}");
}

async fn topic(node: &Node, topic: &str) -> TopicView {
    let Reply::Topics(topics) = call(node, Command::ListTopics).await else { panic!() };
    topics.into_iter().find(|t| t.name == name(topic)).unwrap()
}

fn open(disk: &CrashDisk) -> Node {
    Node::open_on(Arc::new(disk.clone()), NodeOptions::default()).unwrap()
}

/// Somebody else had filled the disk and made room again, and everything was refused until a
/// restart: room was measured only after a group was written, and none was (I15).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_that_somebody_makes_is_noticed_without_anything_being_written() {
    let disk = CrashDisk::new();
    let node = open(&disk);
    create_topic(&node, "t").await;
    let mut sequence = 0;
    until_taken(&node, "t", &mut sequence, 100).await;
    for _ in 0..2 {
        disk.set_capacity(Some(disk.used()));
        fill_up(&node, &mut sequence).await;
        disk.set_capacity(None);
        until_taken(&node, "t", &mut sequence, 1 << 20).await;
        assert!(!node.stats().await.unwrap().low_space);
    }
}

/// The store alone filled a small disk and ended at a roll, which allocated all that was free in the
/// old segment before that was given back; then it could not start, because opening needed the whole
/// newest segment once more (I13, I15).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fills_its_disk_refuses_and_opens_again() {
    for mib in [60, 100] {
        let disk = CrashDisk::new();
        disk.set_capacity(Some(mib * MIB));
        let mut sequence = 0;
        let mut taken = 0;
        for life in 0..3 {
            let node = open(&disk);
            if life == 0 {
                create_topic(&node, "t").await;
                create_topic(&node, "u").await;
            }
            taken += fill(&node, "t", &mut sequence, 500_000).await;
            let view = topic(&node, "t").await;
            assert_eq!(view.end.0 - view.start.0, taken, "{mib} MiB, life {life}");
        }
        assert!(taken * 500_000 > mib * MIB / 3, "{mib} MiB took {taken}");
        // What makes room is taken, and makes room.
        let node = open(&disk);
        let settings = TopicSettings { retain_bytes: Some(MIB), ..TopicSettings::default() };
        done(&node, Command::AlterTopic { name: name("t"), settings }).await;
        until_taken(&node, "t", &mut sequence, 500_000).await;
        for _ in 0..20 {
            until_taken(&node, "u", &mut sequence, 500_000).await;
        }
        fill(&node, "u", &mut sequence, 500_000).await;
        done(&node, Command::DeleteTopic { name: name("u") }).await;
        until_taken(&node, "t", &mut sequence, 500_000).await;
    }
}

/// Every point at which the room of the disk may end: somebody takes all of it when so many events
/// have been published. Nothing ends, everything that was acknowledged is there, also after an
/// opening on the full disk, and housekeeping goes on (I5, I15).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_room_may_end_at_any_event() {
    let journal = Options::default().with_segment_bytes(MIB).with_preallocate_bytes(256 << 10);
    let options = NodeOptions::default().with_journal(journal);
    for last in 0..24 {
        let disk = CrashDisk::new();
        let node = Node::open_on(Arc::new(disk.clone()), options.clone()).unwrap();
        create_topic(&node, "t").await;
        create_topic(&node, "spare").await;
        let mut sequence = 0;
        for _ in 0..last {
            until_taken(&node, "t", &mut sequence, 300_000).await;
        }
        disk.set_capacity(Some(disk.used()));
        let taken = last + fill(&node, "t", &mut sequence, 300_000).await;
        done(&node, Command::DeleteTopic { name: name("spare") }).await;
        drop(node);
        let node = Node::open_on(Arc::new(disk.clone()), options.clone()).unwrap();
        assert_eq!(topic(&node, "t").await.end, Offset(taken), "{last}");
        let again = fill(&node, "t", &mut sequence, 300_000).await;
        drop(node);
        disk.set_capacity(None);
        let node = Node::open_on(Arc::new(disk.clone()), options.clone()).unwrap();
        assert_eq!(topic(&node, "t").await.end, Offset(taken + again), "{last}");
        until_taken(&node, "t", &mut sequence, 300_000).await;
    }
}

/// A topic that keeps what is not acknowledged was full for ever once it was full, although all was
/// acknowledged: it refused what would have gone beyond its limit, and gave up only what was beyond
/// it already; and alone in its segment it had nothing that could be given up (I13).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_topic_takes_events_again_when_all_is_acknowledged() {
    let disk = CrashDisk::new();
    let node = open(&disk);
    let settings = TopicSettings {
        retain_bytes: Some(100_000),
        retain_unacknowledged: true,
        ..TopicSettings::default()
    };
    done(&node, Command::CreateTopic { name: name("t"), settings }).await;
    done(
        &node,
        Command::CreateSubscription {
            name: name("s"),
            topic: name("t"),
            start: Start::Earliest,
            settings: SubscriptionSettings::default(),
        },
    )
    .await;
    let mut reader = node.connect();
    let subscribe = Command::Subscribe { subscription: name("s"), credit: 1_000 };
    reader.sender.send(vec![(1, subscribe)]).await.unwrap();
    let mut sequence = 0;
    for round in 1..=3 {
        let refused = loop {
            sequence += 1;
            if let Err(code) = publish(&node, "t", sequence, 10_000).await {
                break code;
            }
        };
        assert_eq!(refused, Code::TopicFull);
        let held = topic(&node, "t").await;
        assert!((80_001..=100_000).contains(&held.bytes), "round {round}: {held:?}");
        // Nothing of it goes before it is acknowledged.
        assert_eq!(publish(&node, "t", sequence, 10_000).await, Err(Code::TopicFull));
        let last = Offset(held.end.0 - 1);
        let mut acknowledged = Offset(0);
        while acknowledged < last {
            for item in reader.inbox.recv().await.unwrap() {
                let Item::Deliver(delivery) = item else { continue };
                acknowledged = delivery.reference.offset;
                let deliveries = vec![delivery.reference];
                done(&node, Command::Acknowledge { deliveries }).await;
            }
        }
        until_taken(&node, "t", &mut sequence, 10_000).await;
    }
}

/// How late retention by size may be: a topic that is alone in a segment which is far from full holds
/// hardly more than its limit soon after, and not much less.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_limit_is_met_inside_the_newest_segment() {
    const LIMIT: u64 = 200_000;
    let disk = CrashDisk::new();
    let node = open(&disk);
    let settings = TopicSettings { retain_bytes: Some(LIMIT), ..TopicSettings::default() };
    done(&node, Command::CreateTopic { name: name("t"), settings }).await;
    let mut sequence = 0;
    for _ in 0..1_000 {
        until_taken(&node, "t", &mut sequence, 1_000).await;
    }
    let left = loop {
        let view = topic(&node, "t").await;
        if view.bytes <= LIMIT {
            break view;
        }
        tokio::task::yield_now().await;
    };
    assert!(left.bytes > LIMIT / 2, "{left:?}");
    assert_eq!(left.end, Offset(1_000));
    assert_eq!(node.stats().await.unwrap().segments, 1);
}

/// Segments that nobody needs any more, but for one event in each, were to be rewritten while the disk
/// was full. That failed, and was not tried again when there was room: what they held stayed on
/// the disk until something else of it went (I15).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_rewritten_for_want_of_room_is_rewritten_when_there_is_some() {
    const SEGMENTS: usize = 3;
    let journal = Options::default().with_segment_bytes(5 * MIB).with_preallocate_bytes(256 << 10);
    let options = NodeOptions::default().with_journal(journal);
    let disk = CrashDisk::new();
    let node = Node::open_on(Arc::new(disk.clone()), options).unwrap();
    create_topic(&node, "passing").await;
    create_topic(&node, "kept").await;
    let mut sequence = 0;
    while node.stats().await.unwrap().segments <= SEGMENTS {
        until_taken(&node, "passing", &mut sequence, 400_000).await;
        until_taken(&node, "kept", &mut sequence, 10_000).await;
    }
    let kept = topic(&node, "kept").await;
    // They have given back what they do not use.
    let has_index = |name: &String| name.ends_with(".idx");
    while disk.list().unwrap().iter().filter(|name| has_index(name)).count() < SEGMENTS {
        tokio::task::yield_now().await;
    }
    disk.set_capacity(Some(disk.used()));
    let full = disk.used();
    let settings = TopicSettings { retain_bytes: Some(MIB), ..TopicSettings::default() };
    done(&node, Command::AlterTopic { name: name("passing"), settings }).await;
    // Each was tried, and stays as it is.
    while node.stats().await.unwrap().compactions < SEGMENTS as u64 {
        tokio::task::yield_now().await;
    }
    done(&node, Command::DeleteTopic { name: name("passing") }).await;
    assert_eq!(disk.used(), full);
    disk.set_capacity(Some(full + 2 * MIB));
    while disk.used() > full - SEGMENTS as u64 * 4 * MIB {
        tokio::task::yield_now().await;
    }
    assert_eq!(topic(&node, "kept").await, kept);
}
