//! Local transactions: L1 to L9 from the application's side.

use std::time::Duration;

use handfast::database::{Error, Local, LocalOptions, LocalTransaction, Step};
use handfast::{Code, Event, Handfast, TransactionError, Wait};
use handfast_core::input::Resolution;
use handfast_core::refusal::Refusal;
use handfast_wire::ids;
use handfast_wire::raw::transaction_request::Call;
use handfast_wire::v1::transaction_reply::Result as Answer;
use sqlx::mysql::MySqlPoolOptions;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, MySqlPool, PgConnection, PgPool};
use tokio::task::JoinHandle;

use crate::bench::{
    Maria, Pg, begin_local, begun, branch, committed, failed, resolve, transaction, until,
};
use crate::fake::{Fake, Session};
use crate::proxy::Proxy;

const WORK: &str = "INSERT INTO work (id) VALUES ('a')";
/// In both databases.
const ROWS: &str = "SELECT count(*) FROM work";

type Ran = JoinHandle<Result<u32, Error<sqlx::Error>>>;

fn placed(tx: &mut LocalTransaction) {
    tx.publish("placed", Event::new("order.placed", "/shop"));
}

/// A row and an event, in PostgreSQL.
fn order(hf: &Handfast, pool: &PgPool) -> Ran {
    order_with(hf, pool, LocalOptions::new())
}

/// The same, and waits until the event can be read.
fn order_and_wait(hf: &Handfast, pool: &PgPool) -> Ran {
    order_with(hf, pool, LocalOptions::new().with_wait(Wait::Finished))
}

fn order_with(hf: &Handfast, pool: &PgPool, options: LocalOptions) -> Ran {
    let (hf, pool) = (hf.clone(), pool.clone());
    tokio::spawn(async move {
        let work = async |db: &mut PgConnection, tx: &mut LocalTransaction| {
            sqlx::query(WORK).execute(db).await?;
            placed(tx);
            Ok(7)
        };
        hf.local_with("orders", &pool, options, work).await.map(|local| local.value)
    })
}

/// The same in MariaDB.
fn order_in_mariadb(hf: &Handfast, pool: &MySqlPool) -> Ran {
    let (hf, pool) = (hf.clone(), pool.clone());
    tokio::spawn(async move {
        hf.local("orders", &pool, async |db, tx| {
            sqlx::query(WORK).execute(db).await?;
            placed(tx);
            Ok(7)
        })
        .await
    })
}

