//! The machine's clock an hour and a year forward and back, while the node runs and while it does
//! not: no time falls, nothing is forgotten by it, and people hear of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use handfast::service::{Driver, Handler, HandlerError, No, Prepared, ServiceStore, SqliteStore};
use handfast_core::command::{BeginRequest, Command, Wait};
use handfast_core::event::StoredEvent;
use handfast_core::ids::{Digest, Now, Offset, ProducerId, TopicId, TransactionId};
use handfast_core::output::{Fetch, PublicState, Reply, ToService, Wanted};
use handfast_core::record::TopicSettings;
use handfast_journal::Options;
use handfast_server::node::{Item, Node, NodeOptions, WallClock};
use tokio::sync::watch;

use crate::support::{call, create_topic, event, name, run};

const HOUR_MS: u64 = 3_600_000;
const YEAR_MS: u64 = 8_760 * HOUR_MS;
const T_MS: u64 = 1_800_000_000_000;

/// A clock that stands until it is set.
#[derive(Clone)]
struct Hands(Arc<AtomicU64>);

impl Hands {
    fn at(unix_ms: u64) -> Self {
        Self(Arc::new(AtomicU64::new(unix_ms)))
    }

    fn set(&self, unix_ms: u64) {
        self.0.store(unix_ms, Ordering::Relaxed);
    }

    fn open(&self, directory: &Path) -> Node {
        let hands = Arc::clone(&self.0);
        let wall_clock = WallClock::told_by(move || hands.load(Ordering::Relaxed));
        // Segments of which a few are full soon.
        let journal =
            Options::default().with_segment_bytes(5 << 20).with_preallocate_bytes(1 << 20);
        let options = NodeOptions::default().with_wall_clock(wall_clock).with_journal(journal);
        Node::open(directory, options, &mut |_| {}).unwrap()
    }
}

/// A transaction over nobody, with one event; its key is its number.
async fn commit(node: &Node, number: u64) -> BeginRequest {
    let request = run(node.new_transaction_id(), number, &[], Wait::Finished);
    match call(node, Command::Begin(Box::new(request.clone()))).await {
        Reply::Outcome(_) => request,
        other => panic!("{other:?}"),
    }
}

async fn publish(node: &Node, topic: &str, sequence: u64, bytes: usize) {
    let mut large = event(topic, sequence);
    large.body = vec![7; bytes].into();
    let (producer, digest, events) = (ProducerId(9), Digest(sequence), vec![large]);
    let command = Command::Publish { producer, sequence, digest, events };
    let reply = call(node, command).await;
    assert!(matches!(reply, Reply::Published { repeated: false, .. }), "{reply:?}");
}

async fn events(node: &Node, topic: TopicId) -> Vec<StoredEvent> {
    let wanted = Wanted::Range { from: Offset(0), to: Offset(1 << 40), max_events: 1_000 };
    let fetch = Fetch { fetch: 0, topic, wanted, max_bytes: 64 << 20 };
    node.fetch(fetch).await.unwrap().0
}

async fn topic(node: &Node, topic: &str) -> (TopicId, Offset) {
    let Reply::Topics(topics) = call(node, Command::ListTopics).await else { panic!() };
    let found = topics.into_iter().find(|t| t.name == name(topic)).unwrap();
    (found.topic, found.start)
}

/// The clock was ahead while the store was made, or ran ahead and was set right, with a restart
/// between or without: ids, times of publication and the search by them fell back behind those of
/// before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_and_ids_never_fall() {
    for by_ms in [HOUR_MS, YEAR_MS] {
        let directory = tempfile::tempdir().unwrap();
        let hands = Hands::at(T_MS + by_ms);
        let mut node = hands.open(directory.path());
        create_topic(&node, "t").await;
        let (topic, _) = topic(&node, "t").await;
        let mut ids = vec![commit(&node, 0).await.id];
        let steps = [(T_MS, true), (T_MS + YEAR_MS, false), (T_MS, false), (T_MS - by_ms, true)];
        for (number, (clock_ms, restart)) in (1..).zip(steps) {
            hands.set(clock_ms);
            if restart {
                drop(node);
                node = hands.open(directory.path());
            }
            ids.push(commit(&node, number).await.id);
        }
        assert!(ids.is_sorted() && ids[0].unix_ms() >= T_MS + by_ms, "{ids:?}");
        let events = events(&node, topic).await;
        let times: Vec<u64> = events.iter().map(|event| event.wall_ms).collect();
        assert_eq!(times.len(), ids.len());
        assert!(times.is_sorted() && times[0] >= T_MS + by_ms, "{times:?}");
        for time in times.iter().copied() {
            let first = times.iter().position(|t| *t >= time).unwrap() as u64;
            assert_eq!(node.offset_at(topic, time).await.unwrap(), Some(Offset(first)));
        }
        let newest = *times.last().unwrap();
        assert_eq!(node.offset_at(topic, newest + 1).await.unwrap(), None);
    }
}

