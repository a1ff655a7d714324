//! Handlers that refuse, fail, panic, or break the rules.

use std::slice;

use handfast::service::{
    Driver, Handler, HandlerError, No, Prepared, Report, ServiceStore, SqliteStore, sqlite,
};
use handfast_core::command::{Command, Vote};
use handfast_core::ids::TransactionId;
use handfast_core::limits::REASON_BYTES;
use rusqlite::Connection;

use crate::bookkeeper::{
    Bookkeeper, Books, abort, at, began, books, commit, finished, no, open, prepare, x, yes,
};
use crate::conformance::SqliteFile;

#[test]
fn a_no_keeps_nothing_of_its_own_and_all_of_the_others() {
    let file = SqliteFile::new();
    let keeper = Bookkeeper::default();
    let mut driver = keeper.driver(open(&file.path()));
    let batch = [
        prepare(x(1), "yes"),
        prepare(x(2), "no"),
        prepare(x(3), "later"),
        prepare(x(4), "read-only"),
        prepare(x(5), "panic"),
        prepare(x(6), "yes"),
    ];
    let read_only = Command::Vote { id: x(4), vote: Vote::ReadOnly };
    let panicked = "the service panicked: the bookkeeper fell over";
    let expected = [
        yes(x(1)),
        no(x(2), "no such account", false),
        no(x(3), "the account is busy", true),
        read_only,
        no(x(5), panicked, false),
        yes(x(6)),
    ];
    assert_eq!(driver.process(at(0), &batch).expect("processed"), expected);
    let message = "the bookkeeper fell over".to_owned();
    assert_eq!(keeper.orders().reports, [Report::PreparePanicked { id: x(5), message }]);
    drop(driver);
    let held = Books::from([(x(1), (1, 0)), (x(6), (1, 0))]);
    assert_eq!(books(&mut open(&file.path())), held);

    // The same reasons once more, without asking the handler; only READ-ONLY left no record.
    let mut driver = keeper.driver(open(&file.path()));
    keeper.orders().calls = 0;
    assert_eq!(driver.process(at(0), &batch).expect("processed"), expected);
    assert_eq!(keeper.orders().calls, 1);
}

#[test]
fn a_finish_that_fails_is_not_acknowledged_until_it_is_done() {
    for (decision, committed) in [(commit(x(1)), true), (abort(x(1)), false)] {
        for panicking in [false, true] {
            let file = SqliteFile::new();
            let keeper = Bookkeeper::default();
            let mut driver = keeper.driver(open(&file.path()));
            driver.process(at(0), &[prepare(x(1), "yes")]).expect("processed");
            *keeper.orders() =
                crate::bookkeeper::Orders { failing_finishes: 2, panicking, ..Default::default() };

            // A repeat in the same batch and one before the pause is over are not tried.
            let batch = [decision.clone(), prepare(x(2), "yes"), decision.clone()];
            let answers = driver.process(at(0), &batch).expect("processed");
            let [vote, Command::NotFinished { id, reason }] = &answers[..] else {
                panic!("{answers:?}");
            };
            assert_eq!((vote, *id), (&yes(x(2)), x(1)));
            assert!(reason.contains(if panicking { "panicked" } else { "stuck" }), "{reason}");
            assert_eq!(driver.process(at(1), slice::from_ref(&decision)).expect("processed"), []);
            assert_eq!(keeper.orders().calls, 2, "one finish and one prepare");

            let mut pauses = Vec::new();
            for report in &keeper.orders().reports {
                let Report::FinishFailed { id, commit, attempts: 1, retry_in_ms, error } = report
                else {
                    panic!("{report:?}");
                };
                assert_eq!((*id, *commit), (x(1), committed));
                assert!(error.contains(if panicking { "panicked" } else { "stuck" }), "{error}");
                pauses.push(*retry_in_ms);
            }
            let [pause] = pauses[..] else { panic!("{pauses:?}") };

            // The second attempt comes from a timer, the third from the coordinator's repeat.
            assert!(driver.next_deadline_ms() <= pause);
            let asked = driver.tick(at(pause)).expect("ticked");
            assert!(!asked.contains(&finished(x(1), committed)));
            assert_eq!(keeper.orders().reports.len(), 2);
            let answers =
                driver.process(at(40_000), slice::from_ref(&decision)).expect("processed");
            assert_eq!(answers, [finished(x(1), committed)]);
            assert_eq!(keeper.orders().reports.len(), 2);
            drop(driver);
            let ended = (0, i64::from(committed));
            let books = books(&mut open(&file.path()));
            assert_eq!(books.get(&x(1)).copied().unwrap_or_default(), ended);
        }
    }
}

