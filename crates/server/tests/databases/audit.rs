//! The auditor: what is prepared and belongs to nobody any more is freed; what is somebody else's
//! is only reported.

use handfast_core::branch::BranchId;
use handfast_core::ids::{Name, StoreId};
use handfast_database::{Options, connect, postgres};
use handfast_wire::v1;
use std::time::Duration;

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
