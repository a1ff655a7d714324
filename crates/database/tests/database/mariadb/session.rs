//! MY2 to MY5: the session that prepared a branch, and what an OK is worth.

use std::time::Duration;

use handfast_database::mariadb::application;
use handfast_database::private::{MariaDb, MariaDbOptions};
use handfast_database::{End, Finished, Holder, Options, Outcome, connect};
use sqlx::{AssertSqlSafe, Connection};

use super::{Bench, is_unknown, run, work};
use crate::servers::{LONG, MARIADB, MARIADB_BINLOG, branch, private_mariadb, until};

/// How many races each of the race tests runs. The full number is 20,000: HANDFAST_RACES=20000.
fn races() -> u32 {
    std::env::var("HANDFAST_RACES").ok().and_then(|n| n.parse().ok()).unwrap_or(150)
}

#[tokio::test(flavor = "multi_thread")]
async fn my1_a_prepared_branch_survives_its_session() {
    let bench = Bench::new().await;
    let id = branch();
    let (connection, holder) = bench.prepare_and_hold(&id).await;
    connection.close().await.unwrap();
    bench.session_is_gone(holder).await;
    assert!(bench.is_prepared(&id).await);
    assert!(!bench.work_is_visible(&id).await);
    assert_eq!(bench.database.finish(&id, End::Commit, Some(holder)).await, Finished::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn my2_a_branch_whose_session_lives_is_unknown_without_its_holder() {
    let bench = Bench::new().await;
    for end in [End::Commit, End::Abort] {
        let id = branch();
        let (mut connection, _) = bench.prepare_and_hold(&id).await;
        for _ in 0..3 {
            let finished = bench.database.finish(&id, end, None).await;
            assert!(is_unknown(&finished), "{finished:?}");
            assert!(bench.is_prepared(&id).await);
        }
        application::finish_own(&mut connection, &id, end).await.unwrap();
        assert_eq!(bench.database.finish(&id, end, None).await, Finished::Done);
        assert_eq!(bench.work_is_visible(&id).await, end == End::Commit);
        // The session is free for the next branch.
        let next = branch();
        work(&mut connection, &next).await;
        application::prepare(&mut connection, &next).await.unwrap();
        application::finish_own(&mut connection, &next, End::Commit).await.unwrap();
        assert!(bench.work_is_visible(&next).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn my3_a_session_that_lives_is_ended_first() {
    for server in [&*MARIADB, &*MARIADB_BINLOG] {
        let bench = Bench::on(server).await;
        for end in [End::Commit, End::Abort] {
            let id = branch();
            let (mut connection, holder) = bench.prepare_and_hold(&id).await;
            assert_eq!(bench.database.finish(&id, end, Some(holder)).await, Finished::Done);
            assert_eq!(bench.work_is_visible(&id).await, end == End::Commit);
            assert!(!bench.is_prepared(&id).await);
            // The application's own attempt comes too late and harms nothing.
            assert!(application::finish_own(&mut connection, &id, End::Commit).await.is_err());
            assert_eq!(bench.database.finish(&id, end, Some(holder)).await, Finished::Done);
        }
    }
}

/// The client has finished the branch on its own session and uses it again; its report was lost, so
/// the server comes to finish the branch. It had killed the session, and with it the transaction that
/// the session was serving by then.
#[tokio::test(flavor = "multi_thread")]
async fn my3_a_session_whose_branch_has_ended_is_left_alone() {
    let bench = Bench::new().await;
    for end in [End::Commit, End::Abort] {
        let id = branch();
        let (mut connection, holder) = bench.prepare_and_hold(&id).await;
        application::finish_own(&mut connection, &id, end).await.unwrap();
        let next = branch();
        work(&mut connection, &next).await;
        assert_eq!(bench.database.finish(&id, end, Some(holder)).await, Finished::Done);
        application::prepare(&mut connection, &next).await.unwrap();
        application::finish_own(&mut connection, &next, End::Commit).await.unwrap();
        assert!(bench.work_is_visible(&next).await, "{end:?}");
    }
}

/// A session that takes its time to end, because it is busy with what cannot be interrupted: the
/// branch is left alone until it is gone.
#[tokio::test(flavor = "multi_thread")]
async fn my3_the_branch_is_left_alone_until_the_session_is_gone() {
    let bench = Bench::new().await;
    let id = branch();
    let (mut connection, holder) = bench.prepare_and_hold(&id).await;
    // One row of many long hashes: KILL is looked for between rows only.
    let hashes: Vec<String> =
        (0..40).map(|n| format!("SHA2(REPEAT('{n}', 8000000), 512)")).collect();
    let busy = format!("SELECT {}", hashes.join(","));
    let session = tokio::spawn(async move {
        // It is killed; what it answers is of no interest.
        let _ = sqlx::raw_sql(AssertSqlSafe(busy)).fetch_all(&mut connection).await;
    });
    let sql = format!(
        "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = {} AND COMMAND = 'Query'",
        holder.connection
    );
    until("the session is busy", || async { bench.count(&sql).await == 1 }).await;

    let mut impatient = Options::default();
    impatient.session_gone_timeout = Duration::ZERO;
    let impatient = connect(&bench.url, impatient).unwrap();
    let finished = impatient.finish(&id, End::Commit, Some(holder)).await;
    assert!(is_unknown(&finished), "{finished:?}");
    // It takes as long as the machine needs for the hashes.
    let mut patient = Options::default().with_call_timeout(LONG);
    patient.session_gone_timeout = LONG;
    let patient = connect(&bench.url, patient).unwrap();
    assert_eq!(patient.finish(&id, End::Commit, Some(holder)).await, Finished::Done);
    assert!(bench.work_is_visible(&id).await);
    session.await.unwrap();
}

/// The session ends by itself at the very moment at which the server finishes its branch. The
/// server that does not wait for the session loses some of these (see `my4_`); the one that
/// knows the holder loses none.
#[tokio::test(flavor = "multi_thread")]
async fn my3_no_branch_is_lost_in_the_instant_of_the_disconnect() {
    for server in [&*MARIADB, &*MARIADB_BINLOG] {
        let bench = Bench::on(server).await;
        for race in 0..races() {
            let end = if race % 8 == 0 { End::Abort } else { End::Commit };
            let id = branch();
            let (connection, holder) = bench.prepare_and_hold(&id).await;
            let closing = tokio::spawn(async move { drop(connection) });
            let finished = bench.database.finish(&id, end, Some(holder)).await;
            closing.await.unwrap();
            assert_eq!(finished, Finished::Done, "race {race}");
            assert_eq!(bench.work_is_visible(&id).await, end == End::Commit, "race {race}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn my3_a_session_of_an_earlier_server_is_nobody() {
    let bench = Bench::new().await;
    let id = branch();
    let (connection, holder) = bench.prepare_and_hold(&id).await;
    connection.close().await.unwrap();
    bench.session_is_gone(holder).await;
    // The same number, in the life of the server before this one, belonged to somebody else.
    let mut bystander = bench.connection().await;
    let number = application::holder(&mut bystander).await.unwrap().connection;
    let stale = Holder { connection: number, server_start: holder.server_start - 1 };
    assert_eq!(bench.database.finish(&id, End::Commit, Some(stale)).await, Finished::Done);
    run(&mut bystander, "SELECT 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn my3_the_holder_is_the_same_whatever_clock_the_session_has() {
    let bench = Bench::new().await;
    let mut connection = bench.connection().await;
    let holder = application::holder(&mut connection).await.unwrap();
    for clock in ["5", "2000000000", "DEFAULT"] {
        // What the session remembers of it is not what is looked at here.
        run(&mut connection, &format!("SET timestamp = {clock}, @handfast_server_start = NULL"))
            .await;
        assert_eq!(application::holder(&mut connection).await.unwrap(), holder, "{clock}");
    }
    let identity = bench.database.identity().await.unwrap();
    assert_eq!(identity.incarnation, holder.server_start);
}

#[tokio::test(flavor = "multi_thread")]
async fn my3_a_session_that_may_not_be_killed_leaves_the_branch_unknown() {
    let bench = Bench::new().await;
    let user = format!("weak_{}", bench.name);
    let mut root = bench.connection().await;
    let grants = format!(
        "CREATE USER {user}@'%'; GRANT ALL ON {}.* TO {user}@'%'; GRANT PROCESS ON *.* TO {user}@'%'",
        bench.name
    );
    run(&mut root, &grants).await;
    let weak = connect(&MARIADB.url_of(&user, &bench.name), Options::default()).unwrap();

    let id = branch();
    let (connection, holder) = bench.prepare_and_hold(&id).await;
    let finished = weak.finish(&id, End::Commit, Some(holder)).await;
    assert!(is_unknown(&finished), "{finished:?}");
    assert!(bench.is_prepared(&id).await);
    assert!(weak.identity().await.is_ok() && weak.list().await.is_ok());
    // The session ends on its own: then nobody has to be killed.
    connection.close().await.unwrap();
    bench.session_is_gone(holder).await;
    assert_eq!(weak.finish(&id, End::Commit, Some(holder)).await, Finished::Done);
}

/// Without its holder a branch may be met in the instant of the disconnect. Whatever MariaDB
/// answers then, "done" is said only of what is visible, and nothing is called a heuristic; what
/// it holds is finished after its restart.
#[tokio::test(flavor = "multi_thread")]
async fn my4_ok_counts_only_with_the_marker() {
    for options in [MariaDbOptions::default(), MariaDbOptions::default().with_binlog()] {
        let mut server = private_mariadb(&options);
        let bench = Bench::on(&server).await;
        let mut held = Vec::new();
        for race in 0..races() {
            let id = branch();
            let (connection, _) = bench.prepare_and_hold(&id).await;
            let closing = tokio::spawn(async move { drop(connection) });
            let mut last = bench.database.finish(&id, End::Commit, None).await;
            closing.await.unwrap();
            for _ in 0..1_000 {
                if !is_unknown(&last) {
                    break;
                }
                last = bench.database.finish(&id, End::Commit, None).await;
            }
            match last {
                Finished::Done => assert!(bench.work_is_visible(&id).await, "race {race}"),
                Finished::Held(_) => held.push(id),
                other => panic!("race {race}: {other:?}"),
            }
        }
        eprintln!("held by MariaDB: {} of {} (binlog: {})", held.len(), races(), options.binlog);
        for id in &held {
            // Asked again, and by a coordinator that has forgotten what it saw.
            let fresh = connect(&bench.url, Options::default()).unwrap();
            let again = fresh.finish(id, End::Commit, None).await;
            assert!(matches!(again, Finished::Held(_)), "{again:?}");
        }
        restart(&mut server);
        for id in &held {
            assert_eq!(bench.database.finish(id, End::Commit, None).await, Finished::Done);
            assert!(bench.work_is_visible(id).await);
        }
    }
}

fn restart(server: &mut MariaDb) {
    server.restart().unwrap_or_else(|error| panic!("{error}"));
}

/// What the race cannot be relied on to show: OK, and no marker.
#[tokio::test(flavor = "multi_thread")]
async fn my4_ok_without_a_marker_is_held_and_not_done() {
    let bench = Bench::new().await;
    let id = branch();
    let mut connection = bench.connection().await;
    let holder = application::holder(&mut connection).await.unwrap();
    work(&mut connection, &id).await;
    // By hand, and without the marker.
    run(&mut connection, &format!("XA END {0}; XA PREPARE {0}", id.xid())).await;
    let finished = bench.database.finish(&id, End::Commit, Some(holder)).await;
    assert!(matches!(finished, Finished::Held(_)), "{finished:?}");
    let finished = bench.database.finish(&id, End::Commit, Some(holder)).await;
    assert!(matches!(finished, Finished::Heuristic(_)), "{finished:?}");
}

/// The lock on the marker's key tells a branch that MariaDB hides from one that was rolled back:
/// here a session that is still at work holds it.
#[tokio::test(flavor = "multi_thread")]
async fn my5_a_marker_that_is_locked_is_no_heuristic() {
    let bench = Bench::new().await;
    let id = branch();
    let mut connection = bench.connection().await;
    work(&mut connection, &id).await;
    let marker = format!("INSERT INTO handfast_branch (id, outcome) VALUES ('{id}', 'committed')");
    run(&mut connection, &marker).await;
    let finished = bench.database.finish(&id, End::Commit, None).await;
    assert!(matches!(finished, Finished::Held(_)), "{finished:?}");
    let finished = bench.database.finish(&id, End::Abort, None).await;
    assert!(is_unknown(&finished), "{finished:?}");
    application::roll_back_branch(&mut connection, &id).await.unwrap();
    assert_eq!(bench.database.finish(&id, End::Abort, None).await, Finished::Done);
    // The probe left nothing behind.
    assert_eq!(bench.database.outcomes(&[id]).await, Ok(vec![None]));
}

/// The numbers in the table are those that a real server sends.
#[tokio::test(flavor = "multi_thread")]
async fn x1_a_real_server_sends_the_numbers_of_the_table() {
    use handfast_database::errors::mariadb::{meaning, number};
    use handfast_database::errors::{Meaning, Step};

    const OTHER: usize = 0;
    const INSIDE: usize = 1;
    const OWNER: usize = 2;
    let bench = Bench::new().await;
    let id = branch();
    let (owner, holder) = bench.prepare_and_hold(&id).await;
    let mut other = bench.connection().await;
    run(&mut other, "INSERT INTO handfast_branch (id, outcome) VALUES ('stands', 'aborted')").await;
    run(&mut other, "SET SESSION innodb_lock_wait_timeout = 0").await;
    let mut inside = bench.connection().await;
    run(&mut inside, "START TRANSACTION; INSERT INTO work (id) VALUES ('x')").await;
    let tombstone =
        |id: &str| format!("INSERT INTO handfast_branch (id, outcome) VALUES ('{id}', 'aborted')");
    let (commit, never) =
        (format!("XA COMMIT {}", id.xid()), format!("XA COMMIT {}", branch().xid()));
    let killed = format!("KILL CONNECTION {}", u32::MAX);
    let mut connections = [other, inside, owner];
    for (connection, sql, expected, step, means) in [
        (OTHER, commit, 1397, Step::Finish, Meaning::NotThere),
        (OTHER, never.clone(), 1397, Step::Finish, Meaning::NotThere),
        (INSIDE, never, 1400, Step::Finish, Meaning::Unknown),
        (OWNER, "SELECT * FROM work".to_owned(), 1399, Step::Finish, Meaning::Unknown),
        (OTHER, tombstone("stands"), 1062, Step::Resolve, Meaning::Done),
        (OTHER, tombstone(&id.to_string()), 1205, Step::Resolve, Meaning::Unknown),
        (OTHER, tombstone("stands"), 1062, Step::Prepare, Meaning::No),
        (OTHER, killed, 1094, Step::Finish, Meaning::Unknown),
    ] {
        let context = sql.clone();
        let error = sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut connections[connection])
            .await
            .unwrap_err();
        assert_eq!(number(&error), Some(expected), "{context}: {error}");
        assert_eq!(meaning(step, &error), means, "{context}: {error}");
    }
    assert_eq!(bench.database.finish(&id, End::Abort, Some(holder)).await, Finished::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_application_does_not_hold_a_resolution_back() {
    let bench = Bench::new().await;
    let id = branch();
    let mut connection = bench.connection().await;
    application::begin_local(&mut connection, Duration::from_millis(900)).await.unwrap();
    let marker = format!("INSERT INTO handfast_branch (id, outcome) VALUES ('{id}', 'committed')");
    run(&mut connection, &marker).await;
    // The application stops here; the database ends its transaction.
    let resolved = || async {
        bench.database.resolve(&id).await == handfast_core::input::Resolution::Tombstone
    };
    until("the tombstone is in", resolved).await;
    let late = application::commit_local(&mut connection, &id).await.unwrap_err();
    assert!(late.discards_connection(), "{late:?}");
    assert_eq!(bench.database.outcomes(&[id]).await, Ok(vec![Some(Outcome::Aborted)]));
}
