//! A service for tests: it holds on prepare, applies on commit, releases on abort, and counts, so
//! that anything done twice shows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use handfast::service::{Driver, Handler, HandlerError, No, Prepared, Report, ServiceStore};
use handfast::service::{SqliteStore, StoreStep};
use handfast_core::command::{Command, Vote};
use handfast_core::ids::{Began, Lsn, Now, StoreId, TransactionId};
use handfast_core::output::ToService;
use rusqlite::{Connection, params};

/// What the service has in its own tables: how often each transaction is held, and was applied.
pub(crate) type Books = BTreeMap<TransactionId, (i64, i64)>;

/// A database that the bookkeeper can work with.
pub(crate) trait BookDb {
    /// Adds to a transaction's counts.
    fn add(&self, id: TransactionId, held: i64, applied: i64);
    /// All counts that are not zero.
    fn books(&self) -> Books;
}

/// The tables of the bookkeeper, and those of a rule that is checked at commit only.
pub(crate) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS book (id BLOB PRIMARY KEY, held INTEGER, applied INTEGER);
    CREATE TABLE IF NOT EXISTS parent (id INTEGER PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS child (
        parent INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED);
";

impl BookDb for Connection {
    fn add(&self, id: TransactionId, held: i64, applied: i64) {
        self.execute(
            "INSERT INTO book VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE \
             SET held = held + excluded.held, applied = applied + excluded.applied",
            params![id.0.to_be_bytes(), held, applied],
        )
        .expect("the books are written");
    }

    fn books(&self) -> Books {
        let mut statement = self
            .prepare("SELECT id, held, applied FROM book WHERE held <> 0 OR applied <> 0")
            .expect("the books exist");
        let rows = statement.query_map([], |row| {
            let id = TransactionId(u128::from_be_bytes(row.get(0)?));
            Ok((id, (row.get(1)?, row.get(2)?)))
        });
        rows.expect("the books are read").collect::<Result<_, _>>().expect("the books are read")
    }
}

/// What a test wants of the bookkeeper, and what it was told.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    /// So many of the next finishes fail, after they have written.
    pub(crate) failing_finishes: u32,
    /// The next finishes that fail do so by a panic.
    pub(crate) panicking: bool,
    /// What the driver has reported.
    pub(crate) reports: Vec<Report>,
    /// How often a handler was called.
    pub(crate) calls: u32,
    /// What "any" means the next time.
    pub(crate) any: u64,
}

/// The handler. The work says how `prepare` ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bookkeeper {
    orders: Arc<Mutex<Orders>>,
}

impl Bookkeeper {
    pub(crate) fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A driver whose reports go into the orders.
    pub(crate) fn driver<S>(&self, store: S) -> Driver<S, Self>
    where
        S: ServiceStore,
        S::Db: BookDb,
    {
        let to = self.clone();
        let report = move |report| to.orders().reports.push(report);
        Driver::new(store, self.clone(), report).with_seed(7)
    }

    fn finish(&self) -> Result<(), HandlerError> {
        let mut orders = self.orders();
        orders.calls += 1;
        if orders.failing_finishes > 0 {
            orders.failing_finishes -= 1;
            assert!(!orders.panicking, "a finish that panics");
            return Err("the till is stuck".into());
        }
        Ok(())
    }
}

impl<Db: BookDb + ?Sized> Handler<Db> for Bookkeeper {
    fn prepare(&self, db: &Db, id: TransactionId, work: &[u8]) -> Result<Prepared, No> {
        // It writes first, so that what has to be undone is there.
        db.add(id, 1, 0);
        let work = if work == b"any" {
            let mut orders = self.orders();
            orders.any = orders.any.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            [&b"yes"[..], b"read-only", b"no", b"panic"][(orders.any >> 33) as usize % 4]
        } else {
            work
        };
        self.orders().calls += 1;
        match work {
            b"read-only" => Ok(Prepared::ReadOnly),
            b"no" => Err(No::new("no such account")),
            b"later" => Err(No::retryable("the account is busy")),
            b"panic" => panic!("the bookkeeper fell over"),
            _ => Ok(Prepared::Yes),
        }
    }

    fn commit(&self, db: &Db, id: TransactionId, work: &[u8]) -> Result<(), HandlerError> {
        assert!(matches!(work, b"yes" | b"any"), "the work is kept until the end");
        db.add(id, -1, 1);
        self.finish()
    }

    fn abort(&self, db: &Db, id: TransactionId, work: &[u8]) -> Result<(), HandlerError> {
        assert!(matches!(work, b"yes" | b"any"), "the work is kept until the end");
        db.add(id, -1, 0);
        self.finish()
    }
}

/// Reads the books in a step of its own.
pub(crate) fn books<S>(store: &mut S) -> Books
where
    S: ServiceStore,
    S::Db: BookDb,
{
    let mut step = store.open_step().expect("a step");
    let books = step.attempt(|db| Ok::<_, No>(db.books())).expect("a sound store");
    books.expect("it does not fail")
}

/// Opens a SQLite store with the bookkeeper's tables.
pub(crate) fn open(path: &std::path::Path) -> SqliteStore {
    let store = SqliteStore::open(path).expect("the store opens");
    store.connection().pragma_update(None, "foreign_keys", true).expect("a pragma");
    store.connection().execute_batch(TABLES).expect("the tables are made");
    store
}

pub(crate) fn x(id: u128) -> TransactionId {
    TransactionId(id)
}

/// A transaction whose id says that it began at this Unix time, and the log that it is this one.
pub(crate) fn begun(unix_ms: u64, id: u128) -> TransactionId {
    TransactionId(u128::from(unix_ms) << 80 | id)
}

pub(crate) fn at(ms: u64) -> Now {
    Now { mono_ms: ms, wall_ms: 1_700_000_000_000 + ms }
}

/// When it began, by the log: in the order of the numbers, whatever the times in the ids.
pub(crate) fn began(id: TransactionId) -> Began {
    Began { store: StoreId(1), epoch: 7, lsn: Lsn(id.0 as u64) }
}

pub(crate) fn prepare(id: TransactionId, work: &'static str) -> ToService {
    prepare_in(id, began(id), work)
}

pub(crate) fn prepare_in(id: TransactionId, began: Began, work: &'static str) -> ToService {
    let work = Some(bytes::Bytes::from_static(work.as_bytes()));
    ToService::Prepare { id, began, work, remaining_ms: 30_000 }
}

pub(crate) fn prepare_without_work(id: TransactionId) -> ToService {
    ToService::Prepare { id, began: began(id), work: None, remaining_ms: 30_000 }
}

pub(crate) fn commit(id: TransactionId) -> ToService {
    ToService::Commit { id, began: began(id) }
}

pub(crate) fn abort(id: TransactionId) -> ToService {
    ToService::Abort { id }
}

pub(crate) fn yes(id: TransactionId) -> Command {
    Command::Vote { id, vote: Vote::Yes }
}

pub(crate) fn no(id: TransactionId, reason: &str, retryable: bool) -> Command {
    Command::Vote { id, vote: Vote::No { reason: reason.to_owned(), retryable } }
}

pub(crate) fn finished(id: TransactionId, committed: bool) -> Command {
    Command::Finished { id, committed }
}
