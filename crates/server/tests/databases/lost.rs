//! Databases that come back without what was committed last: a copy that is put in place, a standby
//! that lagged and took over (PG10). Nothing told it, and nobody had tried it: in every test a
//! database that came back had all that it had before.

use std::path::Path;
use std::process::Command;

use handfast_core::ids::TransactionId;
use handfast_database::private::{MariaDb, MariaDbOptions, Postgres, PostgresOptions};
use handfast_wire::v1::{self, TransactionState as State, Wait};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

use crate::world::{Begun, World};

async fn committed(world: &World) -> Begun {
    let begun = world.begin(&["orders", "ledger"]).await.unwrap();
    world.prepare_orders(&begun).await;
    world.prepare_ledger(&begun).await;
    world.commit_vouched(&begun, Wait::Decided).await.unwrap();
    assert_eq!(world.ended(&begun).await.state(), State::Committed);
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
    for shown in [&said[0], &world.show(begun).await] {
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
