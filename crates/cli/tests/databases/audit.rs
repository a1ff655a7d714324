//! The auditor: what is prepared and belongs to nobody any more is freed; what is somebody else's
//! is only reported.

use std::time::Duration;

use handfast_core::branch::BranchId;
use handfast_core::ids::{Name, StoreId, TransactionId};
use handfast_database::{Options, Outcome, connect, postgres};
use handfast_wire::v1;

use crate::world::World;

async fn in_doubt(world: &World) -> Vec<v1::PreparedTransaction> {
    let reply = world.databases.clone().in_doubt(v1::InDoubtRequest {}).await;
    reply.unwrap().into_inner().prepared
}

/// PG3: a prepare that lands after its transaction has failed.
#[tokio::test]
async fn a_branch_that_is_prepared_after_its_transaction_failed_is_rolled_back() {
    let world = World::new().await;
    let begun = world.begin(&["orders"]).await.unwrap();
    world.abort(&begun).await.unwrap();
    world.ended(&begun).await;
    world.prepare_orders(&begun).await;
    let branch = begun.branch("orders");
    assert!(world.is_prepared("orders", &branch).await);
    world.until(async || (!world.is_prepared("orders", &branch).await).then_some(())).await;
    assert_eq!(world.balances().await.0, 100);
}

#[tokio::test]
async fn what_is_somebody_elses_is_reported_and_never_touched() {
    let world = World::new().await;
    let begun = world.begin(&["orders"]).await.unwrap();
    // Another store's branch, and one that has nothing to do with handfast.
    let name = Name::new("orders").unwrap();
    let other = BranchId::new(begun.branch("orders").transaction, StoreId(7), &name);
    let mut db = world.postgres().await;
    postgres::application::begin(&mut db, Duration::from_secs(60)).await.unwrap();
    postgres::application::prepare(&mut db, &other).await.unwrap();
    let foreign = format!("mine {}", other.transaction);
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("BEGIN; PREPARE TRANSACTION '{foreign}'")))
        .execute(&mut db)
        .await
        .unwrap();
    world.prepare_orders(&begun).await;
    let found = world
        .until(async || {
            let rows = in_doubt(&world).await;
            let label = |name: &str| rows.iter().find(|r| r.name == name).map(|r| r.label.clone());
            let own = label(&begun.branch("orders").to_string())?;
            Some((own, label(&other.to_string())?, label(&foreign)?))
        })
        .await;
    assert_eq!(found, ("undecided".into(), "elsewhere".into(), "foreign".into()));
    let database = connect(&world.urls["orders"], Options::default()).unwrap();
    world.abort(&begun).await.unwrap();
    world.ended(&begun).await;
    assert_eq!(database.list().await.unwrap().len(), 2, "both are still there");
    // So that the server can be stopped by the others.
    for gid in [other.gid(), foreign] {
        let sql = format!("ROLLBACK PREPARED '{gid}'");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut db).await.unwrap();
    }
}

/// Markers that nobody can ask for any more go by their id; others' and young ones stay.
#[tokio::test]
async fn old_markers_are_swept_and_nobody_elses() {
    let mut world = World::new().await;
    let begun = world.begin(&["orders", "ledger"]).await.unwrap();
    // Its BEGIN is in the log: a marker of a transaction that the log has never heard of would say
    // that this store is a copy.
    world.publish().await;
    let now_ms = begun.branch("orders").transaction.unix_ms();
    let days = |days: u64| TransactionId(u128::from(now_ms - days * 86_400_000) << 80);
    world.kill();
    for database in ["orders", "ledger"] {
        let own = begun.branch(database);
        let old = BranchId { transaction: days(2), ..own };
        let elses = BranchId { store: own.store ^ 1, ..old };
        let tombstone = BranchId { transaction: days(3), ..own };
        let old_tombstone = BranchId { transaction: days(31), ..own };
        let rows = [
            (own, "committed"),
            (old, "committed"),
            (elses, "committed"),
            (tombstone, "aborted"),
            (old_tombstone, "aborted"),
        ];
        for (id, outcome) in rows {
            world.insert_marker(database, &id, outcome).await;
        }
    }
    world.restart();
    for database in ["orders", "ledger"] {
        let own = begun.branch(database);
        let old = BranchId { transaction: days(2), ..own };
        let old_tombstone = BranchId { transaction: days(31), ..own };
        for gone in [old, old_tombstone] {
            world.until(async || world.marker(database, &gone).await.is_none().then_some(())).await;
        }
        let elses = BranchId { store: own.store ^ 1, ..old };
        let tombstone = BranchId { transaction: days(3), ..own };
        for (id, outcome) in
            [(own, Outcome::Committed), (elses, Outcome::Committed), (tombstone, Outcome::Aborted)]
        {
            assert_eq!(world.marker(database, &id).await, Some(outcome), "{database}: {id}");
        }
    }
}
