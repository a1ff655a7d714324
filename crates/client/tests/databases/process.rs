//! Consume, write, publish: exactly once, whatever comes again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use handfast::database::{LocalTransaction, ProcessOptions, create_inbox};
use handfast::{Code, Delivery, Error, Event, Gap, Subscription};
use handfast_core::refusal::Refusal;
use handfast_wire::raw::to_subscriber::Message as To;
use handfast_wire::raw::transaction_request::Call;
use handfast_wire::v1::from_subscriber::Message as From;
use handfast_wire::v1::transaction_reply::Result as Answer;
use handfast_wire::{event, raw, v1};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, MySqlPool, PgConnection, PgPool};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::bench::{Maria, Pg, begin_local, committed, transaction, until};
use crate::fake::{Fake, Subscribing};
use crate::proxy::Proxy;

/// What the rows of subscription 3 of store 7 are called.
const INBOX: &str = "00000000000000000000000000000007.3";

type Processing = JoinHandle<Result<Option<Gap>, Error>>;

async fn send(stream: &Subscribing, request: u64, message: To) {
    let messages = vec![raw::ToSubscriber { request, message: Some(message) }];
    stream.send(raw::ToSubscriberFrame { messages }).await;
}

async fn deliver(stream: &Subscribing, offset: u64, attempt: u32) {
    let delivery = raw::Delivery {
        offset,
        token: u64::from(attempt),
        attempt,
        lease_ms: 30_000,
        event: event::encode(&raw::Event::from(Event::new("made", "/bank"))),
        transaction_id: Bytes::new(),
        published_unix_ms: 1_700_000_000_000,
    };
    send(stream, 0, To::Deliveries(raw::Deliveries { deliveries: vec![delivery] })).await;
}

async fn message(stream: &mut Subscribing) -> (u64, From) {
    let mut messages = stream.frame().await.messages;
    assert_eq!(messages.len(), 1, "{messages:?}");
    let message = messages.remove(0);
    (message.request, message.message.unwrap())
}

async fn subscribed(fake: &mut Fake) -> (Subscription, Subscribing) {
    let hf = fake.connect().await;
    let opening = tokio::spawn(hf.subscribe("billing").open());
    let mut stream = fake.subscribes.recv().await.unwrap();
    let (request, _) = message(&mut stream).await;
    let subscribed = v1::SubscriptionReply {
        subscription_id: 3,
        name: "billing".into(),
        topic: "transfers".into(),
        settings: None,
        created: false,
    };
    send(&stream, request, To::Subscribed(subscribed)).await;
    (opening.await.unwrap().unwrap(), stream)
}

/// Waits for an acknowledgement, and says yes to it.
async fn acknowledged(stream: &mut Subscribing, offset: u64, attempt: u32) {
    let (request, sent) = message(stream).await;
    let From::Acknowledge(v1::Acknowledge { deliveries }) = sent else { panic!("{sent:?}") };
    let token = u64::from(attempt);
    assert_eq!(deliveries, [v1::DeliveryRef { subscription_id: 3, offset, token }]);
    send(stream, request, To::Acknowledged(v1::Acknowledged::default())).await;
}

/// Waits until the lease of an event is extended, and says yes to it.
async fn extended(stream: &mut Subscribing, offset: u64) {
    let (request, sent) = message(stream).await;
    let From::ExtendLease(v1::ExtendLease { deliveries }) = sent else { panic!("{sent:?}") };
    assert_eq!(deliveries[0].offset, offset);
    send(stream, request, To::Acknowledged(v1::Acknowledged::default())).await;
}

/// Waits for a rejection; says its reason.
async fn rejected(stream: &mut Subscribing, offset: u64) -> String {
    let (request, sent) = message(stream).await;
    let From::Reject(reject) = sent else { panic!("{sent:?}") };
    assert!(!reject.dead && reject.delivery.unwrap().offset == offset);
    send(stream, request, To::Done(v1::Done {})).await;
    reject.reason
}

/// A row without a key, so that a second run would show.
async fn insert(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO work (id) VALUES (gen_random_uuid())").execute(db).await.map(drop)
}

/// Writes a row for each event.
fn write(mut billing: Subscription, pool: &PgPool) -> Processing {
    let pool = pool.clone();
    tokio::spawn(async move {
        billing.process("billing", &pool, async |_, db, _| insert(db).await).await
    })
}

