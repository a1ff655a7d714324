//! The application's side: MY9 to MY12, MY14, MY15, and the rules of the marker.

use std::time::Duration;

use handfast_core::ids::{Name, TransactionId};
use handfast_core::input::Resolution;
use handfast_database::conformance::Fixture;
use handfast_database::mariadb::application;
use handfast_database::{BranchId, End, Finished, Outcome};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, Row};

use super::{Bench, insert, local_work, run, work};
use crate::servers::{STORE, branch, next};

#[tokio::test(flavor = "multi_thread")]
async fn my9_two_databases_of_one_server_have_two_branches() {
    let (one, two) = (Bench::new().await, Bench::new().await);
    let transaction = TransactionId(u128::from(next()) << 32);
    let id = |name| BranchId::new(transaction, STORE, &Name::new(name).unwrap());
    let (first, second) = (id("orders"), id("stock"));
    let first_holder = Fixture::prepare(&one, &first).await;
    let second_holder = Fixture::prepare(&two, &second).await;
    // The list is the server's, but a branch belongs to the database that has its marker.
    for (bench, expected) in [(&one, [true, false]), (&two, [false, true])] {
        let listed = bench.database.list().await.unwrap();
        assert!([first, second].iter().all(|id| listed.iter().any(|p| p.branch == Some(*id))));
        assert_eq!(bench.database.prepared(&[first, second]).await, Ok(expected.to_vec()));
    }
    assert_eq!(one.database.finish(&first, End::Commit, first_holder).await, Finished::Done);
    assert_eq!(two.database.finish(&second, End::Commit, second_holder).await, Finished::Done);
    assert!(one.work_is_visible(&first).await && two.work_is_visible(&second).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn my10_the_id_fits_and_comes_back() {
    let bench = Bench::new().await;
    let id = branch();
    Fixture::prepare(&bench, &id).await;
    let rows = sqlx::raw_sql("XA RECOVER FORMAT = 'SQL'")
        .fetch_all(&mut bench.connection().await)
        .await
        .unwrap();
    let row = rows.iter().find(|row| row.get::<String, _>(3) == id.xid()).unwrap();
    assert_eq!(row.get::<i64, _>(0), i64::from(handfast_database::branch::FORMAT_ID));
    assert_eq!((row.get::<i64, _>(1), row.get::<i64, _>(2)), (24, 4));
    assert_eq!(bench.database.finish(&id, End::Abort, None).await, Finished::Done);
}

/// What the statements of the specification would do in every state that an application can have
/// left its connection in.
#[tokio::test(flavor = "multi_thread")]
async fn marker_no_error_means_exactly_prepared_or_committed() {
    let bench = Bench::new().await;
    let duplicate = "INSERT INTO work (id) VALUES ('once'), ('once')";
    let states: &[(&str, bool, bool)] = &[
        // what ran before, whether a branch may be prepared then, whether a local one may commit
        ("SELECT 1", false, false),
        ("START TRANSACTION", false, false),
        ("START TRANSACTION; SAVEPOINT handfast", false, true),
        ("START TRANSACTION; SAVEPOINT handfast; {work}", false, true),
        (
            "START TRANSACTION; SAVEPOINT handfast; SAVEPOINT a; ROLLBACK TO SAVEPOINT a",
            false,
            true,
        ),
        (
            "START TRANSACTION; SAVEPOINT handfast; {work}; ROLLBACK TO SAVEPOINT handfast",
            false,
            true,
        ),
        ("START TRANSACTION; SAVEPOINT handfast; COMMIT", false, false),
        ("START TRANSACTION; SAVEPOINT handfast; ROLLBACK", false, false),
        ("START TRANSACTION; SAVEPOINT handfast; COMMIT AND CHAIN; {work}", false, false),
        ("START TRANSACTION; SAVEPOINT handfast; START TRANSACTION; {work}", false, false),
        (
            "START TRANSACTION; SAVEPOINT handfast; CREATE TABLE IF NOT EXISTS o (n int)",
            false,
            false,
        ),
        ("SET autocommit = 0; START TRANSACTION; SAVEPOINT handfast; {work}", false, true),
        (
            "SET autocommit = 0; START TRANSACTION; SAVEPOINT handfast; ROLLBACK; {work}",
            false,
            false,
        ),
        ("XA START {xid}", false, false),
        ("XA START {xid}; SAVEPOINT handfast", true, false),
        ("XA START {xid}; SAVEPOINT handfast; {work}", true, false),
        ("XA START {xid}; SAVEPOINT handfast; SAVEPOINT a; ROLLBACK TO SAVEPOINT a", true, false),
        ("SET autocommit = 0; XA START {xid}; SAVEPOINT handfast; {work}", true, false),
        ("XA START {xid}; SAVEPOINT handfast; XA END {xid}", false, false),
        ("XA START {xid}; SAVEPOINT handfast; XA END {xid}; XA ROLLBACK {xid}", false, false),
        ("XA START X'01',X'{n}',1; SAVEPOINT handfast", false, false),
    ];
    for (state, prepares, commits) in states {
        for fails in [false, true] {
            for local in [false, true] {
                let id = branch();
                let mut connection = bench.connection().await;
                let sql = state
                    .replace("{xid}", &id.xid())
                    .replace("{work}", &format!("INSERT INTO work (id) VALUES ('{id}')"))
                    .replace("{n}", &format!("{:08x}", next()));
                run(&mut connection, &sql).await;
                if fails {
                    // MariaDB undoes this statement alone; the application ignores it.
                    let _ = sqlx::raw_sql(duplicate).execute(&mut connection).await;
                }
                let context = format!("{state}, fails: {fails}, local: {local}");
                if local {
                    let ended = application::commit_local(&mut connection, &id).await;
                    drop(connection);
                    assert_eq!(ended.is_ok(), *commits, "{context}: {ended:?}");
                    let marker = ended.is_ok().then_some(Outcome::Committed);
                    assert_eq!(bench.database.outcomes(&[id]).await, Ok(vec![marker]), "{context}");
                } else {
                    let ended = application::prepare(&mut connection, &id).await;
                    assert_eq!(ended.is_ok(), *prepares, "{context}: {ended:?}");
                    assert_eq!(bench.is_prepared(&id).await, ended.is_ok(), "{context}");
                    assert_eq!(bench.database.outcomes(&[id]).await, Ok(vec![None]), "{context}");
                    if ended.is_ok() {
                        application::finish_own(&mut connection, &id, End::Commit).await.unwrap();
                        let marker = Some(Outcome::Committed);
                        assert_eq!(bench.database.outcomes(&[id]).await, Ok(vec![marker]));
                    }
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn marker_that_stands_refuses_the_branch() {
    let bench = Bench::new().await;
    let id = branch();
    assert_eq!(bench.database.resolve(&id).await, Resolution::Tombstone);
    let mut connection = bench.connection().await;
    local_work(&mut connection, &id).await;
    let error = application::commit_local(&mut connection, &id).await.unwrap_err();
    assert!(error.is_no(), "{error:?}");
    let mut connection = bench.connection().await;
    work(&mut connection, &id).await;
    let error = application::prepare(&mut connection, &id).await.unwrap_err();
    assert!(error.is_no(), "{error:?}");
    assert!(!bench.work_is_visible(&id).await && !bench.is_prepared(&id).await);
    assert_eq!(bench.database.outcomes(&[id]).await, Ok(vec![Some(Outcome::Aborted)]));
}

/// The duplicate that a REPEATABLE READ transaction is told of and cannot see.
#[tokio::test(flavor = "multi_thread")]
async fn marker_is_read_in_a_new_statement() {
    let bench = Bench::new().await;
    let id = branch();
    let mut old = bench.connection().await;
    run(&mut old, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION")
        .await;
    run(&mut old, "SELECT COUNT(*) FROM handfast_branch").await;
    Fixture::commit_local(&bench, &id).await;
    let tombstone = format!("INSERT INTO handfast_branch (id, outcome) VALUES ('{id}', 'aborted')");
    let error = sqlx::raw_sql(AssertSqlSafe(tombstone)).execute(&mut old).await.unwrap_err();
    assert_eq!(handfast_database::errors::mariadb::number(&error), Some(1062));
    let seen: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM handfast_branch WHERE id = ?")
        .bind(id.to_string())
        .fetch_one(&mut old)
        .await
        .unwrap();
    assert_eq!(seen, 0, "the hazard itself");
    drop(old);
    assert_eq!(bench.database.resolve(&id).await, Resolution::Committed);
}

#[tokio::test(flavor = "multi_thread")]
async fn marker_may_be_inserted_by_the_application_and_nothing_else() {
    let bench = Bench::new().await;
    let user = format!("app_{}", bench.name);
    let create = format!(
        "CREATE USER {user}@'%'; GRANT SELECT, INSERT ON {}.work TO {user}@'%'",
        bench.name
    );
    run(&mut bench.connection().await, &create).await;
    let done = bench.database.install(Some(&user)).await.unwrap();
    assert_eq!(done.len(), 1, "{done:?}");
    let url = bench.url.replace("root@", &format!("{user}@"));
    let mut connection = MySqlConnection::connect(&url).await.unwrap();
    let id = branch();
    local_work(&mut connection, &id).await;
    application::commit_local(&mut connection, &id).await.unwrap();
    for denied in [
        "SELECT * FROM handfast_branch",
        "UPDATE handfast_branch SET outcome = 'aborted'",
        "DELETE FROM handfast_branch",
        "SELECT * FROM handfast_owner",
        "INSERT INTO handfast_owner VALUES ('x', 0, 1, 'x', 'x', 1, 1, now())",
    ] {
        let answer = sqlx::raw_sql(denied).execute(&mut connection).await;
        assert!(answer.is_err(), "{denied}");
    }
    // And a branch that another user prepared is finished by the server's.
    let id = branch();
    let holder = application::holder(&mut connection).await.unwrap();
    work(&mut connection, &id).await;
    application::prepare(&mut connection, &id).await.unwrap();
    assert_eq!(bench.database.finish(&id, End::Commit, Some(holder)).await, Finished::Done);
}

/// MDEV-26682: what was read with a shared lock may change between the vote and the end.
#[tokio::test(flavor = "multi_thread")]
async fn my14_shared_locks_end_at_the_prepare_and_others_do_not() {
    let bench = Bench::new().await;
    run(&mut bench.connection().await, "INSERT INTO work (id) VALUES ('s'), ('x')").await;
    let id = branch();
    let mut connection = bench.connection().await;
    work(&mut connection, &id).await;
    run(&mut connection, "SELECT * FROM work WHERE id = 's' LOCK IN SHARE MODE").await;
    run(&mut connection, "SELECT * FROM work WHERE id = 'x' FOR UPDATE").await;
    let mut other = bench.connection().await;
    run(&mut other, "SET SESSION innodb_lock_wait_timeout = 0").await;
    let update = |row| AssertSqlSafe(format!("UPDATE work SET n = 1 WHERE id = '{row}'"));
    assert!(sqlx::raw_sql(update("s")).execute(&mut other).await.is_err());
    application::prepare(&mut connection, &id).await.unwrap();
    assert!(sqlx::raw_sql(update("s")).execute(&mut other).await.is_ok());
    assert!(sqlx::raw_sql(update("x")).execute(&mut other).await.is_err());
    application::finish_own(&mut connection, &id, End::Abort).await.unwrap();
}

/// Servers that refuse XA as prepared statements (1295) would refuse a driver's usual way. MariaDB
/// 10.11 accepts it, so what is tested is that we do not depend on that.
#[tokio::test(flavor = "multi_thread")]
async fn my15_a_branch_needs_no_prepared_statement() {
    let bench = Bench::new().await;
    let mut connection = bench.connection().await;
    for end in [End::Commit, End::Abort] {
        let id = branch();
        application::holder(&mut connection).await.unwrap();
        work(&mut connection, &id).await;
        application::prepare(&mut connection, &id).await.unwrap();
        application::finish_own(&mut connection, &id, end).await.unwrap();
    }
    let status = "SHOW SESSION STATUS LIKE 'Com_stmt_prepare'";
    let row = sqlx::raw_sql(status).fetch_one(&mut connection).await.unwrap();
    assert_eq!(row.get::<String, _>(1), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn x4_the_deadline_bounds_locks_and_statements_and_is_taken_back() {
    let bench = Bench::new().await;
    run(&mut bench.connection().await, "INSERT INTO work (id) VALUES ('locked')").await;
    let mut owner = bench.connection().await;
    run(&mut owner, "START TRANSACTION; UPDATE work SET n = 1 WHERE id = 'locked'").await;

    let mut connection = bench.connection().await;
    let settings = "SELECT CONCAT_WS(' ', @@innodb_lock_wait_timeout, @@max_statement_time, \
                    @@idle_transaction_timeout)";
    let before: String = sqlx::query_scalar(settings).fetch_one(&mut connection).await.unwrap();
    application::begin_local(&mut connection, Duration::from_millis(300)).await.unwrap();
    for statement in ["UPDATE work SET n = 2 WHERE id = 'locked'", "SELECT SLEEP(60)"] {
        let error = sqlx::raw_sql(statement).fetch_all(&mut connection).await;
        // A SLEEP that is interrupted is no error: its row says 1.
        assert!(error.is_err() || statement.contains("SLEEP"), "{statement}");
    }
    application::roll_back(&mut connection).await.unwrap();
    let after: String = sqlx::query_scalar(settings).fetch_one(&mut connection).await.unwrap();
    assert_eq!(after, before);

    let id = branch();
    application::begin_local(&mut connection, Duration::from_secs(5)).await.unwrap();
    insert(&mut connection, &id).await;
    application::commit_local(&mut connection, &id).await.unwrap();
    let id = branch();
    application::start(&mut connection, &id, Duration::from_secs(5)).await.unwrap();
    application::roll_back_branch(&mut connection, &id).await.unwrap();
    let after: String = sqlx::query_scalar(settings).fetch_one(&mut connection).await.unwrap();
    assert_eq!(after, before);
}
