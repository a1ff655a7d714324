//! A process that dies in the middle of a step, or right after one.

use std::env;
use std::process;

use handfast::service::{ServiceStore, StoreStep};
use handfast_core::command::Command;

use crate::bookkeeper::{BookDb, Bookkeeper, Books, at, books, open, prepare, x, yes};
use crate::conformance::SqliteFile;

const PATH: &str = "HANDFAST_TEST_CRASH_PATH";

/// Not a test of its own: what the test below runs in another process, which dies.
#[test]
fn child() {
    let Some(path) = env::var_os(PATH) else { return };
    let mut driver = Bookkeeper::default().driver(open(path.as_ref()));
    let answers = driver.process(at(0), &[prepare(x(1), "yes")]).expect("processed");
    assert_eq!(answers, [yes(x(1))]);
    let mut store = open(path.as_ref());
    let mut step = store.open_step().expect("a step");
    let _result = step.attempt(|db| {
        db.add(x(2), 1, 0);
        // More than SQLite's page cache holds, so that some of it is in the WAL already.
        let filler = "CREATE TABLE filler AS WITH RECURSIVE n(i) AS \
            (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 8000) \
            SELECT i, randomblob(1000) AS bytes FROM n";
        db.execute_batch(filler).expect("filled");
        process::abort();
        #[expect(unreachable_code, reason = "says of which type the closure is")]
        Ok::<(), ()>(())
    });
}

#[test]
fn a_process_that_dies_keeps_its_committed_steps_and_nothing_else() {
    let file = SqliteFile::new();
    let keeper = Bookkeeper::default();
    let mut survivor = keeper.driver(open(&file.path()));
    let state_id = survivor.state_id();
    let status = process::Command::new(env::current_exe().expect("this test's binary"))
        .args(["--exact", "crash::child"])
        .env(PATH, file.path())
        .output()
        .expect("the child runs");
    assert!(!status.status.success());
    assert!(survivor.start(at(0)).expect("started").contains(&Command::Inquire { id: x(1) }));
    drop(survivor);

    let mut driver = keeper.driver(open(&file.path()));
    assert_eq!(driver.state_id(), state_id);
    assert_eq!(driver.start(at(0)).expect("started"), [Command::Inquire { id: x(1) }]);
    drop(driver);
    assert_eq!(books(&mut open(&file.path())), Books::from([(x(1), (1, 0))]));
}

#[test]
fn a_step_that_was_not_committed_is_gone_when_the_store_is_opened_again() {
    let file = SqliteFile::new();
    for _ in 0..3 {
        let mut store = open(&file.path());
        let mut step = store.open_step().expect("a step");
        let added = step.attempt(|db| {
            db.add(x(1), 1, 0);
            Ok::<_, ()>(())
        });
        added.expect("a sound store").expect("it does not fail");
        let recorded = handfast::service::Recorded::Committed;
        let branch = handfast::service::Branch { recorded, began: None, at_unix_ms: 1 };
        step.save(x(1), &branch).expect("saved");
        drop(step);
        drop(store);
        let mut store = open(&file.path());
        assert_eq!(books(&mut store), Books::new());
        assert_eq!(store.open_step().expect("a step").load(x(1)).expect("loaded"), None);
    }
}
