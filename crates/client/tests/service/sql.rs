//! A service's state in PostgreSQL and in MariaDB.

use std::panic::{AssertUnwindSafe, catch_unwind};

use handfast::database::sqlx::{self, Connection, MySql, Postgres};
use handfast::service::conformance::{Subject, run};
use handfast::service::sql::{Error, MariaDbStore, PostgresStore, SqlConnection};
use handfast::service::{
    Branch, Driver, Handler, HandlerError, No, Prepared, Recorded, ServiceStore, StoreStep,
};
use handfast_core::command::{Command, Vote};
use handfast_core::ids::TransactionId;

use crate::bookkeeper::{BookDb, at, prepare, x, yes};
use crate::servers::{Own, wait};
use crate::world::World;

#[test]
fn postgres_conforms() {
    run(Own::<Postgres>::new);
}

#[test]
fn mariadb_conforms() {
    run(Own::<MySql>::new);
}

fn any_schedule<T>(fresh: impl Fn() -> T)
where
    T: Subject,
    <T::Store as ServiceStore>::Db: BookDb,
{
    for seed in 0..4 {
        let subject = fresh();
        let mut world = World::new(&subject, seed);
        let run = catch_unwind(AssertUnwindSafe(|| world.run(200)));
        run.unwrap_or_else(|_| panic!("seed {seed}"));
    }
}

#[test]
fn any_schedule_on_postgres_has_each_effect_once() {
    any_schedule(Own::<Postgres>::new);
}

#[test]
fn any_schedule_on_mariadb_has_each_effect_once() {
    any_schedule(Own::<MySql>::new);
}

/// Several services keep their states beside each other and see nothing of each other.
#[test]
fn services_share_a_database_and_not_a_state() {
    let own = Own::<Postgres>::new();
    let mut one = own.open();
    let mut other = wait(PostgresStore::open(&own.url, "other")).expect("the store opens");
    assert_ne!(one.state_id(), other.state_id());
    let branch = Branch { recorded: Recorded::Committed, began: None, at_unix_ms: 1 };
    let mut step = one.open_step().expect("a step");
    step.save(x(1), &branch).expect("noted");
    // Its turn comes although the other one's step is open.
    let mut beside = other.open_step().expect("a step");
    assert_eq!(step.load(x(1)).expect("loaded"), Some(branch));
    let _proof = step.commit().expect("committed");
    assert_eq!(beside.load(x(1)).expect("loaded"), None);
    assert_eq!(beside.outcomes(9, None, 9).expect("listed"), []);
}

/// A handler for which the work is the SQL to run, and which does not mind how that ends.
struct Careless;

impl Careless {
    fn run(db: &SqlConnection<Postgres>, sql: &str) {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        // That nobody looks at the answer is what is wrong with it.
        let _ = db.run(async |db| sqlx::raw_sql(sql).execute(db).await);
    }
}

impl Handler<SqlConnection<Postgres>> for Careless {
    fn prepare(
        &self,
        db: &SqlConnection<Postgres>,
        _: TransactionId,
        work: &[u8],
    ) -> Result<Prepared, No> {
        Self::run(db, std::str::from_utf8(work)?);
        Ok(Prepared::Yes)
    }

    fn commit(
        &self,
        _: &SqlConnection<Postgres>,
        _: TransactionId,
        _: &[u8],
    ) -> Result<(), HandlerError> {
        Ok(())
    }

    fn abort(
        &self,
        _: &SqlConnection<Postgres>,
        _: TransactionId,
        _: &[u8],
    ) -> Result<(), HandlerError> {
        Ok(())
    }
}

const ADD: &str = "INSERT INTO number VALUES (1)";

fn number(own: &Own<Postgres>) -> u64 {
    let mut store = own.open();
    let mut step = store.open_step().expect("a step");
    let read = step.attempt(|db| Ok::<_, No>(Own::<Postgres>::number(db))).expect("it works");
    read.expect("it does not fail")
}

