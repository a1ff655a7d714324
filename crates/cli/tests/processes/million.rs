//! A million events, published through the real server and read back in order by two consumer
//! groups (I7, I8, I11).

use std::time::Duration;

use handfast::{Event, Handfast, Item, Start, TopicSettings};

use crate::server::Server;

const EVENTS: u64 = 1_000_000;
const BATCH: u64 = 500;
/// Batches under way.
const AT_ONCE: usize = 16;
/// Keys; the events of each have to come in their order.
const KEYS: u64 = 997;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_events_reach_two_groups_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("store"));
    let builder = Handfast::builder(server.url()).with_time_limit(Duration::from_secs(60));
    let hf = builder.connect().await.unwrap();
    hf.create_topic("numbers", TopicSettings::new()).await.unwrap();

    let groups: Vec<_> =
        ["odd", "even"].map(|group| tokio::spawn(consume(hf.clone(), group))).into_iter().collect();
    let mut under_way = tokio::task::JoinSet::new();
    for first in (0..EVENTS).step_by(BATCH as usize) {
        if under_way.len() == AT_ONCE {
            under_way.join_next().await.unwrap().unwrap();
        }
        let hf = hf.clone();
        let events: Vec<_> = (first..first + BATCH).map(|n| ("numbers", number(n))).collect();
        // The batches are begun in their order, and one stream keeps it.
        let publish = async move { hf.publish_all(events).await.unwrap() };
        under_way.spawn(publish);
        tokio::task::yield_now().await;
    }
    while let Some(published) = under_way.join_next().await {
        published.unwrap();
    }
    for group in groups {
        group.await.unwrap();
    }
}

fn number(n: u64) -> Event {
    Event::new("number", "/test")
        .with_id(n.to_string())
        .with_key((n % KEYS).to_string())
        .with_data(n.to_be_bytes().to_vec())
}

/// Takes every event once, in the order of its key, by offset.
async fn consume(hf: Handfast, group: &str) {
    let mut subscription = hf
        .subscribe(group)
        .on("numbers")
        .with_start(Start::Earliest)
        .with_credit(5_000)
        .open()
        .await
        .unwrap();
    let mut seen = vec![false; EVENTS as usize];
    let mut last_offset = vec![None; KEYS as usize];
    for _ in 0..EVENTS {
        let Some(Item::Event(delivery)) = subscription.next().await.unwrap() else {
            panic!("{group}: neither a gap nor an end")
        };
        let n: u64 = delivery.event.id.parse().unwrap();
        let offset = delivery.offset;
        assert!(!seen[n as usize], "{group}: {n} came twice and nothing had failed");
        seen[n as usize] = true;
        let last = &mut last_offset[(n % KEYS) as usize];
        assert!(*last < Some(offset), "I11: {group}: {offset} after {last:?}");
        *last = Some(offset);
        // Not waited for: the answers of many are one frame.
        drop(delivery.acknowledge());
    }
    assert!(seen.iter().all(|seen| *seen), "I7: {group} misses some");
}
