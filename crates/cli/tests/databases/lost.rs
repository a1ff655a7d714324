//! Databases that come back without what was committed last: a copy that is put in place, a standby
//! that lagged and took over (PG10). Nothing told it, and nobody had tried it: in every test a
//! database that came back had all that it had before.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use handfast_core::ids::TransactionId;
use handfast_database::postgres;
use handfast_database::private::{MariaDb, MariaDbOptions, Postgres, PostgresOptions};
use handfast_wire::v1::{self, TransactionState as State, Wait};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

use crate::world::{Begun, World, databases, shared};

async fn committed(world: &World) -> Begun {
    let begun = world.begin(&["orders", "ledger"]).await.unwrap();
    world.prepare_orders(&begun).await;
    world.prepare_ledger(&begun).await;
    world.commit_vouched(&begun, Wait::Decided).await.unwrap();
    assert_eq!(world.ended(&begun).await.state(), State::Committed);
    // Its END is durable when something later is.
    world.publish().await;
    begun
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

fn put_in_place(data: &Path, copy: &Path) {
    std::fs::rename(data, data.with_extension("lost")).unwrap();
    std::fs::rename(copy, data).unwrap();
}

async fn in_attention(world: &World) -> Vec<v1::Transaction> {
    let list = v1::ListTransactionsRequest { attention: true, ..Default::default() };
    world.transactions.clone().list(list).await.unwrap().into_inner().transactions
}

/// What is in attention is this transaction and no other, because this database has lost it.
async fn is_lost(world: &World, begun: &Begun, database: &str) {
    let said = world
        .until(async || {
            let said = in_attention(world).await;
            (!said.is_empty()).then_some(said)
        })
        .await;
    let ids: Vec<_> = said.iter().map(|tx| tx.transaction_id.clone()).collect();
    assert_eq!(ids, std::slice::from_ref(&begun.bytes));
    let words = format!("database {database} has lost it");
    // The log has it a moment later than the list.
    let shown = world.until(async || Some(world.show(begun).await).filter(|tx| tx.heuristic)).await;
    for shown in [&said[0], &shown] {
        assert!(shown.attention.as_ref().unwrap().starts_with(&words), "{shown:?}");
        assert!(shown.heuristic && shown.state() == State::Committed, "{shown:?}");
    }
}

async fn servers(directory: &TempDir) -> (World, Postgres, MariaDb) {
    let (orders, ledger) = (directory.path().join("orders"), directory.path().join("ledger"));
    let postgres = Postgres::start(&orders, &PostgresOptions::default()).unwrap();
    let mariadb = MariaDb::start(&ledger, &MariaDbOptions::default()).unwrap();
    (World::over(&postgres.url(), &mariadb.url()).await, postgres, mariadb)
}

/// The timeline of a copy is that of the original; a standby begins another when it takes over.
#[tokio::test(flavor = "multi_thread")]
async fn commits_that_postgres_has_lost_are_named_until_somebody_has_seen_it() {
    for takes_over in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let (mut world, mut postgres, _mariadb) = servers(&directory).await;
        let data = directory.path().join("orders/data");
        let older = directory.path().join("older");
        committed(&world).await;
        postgres.stop();
        copy(&data, &older);
        postgres.restart().unwrap();
        world.until_up(&["orders", "ledger"]).await;
        let lost = committed(&world).await;
        assert!(in_attention(&world).await.is_empty(), "a restart alone loses nothing");

        postgres.kill();
        if takes_over {
            std::fs::write(older.join("standby.signal"), "").unwrap();
        }
        put_in_place(&data, &older);
        postgres.restart().unwrap();
        if takes_over {
            let mut db = PgConnection::connect(&postgres.url()).await.unwrap();
            sqlx::query("SELECT pg_promote()").execute(&mut db).await.unwrap();
        }
        is_lost(&world, &lost, "orders").await;
        assert_eq!(world.balances().await, (90, 120));

        // It is durable, and a person has to see it once.
        world.kill();
        world.restart();
        world.until_up(&["orders", "ledger"]).await;
        is_lost(&world, &lost, "orders").await;
        let id = lost.branch("orders").transaction;
        note(&world, id);
        assert!(in_attention(&world).await.is_empty());
        let shown = world.show(&lost).await;
        assert!(shown.attention.is_none() && shown.heuristic, "{shown:?}");
        committed(&world).await;
    }
}