/// Does whatever it is asked to.
struct Willing;

type Db = <SqliteStore as ServiceStore>::Db;

impl Handler<Db> for Willing {
    fn prepare(&self, _: &Db, _: TransactionId, _: &[u8]) -> Result<Prepared, No> {
        Ok(Prepared::Yes)
    }

    fn commit(&self, _: &Db, _: TransactionId, _: &[u8]) -> Result<(), HandlerError> {
        Ok(())
    }

    fn abort(&self, _: &Db, _: TransactionId, _: &[u8]) -> Result<(), HandlerError> {
        Ok(())
    }
}

/// A service on the node, with the client library's own durable state, until the node stops. Says
/// how many outcomes it was told to forget.
fn serve(node: &Node, service: &'static str, path: PathBuf) -> watch::Receiver<usize> {
    let mut connection = node.connect();
    let (forgotten, seen) = watch::channel(0);
    tokio::spawn(async move {
        let mut driver = Driver::new(SqliteStore::open(path).unwrap(), Willing, |report| {
            panic!("{report}");
        });
        let began = Instant::now();
        let now = || Now { mono_ms: began.elapsed().as_millis() as u64, wall_ms: T_MS };
        let (service, instance) = (name(service), name("one"));
        let mut batch = vec![Command::Attach { service, instance, state_id: driver.state_id() }];
        batch.extend(driver.start(now()).unwrap());
        let mut requests = 0..;
        loop {
            if !batch.is_empty() {
                let numbered = batch.drain(..).map(|command| (requests.next().unwrap(), command));
                if connection.sender.send(numbered.collect()).await.is_err() {
                    return;
                }
            }
            let due_ms = driver.next_deadline_ms().saturating_sub(now().mono_ms);
            let heard = connection.inbox.recv();
            let messages = match tokio::time::timeout(Duration::from_millis(due_ms), heard).await {
                Ok(None) => return,
                Ok(Some(items)) => items.into_iter().filter_map(heard_of).collect(),
                Err(_) => Vec::new(),
            };
            batch = driver.process(now(), &messages).unwrap();
            if driver.next_deadline_ms() <= now().mono_ms {
                batch.extend(driver.tick(now()).unwrap());
            }
            for message in &messages {
                if let ToService::Forget { ids } = message {
                    forgotten.send_modify(|count| *count += ids.len());
                }
            }
        }
    });
    seen
}

fn heard_of(item: Item) -> Option<ToService> {
    match item {
        Item::ToService(message) => Some(message),
        Item::Reply { reply: Reply::Forget(ids), .. } => Some(ToService::Forget { ids }),
        _ => None,
    }
}

/// The clock was ahead, services forgot what had ended meanwhile, and when the clock was right again
/// they took every transaction for one of long ago and refused it, until the clock had caught up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_go_on_when_the_clock_is_set_right() {
    for (by_ms, restart) in [(HOUR_MS, true), (YEAR_MS, true), (HOUR_MS, false), (YEAR_MS, false)] {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("store");
        let state = |service: &str| directory.path().join(service);
        let hands = Hands::at(T_MS + by_ms);
        let mut node = hands.open(&store);
        create_topic(&node, "t").await;
        let mut east = serve(&node, "east", state("east"));
        let mut west = serve(&node, "west", state("west"));
        let transact = async |node: &Node, number| {
            let id = node.new_transaction_id();
            let request = run(id, number, &["east", "west"], Wait::Finished);
            match call(node, Command::Begin(Box::new(request))).await {
                Reply::Outcome(outcome) => assert_eq!(
                    outcome.state,
                    PublicState::Committed,
                    "{by_ms} {restart}: {:?}",
                    outcome.reason
                ),
                other => panic!("{other:?}"),
            }
        };
        for number in 0..3 {
            transact(&node, number).await;
        }
        for service in [&mut east, &mut west] {
            service.wait_for(|count| *count == 3).await.unwrap();
        }
        hands.set(T_MS);
        if restart {
            node.shutdown(Duration::ZERO).await;
            drop(node);
            node = hands.open(&store);
            serve(&node, "east", state("east"));
            serve(&node, "west", state("west"));
        }
        for number in 3..6 {
            transact(&node, number).await;
        }
    }
}

