//! The guard: a marker is written in the transaction that was begun, and in no other (MY16).
//!
//! The story: the guard was once `WHERE @@in_transaction = 1`. After a deadlock that the application
//! overlooks, its next statement opens another transaction (with `autocommit = 0`, and in versions
//! with MDEV-36959 always), in which that is true: the marker was committed, and the work was gone.

use std::time::Duration;

use handfast_core::input::Resolution;
use handfast_database::mariadb::application;
use handfast_database::private::MariaDbOptions;
use handfast_database::{ApplicationError, End, Finished, Outcome};
use sqlx::{AssertSqlSafe, MySqlConnection};

use super::{Bench, run};
use crate::servers::{LONG, branch, mariadbs, private_mariadb};

/// How an application may have its session set: drivers differ.
const AUTOCOMMIT: [&str; 2] = ["SET autocommit = 1", "SET autocommit = 0"];

/// Lets two connections lock two rows crosswise; returns which of them was chosen. What it had done
/// is undone, and the application overlooks it: it goes on.
async fn deadlock(bench: &Bench, one: &mut MySqlConnection, two: &mut MySqlConnection) -> usize {
    let rows = "INSERT IGNORE INTO work (id) VALUES ('a'), ('b')";
    run(&mut bench.connection().await, rows).await;
    let update = |row| format!("UPDATE work SET n = n + 1 WHERE id = '{row}'");
    run(one, &update("a")).await;
    run(two, &update("b")).await;
    let (first, second) = tokio::join!(
        sqlx::raw_sql(AssertSqlSafe(update("b"))).execute(&mut *one),
        sqlx::raw_sql(AssertSqlSafe(update("a"))).execute(&mut *two)
    );
    assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    let victim = usize::from(second.is_err());
    let victims = if victim == 0 { one } else { two };
    // Of a branch some versions refuse it, and of a local transaction none.
    let _ = sqlx::raw_sql("INSERT INTO work VALUES (UUID(), 0)").execute(victims).await;
    victim
}

