//! The real server is killed with SIGKILL again and again under load; every acknowledged commit
//! and every acknowledged event is there afterwards (I5), and nothing stays in doubt (I13).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use handfast::service::rusqlite::Connection as Db;
use handfast::service::{Handler, HandlerError, No, Prepared, SqliteStore};
use handfast::{Event, Handfast, ReadItem, Start, TopicSettings, TransactionError, TransactionId};
use tokio::sync::{Notify, oneshot};

use crate::server::Server;

const KILLS: u64 = 50;
/// Acknowledgements between two kills.
const BETWEEN: u64 = 40;
const CLIENTS: u64 = 24;

/// Counts in its database, once for each commit.
struct Counter;

impl Handler<Db> for Counter {
    fn prepare(&self, _: &Db, _: TransactionId, work: &[u8]) -> Result<Prepared, No> {
        if work == b"refuse" { Err(No::new("asked to refuse")) } else { Ok(Prepared::Yes) }
    }

    fn commit(&self, db: &Db, id: TransactionId, _: &[u8]) -> Result<(), HandlerError> {
        db.execute("INSERT INTO effect (id) VALUES (?1)", [id.to_string()])?;
        Ok(())
    }

    fn abort(&self, _: &Db, _: TransactionId, _: &[u8]) -> Result<(), HandlerError> {
        Ok(())
    }
}

/// What clients have been told.
#[derive(Default)]
struct Told {
    committed: Mutex<BTreeSet<TransactionId>>,
    failed: Mutex<BTreeSet<TransactionId>>,
    published: Mutex<BTreeMap<u64, String>>,
    acknowledged: AtomicU64,
    progress: Notify,
    over: AtomicBool,
}

impl Told {
    fn note(&self) {
        self.acknowledged.fetch_add(1, Ordering::SeqCst);
        self.progress.notify_one();
    }
}

async fn client(hf: Handfast, told: Arc<Told>, client: u64) {
    for number in 0.. {
        if told.over.load(Ordering::SeqCst) {
            return;
        }
        let key = format!("{client}-{number}");
        if number % 4 == 3 {
            let event = Event::new("note", "/test").with_id(&key);
            match hf.publish("notes", event).await {
                Ok(published) => {
                    if let Some(offset) = published.offset {
                        told.published.lock().unwrap().insert(offset, key);
                    }
                    told.note();
                }
                Err(error) => panic!("a publish has 60 s for it: {error}"),
            }
            continue;
        }
        let work = if number % 8 == 5 { "refuse" } else { "work" };
        let outcome = hf
            .transaction(|tx| {
                tx.call("counter", work);
                tx.publish("effects", Event::new("effect", "/test").with_id(&key));
            })
            .await;
        match outcome {
            Ok(committed) => {
                told.committed.lock().unwrap().insert(committed.id);
                told.note();
            }
            Err(TransactionError::Failed { id, .. }) => {
                told.failed.lock().unwrap().insert(id);
                told.note();
            }
            Err(TransactionError::Unknown { .. }) => {}
            Err(error) => panic!("nobody refuses this: {error}"),
        }
    }
}

async fn connect(url: &str) -> Handfast {
    let builder = Handfast::builder(url).with_time_limit(Duration::from_secs(60));
    builder.with_wait_for_server(Duration::from_secs(60)).connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_under_load_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(&directory.path().join("store"));
    let hf = connect(&server.url()).await;
    for topic in ["effects", "notes"] {
        hf.create_topic(topic, TopicSettings::new()).await.unwrap();
    }

    let store = SqliteStore::open(directory.path().join("counter.db")).unwrap();
    store.connection().execute_batch("CREATE TABLE effect (id TEXT PRIMARY KEY)").unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let service = hf.service("counter").instance("one").store(store).handler(Counter);
    let service = tokio::spawn(service.run(async {
        let _ = stopped.await;
    }));

    let told = Arc::new(Told::default());
    let clients: Vec<_> =
        (0..CLIENTS).map(|n| tokio::spawn(client(hf.clone(), Arc::clone(&told), n))).collect();
    for kill in 1..=KILLS {
        while told.acknowledged.load(Ordering::SeqCst) < kill * BETWEEN {
            told.progress.notified().await;
        }
        server.kill();
        server.restart();
    }
    told.over.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }

    // Everything ends, and what was told stands.
    while !hf.transactions(None, 1).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let committed = told.committed.lock().unwrap().clone();
    for id in &committed {
        let outcome = hf.status(*id).await.unwrap();
        assert_eq!(outcome.state, handfast::State::Committed, "I5: {id}");
    }
    let failed = told.failed.lock().unwrap().clone();
    for id in &failed {
        if let Ok(outcome) = hf.status(*id).await {
            assert_eq!(outcome.state, handfast::State::Failed, "I4: {id}");
        }
    }
    let effects = read(&hf, "effects").await;
    let by_transaction: BTreeSet<_> = effects.values().filter_map(|(_, id)| *id).collect();
    assert_eq!(by_transaction.len(), effects.len(), "one event for each transaction");
    assert!(by_transaction.is_superset(&committed), "I7: an event of a commit is lost");
    let notes = read(&hf, "notes").await;
    for (offset, key) in told.published.lock().unwrap().iter() {
        assert_eq!(notes.get(offset).map(|(id, _)| id), Some(key), "I5: offset {offset}");
    }
    let distinct: BTreeSet<_> = notes.values().map(|(id, _)| id).collect();
    assert_eq!(distinct.len(), notes.len(), "a publish that was repeated is there once");

    let _ = stop.send(());
    service.await.unwrap().unwrap();
    let db = SqliteStore::open(directory.path().join("counter.db")).unwrap();
    let ids = |sql: &str| -> BTreeSet<TransactionId> {
        let mut statement = db.connection().prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        rows.map(|id| id.unwrap().parse().unwrap()).collect()
    };
    assert_eq!(ids("SELECT id FROM effect"), by_transaction, "I1, I9: effects and events agree");
    assert!(committed.len() as u64 > KILLS, "{} commits", committed.len());
}

/// Everything in a topic: offset to event id and transaction.
async fn read(hf: &Handfast, topic: &str) -> BTreeMap<u64, (String, Option<TransactionId>)> {
    let mut events = hf.read(topic, Start::Earliest).open().await.unwrap();
    let mut found = BTreeMap::new();
    while let Some(item) = events.next().await.unwrap() {
        if let ReadItem::Event(stored) = item {
            let entry = (stored.event.id, stored.transaction);
            assert!(found.insert(stored.offset, entry).is_none(), "an offset twice");
        }
    }
    found
}
