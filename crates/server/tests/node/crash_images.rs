//! The whole server on the crash-image double: the power is cut at every sync of a few hundred
//! transactions, and every image is opened again.
//!
//! Killing a process cannot show a missing sync; this can (I5, I6, I16).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use handfast_core::command::{Command, Wait};
use handfast_core::ids::{Digest, Offset, ProducerId, TopicId, TransactionId};
use handfast_core::output::{Fetch, PublicState, Reply, Wanted};
use handfast_journal::Options;
use handfast_journal::files::crash::{CrashDisk, Image, Snapshot};
use handfast_server::node::{Item, Node, NodeOptions};

use crate::support::{Ledger, create_topic, event, name, run, serve, status};

/// What somebody outside the server has been told.
#[derive(Clone, Debug, Default)]
struct Told {
    committed: BTreeMap<TransactionId, u64>,
    failed: Vec<TransactionId>,
    /// Transactions that a service was told to commit.
    branches: Vec<TransactionId>,
    /// Numbers of events whose publish was acknowledged, with their offsets.
    published: BTreeMap<u64, Offset>,
}

/// A power cut: the disk, and what had been told by then.
struct Cut {
    snapshot: Snapshot,
    told: Told,
}

fn options() -> NodeOptions {
    // Small segments, so that there are rolls and checkpoints among the syncs.
    let journal = Options::default().with_segment_bytes(24 << 10).with_preallocate_bytes(64 << 10);
    NodeOptions::default().with_journal(journal)
}

const TRANSACTIONS: u64 = 400;

/// Runs transactions and publishes on a disk, and keeps what a power cut at each sync leaves.
async fn history() -> Vec<Cut> {
    let disk = CrashDisk::new();
    let told = Arc::new(Mutex::new(Told::default()));
    let cuts = Arc::new(Mutex::new(Vec::new()));
    {
        let (told, cuts) = (Arc::clone(&told), Arc::clone(&cuts));
        disk.before_each_sync(move |snapshot| {
            let told = told.lock().unwrap().clone();
            cuts.lock().unwrap().push(Cut { snapshot: snapshot.clone(), told });
        });
    }
    let node = Node::open_on(Arc::new(disk), options()).unwrap();
    create_topic(&node, "t").await;
    let (east, west) = (Arc::new(Mutex::new(Ledger::default())), Arc::default());
    serve(&node, "east", Arc::clone(&east), 7);
    serve(&node, "west", west, 0);

    let mut client = node.connect();
    let mut ids = BTreeMap::new();
    // A few at a time, so that groups hold several transactions and there are many groups.
    for start in (1..=TRANSACTIONS).step_by(4) {
        let mut batch = Vec::new();
        for number in start..start + 4 {
            let id = node.new_transaction_id();
            ids.insert(number, id);
            let begin = run(id, number, &["east", "west"], Wait::Finished);
            batch.push((number, Command::Begin(Box::new(begin))));
        }
        let publish = Command::Publish {
            producer: ProducerId(1),
            sequence: start,
            digest: Digest(start),
            events: vec![event("t", 1_000_000 + start)],
        };
        batch.push((1_000_000 + start, publish));
        client.sender.send(batch).await.unwrap();
        let mut open = 5;
        while open > 0 {
            for item in client.inbox.recv().await.unwrap() {
                let Item::Reply { request, reply } = item else { continue };
                open -= 1;
                note(&told, &ids, request, reply);
            }
        }
        let commits = &east.lock().unwrap().ended;
        let committed = commits.iter().filter(|(_, committed)| **committed).map(|(id, _)| *id);
        told.lock().unwrap().branches = committed.collect();
    }
    drop(node);
    let told = told.lock().unwrap();
    assert_eq!(told.committed.len() + told.failed.len(), TRANSACTIONS as usize);
    assert_eq!(told.failed.len() as u64, TRANSACTIONS / 7);
    std::mem::take(&mut *cuts.lock().unwrap())
}

