//! The room that open transactions still need in the log is kept for them, once.

use std::sync::Arc;

use bytes::Bytes;
use handfast_core::command::{BeginRequest, Command, CommitRequest, Wait};
use handfast_core::event::EventRequest;
use handfast_core::ids::{Digest, ProducerId, TransactionId};
use handfast_core::output::{PublicState, Reply};
use handfast_core::refusal::Code;
use handfast_journal::Options;
use handfast_journal::files::Files;
use handfast_journal::files::crash::CrashDisk;
use handfast_server::node::{Item, Node, NodeOptions};

use crate::support::{call, create_topic, name, run};

const MIB: u64 = 1 << 20;
const OPEN: u64 = 20_000;
/// Each has staged one event of this size.
const STAGED: usize = 8_000;
/// What the log needs for all of them: the event and its place, the decision and END.
const NEED: u64 = OPEN * (STAGED as u64 + 64 + 768);
/// What is kept besides on a large disk: 64 MiB and a step of 16 for new work, and in the next segment a
/// checkpoint of all that is open and half as much.
const BESIDES: u64 = (64 + 16 + 32 + 4) * MIB + OPEN * 512;

fn opened(disk: &CrashDisk) -> Node {
    let options = NodeOptions::default().with_journal(Options::default().with_segment_bytes(MIB));
    Node::open_on(Arc::new(disk.clone()), options).unwrap()
}

/// Begins all of them.
async fn begin(node: &Node) -> Vec<TransactionId> {
    let body = Bytes::from(vec![7; STAGED]);
    let begin = |number| {
        let event = EventRequest { topic: name("t"), key: None, body: body.clone() };
        let id = node.new_transaction_id();
        let request = run(id, number, &[], Wait::Decided);
        let request = BeginRequest { key: None, commit: None, events: vec![event], ..request };
        (number, Command::Begin(Box::new(request)))
    };
    let replies = all(node, (0..OPEN).map(begin).collect()).await;
    let id = |reply| match reply {
        Reply::Begun { id, .. } => id,
        other => panic!("{other:?}"),
    };
    replies.into_iter().map(id).collect()
}

/// Every one of them commits.
async fn commit(node: &Node, open: Vec<TransactionId>) {
    let commit = |(number, id)| {
        let wait = Wait::Finished;
        let request = CommitRequest { branches: 0, items: 1, votes: vec![], vouched: true, wait };
        (number, Command::Commit { id, request })
    };
    for reply in all(node, (0..).zip(open).map(commit).collect()).await {
        let Reply::Outcome(outcome) = reply else { panic!("{reply:?}") };
        assert_eq!(outcome.state, PublicState::Committed, "{outcome:?}");
    }
}

/// What the commands are answered, in any order.
async fn all(node: &Node, mut commands: Vec<(u64, Command)>) -> Vec<Reply> {
    let mut client = node.connect();
    let mut replies = Vec::new();
    while !commands.is_empty() {
        let some = commands.split_off(commands.len().saturating_sub(2_000));
        let answered = replies.len() + some.len();
        client.sender.send(some).await.unwrap();
        while replies.len() < answered {
            for item in client.inbox.recv().await.unwrap() {
                let Item::Reply { reply, .. } = item else { panic!("{item:?}") };
                replies.push(reply);
            }
        }
    }
    replies
}

async fn publish(node: &Node, sequence: u64) -> Result<(), Code> {
    let body = Bytes::from(vec![7; 500_000]);
    let events = vec![EventRequest { topic: name("t"), key: None, body }];
    let (producer, digest) = (ProducerId(9), Digest(sequence));
    match call(node, Command::Publish { producer, sequence, digest, events }).await {
        Reply::Published { .. } => Ok(()),
        Reply::Refused(refusal) => Err(refusal.code),
        other => panic!("{other:?}"),
    }
}

async fn segments(node: &Node) -> usize {
    node.stats().await.unwrap().segments
}

/// Bytes of the disk that are kept and hold nothing yet: in the newest segment and in the next.
async fn kept(node: &Node, disk: &CrashDisk) -> u64 {
    let names = disk.list().unwrap();
    let next = names.iter().filter(|name| name.ends_with(".log.new"));
    let next: u64 = next.map(|name| disk.open(name).unwrap().length().unwrap()).sum();
    node.stats().await.unwrap().free_bytes + next
}

/// What was open had its room in the newest segment, and the same once more in the next one: with a
/// million open transactions that was more than a GiB twice (I15).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_open_has_its_room_once() {
    let disk = CrashDisk::new();
    let node = opened(&disk);
    create_topic(&node, "t").await;
    let open = begin(&node).await;
    let mut sequence = 0;
    for rolled in 0..3 {
        let before = segments(&node).await;
        while segments(&node).await == before {
            sequence += 1;
            publish(&node, sequence).await.unwrap();
        }
        // What the roll has left to do is done.
        publish(&node, sequence + 1_000).await.unwrap();
        let kept = kept(&node, &disk).await;
        assert!(kept >= NEED, "{rolled}: {kept} of {NEED}");
        let most = NEED + BESIDES;
        assert!(kept <= most, "{rolled}: {} of {} MiB", kept / MIB, most / MIB);
    }
    // It is enough, whatever becomes of the disk.
    disk.set_capacity(Some(disk.used()));
    commit(&node, open).await;
}

/// A disk on which what is open has no room twice: the segment goes on without new work, everything
/// that is open ends, and then the segment is closed (I5, I15).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_to_move_what_is_open_ends_where_it_is() {
    let disk = CrashDisk::new();
    let node = opened(&disk);
    create_topic(&node, "t").await;
    let open = begin(&node).await;
    disk.set_capacity(Some(disk.used() + NEED / 2));
    let mut sequence = 1;
    while publish(&node, sequence).await.is_ok() {
        sequence += 1;
    }
    assert_eq!(publish(&node, sequence).await, Err(Code::NoSpace));
    assert_eq!(segments(&node).await, 1);
    commit(&node, open).await;
    while segments(&node).await == 1 {
        tokio::task::yield_now().await;
    }
}