/// Writes a row for each event and publishes another.
fn write_and_publish(mut billing: Subscription, pool: &PgPool) -> Processing {
    let pool = pool.clone();
    tokio::spawn(async move {
        billing
            .process("billing", &pool, async |_, db, tx| {
                insert(db).await?;
                tx.publish("bills", Event::new("bill.sent", "/billing"));
                Ok::<_, sqlx::Error>(())
            })
            .await
    })
}

fn write_in_mariadb(mut billing: Subscription, pool: &MySqlPool) -> Processing {
    let pool = pool.clone();
    tokio::spawn(async move {
        billing
            .process("billing", &pool, async |_, db, _| {
                sqlx::query("INSERT INTO work (id) VALUES (UUID())").execute(db).await.map(drop)
            })
            .await
    })
}

async fn pg() -> Pg {
    let pg = Pg::new().await;
    create_inbox(&pg.pool).await.unwrap();
    create_inbox(&pg.pool).await.unwrap();
    pg
}

const WORK: &str = "SELECT count(*) FROM work";
const ROWS: &str = "SELECT count(*) FROM handfast_inbox";

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_comes_again_is_only_acknowledged() {
    let (mut fake, pg) = (Fake::start(), pg().await);
    let (billing, mut stream) = subscribed(&mut fake).await;
    let processing = write(billing, &pg.pool);
    for attempt in 1..4 {
        deliver(&stream, 5, attempt).await;
        acknowledged(&mut stream, 5, attempt).await;
        assert_eq!(pg.count(WORK).await, 1);
    }
    deliver(&stream, 6, 1).await;
    acknowledged(&mut stream, 6, 1).await;
    assert_eq!((pg.count(WORK).await, pg.count(ROWS).await), (2, 2));
    let name: String = sqlx::query_scalar("SELECT min(subscription) FROM handfast_inbox")
        .fetch_one(&pg.pool)
        .await
        .unwrap();
    assert_eq!(name, INBOX);
    assert!(fake.sessions.try_recv().is_err(), "nothing but the acknowledgement was asked");
    processing.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_in_mariadb() {
    let (mut fake, maria) = (Fake::start(), Maria::new().await);
    create_inbox(&maria.pool).await.unwrap();
    create_inbox(&maria.pool).await.unwrap();
    let (billing, mut stream) = subscribed(&mut fake).await;
    let processing = write_in_mariadb(billing, &maria.pool);
    for attempt in 1..4 {
        deliver(&stream, 5, attempt).await;
        acknowledged(&mut stream, 5, attempt).await;
        assert_eq!(maria.count(WORK).await, 1);
    }
    assert_eq!(maria.count(ROWS).await, 1);
    processing.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_publishes_acknowledges_in_its_transaction() {
    let (mut fake, pg, id) = (Fake::start(), pg().await, transaction());
    let (billing, mut stream) = subscribed(&mut fake).await;
    let processing = write_and_publish(billing, &pg.pool);
    deliver(&stream, 5, 1).await;
    let mut session = fake.sessions.recv().await.unwrap();
    let begin = begin_local(&mut session, id).await;
    assert_eq!(begin.events.len(), 1);
    let delivery = v1::DeliveryRef { subscription_id: 3, offset: 5, token: 1 };
    assert_eq!(begin.acknowledgements, [delivery]);
    let (request, call) = session.call().await;
    assert!(matches!(&call, Call::Commit(commit) if commit.vouched), "{call:?}");
    assert_eq!((pg.count(WORK).await, pg.count(ROWS).await), (1, 1));
    session.answer(request, committed(id)).await;
    // The next thing said on the subscription is of the next event.
    deliver(&stream, 5, 2).await;
    acknowledged(&mut stream, 5, 2).await;
    assert_eq!(pg.count(WORK).await, 1);
    processing.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_rejects_and_the_next_attempt_counts() {
    let (mut fake, pg) = (Fake::start(), pg().await);
    let (mut billing, mut stream) = subscribed(&mut fake).await;
    let (pool, tries) = (pg.pool.clone(), Arc::new(AtomicU32::new(0)));
    let processing = tokio::spawn(async move {
        let work = async |_: &Delivery, db: &mut PgConnection, tx: &mut LocalTransaction| {
            insert(db).await.map_err(|error| error.to_string())?;
            if tries.fetch_add(1, Ordering::SeqCst) == 0 {
                tx.publish("bills", Event::new("bill.sent", "/billing"));
                return Err("the printer is on fire".to_owned());
            }
            Ok(())
        };
        billing.process("billing", &pool, work).await
    });
    deliver(&stream, 5, 1).await;
    assert_eq!(rejected(&mut stream, 5).await, "the printer is on fire");
    assert_eq!((pg.count(WORK).await, pg.count(ROWS).await), (0, 0));
    deliver(&stream, 5, 2).await;
    acknowledged(&mut stream, 5, 2).await;
    assert_eq!((pg.count(WORK).await, pg.count(ROWS).await), (1, 1));
    assert!(fake.sessions.try_recv().is_err(), "what had failed published nothing");
    processing.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_staged_is_rolled_back_and_rejected() {
    let (mut fake, pg) = (Fake::start(), pg().await);
    let (billing, mut stream) = subscribed(&mut fake).await;
    let processing = write_and_publish(billing, &pg.pool);
    deliver(&stream, 5, 1).await;
    let mut session = fake.sessions.recv().await.unwrap();
    let (request, _) = session.call().await;
    let refusal = Refusal::new(Code::DeliveryExpired, "too late");
    session.answer(request, Answer::Refusal(refusal.into())).await;
    assert!(rejected(&mut stream, 5).await.contains("too late"));
    assert_eq!((pg.count(WORK).await, pg.count(ROWS).await), (0, 0));
    processing.abort();
}

/// A lease that was lost: the second attempt waits until the first has ended, and finds its row.
#[tokio::test(flavor = "multi_thread")]
async fn two_attempts_at_once_are_one() {
    let (mut fake, pg) = (Fake::start(), pg().await);
    let (mut billing, mut stream) = subscribed(&mut fake).await;
    let (pool, gate) = (pg.pool.clone(), Arc::new(Semaphore::new(0)));
    let runs = Arc::new(AtomicU32::new(0));
    let processing = tokio::spawn({
        let (gate, runs) = (Arc::clone(&gate), Arc::clone(&runs));
        async move {
            billing
                .process("billing", &pool, async |_, db, _| {
                    runs.fetch_add(1, Ordering::SeqCst);
                    gate.acquire().await.expect("it is open").forget();
                    insert(db).await
                })
                .await
        }
    });
    deliver(&stream, 5, 1).await;
    until("the first works", || async { runs.load(Ordering::SeqCst) == 1 }).await;
    deliver(&stream, 5, 2).await;
    let blocked = "SELECT count(*) FROM pg_stat_activity \
                   WHERE wait_event_type = 'Lock' AND datname = current_database()";
    until("the second waits", || async { pg.count(blocked).await == 1 }).await;
    gate.add_permits(2);
    let mut tokens = Vec::new();
    while tokens.len() < 2 {
        let (request, sent) = message(&mut stream).await;
        let From::Acknowledge(v1::Acknowledge { deliveries }) = sent else { panic!("{sent:?}") };
        tokens.extend(deliveries.iter().map(|delivery| delivery.token));
        send(&stream, request, To::Acknowledged(v1::Acknowledged::default())).await;
    }
    tokens.sort_unstable();
    assert_eq!(tokens, [1, 2]);
    assert_eq!((pg.count(WORK).await, runs.load(Ordering::SeqCst)), (1, 1));
    processing.abort();
}

/// The database commits and its answer is lost: the row says so when the event comes again.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_counts_once() {
    let (mut fake, pg) = (Fake::start(), pg().await);
    let proxy = Proxy::before(&pg.url, "COMMIT").await;
    let pool = PgPoolOptions::new().max_connections(1).connect(&proxy.url).await.unwrap();
    let (billing, mut stream) = subscribed(&mut fake).await;
    let processing = write(billing, &pool);
    proxy.arm();
    deliver(&stream, 5, 1).await;
    until("PostgreSQL has committed", async || pg.count(WORK).await == 1).await;
    proxy.cut();
    // That is nobody's judgement of the event: it is held, and its row says what to do.
    extended(&mut stream, 5).await;
    acknowledged(&mut stream, 5, 1).await;
    assert_eq!(pg.count(WORK).await, 1);
    processing.abort();
}

/// A minute without PostgreSQL made dead letters of healthy events: each failure was a rejection.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_database_is_held_against_no_event() {
    let (mut fake, pg) = (Fake::start(), pg().await);
    let (mut billing, mut stream) = subscribed(&mut fake).await;
    let (told, mut failures) = tokio::sync::mpsc::unbounded_channel();
    let options = ProcessOptions::new().with_at_once(1).with_on_failure(move |failure| {
        told.send(failure.clone()).unwrap();
    });
    let (pool, attempts) = (pg.pool.clone(), Arc::new(AtomicU32::new(0)));
    let processing = tokio::spawn(async move {
        let work = async |_: &Delivery, db: &mut PgConnection, _: &mut LocalTransaction| {
            insert(db).await?;
            // Its server goes away under the first two.
            if attempts.fetch_add(1, Ordering::Relaxed) < 2 {
                let end = "SELECT pg_terminate_backend(pg_backend_pid())";
                sqlx::query(end).execute(&mut *db).await?;
            }
            Ok::<_, sqlx::Error>(())
        };
        billing.process_with("billing", &pool, options, work).await
    });
    deliver(&stream, 5, 1).await;
    for _ in 0..2 {
        extended(&mut stream, 5).await;
        let failure = failures.recv().await.unwrap();
        assert_eq!((failure.offset, failure.attempt, failure.is_rejected), (5, 1, false));
    }
    acknowledged(&mut stream, 5, 1).await;
    assert_eq!(pg.count(WORK).await, 1);
    processing.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_given_out_after_what_was_under_way() {
    let (mut fake, pg) = (Fake::start(), pg().await);
    let (billing, mut stream) = subscribed(&mut fake).await;
    let processing = write(billing, &pg.pool);
    deliver(&stream, 1, 1).await;
    send(&stream, 0, To::Gap(v1::OffsetRange { from: 2, to: 9 })).await;
    acknowledged(&mut stream, 1, 1).await;
    let gap = processing.await.unwrap().unwrap().unwrap();
    assert_eq!((gap.from, gap.to), (2, 9));
}

/// Rows go when their events are acknowledged, and not before they are old.
#[tokio::test(flavor = "multi_thread")]
async fn old_rows_of_acknowledged_events_are_removed() {
    let (mut fake, pg, maria) = (Fake::start(), pg().await, Maria::new().await);
    create_inbox(&maria.pool).await.unwrap();
    fake.subscription(v1::Subscription {
        subscription_id: 3,
        name: "billing".into(),
        topic: "transfers".into(),
        settings: Some(v1::SubscriptionSettings {
            lease_ms: Some(30_000),
            max_attempts: Some(10),
            backoff_ms: Some(100),
            backoff_max_ms: Some(30_000),
        }),
        acknowledged_below: 2_500,
        end: 4_000,
        ..v1::Subscription::default()
    });
    let fill = format!(
        "INSERT INTO handfast_inbox (subscription, event_offset, at) \
         SELECT '{INBOX}', n, now() - interval '2 days' FROM generate_series(0, 2599) AS n; \
         UPDATE handfast_inbox SET at = now() WHERE event_offset IN (7, 2400); \
         INSERT INTO handfast_inbox (subscription, event_offset, at) \
         VALUES ('{INBOX}0', 1, now() - interval '2 days')"
    );
    sqlx::raw_sql(AssertSqlSafe(fill)).execute(&pg.pool).await.unwrap();
    let fill = format!(
        "INSERT INTO handfast_inbox (subscription, event_offset, at) \
         SELECT '{INBOX}', seq, NOW() - INTERVAL 2 DAY FROM seq_0_to_2599; \
         UPDATE handfast_inbox SET at = NOW() WHERE event_offset IN (7, 2400); \
         INSERT INTO handfast_inbox (subscription, event_offset, at) \
         VALUES ('{INBOX}0', 1, NOW() - INTERVAL 2 DAY)"
    );
    sqlx::raw_sql(AssertSqlSafe(fill)).execute(&maria.pool).await.unwrap();

    let (billing, mut stream) = subscribed(&mut fake).await;
    let one = write(billing, &pg.pool);
    deliver(&stream, 3_000, 1).await;
    acknowledged(&mut stream, 3_000, 1).await;
    // 100 are not acknowledged, 2 are young, 1 is another subscription's, and 1 is new.
    until("they are gone", || async { pg.count(ROWS).await == 104 }).await;
    let (billing, mut stream) = subscribed(&mut fake).await;
    let two = write_in_mariadb(billing, &maria.pool);
    deliver(&stream, 3_000, 1).await;
    acknowledged(&mut stream, 3_000, 1).await;
    until("they are gone", || async { maria.count(ROWS).await == 104 }).await;
    one.abort();
    two.abort();
}
