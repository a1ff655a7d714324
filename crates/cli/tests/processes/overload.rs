//! More clients than the server takes: those beyond the limit are told when to come again, those who
//! wait for that get in, and whatever was taken is there afterwards (I5, I9, I15).

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use handfast::service::rusqlite::Connection as Db;
use handfast::service::{Handler, HandlerError, No, Prepared, SqliteStore};
use handfast::{Code, Event, Handfast, ReadItem, Start, TopicSettings};
use handfast::{Transaction, TransactionError, TransactionId};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::server::Server;

/// What the server takes at once.
const OPEN: usize = 8;
const CLIENTS: usize = 100;
/// Transactions of each of them.
const EACH: usize = 20;

fn config() -> String {
    format!("[limits]\nopen_transactions = {OPEN}\n")
}

/// One that waits, and one that hands refusals on.
async fn connect(server: &Server) -> (Handfast, Handfast) {
    let builder = Handfast::builder(server.url()).with_time_limit(Duration::from_secs(300));
    let patient = builder.clone().connect().await.unwrap();
    (patient, builder.with_retry_when_busy(false).connect().await.unwrap())
}

fn made(number: usize) -> Event {
    Event::new("made", "/test").with_id(number.to_string())
}

fn publishing(number: usize) -> Transaction {
    let mut transaction = Transaction::new();
    transaction.publish("made", made(number));
    transaction
}

/// Of somebody who did not get in.
fn check_refusal(error: &TransactionError) {
    let TransactionError::Refused(refusal) = error else { panic!("{error:?}") };
    assert!(refusal.is(Code::TooManyTransactions), "{refusal}");
    assert!(refusal.is_retryable() && !refusal.retry_after.is_zero(), "{refusal:?}");
}

/// Every event by its id, with its transaction; each is there once.
async fn events(hf: &Handfast) -> BTreeMap<usize, TransactionId> {
    let mut found = BTreeMap::new();
    let mut events = hf.read("made", Start::Earliest).open().await.unwrap();
    while let Some(item) = events.next().await.unwrap() {
        let ReadItem::Event(stored) = item else { panic!("nothing was removed") };
        let number = stored.event.id.parse().unwrap();
        let transaction = stored.transaction.unwrap();
        assert_eq!(found.insert(number, transaction), None, "I9: event {number} is there twice");
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_wait_get_in_when_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(&directory.path().join("store"), &config());
    let (patient, hasty) = connect(&server).await;
    patient.create_topic("made", TopicSettings::new()).await.unwrap();
    let mut open = Vec::new();
    for number in 0..OPEN {
        let mut tx = hasty.begin().await.unwrap();
        tx.publish("made", made(number)).await.unwrap();
        open.push(tx);
    }
    let waiting: Vec<_> = (OPEN..OPEN + CLIENTS)
        .map(|number| {
            let hf = patient.clone();
            tokio::spawn(async move { hf.run(publishing(number)).await })
        })
        .collect();
    for number in 0..CLIENTS {
        check_refusal(&hasty.run(publishing(1_000 + number)).await.unwrap_err());
    }
    assert!(waiting.iter().all(|one| !one.is_finished()), "there is no room for anybody");
    assert_eq!(hasty.server_status().await.unwrap().open_transactions, Some(OPEN as u64));

    let mut told = BTreeMap::new();
    for (number, tx) in open.into_iter().enumerate() {
        told.insert(number, tx.commit().await.unwrap().id);
    }
    for (number, one) in (OPEN..).zip(waiting) {
        told.insert(number, one.await.unwrap().unwrap().id);
    }
    let after = OPEN + CLIENTS;
    // A client that was refused holds back for so long.
    tokio::time::sleep(Duration::from_secs(1)).await;
    told.insert(after, hasty.run(publishing(after)).await.unwrap().id);
    assert_eq!(events(&hasty).await, told);
}

/// Votes YES, but not before it is let.
struct Held(Arc<(Mutex<bool>, Condvar)>);

impl Handler<Db> for Held {
    fn prepare(&self, _: &Db, _: TransactionId, _: &[u8]) -> Result<Prepared, No> {
        let (let_go, changed) = &*self.0;
        drop(changed.wait_while(let_go.lock().unwrap(), |let_go| !*let_go).unwrap());
        Ok(Prepared::Yes)
    }

    fn commit(&self, db: &Db, id: TransactionId, _: &[u8]) -> Result<(), HandlerError> {
        db.execute("INSERT INTO effect (id) VALUES (?1)", [id.to_string()])?;
        Ok(())
    }

    fn abort(&self, _: &Db, _: TransactionId, _: &[u8]) -> Result<(), HandlerError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_is_there_and_what_was_refused_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start_with(&directory.path().join("store"), &config());
    let (patient, hasty) = connect(&server).await;
    patient.create_topic("made", TopicSettings::new()).await.unwrap();
    let store = SqliteStore::open(directory.path().join("counter.db")).unwrap();
    store.connection().execute_batch("CREATE TABLE effect (id TEXT PRIMARY KEY)").unwrap();
    let let_go = Arc::new((Mutex::new(false), Condvar::new()));
    let service = patient.service("counter").instance("one").store(store);
    let service = service.handler(Held(Arc::clone(&let_go)));
    let (stop, stopped) = oneshot::channel::<()>();
    let service = tokio::spawn(service.run(async {
        let _ = stopped.await;
    }));

    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (hasty, let_go) = (hasty.clone(), Arc::clone(&let_go));
        clients.spawn(async move {
            let (mut committed, mut refused) = (BTreeMap::new(), 0);
            for number in client * EACH..(client + 1) * EACH {
                let mut transaction = publishing(number);
                transaction.call("counter", "work");
                match hasty.run(transaction).await {
                    Ok(done) => drop(committed.insert(number, done.id)),
                    Err(error) => {
                        check_refusal(&error);
                        refused += 1;
                        // The first who is refused lets those go on who were taken.
                        *let_go.0.lock().unwrap() = true;
                        let_go.1.notify_all();
                    }
                }
            }
            (committed, refused)
        });
    }
    let (mut told, mut refused) = (BTreeMap::new(), 0);
    while let Some(client) = clients.join_next().await {
        let (committed, not_taken) = client.unwrap();
        told.extend(committed);
        refused += not_taken;
    }
    assert_eq!(told.len() + refused, CLIENTS * EACH, "everybody was answered");
    assert!(refused > 0 && told.len() >= OPEN, "{refused} refused, {} committed", told.len());

    // Right after it the server takes as much as ever; and what it has told survives it.
    let mut transaction = publishing(CLIENTS * EACH);
    transaction.call("counter", "work");
    told.insert(CLIENTS * EACH, patient.run(transaction).await.unwrap().id);
    server.kill();
    server.restart();
    while !patient.transactions(None, 1).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(events(&patient).await, told, "I5, I8");
    let _ = stop.send(());
    service.await.unwrap().unwrap();
    let db = SqliteStore::open(directory.path().join("counter.db")).unwrap();
    let mut effects = db.connection().prepare("SELECT id FROM effect").unwrap();
    let effects = effects.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let mut effects: Vec<TransactionId> = effects.map(|id| id.unwrap().parse().unwrap()).collect();
    effects.sort_unstable();
    let mut told: Vec<TransactionId> = told.into_values().collect();
    told.sort_unstable();
    assert_eq!(effects, told, "I9: one effect for each that was told to be committed");
}