async fn session(fake: &mut Fake) -> Session {
    fake.sessions.recv().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_commits_and_its_events_with_it() {
    let (mut fake, pg, id) = (Fake::start(), Pg::new().await, transaction());
    let hf = fake.connect().await;
    let ran = order(&hf, &pg.pool);
    let mut session = session(&mut fake).await;
    let begin = begin_local(&mut session, id).await;
    assert_eq!((begin.database.as_str(), begin.events.len()), ("orders", 1));
    assert!(begin.deadline_ms > 25_000 && !begin.detached);
    let (request, call) = session.call().await;
    let Call::Commit(commit) = call else { panic!("{call:?}") };
    assert!(commit.vouched);
    assert_eq!(pg.count(ROWS).await, 1);
    assert_eq!(pg.count("SELECT count(*) FROM handfast_branch").await, 1);
    session.answer(request, committed(id)).await;
    assert_eq!(ran.await.unwrap().unwrap(), 7);
}

/// The marker decides: nobody has to wait for the server, which is told all the same.
#[tokio::test(flavor = "multi_thread")]
async fn l3_it_returns_when_its_database_has_committed() {
    let (mut fake, pg, id) = (Fake::start(), Pg::new().await, transaction());
    let hf = fake.connect().await;
    let ran = order(&hf, &pg.pool);
    let mut one = session(&mut fake).await;
    begin_local(&mut one, id).await;
    assert_eq!(ran.await.unwrap().unwrap(), 7);
    assert_eq!(pg.count("SELECT count(*) FROM handfast_branch").await, 1);
    let (_, call) = one.call().await;
    let Call::Commit(commit) = &call else { panic!("{call:?}") };
    assert!(commit.vouched && commit.transaction_id == ids::transaction_bytes(id));
    // Whether that arrived is not known: it is said again.
    one.cut().await;
    let mut two = session(&mut fake).await;
    assert_eq!(two.call().await.1, call);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_commits_in_mariadb_and_the_connection_is_free_again() {
    let (mut fake, maria) = (Fake::start(), Maria::new().await);
    let hf = fake.connect().await;
    let ran = order_in_mariadb(&hf, &maria.pool);
    let mut session = session(&mut fake).await;
    let id = transaction();
    begin_local(&mut session, id).await;
    let (request, call) = session.call().await;
    assert!(matches!(call, Call::Commit(_)), "{call:?}");
    session.answer(request, committed(id)).await;
    assert_eq!(ran.await.unwrap().unwrap(), 7);
    assert_eq!(maria.count(ROWS).await, 1);
    // The pool has one connection, and it is in no transaction.
    let open: i64 = sqlx::query_scalar("SELECT CAST(@@in_transaction AS SIGNED)")
        .fetch_one(&maria.pool)
        .await
        .unwrap();
    assert_eq!(open, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_events_nobody_is_asked() {
    let (mut fake, pg, maria) = (Fake::start(), Pg::new().await, Maria::new().await);
    let hf = fake.connect().await;
    let work =
        async |db: &mut PgConnection, _: &mut LocalTransaction| sqlx::query(WORK).execute(db).await;
    hf.local("orders", &pg.pool, work).await.unwrap();
    let work = async |db: &mut sqlx::MySqlConnection, _: &mut LocalTransaction| {
        sqlx::query(WORK).execute(db).await
    };
    hf.local("orders", &maria.pool, work).await.unwrap();
    assert_eq!(pg.count(ROWS).await, 1);
    assert_eq!(pg.count("SELECT count(*) FROM handfast_branch").await, 0);
    assert_eq!(maria.count(ROWS).await, 1);
    assert!(fake.sessions.try_recv().is_err());
}

/// COMMIT in a block that has failed succeeds and commits nothing; so does one that a deadlock or
/// a statement with a commit of its own has left without its transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_commits_nothing_is_no_success() {
    let (fake, pg, maria) = (Fake::start(), Pg::new().await, Maria::new().await);
    let hf = fake.connect().await;
    let failed = hf
        .local("orders", &pg.pool, async |db, _| {
            sqlx::query(WORK).execute(&mut *db).await?;
            // The application overlooks an error.
            sqlx::query("SELECT 1 / 0").execute(db).await.expect_err("division by zero");
            Ok::<_, sqlx::Error>(())
        })
        .await;
    let error = failed.unwrap_err();
    assert!(matches!(&error, Error::Database(failure) if failure.step == Step::Commit), "{error}");
    assert!(error.has_no_side_effects());
    assert_eq!(pg.count(ROWS).await, 0);
    let failed = hf
        .local("orders", &maria.pool, async |db, _| {
            sqlx::raw_sql("CREATE TABLE other (n int)").execute(db).await
        })
        .await;
    assert!(matches!(failed, Err(Error::Database(_))), "{failed:?}");
    assert_eq!(maria.pool.size(), 0, "it is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_closure_rolls_back() {
    let (mut fake, pg, maria) = (Fake::start(), Pg::new().await, Maria::new().await);
    let hf = fake.connect().await;
    let error = hf
        .local("orders", &pg.pool, async |db, tx| {
            sqlx::query(WORK).execute(db).await.unwrap();
            placed(tx);
            Err::<(), _>("out of stock")
        })
        .await
        .unwrap_err();
    assert_eq!(error, Error::Work("out of stock"));
    assert!(error.has_no_side_effects());
    let error = hf
        .local("orders", &maria.pool, async |db, tx| {
            sqlx::query(WORK).execute(db).await.unwrap();
            placed(tx);
            Err::<(), _>("out of stock")
        })
        .await
        .unwrap_err();
    assert_eq!(error, Error::Work("out of stock"));
    assert_eq!(pg.count(ROWS).await, 0);
    assert_eq!(maria.count(ROWS).await, 0);
    until("they are back", || async {
        (pg.pool.num_idle(), maria.pool.num_idle()) == (pg.pool.size() as usize, 1)
    })
    .await;
    assert!(fake.sessions.try_recv().is_err(), "nobody was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_refuses_is_rolled_back() {
    let (mut fake, pg) = (Fake::start(), Pg::new().await);
    let hf = fake.connect().await;
    let ran = order(&hf, &pg.pool);
    let mut session = session(&mut fake).await;
    let (request, _) = session.call().await;
    let refusal = Refusal::new(Code::UnknownTopic, "no topic placed");
    session.answer(request, Answer::Refusal(refusal.into())).await;
    let error = ran.await.unwrap().unwrap_err();
    let Error::Transaction(TransactionError::Refused(refused)) = &error else { panic!("{error}") };
    assert!(refused.is(Code::UnknownTopic) && error.has_no_side_effects());
    assert_eq!(pg.count(ROWS).await, 0);
}

/// The backend is ended while it commits: a trigger holds the COMMIT back until that has happened.
#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_ends_during_the_commit_is_looked_up() {
    let (mut fake, pg, id) = (Fake::start(), Pg::new().await, transaction());
    let hf = fake.connect().await;
    let slow = "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS \
                'BEGIN PERFORM pg_sleep(60); RETURN NULL; END'; \
                CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON work DEFERRABLE INITIALLY DEFERRED \
                FOR EACH ROW EXECUTE FUNCTION wait()";
    sqlx::raw_sql(slow).execute(&pg.pool).await.unwrap();
    let ran = order(&hf, &pg.pool);
    let mut session = session(&mut fake).await;
    begin_local(&mut session, id).await;
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE wait_event = 'PgSleep' AND datname = current_database()";
    until("the commit is under way", || async { pg.count(end).await == 1 }).await;
    resolve(&mut session, id, "orders", &pg.database).await;
    let error = ran.await.unwrap().unwrap_err();
    let Error::Transaction(TransactionError::Failed { id: said, .. }) = &error else {
        panic!("{error}")
    };
    assert_eq!((*said, error.has_no_side_effects()), (id, true));
    assert_eq!(pg.count(ROWS).await, 0);
}

/// The database commits and its answer is lost: the marker says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_looked_up() {
    let (mut fake, pg, maria) = (Fake::start(), Pg::new().await, Maria::new().await);
    let hf = fake.connect().await;
    let proxy = Proxy::before(&pg.url, "COMMIT").await;
    let pool = PgPoolOptions::new().connect(&proxy.url).await.unwrap();
    proxy.arm();
    let id = transaction();
    let ran = order(&hf, &pool);
    let mut session = session(&mut fake).await;
    begin_local(&mut session, id).await;
    until("PostgreSQL has committed", async || pg.count(ROWS).await == 1).await;
    proxy.cut();
    resolve(&mut session, id, "orders", &pg.database).await;
    assert_eq!(ran.await.unwrap().unwrap(), 7);
    assert_eq!(pg.count(ROWS).await, 1);

    let proxy = Proxy::before(&maria.url, "COMMIT").await;
    let url = format!("{}?ssl-mode=disabled", proxy.url);
    let pool = MySqlPoolOptions::new().connect(&url).await.unwrap();
    proxy.arm();
    let id = transaction();
    let ran = order_in_mariadb(&hf, &pool);
    begin_local(&mut session, id).await;
    until("MariaDB has committed", async || maria.count(ROWS).await == 1).await;
    proxy.cut();
    resolve(&mut session, id, "orders", &maria.database).await;
    assert_eq!(ran.await.unwrap().unwrap(), 7);
    assert_eq!(maria.count(ROWS).await, 1);
}

/// The same without events: nobody can find out, and it says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_plain_commit_whose_answer_is_lost_is_unknown() {
    let (fake, pg) = (Fake::start(), Pg::new().await);
    let hf = fake.connect().await;
    let proxy = Proxy::before(&pg.url, "COMMIT").await;
    let pool = PgPoolOptions::new().connect(&proxy.url).await.unwrap();
    proxy.arm();
    let run = hf.local("orders", &pool, async |db, _| sqlx::query(WORK).execute(db).await);
    let lose = async {
        until("PostgreSQL has committed", async || pg.count(ROWS).await == 1).await;
        proxy.cut();
    };
    let error = tokio::join!(run, lose).0.unwrap_err();
    assert!(matches!(error, Error::Unknown(_)), "{error}");
    assert!(!error.has_no_side_effects() && !error.is_retryable());
}

/// L4: the server gave it up meanwhile, and its tombstone stands.
#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_refuses_the_commit() {
    let (pg, maria) = (Pg::new().await, Maria::new().await);
    for mariadb in [false, true] {
        let (mut fake, id) = (Fake::start(), transaction());
        let hf = fake.connect().await;
        let (ran, database) = if mariadb {
            (order_in_mariadb(&hf, &maria.pool), &maria.database)
        } else {
            (order(&hf, &pg.pool), &pg.database)
        };
        let mut session = session(&mut fake).await;
        let (request, _) = session.call().await;
        database.resolve(&branch(id, "orders")).await;
        session.answer(request, begun(id, &["orders"])).await;
        let (request, call) = session.call().await;
        assert!(matches!(call, Call::Abort(_)), "{call:?}");
        session.answer(request, failed(id, "deadline_passed")).await;
        let error = ran.await.unwrap().unwrap_err();
        let Error::Transaction(TransactionError::Failed { reason, .. }) = &error else {
            panic!("{error}")
        };
        assert_eq!(reason.code, "deadline_passed");
    }
    assert_eq!(pg.count(ROWS).await, 0);
    assert_eq!(maria.count(ROWS).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_commit_is_asked_for_again() {
    let (mut fake, pg, id) = (Fake::start(), Pg::new().await, transaction());
    let hf = fake.connect().await;
    let ran = order_and_wait(&hf, &pg.pool);
    let mut one = session(&mut fake).await;
    begin_local(&mut one, id).await;
    let (_, first) = one.call().await;
    one.cut().await;
    let mut two = session(&mut fake).await;
    let (request, again) = two.call().await;
    assert_eq!(first, again);
    // It is being looked up in the database, because its stream had ended (L8).
    let pending = Refusal::new(Code::Pending, "ask again");
    two.answer(request, Answer::Refusal(pending.into())).await;
    let (request, call) = two.call().await;
    assert!(matches!(call, Call::Get(_)), "{call:?}");
    two.answer(request, committed(id)).await;
    assert_eq!(ran.await.unwrap().unwrap(), 7);
}

/// The database has committed: neither a server that says it failed nor one that knows nothing is
/// believed.
#[tokio::test(flavor = "multi_thread")]
async fn after_the_database_has_committed_nothing_is_called_a_failure() {
    let (mut fake, pg) = (Fake::start(), Pg::new().await);
    let hf = fake.connect().await;
    let refusal = |code| Answer::Refusal(Refusal::new(code, "why").into());
    let mut session = None;
    for absent in [false, true] {
        let id = transaction();
        let clear = "DELETE FROM work";
        sqlx::query(clear).execute(&pg.pool).await.unwrap();
        let ran = order_and_wait(&hf, &pg.pool);
        if session.is_none() {
            session = fake.sessions.recv().await;
        }
        let session = session.as_mut().unwrap();
        begin_local(session, id).await;
        let (request, _) = session.call().await;
        if absent {
            session.answer(request, refusal(Code::UnknownTransaction)).await;
            let (request, _) = session.call().await;
            session.answer(request, refusal(Code::UnknownTransaction)).await;
        } else {
            session.answer(request, failed(id, "aborted")).await;
        }
        let error = ran.await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Transaction(TransactionError::Unknown { .. })), "{error:?}");
        assert!(!error.has_no_side_effects() && !error.is_retryable());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_key_an_earlier_run_stands() {
    let (mut fake, pg, id) = (Fake::start(), Pg::new().await, transaction());
    let hf = fake.connect().await;
    let run = |n: u32| {
        let (hf, pool) = (hf.clone(), pg.pool.clone());
        tokio::spawn(async move {
            let options = LocalOptions::new().with_key("order-7");
            hf.local_with("orders", &pool, options, async |db, tx| {
                let insert = format!("INSERT INTO work (id) VALUES ('{n}')");
                sqlx::raw_sql(AssertSqlSafe(insert)).execute(db).await?;
                tx.publish("placed", Event::new("order.placed", "/shop").with_id("7"));
                Ok::<_, sqlx::Error>(n)
            })
            .await
        })
    };
    let first = run(1);
    let mut session = session(&mut fake).await;
    let begin = begin_local(&mut session, id).await;
    assert_eq!(begin.idempotency_key, "order-7");
    let (request, _) = session.call().await;
    session.answer(request, committed(id)).await;
    let first = first.await.unwrap().unwrap();
    assert!(!first.repeated && first.committed.is_some_and(|c| c.id == id));

    let second = run(2);
    let (request, _) = session.call().await;
    let Answer::Begun(mut begun) = begun(id, &["orders"]) else { unreachable!() };
    begun.repeated = true;
    session.answer(request, Answer::Begun(begun)).await;
    resolve(&mut session, id, "orders", &pg.database).await;
    let second: Local<u32> = second.await.unwrap().unwrap();
    assert!(second.repeated && second.value == 2);
    assert_eq!(pg.count(ROWS).await, 1);
    assert_eq!(pg.count("SELECT count(*) FROM work WHERE id = '1'").await, 1);
}

/// A future that is dropped leaves nothing open: the connection is closed, and the server is told
/// to find out.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_dropped_is_not_forgotten() {
    let (mut fake, pg, id) = (Fake::start(), Pg::new().await, transaction());
    let hf = fake.connect().await;
    // Held back by somebody else's row, so that the marker cannot be written.
    let mut other = pg.pool.begin().await.unwrap();
    let marker = format!(
        "INSERT INTO handfast_branch (id, outcome) VALUES ('{}', 'aborted')",
        branch(id, "orders")
    );
    sqlx::raw_sql(AssertSqlSafe(marker)).execute(&mut *other).await.unwrap();
    let ran = order(&hf, &pg.pool);
    let mut session = session(&mut fake).await;
    begin_local(&mut session, id).await;
    let blocked = "SELECT count(*) FROM pg_stat_activity \
                   WHERE wait_event_type = 'Lock' AND datname = current_database()";
    until("it waits", || async { pg.count(blocked).await == 1 }).await;
    ran.abort();
    let (_, call) = session.call().await;
    assert!(matches!(call, Call::Abort(_)), "{call:?}");
    other.rollback().await.unwrap();
    // PostgreSQL may have gone on without its client. The marker says so, and nothing else.
    let mut resolution = Resolution::Unknown;
    while resolution == Resolution::Unknown {
        resolution = pg.database.resolve(&branch(id, "orders")).await;
    }
    let work = i64::from(resolution == Resolution::Committed);
    assert_eq!(pg.count(ROWS).await, work);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_bounds_the_closure() {
    let (mut fake, pg) = (Fake::start(), Pg::new().await);
    let hf = fake.connect().await;
    let options = LocalOptions::new().with_deadline(Duration::from_millis(200));
    let error = hf
        .local_with("orders", &pg.pool, options.clone(), async |db, tx| {
            placed(tx);
            sqlx::query("SELECT pg_sleep(60)").execute(db).await
        })
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Work(_) | Error::Transaction(_)), "{error}");
    let stuck = hf
        .local_with("orders", &pg.pool, options, async |_, _| {
            std::future::pending::<Result<(), sqlx::Error>>().await
        })
        .await
        .unwrap_err();
    assert!(matches!(stuck, Error::Transaction(TransactionError::Fault(_))), "{stuck}");
    assert!(stuck.has_no_side_effects() && stuck.is_retryable());
    assert!(fake.sessions.try_recv().is_err());
}
