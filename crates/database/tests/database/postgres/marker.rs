//! The rules of the marker: "no error" means exactly prepared, or committed with its marker.

use std::time::Duration;

use handfast_core::input::Resolution;
use handfast_database::conformance::Fixture;
use handfast_database::doctor::Grade;
use handfast_database::postgres::application;
use handfast_database::{End, Finished, Outcome};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::{Bench, run, work};
use crate::servers::{branch, until};

/// The hazard that the guard is for: without it a prepare or commit of a failed block succeeds.
#[tokio::test(flavor = "multi_thread")]
async fn marker_without_the_guard_a_failed_block_ends_without_an_error() {
    let bench = Bench::new().await;
    let mut connection = bench.connection().await;
    let id = branch();
    for end in ["COMMIT".to_owned(), format!("PREPARE TRANSACTION '{}'", id.gid())] {
        work(&mut connection, &id).await;
        let _ = sqlx::raw_sql("SELECT 1 / 0").execute(&mut connection).await;
        run(&mut connection, &end).await;
        assert!(!bench.is_prepared(&id).await && !bench.work_is_visible(&id).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn marker_no_error_means_exactly_prepared_or_committed() {
    let bench = Bench::new().await;
    let states: &[(&str, bool)] = &[
        // what ran before, and whether a block is open that can end
        ("SELECT 1", false),
        ("BEGIN", true),
        ("BEGIN; INSERT INTO work VALUES ('x')", true),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM work", true),
        ("BEGIN; SAVEPOINT a; INSERT INTO work VALUES ('x')", true),
        ("BEGIN; SAVEPOINT handfast", true),
        ("BEGIN; SAVEPOINT a; ROLLBACK TO a", true),
        ("BEGIN; COMMIT", false),
        ("BEGIN; ROLLBACK", false),
        ("BEGIN; INSERT INTO work VALUES ('x'); COMMIT", false),
        ("BEGIN READ ONLY", false),
        ("BEGIN; SET CONSTRAINTS ALL IMMEDIATE", true),
    ];
    for (state, open) in states {
        for fails in ["", "SELECT 1 / 0", "SELECT nonsense", "SAVEPOINT b; SELECT 1 / 0"] {
            for local in [false, true] {
                let id = branch();
                let mut connection = bench.connection().await;
                run(&mut connection, state).await;
                if !fails.is_empty() {
                    // The application ignores it.
                    let _ = sqlx::raw_sql(fails).execute(&mut connection).await;
                }
                let context = format!("{state}, then {fails}, local: {local}");
                let ended = if local {
                    application::commit_local(&mut connection, &id).await
                } else {
                    application::prepare(&mut connection, &id).await
                };
                let expected = *open && fails.is_empty();
                assert_eq!(ended.is_ok(), expected, "{context}: {ended:?}");
                if let Err(error) = &ended {
                    assert!(error.is_no() && !error.discards_connection(), "{context}: {error:?}");
                }
                assert_eq!(bench.is_prepared(&id).await, ended.is_ok() && !local, "{context}");
                let marker = (ended.is_ok() && local).then_some(Outcome::Committed);
                assert_eq!(bench.database.outcomes(&[id]).await, Ok(vec![marker]), "{context}");
                if ended.is_ok() && !local {
                    assert_eq!(bench.database.finish(&id, End::Commit, None).await, Finished::Done);
                    let marker = Some(Outcome::Committed);
                    assert_eq!(bench.database.outcomes(&[id]).await, Ok(vec![marker]));
                }
                // And the connection is in no transaction.
                run(&mut connection, "BEGIN; ROLLBACK").await;
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
    work(&mut connection, &id).await;
    let error = application::commit_local(&mut connection, &id).await.unwrap_err();
    assert!(error.is_no(), "{error:?}");
    work(&mut connection, &id).await;
    let error = application::prepare(&mut connection, &id).await.unwrap_err();
    assert!(error.is_no(), "{error:?}");
    assert!(!bench.work_is_visible(&id).await && !bench.is_prepared(&id).await);
    assert_eq!(bench.database.outcomes(&[id]).await, Ok(vec![Some(Outcome::Aborted)]));
}

/// A trigger that swallows the marker: the branch is not voted for, and the doctor says so.
#[tokio::test(flavor = "multi_thread")]
async fn marker_has_to_be_exactly_one_row() {
    let bench = Bench::new().await;
    let mut connection = bench.connection().await;
    let swallow = "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS \
                   'BEGIN RETURN NULL; END'; \
                   CREATE TRIGGER swallow BEFORE INSERT ON handfast_branch \
                   FOR EACH ROW EXECUTE FUNCTION swallow()";
    run(&mut connection, swallow).await;
    assert_eq!(bench.database.check().await.finding("marker").unwrap().grade, Grade::Fail);
    let id = branch();
    work(&mut connection, &id).await;
    let error = application::prepare(&mut connection, &id).await.unwrap_err();
    assert!(error.is_no(), "{error:?}");
    assert!(!bench.is_prepared(&id).await);
    work(&mut connection, &id).await;
    let error = application::commit_local(&mut connection, &id).await.unwrap_err();
    assert!(!error.is_no(), "{error:?}");
    // A tombstone that did not go in is no tombstone.
    assert_eq!(bench.database.resolve(&branch()).await, Resolution::Unknown);
}

/// A table of the same name nearer in an application's search_path would hide its markers.
#[tokio::test(flavor = "multi_thread")]
async fn marker_is_written_where_the_server_looks() {
    let bench = Bench::new().await;
    let mut connection = bench.connection().await;
    let nearer = "CREATE SCHEMA nearer; SET search_path = nearer, public; \
                  CREATE TABLE handfast_branch (id text, outcome text)";
    run(&mut connection, nearer).await;
    let id = branch();
    work(&mut connection, &id).await;
    application::commit_local(&mut connection, &id).await.unwrap();
    assert_eq!(bench.database.resolve(&id).await, Resolution::Committed);
}

/// The duplicate that a REPEATABLE READ transaction is told of and cannot see.
#[tokio::test(flavor = "multi_thread")]
async fn marker_is_read_in_a_new_statement() {
    let bench = Bench::new().await;
    let id = branch();
    let isolation = "ALTER DATABASE {} SET default_transaction_isolation = 'repeatable read'";
    run(&mut bench.connection().await, &isolation.replace("{}", &bench.name)).await;
    let mut old = bench.connection().await;
    run(&mut old, "BEGIN; SELECT count(*) FROM handfast_branch; SAVEPOINT a").await;
    Fixture::commit_local(&bench, &id).await;
    let tombstone = format!("INSERT INTO handfast_branch VALUES ('{id}', 'aborted')");
    assert!(sqlx::raw_sql(AssertSqlSafe(tombstone)).execute(&mut old).await.is_err());
    run(&mut old, "ROLLBACK TO a").await;
    let seen: i64 = sqlx::query_scalar("SELECT count(*) FROM handfast_branch WHERE id = $1")
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
    let role = format!("app_{}", bench.name);
    run(
        &mut bench.connection().await,
        &format!("CREATE ROLE {role} LOGIN; GRANT SELECT, INSERT ON work TO {role}"),
    )
    .await;
    let done = bench.database.install(Some(&role)).await.unwrap();
    assert_eq!(done.len(), 1, "{done:?}");
    let mut connection = PgConnection::connect(&bench.url_of(&role)).await.unwrap();
    let id = branch();
    work(&mut connection, &id).await;
    application::commit_local(&mut connection, &id).await.unwrap();
    for denied in [
        "SELECT * FROM handfast_branch",
        "UPDATE handfast_branch SET outcome = 'aborted'",
        "DELETE FROM handfast_branch",
        "INSERT INTO handfast_branch VALUES ('x', 'committed') ON CONFLICT (id) DO NOTHING",
        "SELECT * FROM handfast_owner",
        "INSERT INTO handfast_owner VALUES ('x', 0, 1, 'x', 'x', 1, 1)",
    ] {
        let answer = sqlx::raw_sql(denied).execute(&mut connection).await;
        assert!(answer.is_err(), "{denied}");
    }
    // The server's own role keeps its rights.
    let done = bench.database.install(Some("postgres")).await.unwrap();
    assert!(done[0].contains("own role"), "{done:?}");
    assert_eq!(bench.database.check().await.grade, Grade::Good);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_application_does_not_hold_a_resolution_back() {
    let bench = Bench::new().await;
    let id = branch();
    let mut connection = bench.connection().await;
    application::begin(&mut connection, Duration::from_millis(900)).await.unwrap();
    let marker = format!("INSERT INTO handfast_branch VALUES ('{id}', 'committed')");
    run(&mut connection, &marker).await;
    // The application stops here; the database ends its transaction.
    let resolved = || async { bench.database.resolve(&id).await == Resolution::Tombstone };
    until("the tombstone is in", resolved).await;
    let late = application::commit_local(&mut connection, &id).await.unwrap_err();
    assert!(late.discards_connection(), "{late:?}");
    assert_eq!(bench.database.outcomes(&[id]).await, Ok(vec![Some(Outcome::Aborted)]));
}
