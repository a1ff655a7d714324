//! The application's side: PG1 to PG5, PG12, X4.

use std::time::Duration;

use handfast_database::postgres::application;
use handfast_database::private::PostgresOptions;
use handfast_database::{ApplicationError, BranchId, End, Finished, Options};
use sqlx::PgConnection;

use super::{Bench, run, work};
use crate::servers::{LONG, branch, next, private_postgres};

#[tokio::test(flavor = "multi_thread")]
async fn pg1_without_slots_distributed_is_refused_and_local_works() {
    let server = private_postgres(&PostgresOptions::default().with_max_prepared_transactions(0));
    let bench = Bench::on(&server, Options::default()).await;
    let report = bench.database.check().await;
    assert!(report.allows_local() && !report.allows_distributed(), "{report:#?}");
    let remedy = &report.finding("max_prepared_transactions").unwrap().remedy;
    assert!(remedy.contains("restart"), "{remedy}");

    let id = branch();
    let mut connection = bench.connection().await;
    work(&mut connection, &id).await;
    let error = application::prepare(&mut connection, &id).await.unwrap_err();
    assert!(error.is_no() && error.to_string().contains("prepared transactions are disabled"));
    assert!(!bench.work_is_visible(&id).await);

    work(&mut connection, &id).await;
    application::commit_local(&mut connection, &id).await.unwrap();
    assert!(bench.work_is_visible(&id).await);
}

