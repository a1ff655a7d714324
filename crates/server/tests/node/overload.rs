//! More than the node has room for: what waits in memory is bounded, and nobody is refused or ended
//! who has done nothing wrong.

use bytes::Bytes;
use handfast_core::command::{BeginRequest, Command, Start, Wait};
use handfast_core::event::EventRequest;
use handfast_core::ids::{Digest, ProducerId, StateId};
use handfast_core::limits::{EVENT_BYTES, Limits};
use handfast_core::output::{Reply, ToService};
use handfast_core::record::SubscriptionSettings;
use handfast_server::node::{Connection, Item, Node, NodeOptions, Queues};

use crate::support::{call, create_topic, name, run};

fn event(bytes: usize, number: u64) -> EventRequest {
    let mut body = vec![7; bytes];
    body[..8].copy_from_slice(&number.to_be_bytes());
    EventRequest { topic: name("t"), key: None, body: Bytes::from(body) }
}

/// The node keeps 64 MiB free in the log, and asks for more with each group that it writes. Commands
/// that came faster than the disk wrote used all of it up, and publishers were refused (`no_space`)
/// on a disk that had room. Now commands wait for the group that brings more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishers_with_more_under_way_than_there_is_room_for_wait_and_are_not_refused() {
    const BATCHES: u64 = 30;
    let directory = tempfile::tempdir().unwrap();
    let node = Node::open(directory.path(), NodeOptions::default(), &mut |_| {}).unwrap();
    create_topic(&node, "t").await;
    let Connection { sender, mut inbox } = node.connect();
    let large = event(EVENT_BYTES, 0);
    let publish = |sequence| {
        let events = vec![large.clone(); 8];
        let (producer, digest) = (ProducerId(1), Digest(sequence));
        (sequence, Command::Publish { producer, sequence, digest, events })
    };
    // 240 MiB at once.
    sender.send((1..=BATCHES).map(publish).collect()).await.unwrap();
    let mut answered = 0;
    while answered < BATCHES {
        for item in inbox.recv().await.unwrap() {
            let Item::Reply { reply, .. } = item else { panic!("{item:?}") };
            assert!(matches!(reply, Reply::Published { .. }), "{reply:?}");
            answered += 1;
        }
    }
}

/// A service that was away was told of everything that had waited for it at once, and that was more
/// messages than a stream could have to read: it was ended as too slow, came back, and was ended
/// again. Now a stream may have one more for each transaction that may be open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_comes_back_is_told_of_all_that_waits_for_it() {
    /// More than a stream may have to read besides.
    const OPEN: u64 = 101_000;
    const AT_ONCE: u64 = 4_000;
    let directory = tempfile::tempdir().unwrap();
    let mut limits = Limits::default();
    limits.open_transactions = OPEN as usize;
    let options = NodeOptions::default().with_limits(limits);
    let node = Node::open(directory.path(), options, &mut |_| {}).unwrap();
    create_topic(&node, "t").await;
    let mut client = node.connect();
    let begin = |number| {
        let request = run(node.new_transaction_id(), number, &["east"], Wait::Decided);
        let request = BeginRequest { key: None, commit: None, events: Vec::new(), ..request };
        (number, Command::Begin(Box::new(request)))
    };
    for first in (0..OPEN).step_by(AT_ONCE as usize) {
        let count = AT_ONCE.min(OPEN - first);
        client.sender.send((first..first + count).map(begin).collect()).await.unwrap();
        let mut begun = 0;
        while begun < count {
            for item in client.inbox.recv().await.unwrap() {
                let Item::Reply { reply: Reply::Begun { .. }, .. } = item else {
                    panic!("{item:?}")
                };
                begun += 1;
            }
        }
    }

    let mut service = node.connect();
    let attach =
        Command::Attach { service: name("east"), instance: name("one"), state_id: StateId(7) };
    service.sender.send(vec![(1, attach)]).await.unwrap();
    let mut told = 0;
    while told < OPEN {
        for item in service.inbox.recv().await.expect("the stream goes on") {
            match item {
                Item::ToService(ToService::Prepare { .. }) => told += 1,
                Item::Reply { reply: Reply::Done, .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// The bytes of a session's deliveries, and the numbers of their events.
fn deliveries(items: &[Item]) -> (usize, Vec<u64>) {
    let mut numbers = Vec::new();
    let mut bytes = 0;
    for item in items {
        match item {
            Item::Deliver(delivery) => {
                let body = &delivery.event.body;
                bytes += body.len();
                numbers.push(u64::from_be_bytes(body[..8].try_into().unwrap()));
            }
            Item::Reply { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    (bytes, numbers)
}

async fn subscribe(node: &Node, subscription: &str) -> Connection {
    let command = Command::CreateSubscription {
        name: name(subscription),
        topic: name("t"),
        start: Start::Earliest,
        settings: SubscriptionSettings::default(),
    };
    call(node, command).await;
    let connection = node.connect();
    let command = Command::Subscribe { subscription: name(subscription), credit: 1_000 };
    connection.sender.send(vec![(1, command)]).await.unwrap();
    connection
}

/// Credit counts deliveries, whatever they weigh. A stream that had credit for 10,000 and read none
/// of them could make the server hold 10 GiB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_reads_nothing_holds_a_bounded_share_and_delays_nobody() {
    const EVENTS: u64 = 200;
    const BYTES: usize = 64 << 10;
    const UNREAD: usize = 1 << 20;
    let directory = tempfile::tempdir().unwrap();
    let mut queues = Queues::default();
    queues.unread_bytes = UNREAD;
    let options = NodeOptions::default().with_queues(queues);
    let node = Node::open(directory.path(), options, &mut |_| {}).unwrap();
    create_topic(&node, "t").await;
    let mut idle = subscribe(&node, "idle").await;
    let mut busy = subscribe(&node, "busy").await;

    // 12.5 MiB, of which each event goes to both groups as soon as it is durable.
    let mut seen = Vec::new();
    for number in 0..EVENTS {
        let events = vec![event(BYTES, number)];
        let (producer, sequence, digest) = (ProducerId(1), number + 1, Digest(number));
        let publish = Command::Publish { producer, sequence, digest, events };
        let reply = call(&node, publish).await;
        assert!(matches!(reply, Reply::Published { .. }), "{reply:?}");
        while seen.len() <= usize::try_from(number).unwrap() {
            seen.extend(deliveries(&busy.inbox.recv().await.unwrap()).1);
        }
    }
    let all: Vec<u64> = (0..EVENTS).collect();
    assert_eq!(seen, all);

    // What the other has to read is little, however much there is; and it gets all of it.
    let mut seen = Vec::new();
    while seen.len() < all.len() {
        let (bytes, numbers) = deliveries(&idle.inbox.recv().await.unwrap());
        // Whatever comes out of one look into the log is delivered together.
        assert!(bytes <= UNREAD + (1 << 20) + BYTES, "{bytes} bytes were waiting to be read");
        seen.extend(numbers);
    }
    assert_eq!(seen, all);
}