#[test]
fn a_failed_finish_is_tried_again_by_its_timer() {
    let file = SqliteFile::new();
    let keeper = Bookkeeper::default();
    let mut driver = keeper.driver(open(&file.path()));
    driver.process(at(0), &[prepare(x(1), "yes")]).expect("processed");
    keeper.orders().failing_finishes = 1;
    let answers = driver.process(at(0), &[commit(x(1))]).expect("processed");
    assert!(matches!(&answers[..], [Command::NotFinished { .. }]), "{answers:?}");
    let answers = driver.tick(at(100)).expect("ticked");
    assert!(answers.contains(&finished(x(1), true)), "{answers:?}");
    assert!(!driver.tick(at(90_000)).expect("ticked").contains(&finished(x(1), true)));
}

#[test]
fn a_reason_is_cut_off_at_its_limit() {
    struct Talkative;
    impl Handler<Connection> for Talkative {
        fn prepare(&self, _: &Connection, _: TransactionId, _: &[u8]) -> Result<Prepared, No> {
            Err(No::new("ä".repeat(REASON_BYTES)))
        }
        fn commit(&self, _: &Connection, _: TransactionId, _: &[u8]) -> Result<(), HandlerError> {
            unreachable!("it never votes YES")
        }
        fn abort(&self, _: &Connection, _: TransactionId, _: &[u8]) -> Result<(), HandlerError> {
            unreachable!("it never votes YES")
        }
    }
    let file = SqliteFile::new();
    let mut driver = Driver::new(open(&file.path()), Talkative, |_| {});
    let expected = [no(x(1), &"ä".repeat(REASON_BYTES / 2), false)];
    for _ in 0..2 {
        assert_eq!(driver.process(at(0), &[prepare(x(1), "")]).expect("processed"), expected);
    }
}

/// Runs the work as SQL, in `prepare` or in `commit`.
struct Sql {
    in_commit: bool,
}

impl Sql {
    fn driver(self, file: &SqliteFile) -> Driver<SqliteStore, Self> {
        Driver::new(open(&file.path()), self, |_| {})
    }
}

impl Handler<Connection> for Sql {
    fn prepare(&self, db: &Connection, _: TransactionId, work: &[u8]) -> Result<Prepared, No> {
        if !self.in_commit {
            db.execute_batch(std::str::from_utf8(work)?)?;
        }
        Ok(Prepared::Yes)
    }

    fn commit(&self, db: &Connection, _: TransactionId, work: &[u8]) -> Result<(), HandlerError> {
        if self.in_commit {
            db.execute_batch(std::str::from_utf8(work)?)?;
        }
        Ok(())
    }

    fn abort(&self, _: &Connection, _: TransactionId, _: &[u8]) -> Result<(), HandlerError> {
        Ok(())
    }
}

fn children(store: &SqliteStore) -> i64 {
    let count = "SELECT count(*) FROM child";
    store.connection().query_row(count, [], |row| row.get(0)).expect("counted")
}

/// SQLite checks a deferred foreign key when the whole step commits. One branch that violates it
/// would make every batch that contains it fail, for ever.
#[test]
fn a_prepare_that_is_refused_at_commit_is_a_no_and_holds_nobody_up() {
    let file = SqliteFile::new();
    let mut driver = Sql { in_commit: false }.driver(&file);
    let batch = [
        prepare(x(1), "INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1)"),
        prepare(x(2), "INSERT INTO child VALUES (99)"),
        prepare(x(3), "INSERT INTO child VALUES (1)"),
    ];
    let answers = driver.process(at(0), &batch).expect("processed");
    let refused = no(x(2), "SQLite: FOREIGN KEY constraint failed", false);
    assert_eq!(answers, [yes(x(1)), refused, yes(x(3))]);
    assert_eq!(driver.process(at(0), &batch).expect("processed"), answers);
    assert_eq!(children(driver.store()), 2);
}