fn note(world: &World, id: TransactionId) {
    let id = id.to_string();
    world.run(&["tx", "resolve", &id, "--note", "--why", "seen", "--server", &world.url()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_that_mariadb_has_lost_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let (world, _postgres, mut mariadb) = servers(&directory).await;
    let data = directory.path().join("ledger/data");
    let older = directory.path().join("older");
    committed(&world).await;
    mariadb.stop();
    copy(&data, &older);
    mariadb.restart().unwrap();
    world.until_up(&["orders", "ledger"]).await;
    let lost = committed(&world).await;
    mariadb.kill();
    put_in_place(&data, &older);
    mariadb.restart().unwrap();
    is_lost(&world, &lost, "ledger").await;
    assert_eq!(world.balances().await, (80, 110));
    committed(&world).await;
}

/// The look that a start makes is over, with so many commits there and so many known to be lost.
async fn looked_up(world: &World, database: &str, there: usize, lost: usize) {
    let found = format!("{there} recent commits are there, and {lost} are known to be lost");
    world.until_said(&[database, &found]).await;
}

/// A database was replaced while nobody saw it, because the server was stopped: nobody looked. Every
/// test had replaced it under a server that ran.
#[tokio::test(flavor = "multi_thread")]
async fn commits_that_were_lost_while_the_server_was_stopped_are_named_once() {
    let directory = tempfile::tempdir().unwrap();
    let (mut world, mut postgres, mut mariadb) = servers(&directory).await;
    let names = [("orders", "orders/data"), ("ledger", "ledger/data")];
    let data = |place: &str| directory.path().join(place);
    committed(&world).await;
    postgres.stop();
    mariadb.stop();
    for (name, place) in names {
        copy(&data(place), &directory.path().join(format!("older-{name}")));
    }
    postgres.restart().unwrap();
    mariadb.restart().unwrap();
    world.until_up(&["orders", "ledger"]).await;
    let lost = committed(&world).await;
    for _ in 0..2 {
        world.kill();
        world.restart();
        looked_up(&world, "orders", 2, 0).await;
        looked_up(&world, "ledger", 2, 0).await;
        assert!(in_attention(&world).await.is_empty(), "a restart alone loses nothing");
    }

    world.kill();
    postgres.kill();
    put_in_place(&data("orders/data"), &directory.path().join("older-orders"));
    postgres.restart().unwrap();
    world.restart();
    is_lost(&world, &lost, "orders").await;
    assert_eq!(world.balances().await, (90, 120));
    note(&world, lost.branch("orders").transaction);
    world.kill();
    world.restart();
    looked_up(&world, "orders", 1, 1).await;
    looked_up(&world, "ledger", 2, 0).await;
    assert!(in_attention(&world).await.is_empty(), "somebody has seen it");

    // What another database has lost of it is another matter.
    world.kill();
    mariadb.kill();
    put_in_place(&data("ledger/data"), &directory.path().join("older-ledger"));
    mariadb.restart().unwrap();
    world.restart();
    is_lost(&world, &lost, "ledger").await;
    looked_up(&world, "orders", 1, 1).await;
    committed(&world).await;
}

/// Another database under a name than before has lost nothing: what had committed is in the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_new_under_its_name_has_lost_nothing() {
    let (postgres, mariadb) = shared();
    let (orders, ledger) = databases(&postgres, &mariadb).await;
    let (stock, fresh) = databases(&postgres, &mariadb).await;
    let mut world = World::start(&[("orders", &orders), ("ledger", &ledger)]);
    world.until_up(&["orders", "ledger"]).await;
    world.make_topic().await;
    committed(&world).await;
    // Databases that the store has never seen; a restart later they have a row, and are in use.
    world.kill();
    world.urls.extend([("orders", stock), ("ledger", fresh)]);
    for there in 0..3 {
        world.restart_with(&["orders", "ledger"], &[]).unwrap();
        for database in ["orders", "ledger"] {
            looked_up(&world, database, there, 0).await;
        }
        assert!(in_attention(&world).await.is_empty());
        committed(&world).await;
        world.kill();
    }
}

/// Two databases of one store take each other's names.
#[tokio::test(flavor = "multi_thread")]
async fn databases_that_change_their_names_have_lost_nothing() {
    let (postgres, mariadb) = shared();
    let (one, _) = databases(&postgres, &mariadb).await;
    let (two, _) = databases(&postgres, &mariadb).await;
    let mut world = World::start(&[("one", &one), ("two", &two)]);
    world.until_up(&["one", "two"]).await;
    world.make_topic().await;
    for (name, url) in [("one", &one), ("two", &two)] {
        let begun = world.begin_local(name, Duration::from_secs(60)).await.unwrap();
        let mut db = PgConnection::connect(url).await.unwrap();
        let branch = begun.branch(name);
        postgres::application::begin(&mut db, Duration::from_secs(20)).await.unwrap();
        postgres::application::commit_local(&mut db, &branch).await.unwrap();
        world.commit_local(&begun).await.unwrap();
        assert_eq!(world.ended(&begun).await.state(), State::Committed);
    }
    world.publish().await;
    world.kill();
    world.urls.extend([("one", two), ("two", one)]);
    world.restart_with(&["one", "two"], &[]).unwrap();
    for name in ["one", "two"] {
        world.until_said(&[name, "another database than before is registered"]).await;
    }
    for _ in 0..2 {
        assert!(in_attention(&world).await.is_empty());
        world.kill();
        world.restart();
        for name in ["one", "two"] {
            looked_up(&world, name, 0, 0).await;
        }
    }
}
