//! An application whose pool leads to another database than the registered one: staging and
//! production, two services' URLs swapped, a restored clone.
//!
//! The story: `hf.local` committed its rows and its marker there, said `Ok`, and the server looked for
//! the marker here. While the program lived its word was taken; when it ended right after its `Ok`,
//! the event was lost, and nothing said so (I2). No test saw it, because every test had one URL for
//! both sides.

use std::time::Duration;

use handfast::database::Error;
use handfast::{Code, Event, Handfast, TransactionError};
use handfast_database::{Options, connect};
use handfast_wire::status;
use handfast_wire::v1::{TransactionState as State, Wait};
use sqlx::mysql::MySqlPoolOptions;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, MySqlPool, PgConnection, PgPool};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{Begun, World, databases, servers, shared};

const RUNS: usize = 100;
const TAKE: &str = "UPDATE account SET amount = amount - 1 WHERE name = 'a'";
const LONG: Duration = Duration::from_secs(30);

type Ended = Result<(), Error<sqlx::Error>>;

fn made() -> Event {
    Event::new("made", "/test")
}

/// A program that does one order and ends right after it was told how that went.
async fn order(world: &World, pool: &PgPool) -> Ended {
    let hf = Handfast::connect(world.url()).await.unwrap();
    hf.local("orders", pool, async |db, tx| {
        sqlx::query(TAKE).execute(db).await?;
        tx.publish("made", made());
        Ok(())
    })
    .await
}

/// The same in MariaDB.
async fn book(world: &World, pool: &MySqlPool) -> Ended {
    let hf = Handfast::connect(world.url()).await.unwrap();
    hf.local("ledger", pool, async |db, tx| {
        sqlx::query(TAKE).execute(db).await?;
        tx.publish("made", made());
        Ok(())
    })
    .await
}

/// Refused, with the names of both.
fn is_refused(ended: Ended, names: [&str; 2]) {
    let error = ended.unwrap_err();
    assert!(error.has_no_side_effects() && !error.is_retryable(), "{error}");
    let Error::Transaction(TransactionError::Refused(refusal)) = &error else { panic!("{error}") };
    assert!(refusal.is(Code::WrongDatabase), "{refusal}");
    for name in names {
        assert!(refusal.detail.contains(name), "{name}: {refusal}");
    }
}

async fn balance(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT amount FROM account WHERE name = 'a'").fetch_one(pool).await.unwrap()
}

async fn balance_in_mariadb(pool: &MySqlPool) -> i64 {
    sqlx::query_scalar("SELECT amount FROM account WHERE name = 'a'").fetch_one(pool).await.unwrap()
}

fn name_of(url: &str) -> &str {
    url.rsplit_once('/').unwrap().1
}

/// Two databases with handfast's tables on the same servers, and the URL is that of the other one.
#[tokio::test(flavor = "multi_thread")]
async fn a3_a_pool_of_another_database_is_refused_or_its_events_are_published() {
    let (postgres, mariadb) = shared();
    let (orders, ledger) = databases(&postgres, &mariadb).await;
    let world = World::over(&postgres, &mariadb).await;
    let pool = PgPool::connect(&orders).await.unwrap();
    for _ in 0..RUNS {
        is_refused(order(&world, &pool).await, [name_of(&orders), name_of(&world.urls["orders"])]);
    }
    assert_eq!((balance(&pool).await, world.events().await), (100, 0));
    // In MariaDB another database of the same server is as good: the marker goes where it belongs.
    let pool = MySqlPool::connect(&ledger).await.unwrap();
    for _ in 0..RUNS {
        book(&world, &pool).await.unwrap();
    }
    assert_eq!(balance_in_mariadb(&pool).await, 100 - RUNS as i64);
    world.until(async || (world.events().await == RUNS).then_some(())).await;
}

/// The registered database was renamed, and another one has its name now.
#[tokio::test(flavor = "multi_thread")]
async fn a3_a_renamed_database_is_refused() {
    let (postgres, mariadb) = shared();
    let world = World::over(&postgres, &mariadb).await;
    let (before, name) = (&world.urls["orders"], name_of(&world.urls["orders"]));
    let mut root = PgConnection::connect(&postgres).await.unwrap();
    // Nobody may be connected to it while it is renamed.
    let rename = format!(
        "ALTER DATABASE {name} ALLOW_CONNECTIONS false; \
         SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{name}'; \
         ALTER DATABASE {name} RENAME TO {name}_old; \
         ALTER DATABASE {name}_old ALLOW_CONNECTIONS true"
    );
    for statement in rename.split("; ") {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut root).await.unwrap();
    }
    let copy = format!("CREATE DATABASE {name} TEMPLATE {name}_old");
    sqlx::raw_sql(AssertSqlSafe(copy)).execute(&mut root).await.unwrap();
    let pool = PgPool::connect(&format!("{before}_old")).await.unwrap();
    for _ in 0..RUNS {
        is_refused(order(&world, &pool).await, [&format!("{name}_old"), name]);
    }
    let registered = PgPool::connect(before).await.unwrap();
    world.until(async || order(&world, &registered).await.ok()).await;
    world.until(async || (world.events().await == 1).then_some(())).await;
    assert_eq!((balance(&pool).await, balance(&registered).await), (100, 99));
}

