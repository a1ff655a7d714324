//! Distributed transactions over PostgreSQL and MariaDB: what the application prepared is finished
//! by the server, whoever dies.

use handfast_database::Outcome;
use handfast_wire::v1::{TransactionState as State, Wait};

use crate::world::World;

#[tokio::test]
async fn what_is_prepared_in_both_is_committed_by_the_server() {
    let world = World::new().await;
    let begun = world.begin(&["orders", "ledger"]).await.unwrap();
    world.prepare_orders(&begun).await;
    world.prepare_ledger(&begun).await;
    assert_eq!(world.balances().await, (100, 100), "nobody sees it before the decision");
    let outcome = world.commit(&begun, Wait::Finished).await.unwrap();
    assert_eq!(outcome.state(), State::Committed);
    assert_eq!(world.balances().await, (90, 110));
    for database in ["orders", "ledger"] {
        let branch = begun.branch(database);
        assert!(!world.is_prepared(database, &branch).await);
        assert_eq!(world.marker(database, &branch).await, Some(Outcome::Committed));
    }
}

#[tokio::test]
async fn an_abort_rolls_back_what_was_prepared() {
    let world = World::new().await;
    let begun = world.begin(&["orders", "ledger"]).await.unwrap();
    world.prepare_orders(&begun).await;
    world.prepare_ledger(&begun).await;
    assert_eq!(world.abort(&begun).await.unwrap().state(), State::Failed);
    world.ended(&begun).await;
    assert_eq!(world.balances().await, (100, 100));
    for database in ["orders", "ledger"] {
        assert!(!world.is_prepared(database, &begun.branch(database)).await);
    }
}

/// verify_votes: a caller without the library says YES for what it has not prepared.
#[tokio::test]
async fn a_vote_that_is_not_true_fails_the_transaction() {
    let world = World::new().await;
    let begun = world.begin(&["orders", "ledger"]).await.unwrap();
    world.prepare_orders(&begun).await;
    let outcome = world.commit(&begun, Wait::Finished).await.unwrap();
    assert_eq!(outcome.state(), State::Failed);
    let reason = outcome.reason.unwrap();
    assert_eq!((reason.code.as_str(), reason.participant.as_str()), ("voted_no", "ledger"));
    world.ended(&begun).await;
    assert_eq!(world.balances().await, (100, 100));
    assert!(!world.is_prepared("orders", &begun.branch("orders")).await);
}

/// The application died between its commit's acknowledgement and phase two, and the server with it.
#[tokio::test]
async fn a_server_killed_after_the_decision_finishes_both_databases() {
    let mut world = World::new().await;
    let begun = world.begin(&["orders", "ledger"]).await.unwrap();
    world.prepare_orders(&begun).await;
    world.prepare_ledger(&begun).await;
    world.commit(&begun, Wait::Decided).await.unwrap();
    world.kill();
    world.restart();
    let shown = world.ended(&begun).await;
    assert_eq!(shown.state(), State::Committed);
    assert_eq!(world.balances().await, (90, 110));
}

/// The application died between its YES and its commit call: nothing was decided, so the deadline
/// or a restart fails it, and the databases are freed.
#[tokio::test]
async fn a_server_killed_before_the_decision_frees_both_databases() {
    let mut world = World::new().await;
    let begun = world.begin(&["orders", "ledger"]).await.unwrap();
    world.prepare_orders(&begun).await;
    world.prepare_ledger(&begun).await;
    world.kill();
    assert!(world.is_prepared("orders", &begun.branch("orders")).await);
    assert!(world.is_prepared("ledger", &begun.branch("ledger")).await);
    world.restart();
    world
        .until(async || {
            let orders = world.is_prepared("orders", &begun.branch("orders")).await;
            let ledger = world.is_prepared("ledger", &begun.branch("ledger")).await;
            (!orders && !ledger).then_some(())
        })
        .await;
    assert_eq!(world.balances().await, (100, 100));
}

/// The example of docs/isolation.md: between the two databases' commits a plain reader is 10 short,
/// and one that locks what it reads waits and is not.
#[tokio::test(flavor = "multi_thread")]
async fn x3_a_reader_sees_one_database_committed_and_the_other_not_unless_it_locks() {
    let (world, network) = World::with_network().await;
    let begun = world.begin(&["orders", "ledger"]).await.unwrap();
    world.prepare_orders(&begun).await;
    world.prepare_ledger(&begun).await;
    network.stop();
    world.commit_vouched(&begun, Wait::Decided).await.unwrap();
    let seen = world.until(async || Some(world.balances().await).filter(|seen| seen.0 == 90)).await;
    assert_eq!(seen, (90, 100), "10 have left and not arrived");

    let (mut first, mut second) = (world.postgres().await, world.mariadb().await);
    sqlx::raw_sql("BEGIN").execute(&mut first).await.unwrap();
    let sql = "SELECT amount FROM account WHERE name = 'a' FOR SHARE";
    let (left,): (i64,) = sqlx::query_as(sql).fetch_one(&mut first).await.unwrap();
    let (session,): (u64,) =
        sqlx::query_as("SELECT CONNECTION_ID()").fetch_one(&mut second).await.unwrap();
    let reading = tokio::spawn(async move {
        let begin = "SET SESSION innodb_lock_wait_timeout = 60; START TRANSACTION";
        sqlx::raw_sql(begin).execute(&mut second).await.unwrap();
        let sql = "SELECT amount FROM account WHERE name = 'a' LOCK IN SHARE MODE";
        let (arrived,): (i64,) = sqlx::query_as(sql).fetch_one(&mut second).await.unwrap();
        arrived
    });
    let sql = "SELECT COUNT(*) FROM information_schema.INNODB_TRX \
               WHERE trx_state = 'LOCK WAIT' AND trx_mysql_thread_id = ?";
    world
        .until(async || {
            // InnoDB shows what it saw before as long as somebody has looked within 0.1 s.
            tokio::time::sleep(std::time::Duration::from_millis(150)).await;
            let mut watcher = world.mariadb().await;
            let waits = sqlx::query_as(sql).bind(session).fetch_one(&mut watcher).await;
            let (waits,): (i64,) = waits.unwrap();
            (waits == 1).then_some(())
        })
        .await;
    network.go_on();
    assert_eq!((left, reading.await.unwrap()), (90, 110));
    assert_eq!(world.ended(&begun).await.state(), State::Committed);
}