#[test]
fn a_finish_that_is_refused_at_commit_waits() {
    let file = SqliteFile::new();
    let mut driver = Sql { in_commit: true }.driver(&file);
    let batch = [
        prepare(x(1), "INSERT INTO child VALUES (99)"),
        prepare(x(2), "INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1)"),
    ];
    assert_eq!(driver.process(at(0), &batch).expect("processed"), [yes(x(1)), yes(x(2))]);
    let decisions = [commit(x(1)), commit(x(2))];
    let answers = driver.process(at(0), &decisions).expect("processed");
    let [Command::NotFinished { id, reason }, answer] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert_eq!((*id, answer), (x(1), &finished(x(2), true)));
    assert!(reason.contains("FOREIGN KEY"), "{reason}");
    assert_eq!(children(driver.store()), 1);
    let mended = "INSERT INTO parent VALUES (99)";
    driver.store().connection().execute_batch(mended).expect("mended");
    assert!(driver.tick(at(100)).expect("ticked").contains(&finished(x(1), true)));
    assert_eq!(children(driver.store()), 2);
}

/// A handler that committed would leave its changes without the record of the branch, and the
/// repeat of the prepare would do them again.
#[test]
fn a_handler_cannot_end_the_step_or_touch_its_records() {
    let file = SqliteFile::new();
    let mut driver = Sql { in_commit: false }.driver(&file);
    let forbidden = [
        "COMMIT",
        "COMMIT; BEGIN",
        "ROLLBACK",
        "END",
        "RELEASE handfast_attempt",
        "ROLLBACK TO Handfast_Attempt",
        "SAVEPOINT handfast_attempt",
        "DELETE FROM handfast_branch",
        "UPDATE Handfast_Horizon SET began = zeroblob(28)",
        "INSERT INTO handfast_branch VALUES (zeroblob(16), 2, NULL, NULL, NULL, NULL, 0)",
        "DROP TABLE handfast_branch",
        "ALTER TABLE handfast_state ADD COLUMN mine",
    ];
    for (id, sql) in (1..).map(x).zip(forbidden) {
        let work = format!("INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1); {sql}");
        let message = handfast_core::output::ToService::Prepare {
            id,
            began: began(id),
            work: Some(work.into()),
            remaining_ms: 1,
        };
        let batch = [prepare(x(100), "SELECT 1"), message];
        let answers = driver.process(at(0), &batch).expect("processed");
        let [Command::Vote { vote: Vote::Yes, .. }, Command::Vote { vote: refused, .. }] =
            &answers[..]
        else {
            panic!("{sql}: {answers:?}");
        };
        let Vote::No { reason, retryable: false } = refused else { panic!("{sql}: {refused:?}") };
        assert!(reason.contains("not authorized"), "{sql}: {reason}");
        assert_eq!(children(driver.store()), 0, "{sql}");
    }
    // Its own savepoints are its own business.
    let own = "SAVEPOINT a; INSERT INTO parent VALUES (5); ROLLBACK TO a; RELEASE a";
    assert_eq!(driver.process(at(0), &[prepare(x(50), own)]).expect("processed"), [yes(x(50))]);
}

#[test]
fn a_step_that_sqlite_rolls_back_answers_nothing() {
    let file = SqliteFile::new();
    let mut driver = Sql { in_commit: false }.driver(&file);
    let batch = [
        prepare(x(1), "INSERT INTO parent VALUES (1)"),
        prepare(x(2), "INSERT OR ROLLBACK INTO parent VALUES (1)"),
    ];
    for _ in 0..2 {
        let error = driver.process(at(0), &batch).expect_err("the step is gone");
        assert!(matches!(error, sqlite::Error::StepEnded { .. }), "{error}");
    }
    let answers = driver.process(at(0), &batch[..1]).expect("processed");
    assert_eq!(answers, [yes(x(1))], "nothing was kept of it before");
}

#[test]
fn an_aborted_branch_is_undone_by_its_handler_once() {
    let file = SqliteFile::new();
    let keeper = Bookkeeper::default();
    let mut driver = keeper.driver(open(&file.path()));
    driver.process(at(0), &[prepare(x(1), "yes")]).expect("processed");
    for _ in 0..2 {
        let answers = driver.process(at(0), &[abort(x(1))]).expect("processed");
        assert_eq!(answers, [finished(x(1), false)]);
    }
    assert_eq!(keeper.orders().calls, 2);
    assert_ne!(driver.state_id(), SqliteFile::new_state());
}

impl SqliteFile {
    fn new_state() -> handfast_core::ids::StateId {
        open(&Self::new().path()).state_id()
    }
}