/// Copies of the servers' files run beside them: the same names, the same system identifier, the
/// same rows. Both servers were started again meanwhile, which handfast may not have seen yet.
#[tokio::test(flavor = "multi_thread")]
async fn a3_a_clone_is_refused_and_the_database_that_was_started_again_is_not() {
    let (mut postgres, mut mariadb) = servers();
    let world = World::over(&postgres.url(), &mariadb.url()).await;
    let directory = |kind: &str| {
        std::env::temp_dir().join(format!("handfast-{kind}-copy-{}", std::process::id()))
    };
    let other_postgres = postgres.copy(&directory("postgres")).unwrap();
    let other_mariadb = mariadb.copy(&directory("mariadb")).unwrap();
    let (orders, ledger) = (name_of(&world.urls["orders"]), name_of(&world.urls["ledger"]));
    let clone = PgPool::connect(&other_postgres.url_of("postgres", orders)).await.unwrap();
    let clone_in_mariadb = MySqlPool::connect(&other_mariadb.url_of("root", ledger)).await.unwrap();
    let pool = PgPoolOptions::new().connect(&world.urls["orders"]).await.unwrap();
    let pool_in_mariadb = MySqlPoolOptions::new().connect(&world.urls["ledger"]).await.unwrap();
    // What fails here may be tried again, and succeeds as soon as the server sees both again.
    for ended in [order(&world, &pool).await, book(&world, &pool_in_mariadb).await] {
        if let Err(error) = ended {
            assert!(error.is_retryable() && error.has_no_side_effects(), "{error}");
        }
    }
    world.until_up(&["orders", "ledger"]).await;
    let before = (balance(&pool).await, balance_in_mariadb(&pool_in_mariadb).await);
    world.until(async || order(&world, &pool).await.ok()).await;
    world.until(async || book(&world, &pool_in_mariadb).await.ok()).await;
    let port = |url: &str| url.rsplit_once(':').unwrap().1.split_once('/').unwrap().0.to_owned();
    let ports = [port(&other_mariadb.url()), port(&mariadb.url())];
    for _ in 0..RUNS {
        is_refused(order(&world, &clone).await, [orders, "2"]);
        is_refused(book(&world, &clone_in_mariadb).await, [&ports[0], &ports[1]]);
        order(&world, &pool).await.unwrap();
        book(&world, &pool_in_mariadb).await.unwrap();
    }
    let runs = RUNS as i64 + 1;
    assert_eq!(balance(&pool).await, before.0 - runs);
    assert_eq!(balance_in_mariadb(&pool_in_mariadb).await, before.1 - runs);
    let made = (200 - balance(&pool).await - balance_in_mariadb(&pool_in_mariadb).await) as usize;
    world.until(async || (world.events().await == made).then_some(())).await;
    assert_eq!((balance(&clone).await, balance_in_mariadb(&clone_in_mariadb).await), (100, 100));
}

/// A branch as well, and with it the whole transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a3_a_branch_in_another_database_is_refused_and_the_transaction_fails() {
    let (postgres, mariadb) = shared();
    let (elsewhere, _) = databases(&postgres, &mariadb).await;
    let world = World::over(&postgres, &mariadb).await;
    let hf = Handfast::connect(world.url()).await.unwrap();
    let wrong = PgPool::connect(&elsewhere).await.unwrap();
    let ledger = MySqlPool::connect(&world.urls["ledger"]).await.unwrap();
    let mut tx = hf.begin().await.unwrap();
    let id = tx.id();
    tx.join("ledger", &ledger, async |db| sqlx::query(TAKE).execute(db).await).await.unwrap();
    let joined = tx.join("orders", &wrong, async |db| sqlx::query(TAKE).execute(db).await).await;
    is_refused(joined.map(|_| ()), [name_of(&elsewhere), name_of(&world.urls["orders"])]);
    let failed = tx.commit().await.unwrap_err();
    assert!(matches!(failed, TransactionError::Failed { .. }), "{failed}");
    world.until(async || (world.prepared(id).await == 0).then_some(())).await;
    assert_eq!((balance(&wrong).await, world.balances().await), (100, (100, 100)));
    // A pool of another kind of database.
    let mut tx = hf.begin().await.unwrap();
    let joined = tx.join("orders", &ledger, async |db| sqlx::query(TAKE).execute(db).await).await;
    is_refused(joined.map(|_| ()), ["MariaDB", name_of(&world.urls["orders"])]);
}

