//! Databases that are down, gone, or not ours, and configurations that change.

use std::time::Duration;

use handfast_wire::v1::{TransactionState as State, Wait};
use handfast_wire::{status, v1};

use crate::world::{World, servers};

/// The database is killed between the decision and phase two; the server finishes as soon as it is
/// back, without being told.
#[tokio::test]
async fn a_database_that_comes_back_is_finished_at_once() {
    let (mut postgres, mut mariadb) = servers();
    let world = World::over(&postgres.url(), &mariadb.url()).await;
    let begun = world.begin(&["orders", "ledger"]).await.unwrap();
    world.prepare_orders(&begun).await;
    world.prepare_ledger(&begun).await;
    postgres.kill();
    mariadb.kill();
    let outcome = world.commit_vouched(&begun, Wait::Decided).await.unwrap();
    assert_eq!(outcome.state(), State::Committing);
    world
        .until(async || {
            let all = world.list().await;
            all.iter().all(|database| database.condition == "down").then_some(())
        })
        .await;
    postgres.restart().unwrap();
    mariadb.restart().unwrap();
    assert_eq!(world.ended(&begun).await.state(), State::Committed);
    assert_eq!(world.balances().await, (90, 110));
}

/// A database that is down when the server starts does not stop it.
#[tokio::test]
async fn a_database_that_is_down_at_start_is_shown_and_tried_again() {
    let (mut postgres, mariadb) = servers();
    let (orders, ledger) = crate::world::databases(&postgres.url(), &mariadb.url()).await;
    postgres.kill();
    let world = World::start(&[("orders", &orders), ("ledger", &ledger)]);
    world.until_up(&["ledger"]).await;
    let down = world
        .until(async || world.database("orders").await.filter(|d| d.condition == "down"))
        .await;
    assert!(down.why.unwrap().contains("answer"));
    assert!(!down.url.contains(':') || !down.url.contains("password"), "{}", down.url);
    // Nobody knows whether it may be trusted, so nothing begins in it; later, yes.
    let second = Duration::from_secs(1);
    world.make_topic().await;
    for begun in
        [world.begin_local("orders", second).await, world.begin(&["ledger", "orders"]).await]
    {
        let Err(refused) = begun else { panic!("it has never answered") };
        let refusal = status::refusal(&refused).unwrap();
        assert_eq!((refusal.code.as_str(), refusal.retryable), ("database_refused", true));
        assert!(refusal.detail.contains("has not answered"), "{}", refusal.detail);
    }
    postgres.restart().unwrap();
    world.until_up(&["orders"]).await;
    world.begin_local("orders", second).await.unwrap();
    // Its silence afterwards refuses nothing: it may be back before anybody has noticed.
    postgres.kill();
    world.until(async || world.database("orders").await.filter(|d| d.condition == "down")).await;
    world.begin_local("orders", second).await.unwrap();
}

/// X5: a database with open branches cannot be left out of the configuration by mistake; X6: an
/// operator can release it.
#[tokio::test]
async fn x5_a_removed_database_with_open_branches_stops_the_start_unless_released() {
    let (mut postgres, mariadb) = servers();
    let mut world = World::over(&postgres.url(), &mariadb.url()).await;
    let begun = world.begin(&["orders", "ledger"]).await.unwrap();
    world.prepare_orders(&begun).await;
    world.prepare_ledger(&begun).await;
    postgres.kill();
    world.commit_vouched(&begun, Wait::Decided).await.unwrap();
    // Taken out of the running server's configuration it stays, because it is needed.
    world.reload(&["ledger"]);
    world.until(async || (world.balances_of_ledger().await == 110).then_some(())).await;
    assert!(world.database("orders").await.is_some());
    world.kill();
    let refused = world.restart_with(&["ledger"], &[]).unwrap_err();
    assert!(refused.contains("orders (1 unfinished branches)"), "{refused}");
    world.restart_with(&["ledger"], &["--release-database", "orders"]).unwrap();
    let shown = world.ended(&begun).await;
    assert_eq!((shown.state(), shown.heuristic), (State::Committed, true));
    assert!(shown.notes[0].text.contains("orders released"), "{:?}", shown.notes);
}

#[tokio::test]
async fn databases_come_and_go_with_sighup() {
    let mut world = World::new().await;
    world.reload(&["ledger"]);
    world.until(async || world.database("orders").await.is_none().then_some(())).await;
    let Err(refused) = world.begin(&["orders"]).await else { panic!("it is gone") };
    assert_eq!(status::refusal(&refused).unwrap().code, "unknown_database");
    world.reload(&["ledger", "orders"]);
    world.until_up(&["orders"]).await;
    world.begin(&["orders"]).await.unwrap();
}

/// Another life of the store has claimed the database: nothing is resolved there until an operator
/// says so.
#[tokio::test]
async fn a_database_that_another_copy_has_claimed_is_left_alone_until_adopted() {
    let mut world = World::new().await;
    world.kill();
    let other = "UPDATE public.handfast_owner SET opening = '0192f0a1-b2c3-7d4e-8f90-a1b2c3d4e5f6'";
    sqlx::raw_sql(other).execute(&mut world.postgres().await).await.unwrap();
    world.restart();
    let found = world
        .until(async || world.database("orders").await.filter(|d| d.condition == "not_ours"))
        .await;
    let why = found.why.unwrap();
    assert!(why.contains("handfast database adopt orders"), "{why}");
    let Err(refused) = world.begin_local("orders", Duration::from_secs(1)).await else {
        panic!("it is not ours")
    };
    assert_eq!(status::refusal(&refused).unwrap().code, "database_refused");
    let adopt = v1::AdoptRequest { database: "orders".into() };
    world.databases.clone().adopt(adopt).await.unwrap();
    world.until_up(&["orders"]).await;
    world.begin_local("orders", Duration::from_secs(1)).await.unwrap();
}

/// MY9: two names that lead to one database, also by different addresses, are found; two databases
/// of one server are not one. What is refused says what to do, and is up again when that is done.
#[tokio::test]
async fn my9_the_same_database_registered_twice_is_refused_and_offers_the_first_name() {
    let (postgres, mariadb) = crate::world::shared();
    for kind in ["PostgreSQL", "MariaDB"] {
        let first = crate::world::databases(&postgres, &mariadb).await;
        let other = crate::world::databases(&postgres, &mariadb).await;
        let pick = |(postgres, mariadb)| if kind == "PostgreSQL" { postgres } else { mariadb };
        let (first, other): (String, String) = (pick(first), pick(other));
        let mut world = World::start(&[("first", &first), ("other", &other)]);
        world.until_up(&["first", "other"]).await;
        let again = first.replace("127.0.0.1", "localhost");
        assert_ne!(again, first, "another address");
        world.urls.insert("second", again);
        world.reload(&["first", "other", "second"]);
        let refused = world
            .until(async || world.database("second").await.filter(|d| d.condition == "refused"))
            .await;
        let why = "it is the very database that is registered as first already: let both share \
                   first, and take second out of the configuration";
        assert_eq!(refused.why.unwrap(), why, "{kind}");
        let Err(status) = world.begin(&["first", "second"]).await else { panic!("{kind}") };
        let refusal = status::refusal(&status).unwrap();
        assert_eq!(refusal.code, "database_refused");
        assert!(refusal.detail.contains("share first"), "{}", refusal.detail);
        let begun = world.begin(&["first", "other"]).await.unwrap();
        // A database with something open in it would stay, also without its configuration.
        world.abort(&begun).await.unwrap();
        world.ended(&begun).await;

        world.reload(&["other", "second"]);
        world.until_up(&["second"]).await;
    }
}
