//! Real time: the service's thread does not know the test's clock. Nothing here waits for a timer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use handfast::TransactionId;
use handfast::service::{Handler, HandlerError, No, Prepared, ServiceError, SqliteStore};
use handfast_core::refusal::Refusal;
use handfast_wire::v1::from_participant::Message as From;
use handfast_wire::v1::to_participant::Message as To;
use handfast_wire::{ids, status, v1};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::fake::{Attaching, Fake};

/// Says NO to work that begins with "no".
struct Payments;

impl<Db: ?Sized> Handler<Db> for Payments {
    fn prepare(&self, _: &Db, _: TransactionId, work: &[u8]) -> Result<Prepared, No> {
        if work.starts_with(b"no") { Err(No::new("it says so")) } else { Ok(Prepared::Yes) }
    }

    fn commit(&self, _: &Db, _: TransactionId, _: &[u8]) -> Result<(), HandlerError> {
        Ok(())
    }

    fn abort(&self, _: &Db, _: TransactionId, _: &[u8]) -> Result<(), HandlerError> {
        Ok(())
    }
}

struct Running {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), ServiceError>>,
}

fn run(hf: &handfast::Handfast, directory: &TempDir) -> Running {
    let store = SqliteStore::open(directory.path().join("payments.db")).expect("a store");
    let (stop, stopped) = oneshot::channel();
    let service = hf.service("payments").instance("payments-1").store(store).handler(Payments);
    let ended = tokio::spawn(service.run(async {
        drop(stopped.await);
    }));
    Running { stop, ended }
}

/// A transaction that began now, so that it is not taken for one long forgotten.
fn id(n: u8) -> TransactionId {
    let mut bytes = *uuid::Uuid::now_v7().as_bytes();
    bytes[15] = n;
    TransactionId(u128::from_be_bytes(bytes))
}

async fn accept(fake: &mut Fake) -> (Attaching, v1::AttachRequest) {
    let mut stream = fake.attaches.recv().await.expect("a stream");
    let mut first = stream.frame().await.messages;
    let Some(v1::FromParticipant { request, message: Some(From::Attach(attach)) }) = first.pop()
    else {
        panic!("not `attach`")
    };
    assert!(first.is_empty());
    let attached = v1::ToParticipant {
        request,
        message: Some(To::Attached(v1::Attached { store_id: vec![1; 16].into() })),
    };
    stream.send(v1::ToParticipantFrame { messages: vec![attached] }).await;
    (stream, attach)
}

async fn say(stream: &Attaching, messages: Vec<To>) {
    let messages =
        messages.into_iter().map(|to| v1::ToParticipant { request: 0, message: Some(to) });
    stream.send(v1::ToParticipantFrame { messages: messages.collect() }).await;
}

fn prepare(id: TransactionId, work: &'static [u8]) -> To {
    To::Prepare(v1::Prepare {
        transaction_id: ids::transaction_bytes(id),
        work: Some(work.into()),
        remaining_ms: 30_000,
        epoch: 1,
        lsn: 9,
    })
}

/// The service's next messages.
async fn said(stream: &mut Attaching) -> Vec<From> {
    let messages = stream.frame().await.messages;
    messages.into_iter().map(|m| m.message.expect("a message")).collect()
}

fn vote(message: &From) -> (v1::VoteKind, &str) {
    let From::Vote(vote) = message else { panic!("{message:?}") };
    (vote.vote(), &vote.reason)
}

#[tokio::test]
async fn a_batch_is_answered_in_one_frame() {
    let mut fake = Fake::start();
    let directory = tempfile::tempdir().unwrap();
    let hf = fake.connect().await;
    let running = run(&hf, &directory);
    let (mut stream, attach) = accept(&mut fake).await;
    assert_eq!((attach.service.as_str(), attach.instance.as_str()), ("payments", "payments-1"));
    assert_eq!(attach.state_id.len(), 16);
    let (a, b) = (id(1), id(2));
    say(&stream, vec![prepare(a, b"take 100"), prepare(b, b"no")]).await;
    let answers = said(&mut stream).await;
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert_eq!(vote(&answers[0]).0, v1::VoteKind::Yes);
    assert_eq!(vote(&answers[1]), (v1::VoteKind::No, "it says so"));

    let transaction_id = ids::transaction_bytes(a);
    say(&stream, vec![To::Commit(v1::CommitBranch { transaction_id, epoch: 1, lsn: 1 })]).await;
    let answers = said(&mut stream).await;
    assert!(matches!(&answers[..], [From::Finished(f)] if f.committed), "{answers:?}");

    running.stop.send(()).expect("it runs");
    stream.end().await;
    drop(stream);
    running.ended.await.expect("no panic").expect("it stopped as it was told");
}