/// A consumer is refused before its first event, although it may never publish any.
#[tokio::test(flavor = "multi_thread")]
async fn a3_a_consumer_over_another_database_is_refused() {
    let (postgres, mariadb) = shared();
    let (elsewhere, _) = databases(&postgres, &mariadb).await;
    let world = World::over(&postgres, &mariadb).await;
    let hf = Handfast::connect(world.url()).await.unwrap();
    let pool = PgPool::connect(&elsewhere).await.unwrap();
    let mut all = hf.subscribe("all").on("made").open().await.unwrap();
    let ended = all.process("orders", &pool, async |_, _, _| Ok::<_, sqlx::Error>(())).await;
    let error = ended.unwrap_err();
    assert!(error.to_string().contains("wrong_database"), "{error}");
}

/// K8: without the library, a session that is in another database of the same MariaDB.
#[tokio::test(flavor = "multi_thread")]
async fn k8_the_marker_knows_where_it_is() {
    let (postgres, mariadb) = shared();
    let (_, other) = databases(&postgres, &mariadb).await;
    let world = World::over(&postgres, &mariadb).await;
    for named in [true, false] {
        let begun = world.begin_local("ledger", LONG).await.unwrap();
        local_without_library(&other, &begun, named).await;
        let committed = world.commit_local(&begun).await;
        if named {
            assert_eq!(committed.unwrap().state(), State::Committed);
        } else {
            let refusal = status::refusal(&committed.unwrap_err()).unwrap();
            assert_eq!(refusal.code, "marker_not_written");
        }
        let begun = world.begin(&["ledger"]).await.unwrap();
        prepare_without_library(&other, &begun, named).await;
        let outcome = world.commit(&begun, Wait::Finished).await.unwrap();
        let expected = if named { State::Committed } else { State::Failed };
        assert_eq!((outcome.state(), outcome.heuristic), (expected, false), "{named}");
        let branch = begun.branch("ledger");
        world
            .until(async || {
                let database = connect(&other, Options::default()).unwrap();
                let listed = database.list().await.unwrap();
                (!listed.iter().any(|row| row.branch == Some(branch))).then_some(())
            })
            .await;
    }
    // PostgreSQL's name of a table has its database in it.
    let begun = world.begin_local("orders", LONG).await.unwrap();
    let mut elsewhere = PgConnection::connect(&postgres).await.unwrap();
    let insert = format!(
        "INSERT INTO {} (id, outcome) VALUES ('{}', 'committed')",
        begun.tables["orders"],
        begun.branch("orders")
    );
    let refused = sqlx::raw_sql(AssertSqlSafe(insert.clone())).execute(&mut elsewhere).await;
    assert!(refused.unwrap_err().to_string().contains("cross-database"));
    sqlx::raw_sql(AssertSqlSafe(insert)).execute(&mut world.postgres().await).await.unwrap();
    assert_eq!(world.commit_local(&begun).await.unwrap().state(), State::Committed);
}

fn marker(begun: &Begun, named: bool) -> String {
    let table = if named { &begun.tables["ledger"] } else { "handfast_branch" };
    format!("INSERT INTO {table} (id, outcome) VALUES ('{}', 'committed')", begun.branch("ledger"))
}

async fn local_without_library(url: &str, begun: &Begun, named: bool) {
    let mut db = MySqlConnection::connect(url).await.unwrap();
    let sql = format!(
        "START TRANSACTION; SAVEPOINT handfast; {TAKE}; \
         RELEASE SAVEPOINT handfast; {}; COMMIT",
        marker(begun, named)
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut db).await.unwrap();
}

async fn prepare_without_library(url: &str, begun: &Begun, named: bool) {
    let mut db = MySqlConnection::connect(url).await.unwrap();
    let xid = begun.branch("ledger").xid();
    let sql = format!(
        "XA START {xid}; SAVEPOINT handfast; {TAKE}; \
         RELEASE SAVEPOINT handfast; {}; XA END {xid}; XA PREPARE {xid}",
        marker(begun, named)
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut db).await.unwrap();
    db.close().await.unwrap();
}

/// A local transaction that nobody has come back for is counted, because its rows may be elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a3_a_tombstone_that_nobody_asked_for_is_counted() {
    let world = World::new().await;
    assert!(metrics(&world).await.contains("handfast_local_transactions_abandoned_total 0"));
    let begun = world.begin_local("orders", Duration::from_millis(100)).await.unwrap();
    assert_eq!(world.ended(&begun).await.state(), State::Failed);
    assert!(metrics(&world).await.contains("handfast_local_transactions_abandoned_total 1"));
    // Who asks has not gone.
    let begun = world.begin_local("orders", LONG).await.unwrap();
    assert_eq!(world.abort(&begun).await.unwrap().state(), State::Failed);
    assert!(metrics(&world).await.contains("handfast_local_transactions_abandoned_total 1"));
}

async fn metrics(world: &World) -> String {
    let url = world.url();
    let address = url.strip_prefix("http://").unwrap();
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    text
}
