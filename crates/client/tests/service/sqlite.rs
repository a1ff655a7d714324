//! Opening a SQLite file, sharing it, and what is said when that does not work.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use handfast::service::sqlite::Error;
use handfast::service::{ServiceStore, SqliteStore, StoreStep};

use crate::bookkeeper::open;
use crate::conformance::SqliteFile;

#[test]
fn it_syncs_every_commit_and_can_be_shared() {
    let file = SqliteFile::new();
    let store = open(&file.path());
    let setting = |name| -> i64 {
        store.connection().pragma_query_value(None, name, |row| row.get(0)).expect("a setting")
    };
    assert_eq!(setting("synchronous"), 2, "FULL");
    assert_eq!(setting("fullfsync"), 1);
    let mode: String = store
        .connection()
        .pragma_query_value(None, "journal_mode", |row| row.get(0))
        .expect("a setting");
    assert_eq!(mode, "wal");
    // The announced id is a UUID of version 4.
    assert_eq!(store.state_id().0 >> 76 & 0xf, 4);
    assert_eq!(store.state_id().0 >> 62 & 0x3, 2);
}

#[test]
fn who_opens_a_new_file_at_the_same_moment_gets_the_same_state_id() {
    const THREADS: usize = 8;
    for _ in 0..5 {
        let file = SqliteFile::new();
        let barrier = Barrier::new(THREADS);
        let ids = thread::scope(|scope| {
            let openers = (0..THREADS).map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    SqliteStore::open(file.path()).expect("the store opens").state_id()
                })
            });
            let openers: Vec<_> = openers.collect();
            openers.into_iter().map(|o| o.join().expect("no panic")).collect::<Vec<_>>()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }
}

#[test]
fn a_wait_for_the_turn_is_bounded() {
    let file = SqliteFile::new();
    let mut one = open(&file.path());
    let mut other =
        SqliteStore::open_with_busy_timeout(file.path(), Duration::ZERO).expect("the store opens");
    let step = one.open_step().expect("a step");
    let error = other.open_step().expect_err("somebody else's turn");
    assert!(matches!(error, Error::Busy { waited: Duration::ZERO }), "{error}");
    assert_eq!(error.to_string(), "no turn to write within 0 ms: another transaction is open");
    drop(step);
    let _proof = other.open_step().expect("its turn").commit().expect("committed");
}

#[test]
fn what_cannot_be_a_store_is_refused_with_a_reason() {
    let file = SqliteFile::new();
    let missing = file.path().join("no/such/directory.db");
    assert!(matches!(SqliteStore::open(missing), Err(Error::Open { .. })));
    assert!(matches!(SqliteStore::open(":memory:"), Err(Error::NotWal { .. })));
    assert!(matches!(SqliteStore::open(""), Err(Error::NotWal { .. })));
    std::fs::write(file.path(), b"this is a text file, and a rather long one at that")
        .expect("written");
    assert!(matches!(SqliteStore::open(file.path()), Err(Error::Open { .. })));

    let file = SqliteFile::new();
    let store = open(&file.path());
    let newer = "UPDATE handfast_state SET layout = layout + 1";
    store.connection().execute_batch(newer).expect("changed");
    assert!(matches!(SqliteStore::open(file.path()), Err(Error::OtherLayout { found: 3 })));
}

#[test]
fn a_malformed_record_is_a_fault_and_not_a_branch() {
    let file = SqliteFile::new();
    let mut store = open(&file.path());
    let broken = "PRAGMA ignore_check_constraints = 1;
        INSERT INTO handfast_branch VALUES (zeroblob(16), 7, NULL, NULL, NULL, NULL, 0);
        INSERT INTO handfast_branch VALUES (x'01', 1, x'00', NULL, NULL, NULL, 0);";
    store.connection().execute_batch(broken).expect("broken");
    let mut step = store.open_step().expect("a step");
    step.load(handfast_core::ids::TransactionId(0)).expect_err("no such state");
    step.prepared(None, 10).expect_err("no such id");
}
