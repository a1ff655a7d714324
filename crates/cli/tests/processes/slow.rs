//! Somebody who is slow, or does not answer at all, delays only what it takes part in itself (I14):
//! a service its own transactions, a group of subscribers its own deliveries.

use std::path::Path;
use std::time::Duration;

use handfast::service::rusqlite::Connection as Db;
use handfast::service::{Handler, HandlerError, No, Prepared, SqliteStore};
use handfast::{
    Delivery, Event, Handfast, Item, Start, State, Subscription, TopicSettings, Transaction,
    TransactionError, TransactionId, Wait,
};
use handfast_wire::v1::from_participant::Message as From;
use handfast_wire::v1::participants_client::ParticipantsClient;
use handfast_wire::v1::to_participant::Message as To;
use handfast_wire::{bytes::Bytes, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

use crate::server::Server;

/// Transactions that the slow one takes part in, and that it does not.
const SLOW: usize = 50;
const QUICK: usize = 200;

/// Says YES to everything and has nothing to do.
struct Willing;

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

/// The service `slow`, which says what the test says.
struct Slow {
    sending: mpsc::Sender<v1::FromParticipantFrame>,
    frames: Streaming<v1::ToParticipantFrame>,
}

impl Slow {
    async fn attach(server: &Server) -> Self {
        let (sending, stream) = mpsc::channel(16);
        let channel = Endpoint::from_shared(server.url()).unwrap().connect_lazy();
        let mut client = ParticipantsClient::new(channel);
        let frames = client.attach(ReceiverStream::new(stream)).await.unwrap().into_inner();
        let mut this = Self { sending, frames };
        let (service, instance) = ("slow".to_owned(), "one".to_owned());
        let state_id = vec![9; 16].into();
        this.say(vec![From::Attach(v1::AttachRequest { service, instance, state_id })]).await;
        let attached = this.frames.message().await.unwrap().unwrap().messages;
        assert_eq!(attached.len(), 1, "{attached:?}");
        this
    }

    async fn say(&self, messages: Vec<From>) {
        let messages = (1..)
            .zip(messages)
            .map(|(request, message)| v1::FromParticipant { request, message: Some(message) });
        let frame = v1::FromParticipantFrame { messages: messages.collect() };
        self.sending.send(frame).await.unwrap();
    }

    /// Waits until it was asked to prepare so many different transactions.
    async fn asked(&mut self, count: usize) -> Vec<Bytes> {
        let mut asked = Vec::new();
        while asked.len() < count {
            for message in self.frames.message().await.unwrap().unwrap().messages {
                if let Some(To::Prepare(prepare)) = message.message
                    && !asked.contains(&prepare.transaction_id)
                {
                    asked.push(prepare.transaction_id);
                }
            }
        }
        asked
    }
}

fn over(services: &[&str], deadline: Duration) -> Transaction {
    let mut transaction = Transaction::new();
    for service in services {
        transaction.call(*service, "work");
    }
    transaction.with_deadline(deadline).with_wait(Wait::Decided);
    transaction
}

/// As many as there are, one after the other; all of them commit.
async fn quick_ones(hf: &Handfast) {
    for _ in 0..QUICK {
        let mut transaction = over(&["quick"], Duration::from_secs(60));
        transaction.with_wait(Wait::Finished);
        let committed = hf.run(transaction).await;
        assert!(committed.expect("the slow one has nothing to do with it").finished);
    }
}

/// A server, and the service `quick`.
async fn with_quick(directory: &Path) -> (Server, Handfast) {
    let server = Server::start(&directory.join("store"));
    let hf = Handfast::connect(server.url()).await.unwrap();
    let store = SqliteStore::open(directory.join("quick.db")).unwrap();
    let quick = hf.service("quick").instance("one").store(store).handler(Willing);
    tokio::spawn(quick.run(std::future::pending()));
    (server, hf)
}

/// A transaction may take its time before it asks a service for the first time, whatever others do
/// with that service and however soon their outcomes are of no use any more (P2).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_takes_its_time_commits_beside_others() {
    let directory = tempfile::tempdir().unwrap();
    let (_server, hf) = with_quick(directory.path()).await;

    let mut leisurely = hf.begin().await.unwrap();
    // Longer than outcomes are kept when nobody else is there.
    let until = tokio::time::Instant::now() + Duration::from_millis(2_600);
    while tokio::time::Instant::now() < until {
        hf.run(over(&["quick"], Duration::from_secs(60))).await.unwrap();
    }
    leisurely.call("quick", "work").await.unwrap();
    leisurely.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_does_not_answer_delays_only_its_own_transactions() {
    let directory = tempfile::tempdir().unwrap();
    let (server, hf) = with_quick(directory.path()).await;
    let mut slow = Slow::attach(&server).await;

    let slow_ones: Vec<_> = (0..SLOW)
        .map(|_| {
            let hf = hf.clone();
            let transaction = over(&["slow", "quick"], Duration::from_secs(3_000));
            tokio::spawn(async move { hf.run(transaction).await })
        })
        .collect();
    let asked = slow.asked(SLOW).await;
    quick_ones(&hf).await;
    assert!(slow_ones.iter().all(|one| !one.is_finished()), "nobody has voted for them");
    let open = hf.transactions(None, 1_000).await.unwrap();
    let waiting = open.iter().filter(|tx| tx.state == State::Preparing).count();
    assert_eq!(waiting, SLOW, "each waits for its deadline");

    // Those whose deadline comes end with it, and say for whom they have waited.
    for _ in 0..3 {
        let failed = hf.run(over(&["slow", "quick"], Duration::from_millis(50))).await;
        let error = failed.expect_err("nobody has voted");
        let TransactionError::Failed { reason, .. } = &error else { panic!("{error:?}") };
        let found = (reason.code.as_str(), reason.participant.as_str());
        assert_eq!(found, ("deadline_passed", "slow"));
    }

    // It votes at last, and then does not say that it has committed.
    let vote = v1::VoteKind::Yes.into();
    let yes = |id: &Bytes| {
        From::Vote(v1::Vote { transaction_id: id.clone(), vote, ..Default::default() })
    };
    slow.say(asked.iter().map(yes).collect()).await;
    for one in slow_ones {
        assert!(!one.await.unwrap().expect("decided").finished);
    }
    quick_ones(&hf).await;
    let open = hf.transactions(None, 1_000).await.unwrap();
    let finishing = open.iter().filter(|tx| tx.state == State::Committing).count();
    assert_eq!(finishing, SLOW, "each is kept until it is finished");
}

fn number(n: usize) -> Event {
    Event::new("number", "/test").with_id(n.to_string())
}

async fn publish(hf: &Handfast, numbers: std::ops::Range<usize>) {
    for n in numbers {
        hf.publish("numbers", number(n)).await.unwrap();
    }
}

async fn open(hf: &Handfast, group: &str, credit: u32) -> Subscription {
    let group = hf.subscribe(group).on("numbers").with_start(Start::Earliest);
    group.with_credit(credit).open().await.unwrap()
}

async fn next(subscription: &mut Subscription, expected: usize) -> Delivery {
    let Some(Item::Event(delivery)) = subscription.next().await.unwrap() else {
        panic!("neither a gap nor an end")
    };
    assert_eq!(delivery.event.id, expected.to_string(), "in order, and each once");
    delivery
}

/// Takes and acknowledges them.
async fn take(subscription: &mut Subscription, numbers: std::ops::Range<usize>) {
    for n in numbers {
        next(subscription, n).await.acknowledge().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_acknowledges_nothing_delays_neither_publishers_nor_other_groups() {
    const EVENTS: usize = 500;
    const CREDIT: usize = 10;
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("store"));
    let hf = Handfast::connect(server.url()).await.unwrap();
    hf.create_topic("numbers", TopicSettings::new()).await.unwrap();
    let mut stuck = open(&hf, "stuck", CREDIT as u32).await;
    let mut quick = open(&hf, "quick", 100).await;
    publish(&hf, 0..CREDIT).await;
    let mut held = Vec::new();
    for n in 0..CREDIT {
        held.push(next(&mut stuck, n).await);
    }
    // It has all that it takes at once, and keeps it.
    let (publishing, taking) = (publish(&hf, CREDIT..EVENTS), take(&mut quick, 0..EVENTS));
    tokio::join!(publishing, taking);
    assert_eq!(hf.subscription("quick").await.unwrap().backlog, 0);
    assert_eq!(hf.subscription("stuck").await.unwrap().backlog, EVENTS as u64);

    for delivery in held {
        delivery.acknowledge().await.unwrap();
    }
    take(&mut stuck, CREDIT..EVENTS).await;
    assert_eq!(hf.subscription("stuck").await.unwrap().backlog, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_is_far_behind_delays_neither_publishers_nor_other_groups() {
    const BEFORE: usize = 2_000;
    const EVENTS: usize = 2_500;
    let directory = tempfile::tempdir().unwrap();
    // Little is kept in memory, so that the one that is behind has to be served from the disk.
    let config = "[journal]\nrecent_bytes = 65536\n";
    let server = Server::start_with(&directory.path().join("store"), config);
    let hf = Handfast::connect(server.url()).await.unwrap();
    hf.create_topic("numbers", TopicSettings::new()).await.unwrap();
    let mut quick = open(&hf, "quick", 100).await;
    let all: Vec<_> = (0..BEFORE).map(|n| ("numbers", number(n))).collect();
    for batch in all.chunks(500) {
        hf.publish_all(batch.to_vec()).await.unwrap();
    }
    take(&mut quick, 0..BEFORE).await;

    let mut late = open(&hf, "late", 100).await;
    assert_eq!(hf.subscription("late").await.unwrap().backlog, BEFORE as u64);
    let (publishing, taking) = (publish(&hf, BEFORE..EVENTS), take(&mut quick, BEFORE..EVENTS));
    tokio::join!(publishing, taking, take(&mut late, 0..EVENTS));
    for group in ["quick", "late"] {
        assert_eq!(hf.subscription(group).await.unwrap().backlog, 0, "{group}");
    }
}
