//! The server's side while everything runs: PG6, PG7, PG9.

use handfast_database::doctor::Grade;
use handfast_database::postgres::application;
use handfast_database::private::PostgresOptions;
use handfast_database::{Database, End, Finished, Options, connect};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::sync::Arc;
use std::time::Duration;

use super::{Bench, is_unknown, run, work};
use crate::servers::{POSTGRES, branch, private_postgres, until};

#[tokio::test(flavor = "multi_thread")]
async fn pg6_a_member_finishes_in_the_role_that_prepared() {
    let bench = Bench::new().await;
    let (app, member, stranger) = (
        format!("app_{}", bench.name),
        format!("member_{}", bench.name),
        format!("stranger_{}", bench.name),
    );
    let roles = format!(
        "CREATE ROLE {app} LOGIN; CREATE ROLE {member} LOGIN; CREATE ROLE {stranger} LOGIN; \
         GRANT {app} TO {member}; GRANT SELECT, INSERT ON work TO {app}; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON handfast_branch, handfast_owner TO {member}; \
         GRANT SELECT, UPDATE ON handfast_branch TO {stranger}"
    );
    run(&mut bench.connection().await, &roles).await;
    bench.database.install(Some(&app)).await.unwrap();
    let as_role = |role: &str| -> Arc<dyn Database> {
        connect(&bench.url_of(role), Options::default()).unwrap()
    };
    let (member, stranger) = (as_role(&member), as_role(&stranger));

    for end in [End::Commit, End::Abort, End::Commit] {
        let id = branch();
        let mut connection = PgConnection::connect(&bench.url_of(&app)).await.unwrap();
        work(&mut connection, &id).await;
        application::prepare(&mut connection, &id).await.unwrap();
        let finished = stranger.finish(&id, end, None).await;
        assert!(is_unknown(&finished), "{finished:?}");
        assert_eq!(member.finish(&id, end, None).await, Finished::Done, "{end:?}");
        assert_eq!(bench.work_is_visible(&id).await, end == End::Commit);
        assert_eq!(member.finish(&id, end, None).await, Finished::Done, "{end:?}");
        assert_eq!(stranger.finish(&id, end, None).await, Finished::Done, "{end:?}");
    }
    assert!(member.identity().await.is_ok() && member.list().await.is_ok());
    assert_eq!(member.check().await.finding("role").unwrap().grade, Grade::Good);
    let report = stranger.check().await;
    assert_eq!(report.finding("role").unwrap().grade, Grade::FailDistributed, "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pg6_another_database_of_the_server_is_another_database() {
    let (bench, other) = (Bench::new().await, Bench::new().await);
    let id = branch();
    bench.prepare(&id).await;
    assert_eq!(other.database.prepared(&[id]).await, Ok(vec![false]));
    assert!(other.database.list().await.unwrap().is_empty());
    for end in [End::Commit, End::Abort] {
        let finished = other.database.finish(&id, end, None).await;
        assert!(is_unknown(&finished), "{finished:?}");
    }
    assert_eq!(bench.database.finish(&id, End::Commit, None).await, Finished::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn pg7_no_timeout_ends_a_prepared_branch_and_the_list_says_who_waits() {
    let bench = Bench::new().await;
    run(&mut bench.connection().await, "INSERT INTO work VALUES ('row')").await;
    let id = branch();
    let mut connection = bench.connection().await;
    application::begin(&mut connection, Duration::from_millis(500)).await.unwrap();
    run(&mut connection, "UPDATE work SET n = 1 WHERE id = 'row'").await;
    application::prepare(&mut connection, &id).await.unwrap();
    drop(connection);

    let mut waiting = bench.connection().await;
    let waiter = tokio::spawn(async move {
        run(&mut waiting, "UPDATE work SET n = n + 1 WHERE id = 'row'").await;
    });
    let old_with_a_waiter = || async {
        let list = bench.database.list().await.unwrap();
        assert_eq!(list.len(), 1, "{list:?}");
        list[0].waiting == Some(1) && list[0].age > Some(Duration::from_secs(1))
    };
    until("it is older than its limits and somebody waits", old_with_a_waiter).await;
    assert_eq!(bench.database.finish(&id, End::Commit, None).await, Finished::Done);
    waiter.await.unwrap();
    assert_eq!(bench.count("SELECT n::bigint FROM work WHERE id = 'row'").await, 2);
}

/// The codes in the table are those that a real server sends.
#[tokio::test(flavor = "multi_thread")]
async fn x1_a_real_server_sends_the_codes_of_the_table() {
    use handfast_database::errors::postgres::{code, meaning};
    use handfast_database::errors::{Meaning, Step};

    const ROOT: usize = 0;
    const PLAIN: usize = 1;
    const ELSEWHERE: usize = 2;
    let (bench, other) = (Bench::new().await, Bench::new().await);
    let role = format!("codes_{}", bench.name);
    let id = branch();
    bench.prepare(&id).await;
    let commit = format!("COMMIT PREPARED '{}'", id.gid());
    let mut root = bench.connection().await;
    run(&mut root, &format!("CREATE ROLE {role} LOGIN")).await;
    run(&mut root, "INSERT INTO handfast_branch VALUES ('stands', 'aborted')").await;
    run(&mut root, "SET lock_timeout = 100").await;
    let plain = PgConnection::connect(&bench.url_of(&role)).await.unwrap();
    let elsewhere = other.connection().await;
    let tombstone = |id: &str| format!("INSERT INTO handfast_branch VALUES ('{id}', 'aborted')");
    let mut connections = [root, plain, elsewhere];
    for (connection, sql, expected, step, means) in [
        (ROOT, "COMMIT PREPARED 'x'".to_owned(), "42704", Step::Finish, Meaning::NotThere),
        (PLAIN, commit.clone(), "42501", Step::Finish, Meaning::Unknown),
        (ELSEWHERE, commit, "0A000", Step::Finish, Meaning::Unknown),
        (ROOT, tombstone("stands"), "23505", Step::Resolve, Meaning::Done),
        (ROOT, tombstone(&id.to_string()), "55P03", Step::Resolve, Meaning::Unknown),
        (ROOT, tombstone("stands"), "23505", Step::CommitLocal, Meaning::No),
        (ROOT, "SAVEPOINT a".to_owned(), "25P01", Step::Prepare, Meaning::No),
    ] {
        let error = sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut connections[connection])
            .await
            .unwrap_err();
        assert_eq!(code(&error), Some(expected), "{error}");
        assert_eq!(meaning(step, &error), means, "{error}");
    }
    assert_eq!(bench.database.finish(&id, End::Abort, None).await, Finished::Done);
}

/// A commit that waits for a synchronous standby keeps its branch busy, so this server has one
/// that never comes, until the setting is taken back.
struct Waiting {
    root: PgConnection,
    _server: handfast_database::private::Postgres,
    bench: Bench,
}

impl Waiting {
    async fn new() -> Self {
        let server = private_postgres(&PostgresOptions::default());
        let bench =
            Bench::on(&server, Options::default().with_call_timeout(Duration::from_secs(60))).await;
        let root = PgConnection::connect(&server.url()).await.unwrap();
        Self { root, _server: server, bench }
    }

    async fn set(&mut self, standby: &str) {
        run(&mut self.root, &format!("ALTER SYSTEM SET synchronous_standby_names = '{standby}'"))
            .await;
        run(&mut self.root, "SELECT pg_reload_conf()").await;
        let shown = || async {
            let mut fresh = self.bench.connection().await;
            let now: String = sqlx::query_scalar("SHOW synchronous_standby_names")
                .fetch_one(&mut fresh)
                .await
                .unwrap();
            now == standby
        };
        until("the setting is in force", shown).await;
    }

    async fn somebody_waits(&self, longer_than: &str) {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' \
             AND clock_timestamp() - query_start > interval '{longer_than}'"
        );
        until("a commit waits for the standby", || async { self.bench.count(&sql).await >= 1 })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pg9_a_branch_that_somebody_else_finishes_now_is_unknown() {
    let mut waiting = Waiting::new().await;
    let id = branch();
    waiting.bench.prepare(&id).await;
    waiting.set("nobody").await;
    let database = Arc::clone(&waiting.bench.database);
    let first = tokio::spawn(async move { database.finish(&id, End::Commit, None).await });
    waiting.somebody_waits("0 s").await;
    let second = waiting.bench.database.finish(&id, End::Commit, None).await;
    assert!(matches!(&second, Finished::Unknown(why) if why.contains("busy")), "{second:?}");
    waiting.set("").await;
    assert_eq!(first.await.unwrap(), Finished::Done);
    assert_eq!(waiting.bench.database.finish(&id, End::Commit, None).await, Finished::Done);
}

/// The hazard because of which the server's own connections have no `statement_timeout`: it ends
/// the wait for a synchronous standby, and what was not replicated is reported as committed.
#[tokio::test(flavor = "multi_thread")]
async fn pg11_a_statement_timeout_cuts_the_wait_of_commit_prepared() {
    let mut waiting = Waiting::new().await;
    let (cut, whole) = (branch(), branch());
    waiting.bench.prepare(&cut).await;
    waiting.bench.prepare(&whole).await;
    waiting.set("nobody").await;
    let mut connection = waiting.bench.connection().await;
    run(&mut connection, "SET statement_timeout = 200").await;
    run(&mut connection, &format!("COMMIT PREPARED '{}'", cut.gid())).await;
    assert!(waiting.bench.work_is_visible(&cut).await, "the hazard itself");

    let database = Arc::clone(&waiting.bench.database);
    let ending = tokio::spawn(async move { database.finish(&whole, End::Commit, None).await });
    waiting.somebody_waits("1 s").await;
    assert!(!ending.is_finished());
    waiting.set("").await;
    assert_eq!(ending.await.unwrap(), Finished::Done);
}

/// The application's deadline becomes a `statement_timeout` and bounds the work, not that wait.
#[tokio::test(flavor = "multi_thread")]
async fn pg11_a_deadline_does_not_cut_the_wait_for_a_standby() {
    let mut waiting = Waiting::new().await;
    waiting.set("nobody").await;
    for local in [true, false] {
        let id = branch();
        let mut connection = waiting.bench.connection().await;
        let ending = tokio::spawn(async move {
            application::begin(&mut connection, Duration::from_millis(200)).await.unwrap();
            let insert = format!("INSERT INTO work VALUES ('{id}')");
            sqlx::raw_sql(AssertSqlSafe(insert)).execute(&mut connection).await.unwrap();
            if local {
                application::commit_local(&mut connection, &id).await
            } else {
                application::prepare(&mut connection, &id).await
            }
        });
        waiting.somebody_waits("1 s").await;
        assert!(!ending.is_finished());
        waiting.set("").await;
        ending.await.unwrap().unwrap();
        waiting.set("nobody").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_are_finished_side_by_side_on_a_small_pool() {
    let bench = Bench::on(&POSTGRES, Options::default().with_pool(3)).await;
    let ids: Vec<_> = (0..60).map(|_| branch()).collect();
    for id in &ids {
        bench.prepare(id).await;
    }
    let tasks: Vec<_> = ids
        .iter()
        .map(|id| {
            let (database, id) = (Arc::clone(&bench.database), *id);
            tokio::spawn(async move { database.finish(&id, End::Commit, None).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), Finished::Done);
    }
    assert_eq!(bench.count("SELECT count(*) FROM work").await, 60);
    assert_eq!(bench.database.forget(&ids).await, Ok(60));
}

/// After a switch-over to a logical replica a branch has a subscription's name. It was "somebody
/// rolled it back" at once, a heuristic end for ever, while its work and its locks were there.
#[tokio::test(flavor = "multi_thread")]
async fn pg8_what_a_subscription_may_hold_is_not_given_up() {
    let bench = Bench::new().await;
    let id = branch();
    let mut connection = bench.connection().await;
    work(&mut connection, &id).await;
    let renamed = format!(
        "INSERT INTO handfast_branch (id, outcome) VALUES ('{id}', 'committed'); \
         PREPARE TRANSACTION 'pg_gid_16397_727'"
    );
    run(&mut connection, &renamed).await;
    let finished = bench.database.finish(&id, End::Commit, None).await;
    assert!(
        matches!(&finished, Finished::Held(why) if why.contains("switch-over")),
        "{finished:?}"
    );
    // Whoever takes the subscription down ends its orphan; then the marker says what happened.
    run(&mut connection, "COMMIT PREPARED 'pg_gid_16397_727'").await;
    assert_eq!(bench.database.finish(&id, End::Commit, None).await, Finished::Done);
}
