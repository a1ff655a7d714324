//! Many runs of the world.

use std::panic::{AssertUnwindSafe, catch_unwind};

use handfast::service::SqliteStore;
use handfast::service::conformance::Subject;
use rusqlite::Connection;

use crate::bookkeeper::open;
use crate::conformance::SqliteFile;
use crate::memory::{Bug, Memory};
use crate::world::World;

/// A SQLite file with the bookkeeper's tables.
struct BookFile(SqliteFile);

impl Subject for BookFile {
    type Store = SqliteStore;

    fn open(&self) -> SqliteStore {
        open(&self.0.path())
    }

    fn add(db: &Connection) {
        SqliteFile::add(db);
    }

    fn number(db: &Connection) -> u64 {
        SqliteFile::number(db)
    }
}

#[test]
fn any_schedule_in_memory_has_each_effect_once() {
    let mut forgotten = 0;
    for seed in 0..1_500 {
        let subject = Memory::with_bug(Bug::None);
        let mut world = World::new(&subject, seed);
        let run = catch_unwind(AssertUnwindSafe(|| {
            world.run(400);
            world.forgotten_commits()
        }));
        forgotten += run.unwrap_or_else(|_| panic!("seed {seed}"));
    }
    assert!(forgotten > 1_500, "the runs commit and forget: {forgotten}");
}

#[test]
fn any_schedule_on_sqlite_has_each_effect_once() {
    for seed in 0..15 {
        let subject = BookFile(SqliteFile::new());
        let mut world = World::new(&subject, seed);
        let run = catch_unwind(AssertUnwindSafe(|| world.run(300)));
        run.unwrap_or_else(|_| panic!("seed {seed}"));
    }
}

/// The world is worth something only if it notices a store that is wrong.
#[test]
fn planted_bugs_break_some_schedule() {
    for bug in [
        Bug::KeepsFailedAttempts,
        Bug::UndoesTheWholeStep,
        Bug::ForgetsNothing,
        Bug::ReadsAtOpening,
    ] {
        let broken = (0..200).any(|seed| {
            let subject = Memory::with_bug(bug);
            catch_unwind(AssertUnwindSafe(|| World::new(&subject, seed).run(400))).is_err()
        });
        assert!(broken, "{bug:?}");
    }
}
