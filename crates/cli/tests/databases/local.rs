//! Local transactions: one database and events, without anything prepared. Rows L1 to L9.

use std::time::Duration;

use handfast_core::branch::BranchId;
use handfast_database::private::{Postgres, PostgresOptions};
use handfast_database::{ApplicationError, Outcome, mariadb, postgres};
use handfast_wire::status;
use handfast_wire::v1::TransactionState as State;
use sqlx::PgConnection;

use crate::world::World;

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(500);

async fn work(db: &mut PgConnection) {
    postgres::application::begin(db, LONG).await.unwrap();
    let work = "UPDATE account SET amount = amount - 10 WHERE name = 'a'";
    sqlx::query(work).execute(db).await.unwrap();
}

async fn commit_orders(world: &World, branch: &BranchId) -> Result<(), ApplicationError> {
    let mut db = world.postgres().await;
    work(&mut db).await;
    postgres::application::commit_local(&mut db, branch).await
}

async fn commit_ledger(world: &World, branch: &BranchId) -> Result<(), ApplicationError> {
    let mut db = world.mariadb().await;
    mariadb::application::begin_local(&mut db, LONG).await.unwrap();
    let work = "UPDATE account SET amount = amount + 10 WHERE name = 'a'";
    sqlx::query(work).execute(&mut db).await.unwrap();
    mariadb::application::commit_local(&mut db, branch).await
}

#[tokio::test]
async fn l3_events_appear_when_the_local_commit_is_reported() {
    let world = World::new().await;
    for database in ["orders", "ledger"] {
        let before = world.events().await;
        let begun = world.begin_local(database, LONG).await.unwrap();
        let branch = begun.branch(database);
        match database {
            "orders" => commit_orders(&world, &branch).await.unwrap(),
            _ => commit_ledger(&world, &branch).await.unwrap(),
        }
        assert_eq!(world.events().await, before);
        let outcome = world.commit_local(&begun).await.unwrap();
        assert_eq!(outcome.state(), State::Committed);
        assert_eq!(world.events().await, before + 1);
    }
    assert_eq!(world.balances().await, (90, 110));
}

#[tokio::test]
async fn l3_a_commit_that_did_not_happen_is_refused_by_its_marker() {
    let world = World::new().await;
    let begun = world.begin_local("orders", LONG).await.unwrap();
    let refused = world.commit_local(&begun).await.unwrap_err();
    assert_eq!(status::refusal(&refused).unwrap().code, "marker_not_written");
    // It is still open: the commit may come.
    commit_orders(&world, &begun.branch("orders")).await.unwrap();
    assert_eq!(world.commit_local(&begun).await.unwrap().state(), State::Committed);
}

#[tokio::test]
async fn l6_an_application_that_died_after_its_commit_has_committed() {
    let world = World::new().await;
    for database in ["orders", "ledger"] {
        let begun = world.begin_local(database, SHORT).await.unwrap();
        let branch = begun.branch(database);
        match database {
            "orders" => commit_orders(&world, &branch).await.unwrap(),
            _ => commit_ledger(&world, &branch).await.unwrap(),
        }
        assert_eq!(world.ended(&begun).await.state(), State::Committed, "{database}");
    }
    assert_eq!(world.events().await, 2);
}

#[tokio::test]
async fn l5_an_application_that_died_before_its_commit_has_failed_for_ever() {
    let world = World::new().await;
    for database in ["orders", "ledger"] {
        let begun = world.begin_local(database, SHORT).await.unwrap();
        let branch = begun.branch(database);
        let shown = world.ended(&begun).await;
        assert_eq!(shown.state(), State::Failed);
        assert_eq!(shown.reason.unwrap().code, "deadline_passed");
        assert_eq!(world.marker(database, &branch).await, Some(Outcome::Aborted));
        // The tombstone against a commit that comes too late.
        let late = match database {
            "orders" => commit_orders(&world, &branch).await,
            _ => commit_ledger(&world, &branch).await,
        };
        assert!(late.unwrap_err().is_no());
        let refused = world.commit_local(&begun).await.unwrap_err();
        assert_eq!(status::refusal(&refused).unwrap().code, "marker_not_written");
    }
    assert_eq!(world.balances().await, (100, 100));
    assert_eq!(world.events().await, 0);
}

/// L7: the local transaction is still open and holds its marker's lock.
#[tokio::test]
async fn l7_an_open_local_transaction_is_waited_for() {
    let world = World::new().await;
    let begun = world.begin_local("orders", SHORT).await.unwrap();
    let mut db = world.postgres().await;
    work(&mut db).await;
    let marker = "INSERT INTO public.handfast_branch (id, outcome) VALUES ($1, 'committed')";
    let id = begun.branch("orders").to_string();
    sqlx::query(marker).bind(id).execute(&mut db).await.unwrap();
    world
        .until(async || {
            world.show(&begun).await.remaining_ms.is_none_or(|ms| ms == 0).then_some(())
        })
        .await;
    assert_eq!(world.show(&begun).await.state(), State::Preparing);
    sqlx::raw_sql("COMMIT").execute(&mut db).await.unwrap();
    assert_eq!(world.ended(&begun).await.state(), State::Committed);
}

#[tokio::test]
async fn l8_a_server_killed_while_a_local_transaction_is_open_finds_out_how_it_ended() {
    let mut world = World::new().await;
    let committed = world.begin_local("orders", Duration::from_secs(2)).await.unwrap();
    let never = world.begin_local("ledger", Duration::from_secs(2)).await.unwrap();
    commit_orders(&world, &committed.branch("orders")).await.unwrap();
    world.kill();
    world.restart();
    assert_eq!(world.ended(&committed).await.state(), State::Committed);
    assert_eq!(world.ended(&never).await.state(), State::Failed);
    assert_eq!(world.events().await, 1);
}

/// PG1: without prepared transactions distributed ones are refused clearly, and local ones work.
#[tokio::test]
async fn pg1_local_works_without_prepared_transactions() {
    let options =
        PostgresOptions::default().with_max_prepared_transactions(0).with_directory_removed();
    let directory = std::env::temp_dir().join(format!("handfast-pg1-{}", std::process::id()));
    let server = Postgres::start(&directory, &options).unwrap();
    let world = World::with_postgres_only(&server.url()).await;
    let Err(refused) = world.begin(&["orders"]).await else { panic!("it is refused") };
    let refusal = status::refusal(&refused).unwrap();
    assert_eq!(refusal.code, "database_refused");
    assert!(refusal.detail.contains("max_prepared_transactions"), "{}", refusal.detail);
    let begun = world.begin_local("orders", LONG).await.unwrap();
    commit_orders(&world, &begun.branch("orders")).await.unwrap();
    assert_eq!(world.commit_local(&begun).await.unwrap().state(), State::Committed);
    assert_eq!(world.events().await, 1);
}