#[tokio::test(flavor = "multi_thread")]
async fn my16_after_an_overlooked_deadlock_no_marker_is_committed() {
    for server in mariadbs() {
        let bench = Bench::on(server).await;
        for autocommit in AUTOCOMMIT {
            let (mut one, mut two) = (bench.connection().await, bench.connection().await);
            for connection in [&mut one, &mut two] {
                run(connection, autocommit).await;
                application::begin_local(connection, LONG).await.unwrap();
            }
            let chosen = deadlock(&bench, &mut one, &mut two).await;
            let ends = if chosen == 0 { [&mut two, &mut one] } else { [&mut one, &mut two] };
            for (connection, lives) in ends.into_iter().zip([true, false]) {
                let id = branch();
                let ended = application::commit_local(connection, &id).await;
                let context = format!("{}, {autocommit}: {ended:?}", server.url());
                if lives {
                    assert_eq!(ended, Ok(()), "{context}");
                    assert_eq!(bench.database.resolve(&id).await, Resolution::Committed);
                    continue;
                }
                // It says what is to be done, and never that it has committed.
                let Err(ApplicationError::No { code, message, .. }) = ended else {
                    panic!("{context}")
                };
                assert_eq!(code, "1305");
                assert!(message.contains("a deadlock"), "{message}");
                assert_eq!(bench.database.resolve(&id).await, Resolution::Tombstone, "{context}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn my16_after_an_overlooked_deadlock_a_plain_commit_is_no_success() {
    for server in mariadbs() {
        let bench = Bench::on(server).await;
        for autocommit in AUTOCOMMIT {
            let (mut one, mut two) = (bench.connection().await, bench.connection().await);
            for connection in [&mut one, &mut two] {
                run(connection, autocommit).await;
                application::begin_local(connection, LONG).await.unwrap();
            }
            let chosen = deadlock(&bench, &mut one, &mut two).await;
            let (victim, other) =
                if chosen == 0 { (&mut one, &mut two) } else { (&mut two, &mut one) };
            let ended = application::commit_alone(victim).await.unwrap_err();
            assert!(ended.is_no() && ended.discards_connection(), "{autocommit}: {ended:?}");
            application::commit_alone(other).await.unwrap();
        }
    }
}

/// A branch as well, whatever the application makes of the error.
#[tokio::test(flavor = "multi_thread")]
async fn my11_a_deadlock_is_a_no() {
    for server in mariadbs() {
        let bench = Bench::on(server).await;
        for autocommit in AUTOCOMMIT {
            let (first, second) = (branch(), branch());
            let (mut one, mut two) = (bench.connection().await, bench.connection().await);
            for (connection, id) in [(&mut one, &first), (&mut two, &second)] {
                run(connection, autocommit).await;
                application::start(connection, id, LONG).await.unwrap();
            }
            let chosen = deadlock(&bench, &mut one, &mut two).await;
            let (victim, id) = if chosen == 0 { (&mut one, first) } else { (&mut two, second) };
            let error = application::prepare(victim, &id).await.unwrap_err();
            assert!(error.is_no() && error.discards_connection(), "{error:?}");
            assert!(!bench.is_prepared(&id).await);
            assert_eq!(bench.database.outcomes(&[id]).await, Ok(vec![None]));
            assert_eq!(bench.database.finish(&id, End::Abort, None).await, Finished::Done);
        }
    }
}

/// A deadlock is not the only thing that ends a transaction: here a lock that was waited for too
/// long, where a server is set so.
#[tokio::test(flavor = "multi_thread")]
async fn my16_a_transaction_that_a_lock_timeout_has_ended_writes_no_marker() {
    let setting = MariaDbOptions::default().with_setting("innodb-rollback-on-timeout=1");
    let server = private_mariadb(&setting);
    let bench = Bench::on(&server).await;
    run(&mut bench.connection().await, "INSERT INTO work (id) VALUES ('locked')").await;
    let mut owner = bench.connection().await;
    run(&mut owner, "START TRANSACTION; UPDATE work SET n = 1 WHERE id = 'locked'").await;
    for autocommit in AUTOCOMMIT {
        let (mut connection, id) = (bench.connection().await, branch());
        run(&mut connection, autocommit).await;
        application::begin_local(&mut connection, Duration::from_secs(60)).await.unwrap();
        run(&mut connection, &format!("INSERT INTO work (id) VALUES ('{id}')")).await;
        run(&mut connection, "SET innodb_lock_wait_timeout = 0").await;
        let overlooked = sqlx::raw_sql("UPDATE work SET n = 2 WHERE id = 'locked'");
        assert!(overlooked.execute(&mut connection).await.is_err());
        run(&mut connection, "INSERT INTO work VALUES (UUID(), 0)").await;
        let ended = application::commit_local(&mut connection, &id).await.unwrap_err();
        assert!(ended.is_no(), "{ended:?}");
        assert!(!bench.work_is_visible(&id).await, "the hazard itself");
        assert_eq!(bench.database.outcomes(&[id]).await, Ok(vec![None]));
    }
}

/// The statements of docs/databases.md, as an application in any language sends them.
#[tokio::test(flavor = "multi_thread")]
async fn my16_the_documented_statements_are_guarded() {
    for server in mariadbs() {
        let bench = Bench::on(server).await;
        for autocommit in AUTOCOMMIT {
            let (mut one, mut two) = (bench.connection().await, bench.connection().await);
            for connection in [&mut one, &mut two] {
                run(connection, autocommit).await;
                run(connection, "START TRANSACTION; SAVEPOINT handfast").await;
            }
            let chosen = deadlock(&bench, &mut one, &mut two).await;
            let ends = if chosen == 0 { [&mut two, &mut one] } else { [&mut one, &mut two] };
            for (connection, lives) in ends.into_iter().zip([true, false]) {
                let id = branch();
                let end = format!(
                    "RELEASE SAVEPOINT handfast; \
                     INSERT INTO handfast_branch (id, outcome) VALUES ('{id}', 'committed'); COMMIT"
                );
                let ended = sqlx::raw_sql(AssertSqlSafe(end)).execute(connection).await;
                assert_eq!(ended.is_ok(), lives, "{autocommit}: {ended:?}");
                let marker = lives.then_some(Outcome::Committed);
                assert_eq!(bench.database.outcomes(&[id]).await, Ok(vec![marker]));
            }
        }
    }
}
