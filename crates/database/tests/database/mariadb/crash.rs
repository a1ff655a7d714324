//! MY6 to MY8, MY14: crashes of the server with the binary log on and off, replicas, another server.

use handfast_core::input::Resolution;
use handfast_database::mariadb::application;
use handfast_database::private::MariaDbOptions;
use handfast_database::{BranchId, End, Fault, Finished, Holder, Outcome};
use sqlx::AssertSqlSafe;

use super::{Bench, is_unknown, local_work, run};
use crate::servers::{LONG, branch, private_mariadb};

#[tokio::test(flavor = "multi_thread")]
async fn my6_my7_what_was_prepared_or_committed_survives_a_kill_with_and_without_binlog() {
    for options in [MariaDbOptions::default(), MariaDbOptions::default().with_binlog()] {
        let mut server = private_mariadb(&options);
        let bench = Bench::on(&server).await;
        let mut prepared: Vec<(BranchId, Holder)> = Vec::new();
        let mut open = Vec::new();
        for round in 0..12 {
            let id = branch();
            let (connection, holder) = bench.prepare_and_hold(&id).await;
            // Half of the sessions live when the server is killed.
            if round % 2 == 0 {
                open.push(connection);
            }
            prepared.push((id, holder));
        }
        let finished = branch();
        let (connection, holder) = bench.prepare_and_hold(&finished).await;
        open.push(connection);
        let done = bench.database.finish(&finished, End::Commit, Some(holder)).await;
        assert_eq!(done, Finished::Done);
        let local = branch();
        let mut connection = bench.connection().await;
        local_work(&mut connection, &local).await;
        application::commit_local(&mut connection, &local).await.unwrap();
        let unfinished = branch();
        let mut connection = bench.connection().await;
        local_work(&mut connection, &unfinished).await;

        server.kill();
        let (first, holder) = prepared[0];
        let down = bench.database.finish(&first, End::Commit, Some(holder)).await;
        assert!(is_unknown(&down), "{down:?}");
        assert_eq!(bench.database.resolve(&unfinished).await, Resolution::Unknown);
        server.restart().unwrap_or_else(|error| panic!("{error}"));

        let ids: Vec<BranchId> = prepared.iter().map(|(id, _)| *id).collect();
        let listed = bench.database.prepared(&ids).await.unwrap();
        assert!(listed.iter().all(|listed| *listed), "binlog {}: {listed:?}", options.binlog);
        let list = bench.database.list().await.unwrap();
        assert_eq!(list.len(), ids.len(), "nothing else came back");
        for (round, (id, holder)) in prepared.into_iter().enumerate() {
            let end = if round % 3 == 0 { End::Abort } else { End::Commit };
            assert_eq!(bench.database.finish(&id, end, Some(holder)).await, Finished::Done);
            assert_eq!(bench.work_is_visible(&id).await, end == End::Commit);
        }
        assert!(bench.work_is_visible(&finished).await && bench.work_is_visible(&local).await);
        assert_eq!(bench.database.resolve(&local).await, Resolution::Committed);
        assert_eq!(bench.database.resolve(&unfinished).await, Resolution::Tombstone);
        assert_eq!(bench.database.outcomes(&[finished]).await, Ok(vec![Some(Outcome::Committed)]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn my8_nothing_is_finished_on_a_replica_or_on_another_server() {
    let server = private_mariadb(&MariaDbOptions::default());
    let bench = Bench::on(&server).await;
    let database = &bench.database;
    let before = database.identity().await.unwrap();
    let id = branch();
    let (connection, holder) = bench.prepare_and_hold(&id).await;
    let mut root = bench.connection().await;

    for (setting, undo) in [
        ("SET GLOBAL read_only = ON", "SET GLOBAL read_only = OFF"),
        ("SET GLOBAL server_id = 77", "SET GLOBAL server_id = 1"),
    ] {
        run(&mut root, setting).await;
        let finished = database.finish(&id, End::Commit, Some(holder)).await;
        assert!(is_unknown(&finished), "{setting}: {finished:?}");
        let fault = database.list().await.unwrap_err();
        assert!(matches!(fault, Fault::NotPrimary(_)), "{setting}: {fault}");
        assert!(database.outcomes(&[id]).await.is_err(), "{setting}");
        assert!(database.prepared(&[id]).await.is_err(), "{setting}");
        assert_eq!(database.resolve(&branch()).await, Resolution::Unknown, "{setting}");
        run(&mut root, undo).await;
        assert!(bench.is_prepared(&id).await, "{setting}");
    }

    // Another server than before is accepted once the caller has looked again.
    run(&mut root, "SET GLOBAL server_id = 77").await;
    let after = database.identity().await.unwrap();
    assert_ne!(after, before);
    assert_eq!(database.finish(&id, End::Commit, Some(holder)).await, Finished::Done);
    drop(connection);
}

/// The gate of docs/isolation.md: a row that a branch has only read with FOR UPDATE is free again
/// when MariaDB has restarted, though the branch is still prepared; one that it changed is not.
#[tokio::test(flavor = "multi_thread")]
async fn my14_only_what_a_branch_has_changed_stays_locked_over_a_restart() {
    for (binlog, crash) in [(false, true), (true, false)] {
        let mut options = MariaDbOptions::default();
        options.binlog = binlog;
        let mut server = private_mariadb(&options);
        let bench = Bench::on(&server).await;
        run(&mut bench.connection().await, "INSERT INTO work (id) VALUES ('read'), ('gate')").await;
        let id = branch();
        let mut connection = bench.connection().await;
        let holder = application::start(&mut connection, &id, LONG).await.unwrap();
        run(&mut connection, "SELECT 1 FROM work WHERE id = 'read' FOR UPDATE").await;
        run(&mut connection, "UPDATE work SET n = n + 1 WHERE id = 'gate'").await;
        application::prepare(&mut connection, &id).await.unwrap();
        let is_shut = async |row: &str| {
            let mut reader = bench.connection().await;
            run(&mut reader, "SET SESSION innodb_lock_wait_timeout = 0; START TRANSACTION").await;
            let sql = format!("SELECT 1 FROM work WHERE id = '{row}' FOR UPDATE");
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut reader).await.is_err()
        };
        assert!(is_shut("read").await && is_shut("gate").await);
        if crash {
            server.kill();
        } else {
            server.stop();
        }
        server.restart().unwrap_or_else(|error| panic!("{error}"));
        assert!(bench.is_prepared(&id).await);
        assert!(!is_shut("read").await, "the hazard itself");
        assert!(is_shut("gate").await, "what the page advises");
        let done = bench.database.finish(&id, End::Commit, Some(holder)).await;
        assert_eq!(done, Finished::Done);
        assert!(!is_shut("gate").await);
    }
}