/// One reading that was a year ahead made everything a year old: keys were let go of, so that the
/// same transaction was done again, outcomes and retained events went.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leap_forward_makes_nothing_old() {
    for (by_ms, restart) in [(HOUR_MS, false), (YEAR_MS, false), (HOUR_MS, true), (YEAR_MS, true)] {
        let directory = tempfile::tempdir().unwrap();
        let hands = Hands::at(T_MS);
        let mut node = hands.open(directory.path());
        create_topic(&node, "t").await;
        let by_age = TopicSettings { retain_ms: Some(HOUR_MS / 2), ..TopicSettings::default() };
        let by_size = TopicSettings { retain_bytes: Some(1), ..TopicSettings::default() };
        for (topic, settings) in [("aged", by_age), ("sized", by_size)] {
            call(&node, Command::CreateTopic { name: name(topic), settings }).await;
        }
        publish(&node, "aged", 1, 100).await;
        let before = commit(&node, 1).await;
        let unkeyed =
            BeginRequest { key: None, ..run(node.new_transaction_id(), 2, &[], Wait::Finished) };
        call(&node, Command::Begin(Box::new(unkeyed.clone()))).await;
        // Enough that the segment of all this is sealed.
        for sequence in 2..10 {
            publish(&node, "sized", sequence, 900 << 10).await;
        }
        hands.set(T_MS + by_ms);
        if restart {
            drop(node);
            node = hands.open(directory.path());
        }
        // Housekeeping has looked when what goes by size has gone.
        let mut sequence = 10;
        let (_, mut start) = topic(&node, "sized").await;
        let until = Offset(start.0 + 1);
        while start < until || sequence < 20 {
            publish(&node, "sized", sequence, 900 << 10).await;
            sequence += 1;
            start = topic(&node, "sized").await.1;
        }
        let again = run(node.new_transaction_id(), 1, &[], Wait::Finished);
        match call(&node, Command::Begin(Box::new(again))).await {
            Reply::Outcome(outcome) => assert_eq!(outcome.id, before.id, "the key was forgotten"),
            other => panic!("{other:?}"),
        }
        for id in [before.id, unkeyed.id] {
            let reply = call(&node, Command::Status { id, wait: None }).await;
            assert!(matches!(reply, Reply::Outcome(_)), "the outcome was forgotten: {reply:?}");
        }
        let (aged, start) = topic(&node, "aged").await;
        assert_eq!((start, events(&node, aged).await.len()), (Offset(0), 1), "{by_ms} {restart}");
    }
}

/// A clock that is far off was noticed by nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_far_off_is_known() {
    let directory = tempfile::tempdir().unwrap();
    let hands = Hands::at(T_MS);
    let node = hands.open(directory.path());
    let far = |ms: u64| i64::try_from(ms).unwrap();
    assert_eq!((node.info().clock_offset_ms, node.info().away_ms), (0, 0));
    let offset = async |node: &Node| node.stats().await.unwrap().clock_offset_ms;
    hands.set(T_MS + YEAR_MS);
    create_topic(&node, "ahead").await;
    assert!(offset(&node).await > far(YEAR_MS - HOUR_MS));
    hands.set(T_MS - YEAR_MS);
    create_topic(&node, "behind").await;
    assert!(offset(&node).await <= -far(YEAR_MS));
    assert!(node.log_time_ms() >= T_MS && node.log_time_ms() < T_MS + HOUR_MS);
    drop(node);
    let node = hands.open(directory.path());
    assert!(node.info().clock_offset_ms <= -far(YEAR_MS));
    drop(node);
    hands.set(T_MS + YEAR_MS);
    let node = hands.open(directory.path());
    assert_eq!(node.info().clock_offset_ms, 0);
    assert!(node.info().away_ms > YEAR_MS - HOUR_MS);
    assert!(node.stats().await.unwrap().core.uncounted_ms > YEAR_MS - HOUR_MS);
}
