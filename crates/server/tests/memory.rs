//! Memory does not grow with the number of finished transactions (I15).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(dead_code, reason = "it uses a part of what tests of a node share")]

#[path = "node/support.rs"]
mod support;

use std::sync::{Arc, Mutex};

use handfast_core::command::{Command, Wait};
use handfast_core::output::{PublicState, Reply};
use handfast_journal::Options;
use handfast_server::node::{Item, Node, NodeOptions};

use support::{Ledger, create_topic, run, serve};

/// Transactions that fill every bounded cache.
const WARM: u64 = 150_000;
const MORE: u64 = 300_000;
const AT_ONCE: u64 = 512;
/// Growth that noise may explain; 300,000 transactions kept in memory would be ten times this.
const NOISE_BYTES: u64 = 24 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finished_transactions_leave_nothing_in_memory() {
    let directory = tempfile::tempdir().unwrap();
    // Keys are kept in memory by design, up to a limit; here there is none. The index of the segment
    // that is being written is in memory too, so segments are small enough to be filled many times.
    let journal = Options::default().with_segment_bytes(8 << 20).with_recent_bytes(8 << 20);
    let options = NodeOptions::default().with_journal(journal);
    let node = Node::open(directory.path(), options, &mut |_| {}).unwrap();
    create_topic(&node, "t").await;
    let ledger: Arc<Mutex<Ledger>> = Arc::default();
    serve(&node, "east", Arc::clone(&ledger), 0);

    transactions(&node, &ledger, 0, WARM).await;
    let before = resident_bytes();
    transactions(&node, &ledger, WARM, MORE).await;
    let after = resident_bytes();
    assert!(after < before + NOISE_BYTES, "from {before} to {after} bytes");
}

async fn transactions(node: &Node, ledger: &Mutex<Ledger>, first: u64, count: u64) {
    let mut client = node.connect();
    let (mut next, mut done) = (first, 0);
    let begin = |number| {
        let mut request = run(node.new_transaction_id(), number, &["east"], Wait::Finished);
        request.key = None;
        (number, Command::Begin(Box::new(request)))
    };
    let mut batch: Vec<_> = (0..AT_ONCE).map(|n| begin(first + n)).collect();
    next += AT_ONCE;
    while done < count {
        client.sender.send(std::mem::take(&mut batch)).await.unwrap();
        for item in client.inbox.recv().await.unwrap() {
            let Item::Reply { reply, .. } = item else { continue };
            let Reply::Outcome(outcome) = reply else { panic!("{reply:?}") };
            assert_eq!(outcome.state, PublicState::Committed);
            done += 1;
            if next < first + count {
                batch.push(begin(next));
                next += 1;
            }
        }
        // The test's own service must not be what grows.
        ledger.lock().unwrap().ended.clear();
    }
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4_096
}