#[tokio::test]
async fn on_each_connection_it_asks_first_about_what_is_in_doubt() {
    let mut fake = Fake::start();
    let directory = tempfile::tempdir().unwrap();
    let hf = fake.connect().await;
    let running = run(&hf, &directory);
    let (mut stream, first) = accept(&mut fake).await;
    let a = id(1);
    say(&stream, vec![prepare(a, b"take 100")]).await;
    assert_eq!(vote(&said(&mut stream).await[0]).0, v1::VoteKind::Yes);
    stream.cut().await;

    let (mut stream, second) = accept(&mut fake).await;
    assert_eq!(first.state_id, second.state_id);
    let asked = said(&mut stream).await;
    let transaction_id = ids::transaction_bytes(a);
    assert!(
        matches!(&asked[..], [From::Inquire(i)] if i.transaction_id == transaction_id),
        "{asked:?}"
    );
    // It is killed, and its successor asks too.
    running.ended.abort();
    drop(stream);
    let running = run(&hf, &directory);
    let (mut stream, third) = accept(&mut fake).await;
    assert_eq!(first.state_id, third.state_id);
    let asked = said(&mut stream).await;
    assert!(matches!(&asked[..], [From::Inquire(_)]), "{asked:?}");
    say(&stream, vec![To::Abort(v1::AbortBranch { transaction_id })]).await;
    let answers = said(&mut stream).await;
    assert!(matches!(&answers[..], [From::Finished(f)] if !f.committed), "{answers:?}");
    drop(running);
}

#[tokio::test]
async fn an_instance_that_was_replaced_stops() {
    let mut fake = Fake::start();
    let directory = tempfile::tempdir().unwrap();
    let hf = fake.connect().await;
    let running = run(&hf, &directory);
    let (stream, _) = accept(&mut fake).await;
    let refusal = Refusal::new(handfast::Code::NotAttached, "a newer stream has attached");
    stream.end_with(status::status(refusal)).await;
    let error = running.ended.await.expect("no panic").expect_err("it was replaced");
    assert!(matches!(&error, ServiceError::Refused(r) if r.is(handfast::Code::NotAttached)));
}

#[tokio::test]
async fn shutdown_is_heard_while_nothing_answers() {
    let fake = Fake::start();
    let directory = tempfile::tempdir().unwrap();
    let hf = fake.connect().await;
    fake.down(true);
    let running = run(&hf, &directory);
    running.stop.send(()).expect("it runs");
    running.ended.await.expect("no panic").expect("it stopped as it was told");
}

/// What the handler does is not cut short by a shutdown: its vote is sent.
#[tokio::test]
async fn shutdown_finishes_the_batch_under_way() {
    struct Slow(Arc<AtomicBool>, std::sync::Mutex<std::sync::mpsc::Receiver<()>>);

    impl<Db: ?Sized> Handler<Db> for Slow {
        fn prepare(&self, _: &Db, _: TransactionId, _: &[u8]) -> Result<Prepared, No> {
            self.0.store(true, Ordering::SeqCst);
            self.1.lock().expect("no panic").recv().expect("the test goes on");
            Ok(Prepared::Yes)
        }

        fn commit(&self, _: &Db, _: TransactionId, _: &[u8]) -> Result<(), HandlerError> {
            Ok(())
        }

        fn abort(&self, _: &Db, _: TransactionId, _: &[u8]) -> Result<(), HandlerError> {
            Ok(())
        }
    }

    let mut fake = Fake::start();
    let directory = tempfile::tempdir().unwrap();
    let hf = fake.connect().await;
    let begun = Arc::new(AtomicBool::new(false));
    let (go_on, wait) = std::sync::mpsc::channel();
    let store = SqliteStore::open(directory.path().join("slow.db")).expect("a store");
    let slow = Slow(Arc::clone(&begun), std::sync::Mutex::new(wait));
    let (stop, stopped) = oneshot::channel::<()>();
    let service = hf.service("slow").store(store).handler(slow);
    let ended = tokio::spawn(service.run(async {
        drop(stopped.await);
    }));
    let (mut stream, _) = accept(&mut fake).await;
    say(&stream, vec![prepare(id(1), b"w")]).await;
    while !begun.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
    stop.send(()).expect("it runs");
    tokio::task::yield_now().await;
    go_on.send(()).expect("it waits");
    assert_eq!(vote(&said(&mut stream).await[0]).0, v1::VoteKind::Yes);
    stream.end().await;
    drop(stream);
    ended.await.expect("no panic").expect("it stopped as it was told");
}
