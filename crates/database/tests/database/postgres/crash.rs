//! PG8, PG10, PG11: the server is killed, becomes a standby, is promoted.

use handfast_core::input::Resolution;
use handfast_database::doctor::Grade;
use handfast_database::postgres::application;
use handfast_database::private::PostgresOptions;
use handfast_database::{BranchId, End, Fault, Finished, Options, Outcome};

use super::{Bench, is_unknown, run, work};
use crate::servers::{branch, private_postgres, until};

#[tokio::test(flavor = "multi_thread")]
async fn pg8_a_server_that_is_down_or_a_standby_means_unknown() {
    let mut server = private_postgres(&PostgresOptions::default());
    let bench = Bench::on(&server, Options::default()).await;
    let database = &bench.database;
    let ids: Vec<BranchId> = (0..6).map(|_| branch()).collect();
    for id in &ids {
        bench.prepare(id).await;
    }
    let never = branch();
    let before = database.identity().await.unwrap();

    server.kill();
    for end in [End::Commit, End::Abort] {
        assert!(is_unknown(&database.finish(&ids[0], end, None).await));
    }
    assert_eq!(database.resolve(&never).await, Resolution::Unknown);
    server.restart().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(database.prepared(&ids).await, Ok(vec![true; 6]));
    assert_eq!(database.finish(&ids[0], End::Commit, None).await, Finished::Done);
    assert_eq!(database.finish(&ids[1], End::Abort, None).await, Finished::Done);
    // A restart is another life: nothing tells it from a copy that was put in its place.
    let restarted = database.identity().await.unwrap();
    assert!(restarted.is_other_than(&before) && restarted.server == before.server);
    assert!(!database.identity().await.unwrap().is_other_than(&restarted));

    server.stop();
    server.make_standby().unwrap_or_else(|error| panic!("{error}"));
    server.restart().unwrap_or_else(|error| panic!("{error}"));
    // 25006 for a branch that is there; and one that is not is not called a heuristic there.
    for id in [ids[2], never] {
        for end in [End::Commit, End::Abort] {
            let finished = database.finish(&id, end, None).await;
            assert!(is_unknown(&finished), "{end:?}: {finished:?}");
        }
    }
    assert!(matches!(database.list().await, Err(Fault::NotPrimary(_))));
    assert!(matches!(database.outcomes(&ids).await, Err(Fault::NotPrimary(_))));
    assert!(matches!(database.prepared(&ids).await, Err(Fault::NotPrimary(_))));
    assert_eq!(database.resolve(&never).await, Resolution::Unknown);
    let report = database.check().await;
    assert_eq!(report.finding("primary").unwrap().grade, Grade::Fail, "{report:#?}");
    let before = database.identity().await.unwrap();

    pg10_a_promotion_changes_the_identity(&bench, &ids, &before).await;
}

async fn pg10_a_promotion_changes_the_identity(
    bench: &Bench,
    ids: &[BranchId],
    before: &handfast_database::Identity,
) {
    run(&mut bench.connection().await, "SELECT pg_promote()").await;
    let promoted = || async { bench.database.list().await.is_ok() };
    until("it is the primary", promoted).await;
    let after = bench.database.identity().await.unwrap();
    assert_eq!(after.server, before.server);
    assert_eq!(after.incarnation, before.incarnation + 1);
    assert!(after.is_other_than(before));
    assert_eq!(bench.database.finish(&ids[2], End::Commit, None).await, Finished::Done);
    assert!(bench.work_is_visible(&ids[2]).await);
}

/// An application that leaves out `synchronous_commit` commits with a marker that is visible and
/// not durable. What has been told to the coordinator survives nevertheless, because whoever reads
/// a marker makes it durable first.
#[tokio::test(flavor = "multi_thread")]
async fn pg11_a_marker_that_was_seen_survives_a_kill() {
    // The longest delay before the walwriter comes by on its own.
    let options = PostgresOptions::default().with_setting("wal_writer_delay=10s");
    let mut server = private_postgres(&options);
    let bench = Bench::on(&server, Options::default()).await;
    for read in ["resolve", "outcomes", "finish"] {
        let id = branch();
        let mut connection = bench.connection().await;
        run(&mut connection, "SET synchronous_commit = off; BEGIN").await;
        run(&mut connection, &format!("INSERT INTO work VALUES ('{id}')")).await;
        let marker = format!("INSERT INTO handfast_branch VALUES ('{id}', 'committed'); COMMIT");
        run(&mut connection, &marker).await;
        match read {
            "resolve" => {
                assert_eq!(bench.database.resolve(&id).await, Resolution::Committed);
            }
            "outcomes" => {
                let outcomes = bench.database.outcomes(&[id]).await;
                assert_eq!(outcomes, Ok(vec![Some(Outcome::Committed)]));
            }
            _ => {
                let finished = bench.database.finish(&id, End::Commit, None).await;
                assert_eq!(finished, Finished::Done);
            }
        }
        server.restart().unwrap_or_else(|error| panic!("{error}"));
        assert!(bench.work_is_visible(&id).await, "{read}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pg11_the_librarys_commit_is_durable_whatever_the_session_says() {
    let options = PostgresOptions::default()
        .with_setting("wal_writer_delay=10s")
        .with_setting("synchronous_commit=off");
    let mut server = private_postgres(&options);
    let bench = Bench::on(&server, Options::default()).await;
    let report = bench.database.check().await;
    assert_eq!(report.finding("synchronous_commit").unwrap().grade, Grade::Warn, "{report:#?}");
    let (local, tombstone, distributed) = (branch(), branch(), branch());
    let mut connection = bench.connection().await;
    work(&mut connection, &local).await;
    application::commit_local(&mut connection, &local).await.unwrap();
    server.restart().unwrap_or_else(|error| panic!("{error}"));
    assert!(bench.work_is_visible(&local).await);

    assert_eq!(bench.database.resolve(&tombstone).await, Resolution::Tombstone);
    server.restart().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(bench.database.outcomes(&[tombstone]).await, Ok(vec![Some(Outcome::Aborted)]));

    bench.prepare(&distributed).await;
    server.restart().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(bench.database.finish(&distributed, End::Commit, None).await, Finished::Done);
    server.restart().unwrap_or_else(|error| panic!("{error}"));
    assert!(bench.work_is_visible(&distributed).await);
}
