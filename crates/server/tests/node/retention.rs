//! Retention, removal and compaction of segments in a running node: the store does not grow beyond
//! what is needed, and what is needed stays readable.

use handfast_core::command::{BeginRequest, BranchRequest, Command};
use handfast_core::ids::{Digest, Offset, ProducerId};
use handfast_core::output::{Fetch, Reply, Wanted};
use handfast_core::record::{Participant, ParticipantKind, TopicSettings};
use handfast_core::view::TopicView;
use handfast_journal::Options;
use handfast_server::node::{Node, NodeOptions};

use crate::support::{call, event, name};

const SEGMENT_BYTES: u64 = 8 << 20;
const EVENT_BYTES: usize = 8 << 10;

fn options() -> NodeOptions {
    let journal =
        Options::default().with_segment_bytes(SEGMENT_BYTES).with_preallocate_bytes(1 << 20);
    NodeOptions::default().with_journal(journal)
}

async fn topic(node: &Node, topic: &str) -> TopicView {
    let Reply::Topics(topics) = call(node, Command::ListTopics).await else { panic!() };
    topics.into_iter().find(|t| t.name == name(topic)).unwrap()
}

async fn publish(node: &Node, topic: &str, sequence: u64, count: usize) {
    let mut large = event(topic, sequence);
    large.body = vec![7; EVENT_BYTES].into();
    let events = vec![large; count];
    let (producer, digest) = (ProducerId(9), Digest(sequence));
    let command = Command::Publish { producer, sequence, digest, events };
    let reply = call(node, command).await;
    assert!(matches!(reply, Reply::Published { .. }), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_needs_goes_and_the_rest_stays() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::open(directory.path(), options(), &mut |_| {}).unwrap();
    let keep = TopicSettings::default();
    let forget = TopicSettings { retain_bytes: Some(1 << 20), ..TopicSettings::default() };
    for (topic, settings) in [("kept", keep), ("passing", forget)] {
        call(&node, Command::CreateTopic { name: name(topic), settings }).await;
    }
    // One event in a hundred is kept for ever, so each segment is mostly dead soon.
    for n in 0..120 {
        publish(&node, "passing", 2 * n, 99).await;
        publish(&node, "kept", 2 * n + 1, 1).await;
    }
    // 95 MiB went through; housekeeping looks every second and takes one segment each time.
    while sealed_bytes(directory.path()) > SEGMENT_BYTES {
        tokio::task::yield_now().await;
    }
    let kept = topic(&node, "kept").await;
    assert_eq!((kept.start, kept.end), (Offset(0), Offset(120)));
    assert_eq!(read(&node, &kept).await, 120);
    let passing = topic(&node, "passing").await;
    assert!(passing.start > Offset(0), "its oldest events went");
    assert!(read(&node, &passing).await as u64 == passing.end.0 - passing.start.0);
    drop(node);

    let node = Node::open(directory.path(), options(), &mut |_| {}).unwrap();
    assert_eq!(read(&node, &kept).await, 120, "and after a restart");
}

async fn read(node: &Node, topic: &TopicView) -> usize {
    let (mut from, mut count) = (topic.start, 0);
    while from < topic.end {
        let wanted = Wanted::Range { from, to: topic.end, max_events: 1_000 };
        let fetch = Fetch { fetch: 0, topic: topic.topic, wanted, max_bytes: 4 << 20 };
        let (events, next) = node.fetch(fetch).await.unwrap();
        count += events.len();
        from = next;
    }
    count
}

/// Bytes of all segments but the newest, which is being written and has room in front of it.
fn sealed_bytes(directory: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut logs: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
    logs.retain(|path| path.extension().is_some_and(|e| e == "log"));
    logs.sort_unstable();
    logs.pop();
    // A segment may go between the listing and the look at it.
    logs.iter().map(|path| path.metadata().map_or(0, |m| m.len())).sum()
}

/// A transaction whose BEGIN is as long as it can be: 64 branches, 4 KiB of names.
fn large(node: &Node) -> BeginRequest {
    let branch = |n| {
        let participant =
            Participant { name: name(&format!("{n:064}")), kind: ParticipantKind::Service };
        BranchRequest { participant, work: None }
    };
    BeginRequest {
        id: node.new_transaction_id(),
        local: None,
        deadline_ms: Some(3_600_000),
        key: None,
        detached: true,
        branches: (0..64).map(branch).collect(),
        events: vec![],
        acknowledgements: vec![],
        commit: None,
    }
}

/// A segment without events of which open transactions need everything looked as if nothing in it
/// were needed. It was rewritten, gained nothing, and was the first to be rewritten again, for ever,
/// while others that could have been made smaller never were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_of_which_everything_is_needed_is_not_rewritten_again_and_again() {
    /// More than any number of segments here.
    const TOO_OFTEN: u64 = 20;
    let directory = tempfile::tempdir().unwrap();
    let options = {
        let journal =
            Options::default().with_segment_bytes(5 << 20).with_preallocate_bytes(1 << 20);
        NodeOptions::default().with_journal(journal)
    };
    let node = Node::open(directory.path(), options, &mut |_| {}).unwrap();
    let settings = TopicSettings { retain_bytes: Some(1 << 20), ..TopicSettings::default() };
    call(&node, Command::CreateTopic { name: name("passing"), settings }).await;
    // The first segment is full of what is needed, those after it of what nobody needs. They are
    // larger, because a checkpoint with all that is open stands at their beginning.
    let filled = async {
        for _ in 0..1_400 {
            let reply = call(&node, Command::Begin(Box::new(large(&node)))).await;
            assert!(matches!(reply, Reply::Begun { .. }), "{reply:?}");
        }
        let mut sequence = 0;
        while node.stats().await.unwrap().segments < 4 {
            publish(&node, "passing", sequence, 100).await;
            sequence += 1;
        }
        loop {
            let sealed = sealed(&directory);
            // What is left of a segment of passing events is nothing to speak of.
            if sealed[0] > 4 << 20 && sealed[1..].iter().all(|bytes| *bytes < 4 << 20) {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    // While a segment is rewritten again and again, nothing becomes durable.
    let too_often = async {
        while node.stats().await.unwrap().compactions < TOO_OFTEN {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = filled => {}
        () = too_often => panic!("rewritten {TOO_OFTEN} times: {:?}", sealed(&directory)),
    }
}

/// Bytes of each segment but the newest, oldest first.
fn sealed(directory: &tempfile::TempDir) -> Vec<u64> {
    let mut logs: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().path()).collect();
    logs.retain(|path| path.extension().is_some_and(|e| e == "log"));
    logs.sort_unstable();
    logs.pop();
    logs.iter().map(|path| path.metadata().map_or(0, |m| m.len())).collect()
}
