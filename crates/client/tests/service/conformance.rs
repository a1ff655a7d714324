//! Every store runs the one suite; and the suite finds what it is there to find.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use handfast::service::SqliteStore;
use handfast::service::conformance::{Subject, run};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::memory::{Bug, Memory};

/// A SQLite file in a directory of its own.
pub(crate) struct SqliteFile {
    directory: TempDir,
}

impl SqliteFile {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory") }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("service.db")
    }
}

impl Subject for SqliteFile {
    type Store = SqliteStore;

    fn open(&self) -> SqliteStore {
        let store = SqliteStore::open(self.path()).expect("the store opens");
        let tables = "CREATE TABLE IF NOT EXISTS number (value INTEGER)";
        store.connection().execute_batch(tables).expect("the table is made");
        store
    }

    fn add(db: &Connection) {
        db.execute("INSERT INTO number VALUES (1)", []).expect("added");
    }

    fn number(db: &Connection) -> u64 {
        let sum = "SELECT coalesce(sum(value), 0) FROM number";
        let number: i64 = db.query_row(sum, [], |row| row.get(0)).expect("summed");
        u64::try_from(number).expect("it only grows")
    }
}

#[test]
fn sqlite_conforms() {
    run(SqliteFile::new);
}

#[test]
fn memory_conforms() {
    run(|| Memory::with_bug(Bug::None));
}

#[test]
fn every_planted_bug_is_found() {
    for bug in Bug::ALL {
        let suite = AssertUnwindSafe(|| run(|| Memory::with_bug(bug)));
        assert!(catch_unwind(suite).is_err(), "{bug:?} was not found");
    }
}