/// The prepare fails, nothing is left of it, and its connection is good for the next one.
async fn is_refused(
    bench: &Bench,
    connection: &mut PgConnection,
    id: &BranchId,
) -> ApplicationError {
    let error = application::prepare(connection, id).await.unwrap_err();
    assert!(error.is_no() && !error.discards_connection(), "{error:?}");
    assert!(!bench.is_prepared(id).await, "{error}");
    assert_eq!(bench.database.outcomes(&[*id]).await, Ok(vec![None]), "{error}");
    let next = branch();
    work(connection, &next).await;
    application::prepare(connection, &next).await.unwrap();
    assert_eq!(bench.database.finish(&next, End::Commit, None).await, Finished::Done);
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn pg2_a_deferred_constraint_is_a_no_with_the_databases_words() {
    let bench = Bench::new().await;
    let mut connection = bench.connection().await;
    let table = "CREATE TABLE once (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)";
    run(&mut connection, table).await;
    let id = branch();
    work(&mut connection, &id).await;
    run(&mut connection, "INSERT INTO once VALUES (1), (1)").await;
    let error = is_refused(&bench, &mut connection, &id).await;
    assert!(error.to_string().contains("once_n_key"), "{error}");
    assert!(!error.is_retryable());
}

#[tokio::test(flavor = "multi_thread")]
async fn pg2_a_serialization_failure_is_a_no_that_may_be_tried_again() {
    let bench = Bench::new().await;
    let ids = [branch(), branch()];
    let mut connections = [bench.connection().await, bench.connection().await];
    // Each reads what the other writes.
    for (connection, id) in connections.iter_mut().zip(&ids) {
        application::begin(connection, LONG).await.unwrap();
        run(connection, "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE").await;
        run(connection, "SELECT sum(n) FROM work").await;
        run(connection, &format!("INSERT INTO work VALUES ('{id}', 1)")).await;
    }
    let [one, two] = &mut connections;
    application::prepare(one, &ids[0]).await.unwrap();
    let error = application::prepare(two, &ids[1]).await.unwrap_err();
    assert!(error.is_no() && error.is_retryable(), "{error:?}");
    assert_eq!(bench.database.finish(&ids[0], End::Commit, None).await, Finished::Done);
    assert_eq!(bench.database.prepared(&ids).await, Ok(vec![false, false]));
}

#[tokio::test(flavor = "multi_thread")]
async fn pg3_a_connection_that_is_lost_is_a_no_to_prepare_and_unknown_to_commit() {
    let bench = Bench::new().await;
    for local in [false, true] {
        let id = branch();
        let mut connection = bench.connection().await;
        work(&mut connection, &id).await;
        let pid: i32 =
            sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await.unwrap();
        run(&mut bench.connection().await, &format!("SELECT pg_terminate_backend({pid}, 60000)"))
            .await;
        let error = if local {
            application::commit_local(&mut connection, &id).await.unwrap_err()
        } else {
            application::prepare(&mut connection, &id).await.unwrap_err()
        };
        assert!(error.discards_connection(), "{error:?}");
        assert_eq!(error.is_no(), !local, "{error:?}");
        assert!(!bench.is_prepared(&id).await && !bench.work_is_visible(&id).await);
    }
}

/// Among them what no statement of the application's shows: a trigger, a savepoint that was rolled
/// back. The answer says so, because PostgreSQL's own words leave the application without a trace.
#[tokio::test(flavor = "multi_thread")]
async fn pg4_what_cannot_be_prepared_is_a_no_that_says_why() {
    let bench = Bench::new().await;
    let trigger = "CREATE TABLE told (n int); \
                   CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS \
                   $$BEGIN PERFORM pg_notify('told', ''); RETURN NULL; END$$; \
                   CREATE TRIGGER tell AFTER INSERT ON told FOR EACH ROW EXECUTE FUNCTION tell()";
    run(&mut bench.connection().await, trigger).await;
    for (statement, word) in [
        ("CREATE TEMPORARY TABLE t (n int)", "temporary"),
        ("CREATE TEMPORARY TABLE t (n int) ON COMMIT DROP", "temporary"),
        ("SAVEPOINT a; CREATE TEMPORARY TABLE t (n int); ROLLBACK TO a", "temporary"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "WITH HOLD"),
        ("LISTEN x", "LISTEN"),
        ("NOTIFY x", "NOTIFY"),
        ("INSERT INTO told VALUES (1)", "NOTIFY"),
        ("SELECT pg_export_snapshot()", "snapshot"),
    ] {
        let id = branch();
        let mut connection = bench.connection().await;
        work(&mut connection, &id).await;
        run(&mut connection, statement).await;
        let error = is_refused(&bench, &mut connection, &id).await;
        let text = error.to_string();
        assert!(text.contains(word) && text.contains("not in a trigger"), "{statement}: {error}");
        assert!(!error.is_retryable(), "{statement}: it fails each time");
    }
    // A local transaction may do all of that.
    let (id, mut connection) = (branch(), bench.connection().await);
    work(&mut connection, &id).await;
    run(&mut connection, "INSERT INTO told VALUES (1)").await;
    application::commit_local(&mut connection, &id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pg1_a_full_house_is_a_no_that_may_be_tried_again() {
    let server = private_postgres(&PostgresOptions::default().with_max_prepared_transactions(1));
    let bench = Bench::on(&server, Options::default()).await;
    let (first, second) = (branch(), branch());
    bench.prepare(&first).await;
    let mut connection = bench.connection().await;
    work(&mut connection, &second).await;
    let error = application::prepare(&mut connection, &second).await.unwrap_err();
    assert!(error.is_no() && error.is_retryable(), "{error:?}");
    assert_eq!(bench.database.finish(&first, End::Commit, None).await, Finished::Done);
    work(&mut connection, &second).await;
    application::prepare(&mut connection, &second).await.unwrap();
    assert_eq!(bench.database.finish(&second, End::Commit, None).await, Finished::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn pg5_the_id_is_a_literal_that_comes_back() {
    let bench = Bench::new().await;
    let id = branch();
    // A bind parameter is not possible.
    let bound = sqlx::query("PREPARE TRANSACTION $1").bind(id.gid());
    assert!(bound.execute(&mut bench.connection().await).await.is_err());
    bench.prepare(&id).await;
    let list = bench.database.list().await.unwrap();
    assert_eq!(list.len(), 1, "{list:?}");
    assert_eq!(list[0].branch, Some(id));
    assert_eq!(list[0].user.as_deref(), Some("postgres"));
    assert!(list[0].age.is_some());
    assert_eq!(bench.database.finish(&id, End::Abort, None).await, Finished::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn pg12_no_setting_outlives_its_transaction() {
    let bench = Bench::new().await;
    let mut connection = bench.connection().await;
    let settings = "SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings \
                    WHERE name IN ('statement_timeout', 'lock_timeout', 'synchronous_commit', \
                    'idle_in_transaction_session_timeout')";
    let mut before: Option<String> = None;
    for end in 0..5 {
        let now: String = sqlx::query_scalar(settings).fetch_one(&mut connection).await.unwrap();
        assert_eq!(before.get_or_insert_with(|| now.clone()), &now, "{end}");
        let id = branch();
        application::begin(&mut connection, Duration::from_secs(9)).await.unwrap();
        let inside: String = sqlx::query_scalar(settings).fetch_one(&mut connection).await.unwrap();
        assert!(inside.contains("statement_timeout=9000"), "{inside}");
        match end {
            0 => application::roll_back(&mut connection).await.unwrap(),
            1 => application::commit_local(&mut connection, &id).await.unwrap(),
            2 => {
                application::prepare(&mut connection, &id).await.unwrap();
                assert_eq!(bench.database.finish(&id, End::Abort, None).await, Finished::Done);
            }
            _ => {
                let _ = sqlx::raw_sql("SELECT 1 / 0").execute(&mut connection).await;
                application::commit_local(&mut connection, &id).await.unwrap_err();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn x4_the_deadline_bounds_locks_and_statements() {
    let bench = Bench::new().await;
    run(&mut bench.connection().await, &format!("INSERT INTO work VALUES ('row-{}')", next()))
        .await;
    let mut owner = bench.connection().await;
    run(&mut owner, "BEGIN; UPDATE work SET n = 1").await;
    let mut connection = bench.connection().await;
    for statement in ["UPDATE work SET n = 2", "SELECT pg_sleep(60)"] {
        application::begin(&mut connection, Duration::from_millis(200)).await.unwrap();
        let error = sqlx::raw_sql(statement).execute(&mut connection).await.unwrap_err();
        let code = handfast_database::errors::postgres::code(&error).unwrap_or_default().to_owned();
        assert!(matches!(code.as_str(), "55P03" | "57014"), "{statement}: {error}");
        application::roll_back(&mut connection).await.unwrap();
    }
}