fn note(told: &Mutex<Told>, ids: &BTreeMap<u64, TransactionId>, request: u64, reply: Reply) {
    let mut told = told.lock().unwrap();
    match reply {
        Reply::Outcome(outcome) => match outcome.state {
            PublicState::Committed => {
                told.committed.insert(ids[&request], request);
            }
            PublicState::Failed => told.failed.push(ids[&request]),
            other => panic!("{other:?} while nothing fails"),
        },
        Reply::Published { places, .. } => {
            told.published.insert(request, places[0].1);
        }
        other => panic!("{other:?}"),
    }
}

/// Opens an image and looks for everything that had been told.
async fn check(image: Image, told: &Told, context: &str) {
    let node = Node::open_on(Arc::new(image.into_disk()), options())
        .unwrap_or_else(|error| panic!("{context}: {error}"));
    let bodies = bodies(&node).await;
    for (id, number) in &told.committed {
        let outcome = status(&node, *id, None).await;
        let state = outcome.map(|o| o.state);
        assert_eq!(state, Some(PublicState::Committed), "I4, I5: {context}: {id} was Committed");
        assert!(bodies.values().any(|n| n == number), "I7: {context}: event of {id} is lost");
    }
    for id in &told.branches {
        let outcome = status(&node, *id, None).await;
        let committed = outcome.is_some_and(|o| crate::support::is_decided_to_commit(&o));
        assert!(committed, "I1: {context}: a branch of {id} was told to commit");
    }
    for id in &told.failed {
        if let Some(outcome) = status(&node, *id, None).await {
            assert_eq!(outcome.state, PublicState::Failed, "I4: {context}: {id} was Failed");
        }
    }
    for (number, offset) in &told.published {
        assert_eq!(bodies.get(offset), Some(number), "I5: {context}: a published event");
    }
    // What was in doubt ends when the services come back (I13).
    for service in ["east", "west"] {
        serve(&node, service, Arc::new(Mutex::new(Returning::ledger(&node).await)), 0);
    }
    crate::support::until_quiet(&node).await;
}

/// A service that comes back with everything prepared that the server may still ask for.
struct Returning;

impl Returning {
    async fn ledger(node: &Node) -> Ledger {
        let list = Command::ListTransactions { after: None, limit: 1_000, attention: false };
        let Reply::Transactions(open) = crate::support::call(node, list).await else { panic!() };
        Ledger { prepared: open.iter().map(|tx| tx.id).collect(), ..Ledger::default() }
    }
}

/// Every event of the topic, by offset: the number in its body.
async fn bodies(node: &Node) -> BTreeMap<Offset, u64> {
    let Reply::Topics(topics) = crate::support::call(node, Command::ListTopics).await else {
        panic!()
    };
    let Some(topic) = topics.iter().find(|t| t.name == name("t")) else {
        return BTreeMap::new();
    };
    read_all(node, topic.topic, topic.end).await
}

async fn read_all(node: &Node, topic: TopicId, end: Offset) -> BTreeMap<Offset, u64> {
    let mut found = BTreeMap::new();
    let mut from = Offset(0);
    while from < end {
        let wanted = Wanted::Range { from, to: end, max_events: 1_000 };
        let fetch = Fetch { fetch: 0, topic, wanted, max_bytes: 1 << 20 };
        let (events, next) = node.fetch(fetch).await.unwrap();
        for event in events {
            let number = u64::from_be_bytes(event.body[..8].try_into().unwrap());
            assert_eq!(found.insert(event.offset, number), None, "I9: an offset twice");
        }
        assert!(next > from, "a fetch goes on");
        from = next;
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_power_is_cut_at_every_sync() {
    let cuts = history().await;
    assert!(cuts.len() > 200, "only {} syncs", cuts.len());
    for (at, cut) in cuts.iter().enumerate() {
        // Every sync in one of the three ways; the journal's own tests do all of them, and more.
        let (kind, image) = match at % 3 {
            0 => ("only what was synced", cut.snapshot.synced_only()),
            1 => ("everything", cut.snapshot.everything()),
            _ => ("a part", cut.snapshot.random(at as u64)),
        };
        check(image, &cut.told, &format!("sync {at}, {kind}")).await;
    }
}
