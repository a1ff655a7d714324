//! Damage in a sealed segment, in a running node: it is for those alone who want to read there.

use std::sync::Arc;

use handfast_core::command::{Command, Start};
use handfast_core::event::EventRequest;
use handfast_core::ids::{Digest, Offset, ProducerId, TopicId};
use handfast_core::output::{Fetch, Reply, Wanted};
use handfast_core::record::SubscriptionSettings;
use handfast_core::refusal::Code;
use handfast_journal::Options;
use handfast_journal::files::crash::CrashDisk;
use handfast_server::node::{Item, Node, NodeOptions, ReadError};

use crate::support::{call, create_topic, event, name};

const EVENTS: u64 = 200;

fn options() -> NodeOptions {
    let journal = Options::default().with_segment_bytes(1 << 20).with_preallocate_bytes(1 << 20);
    NodeOptions::default().with_journal(journal)
}

async fn publish(node: &Node, topic: &str, sequence: u64) {
    let events = vec![EventRequest { body: vec![7; 20_000].into(), ..event(topic, sequence) }];
    let (producer, digest) = (ProducerId(9), Digest(sequence));
    let command = Command::Publish { producer, sequence, digest, events };
    let reply = call(node, command).await;
    assert!(matches!(reply, Reply::Published { .. }), "{reply:?}");
}

/// One altered byte in a sealed segment was a crash loop: the server started, and the first reader of
/// the place ended it, for everybody and again and again. README promised that it does not start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_old_event_that_cannot_be_read_ends_nobody_else() {
    let disk = CrashDisk::new();
    let node = Node::open_on(Arc::new(disk.clone()), options()).unwrap();
    create_topic(&node, "t").await;
    create_topic(&node, "u").await;
    for number in 1..=EVENTS {
        publish(&node, "t", number).await;
    }
    assert!(node.stats().await.unwrap().segments >= 3);
    drop(node);
    let mut image = disk.snapshot().everything();
    let log = "0000000001.log";
    let mut bytes = image.bytes(log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    image.replace(log, &bytes);

    let node = Node::open_on(Arc::new(image.into_disk()), options()).unwrap();
    // A reader is told, once it has what comes before.
    let mut read = 0;
    let refusal = loop {
        let (from, to) = (Offset(read), Offset(EVENTS));
        let wanted = Wanted::Range { from, to, max_events: 10 };
        let fetch = Fetch { fetch: 0, topic: TopicId(1), wanted, max_bytes: 1 << 20 };
        match node.fetch(fetch).await {
            Ok((events, next)) => {
                assert_eq!(next.0 - read, events.len() as u64);
                read = next.0;
            }
            Err(ReadError::Refused(refusal)) => break refusal,
            Err(stopped) => panic!("{stopped}"),
        }
    };
    assert_eq!(refusal.code, Code::Damaged);
    assert!(refusal.detail.contains(&format!("offsets {read} to {read} ")), "{}", refusal.detail);
    assert!(refusal.detail.contains(log), "{}", refusal.detail);
    assert!(read > 0 && read < EVENTS / 2, "{read}");

    // A subscriber gets what comes before, is told, and goes on when somebody has decided to.
    let settings = SubscriptionSettings::default();
    let (subscription, start) = (name("s"), Start::Earliest);
    let create =
        Command::CreateSubscription { name: subscription, topic: name("t"), start, settings };
    call(&node, create).await;
    let subscribe = || Command::Subscribe { subscription: name("s"), credit: 1_000 };
    for round in 0..2 {
        let mut stream = node.connect();
        stream.sender.send(vec![(1, subscribe())]).await.unwrap();
        let mut next = if round == 0 { 0 } else { read };
        let told = 'told: loop {
            for item in stream.inbox.recv().await.expect("it is told before it is ended") {
                match item {
                    Item::Deliver(delivery) => {
                        assert_eq!(delivery.event.offset, Offset(next));
                        next += 1;
                        let deliveries = vec![delivery.reference];
                        call(&node, Command::Acknowledge { deliveries }).await;
                    }
                    Item::End(refusal) => break 'told refusal,
                    Item::Reply { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
        };
        assert_eq!((told.code, next), (Code::Damaged, read), "round {round}");
    }
    let to = Start::At(Offset(read + 1));
    let reply = call(&node, Command::Seek { subscription: name("s"), to }).await;
    assert!(matches!(reply, Reply::Sought { .. }), "{reply:?}");
    let mut stream = node.connect();
    stream.sender.send(vec![(1, subscribe())]).await.unwrap();
    let mut next = read + 1;
    while next < EVENTS {
        for item in stream.inbox.recv().await.unwrap() {
            if let Item::Deliver(delivery) = item {
                assert_eq!(delivery.event.offset, Offset(next));
                next += 1;
            }
        }
    }

    // Everybody else goes on, and the place is known.
    publish(&node, "u", EVENTS + 1).await;
    assert!(node.stats().await.unwrap().damaged > 0);
    let damage = node.damage();
    assert!(damage.iter().any(|(topic, _)| *topic == Some(TopicId(1))), "{damage:?}");
}