/// What PostgreSQL undoes at the end, whatever the handler thinks, is a NO of that branch alone:
/// a failed statement that nobody looked at, and a rule that is checked at commit.
#[test]
fn what_a_handler_did_not_notice_is_a_no_and_holds_up_nobody_else() {
    let own = Own::<Postgres>::new();
    let mut driver = Driver::new(own.open(), Careless, |_| {});
    for (at_fault, words) in [
        ("INSERT INTO nowhere VALUES (1)", "current transaction is aborted"),
        ("INSERT INTO child VALUES (77)", "foreign key constraint"),
    ] {
        let before = number(&own);
        let id = u128::from(before) + 1;
        let batch = [prepare(x(id), ADD), prepare(x(id + 100), at_fault), prepare(x(id + 1), ADD)];
        let answers = driver.process(at(0), &batch).expect("a sound store");
        let [first, Command::Vote { id: refused, vote: Vote::No { reason, .. } }, last] =
            &answers[..]
        else {
            panic!("{answers:?}")
        };
        assert_eq!((first, *refused, last), (&yes(x(id)), x(id + 100), &yes(x(id + 1))));
        assert!(reason.contains(words), "{reason}");
        assert_eq!(number(&own), before + 2);
    }
}

/// The step would be without its record, and its work done twice.
#[test]
fn a_handler_that_ends_the_transaction_loses_the_step() {
    let own = Own::<Postgres>::new();
    let mut driver = Driver::new(own.open(), Careless, |_| {});
    for ending in ["ROLLBACK", "ROLLBACK; BEGIN", "COMMIT; BEGIN; SAVEPOINT other"] {
        let work = prepare(x(1), ending);
        let error = driver.process(at(0), &[prepare(x(2), ADD), work]).expect_err(ending);
        assert!(matches!(error, Error::StepEnded(_)), "{ending}: {error}");
    }
    // The store is sound, and nothing was recorded of it.
    assert_eq!(driver.process(at(0), &[prepare(x(1), ADD)]).expect("a step"), [yes(x(1))]);
}

/// In MariaDB a deadlock, or CREATE TABLE, ends the transaction without a word about it.
#[test]
fn mariadb_transactions_that_ended_by_themselves_lose_the_step() {
    let own = Own::<MySql>::new();
    let mut store = own.open();
    let branch = Branch { recorded: Recorded::Committed, began: None, at_unix_ms: 1 };
    let mut step = store.open_step().expect("a step");
    step.save(x(1), &branch).expect("noted");
    let ended = step.attempt(|db| {
        db.run(async |db| sqlx::raw_sql("CREATE TABLE made (id int)").execute(db).await)
    });
    assert!(matches!(ended, Err(Error::StepEnded(_))), "{ended:?}");
    drop(step);
    let mut step = store.open_step().expect("a step");
    assert_eq!(step.load(x(1)).expect("loaded"), None);
}

/// A database ends idle sessions, or was started again: the next step has another connection.
#[test]
fn a_session_that_was_ended_between_two_steps_is_replaced() {
    let own = Own::<Postgres>::new();
    let mut store = own.open();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    wait(async {
        let mut db = sqlx::PgConnection::connect(&own.url).await.expect("it runs");
        sqlx::raw_sql(end).execute(&mut db).await.expect("ended");
    });
    let _proof = store.open_step().expect("a step").commit().expect("committed");
}

/// A state that is not the one that was opened is not written into.
#[test]
fn a_state_that_was_replaced_is_gone() {
    let own = Own::<MySql>::new();
    let mut store = own.open();
    let replace =
        "UPDATE handfast_service_state SET state_id = X'00112233445566778899aabbccddeeff'";
    wait(async {
        let mut db = sqlx::MySqlConnection::connect(&own.url).await.expect("it runs");
        sqlx::raw_sql(replace).execute(&mut db).await.expect("replaced");
    });
    let error = store.open_step().expect_err("it is another state");
    assert!(matches!(error, Error::Gone(_)), "{error}");
    let newer = "UPDATE handfast_service_state SET layout = 1";
    wait(async {
        let mut db = sqlx::MySqlConnection::connect(&own.url).await.expect("it runs");
        sqlx::raw_sql(newer).execute(&mut db).await.expect("changed");
    });
    let error = wait(MariaDbStore::open(&own.url, "books")).expect_err("another version made it");
    assert!(matches!(error, Error::OtherLayout { found: 1, known: 2 }), "{error}");
    let error = wait(MariaDbStore::open(&own.url, "no name")).expect_err("a name has no spaces");
    assert!(matches!(error, Error::InvalidName { .. }), "{error}");
    let older = "ALTER TABLE handfast_service_branch DROP COLUMN began";
    wait(async {
        let mut db = sqlx::MySqlConnection::connect(&own.url).await.expect("it runs");
        sqlx::raw_sql(older).execute(&mut db).await.expect("changed");
    });
    let error = wait(MariaDbStore::open(&own.url, "new")).expect_err("the tables are older");
    assert!(matches!(error, Error::OtherTables(_)), "{error}");
}
