//! A service's durable state in its own SQLite database, beside the service's own tables.
//!
//! WAL mode, so that several processes may share it; synchronous = FULL, so that a step that was
//! committed survives a power cut. It never holds a transaction open between two steps.
//!
//! A copy of the file is another state: to use both would be to finish branches twice.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use handfast_core::ids::{Began, StateId, StoreId, TransactionId};
use handfast_core::participant::Synced;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::Type;
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior,
    params,
};

use super::handler::No;
use super::store::{Branch, CommitError, Outcome, OutcomeKey, Recorded, ServiceStore, StoreStep};

/// The layout of the tables. A store with another one is not opened.
const LAYOUT: i64 = 2;
/// How long a step waits for its turn, unless told otherwise.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two tries to turn WAL mode on, which SQLite does not wait for by itself.
const OPEN_PAUSE: Duration = Duration::from_millis(5);
/// More statements than the store itself has, so that a handler has room as well.
const STATEMENTS: usize = 64;

/// What the names of tables and savepoints begin with that handlers must not touch.
const OURS: &str = "handfast_";

const PREPARED: i64 = 1;
const COMMITTED: i64 = 2;
const ABORTED: i64 = 3;

/// Times are Unix milliseconds; ids are 16 bytes, most significant first, so that they sort as
/// they do everywhere else. `began`: [`Began::to_bytes`].
const TABLES: &str = "
    CREATE TABLE handfast_state (
        one        INTEGER PRIMARY KEY CHECK (one = 1),
        state_id   BLOB    NOT NULL CHECK (length(state_id) = 16),
        layout     INTEGER NOT NULL,
        openings   INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE handfast_branch (
        transaction_id BLOB    NOT NULL PRIMARY KEY CHECK (length(transaction_id) = 16),
        state          INTEGER NOT NULL CHECK (state IN (1, 2, 3)),
        work           BLOB    CHECK ((work IS NOT NULL) = (state = 1)),
        reason         TEXT    CHECK (reason IS NULL OR state = 3),
        retryable      INTEGER CHECK ((retryable IS NULL) = (reason IS NULL)),
        began          BLOB    CHECK (length(began) = 28),
        at_unix_ms     INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE handfast_horizon (
        store_id BLOB NOT NULL PRIMARY KEY CHECK (length(store_id) = 16),
        began    BLOB NOT NULL CHECK (length(began) = 28)
    ) STRICT;
    CREATE INDEX handfast_prepared
        ON handfast_branch (transaction_id) WHERE state = 1;
    CREATE INDEX handfast_outcome
        ON handfast_branch (at_unix_ms, transaction_id) WHERE state <> 1;
";

/// A fault of the store. Nothing was answered because of it, so a retry is always safe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be opened or created.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The file system or the kind of database does not allow several processes to share it.
    #[error("{} stays in journal mode {mode:?}: WAL mode needs a local file", path.display())]
    NotWal {
        /// The file.
        path: PathBuf,
        /// The mode it stays in.
        mode: String,
    },
    /// Another version has made the tables.
    #[error("the tables have layout {found}, this version knows only {LAYOUT}")]
    OtherLayout {
        /// The layout of the tables.
        found: i64,
    },
    /// Somebody else holds the database's write lock for too long.
    #[error("no turn to write within {} ms: another transaction is open", waited.as_millis())]
    Busy {
        /// How long a step waits.
        waited: Duration,
    },
    /// SQLite has rolled the step back by itself, because the disk is full or because a handler
    /// asked for it (`ON CONFLICT ROLLBACK`).
    #[error("the step's transaction was ended under it{}", cause(source.as_ref()))]
    StepEnded {
        /// What SQLite says, if anything.
        source: Option<rusqlite::Error>,
    },
    /// Anything else.
    #[error("SQLite: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

fn cause(source: Option<&rusqlite::Error>) -> String {
    source.map(|error| format!(": {error}")).unwrap_or_default()
}

/// A service's SQLite database. See [`SqliteStore::open`].
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
    state_id: StateId,
    busy_timeout: Duration,
    handler_runs: Arc<AtomicBool>,
}

impl SqliteStore {
    /// Opens the database, creating it and the tables `handfast_state` and `handfast_branch` if
    /// they do not exist. A step waits up to 10 s for its turn.
    ///
    /// # Errors
    /// [`Error`], when it cannot be opened, shared or understood.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with_busy_timeout(path, BUSY_TIMEOUT)
    }

    /// As [`SqliteStore::open`], with another bound on the wait for a turn to write.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub fn open_with_busy_timeout(
        path: impl AsRef<Path>,
        busy_timeout: Duration,
    ) -> Result<Self, Error> {
        let path = path.as_ref();
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)
            .map_err(|source| Error::Open { path: path.to_owned(), source })?;
        connection.busy_timeout(busy_timeout)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        turn_wal_on(&connection, path, busy_timeout)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        // Where an ordinary fsync leaves data in the drive's cache.
        connection.pragma_update(None, "fullfsync", true)?;
        connection.pragma_update(None, "checkpoint_fullfsync", true)?;
        let state_id = make_tables(&mut connection, busy_timeout)?;
        let handler_runs = Arc::new(AtomicBool::new(false));
        let runs = Arc::clone(&handler_runs);
        connection.authorizer(Some(move |asked: AuthContext<'_>| {
            if runs.load(Ordering::Relaxed) && !is_for_handlers(&asked.action) {
                Authorization::Deny
            } else {
                Authorization::Allow
            }
        }))?;
        Ok(Self { connection, state_id, busy_timeout, handler_runs })
    }

    /// The connection, for the service's own tables and queries between two steps. Transactions
    /// begun here have to end before the next step. What handlers write has to be in this very
    /// file: a commit over attached files is not atomic in WAL mode.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl ServiceStore for SqliteStore {
    type Db = Connection;
    type Error = Error;
    type Step<'a> = SqliteStep<'a>;

    fn state_id(&self) -> StateId {
        self.state_id
    }

    fn open_step(&mut self) -> Result<SqliteStep<'_>, Error> {
        let transaction = begin(&mut self.connection, self.busy_timeout)?;
        Ok(SqliteStep { transaction, handler_runs: &self.handler_runs })
    }
}

/// One `BEGIN IMMEDIATE` transaction.
#[derive(Debug)]
pub struct SqliteStep<'a> {
    transaction: Transaction<'a>,
    handler_runs: &'a AtomicBool,
}

impl SqliteStep<'_> {
    fn execute(&self, sql: &str, params: impl rusqlite::Params) -> Result<(), Error> {
        self.transaction.prepare_cached(sql)?.execute(params)?;
        Ok(())
    }

    /// A statement about the step's own savepoint. If it fails, the savepoint is not what it was.
    fn savepoint(&self, sql: &str) -> Result<(), Error> {
        if self.transaction.is_autocommit() {
            return Err(Error::StepEnded { source: None });
        }
        self.transaction
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute([]))
            .map_err(|source| Error::StepEnded { source: Some(source) })?;
        Ok(())
    }
}

impl StoreStep for SqliteStep<'_> {
    type Db = Connection;
    type Error = Error;

    fn attempt<T, E>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<Result<T, E>, Error> {
        self.savepoint("SAVEPOINT handfast_attempt")?;
        let result = {
            let _restricted = Restricted::new(self.handler_runs);
            work(&self.transaction)
        };
        if result.is_err() {
            self.savepoint("ROLLBACK TO handfast_attempt")?;
        }
        self.savepoint("RELEASE handfast_attempt")?;
        Ok(result)
    }

    fn load(&mut self, id: TransactionId) -> Result<Option<Branch>, Error> {
        let mut statement = self.transaction.prepare_cached(
            "SELECT state, work, reason, retryable, began, at_unix_ms FROM handfast_branch \
             WHERE transaction_id = ?1",
        )?;
        Ok(statement.query_row([id.0.to_be_bytes()], branch).optional()?)
    }

    fn save(&mut self, id: TransactionId, branch: &Branch) -> Result<(), Error> {
        let (state, work, no) = match &branch.recorded {
            Recorded::Prepared { work } => (PREPARED, Some(work), None),
            Recorded::Committed => (COMMITTED, None, None),
            Recorded::Aborted { no } => (ABORTED, None, no.as_ref()),
        };
        self.execute(
            "INSERT INTO handfast_branch \
             (transaction_id, state, work, reason, retryable, began, at_unix_ms) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
             ON CONFLICT (transaction_id) DO UPDATE SET state = excluded.state, \
             work = excluded.work, reason = excluded.reason, retryable = excluded.retryable, \
             began = excluded.began, at_unix_ms = excluded.at_unix_ms",
            params![
                id.0.to_be_bytes(),
                state,
                work,
                no.map(|no| &no.reason),
                no.map(|no| no.retryable),
                branch.began.map(Began::to_bytes),
                to_sql(branch.at_unix_ms),
            ],
        )
    }

    fn forget(&mut self, id: TransactionId) -> Result<(), Error> {
        let sql = "DELETE FROM handfast_branch WHERE transaction_id = ?1";
        self.execute(sql, [id.0.to_be_bytes()])
    }

    fn horizon(&mut self, store: StoreId) -> Result<Option<Began>, Error> {
        let sql = "SELECT began FROM handfast_horizon WHERE store_id = ?1";
        let mut statement = self.transaction.prepare_cached(sql)?;
        let row = statement.query_row([store.0.to_be_bytes()], |row| began(row, 0)).optional()?;
        Ok(row.flatten())
    }

    fn raise_horizon(&mut self, began: Began) -> Result<(), Error> {
        let sql = "INSERT INTO handfast_horizon (store_id, began) VALUES (?1, ?2) \
             ON CONFLICT (store_id) DO UPDATE SET began = max(began, excluded.began)";
        self.execute(sql, params![began.store.0.to_be_bytes(), began.to_bytes()])
    }

    fn prepared(
        &mut self,
        after: Option<TransactionId>,
        limit: u32,
    ) -> Result<Vec<TransactionId>, Error> {
        // No id is empty, so that all of them come after the empty one.
        let after = after.map_or_else(Vec::new, |id| id.0.to_be_bytes().to_vec());
        let mut statement = self.transaction.prepare_cached(
            "SELECT transaction_id FROM handfast_branch \
             WHERE state = 1 AND transaction_id > ?1 ORDER BY transaction_id LIMIT ?2",
        )?;
        let rows = statement.query_map(params![after, limit], |row| id(row, 0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn outcomes(
        &mut self,
        before_unix_ms: u64,
        after: Option<OutcomeKey>,
        limit: u32,
    ) -> Result<Vec<Outcome>, Error> {
        let (at, last) = after.map_or((i64::MIN, Vec::new()), |key| {
            (to_sql(key.at_unix_ms), key.id.0.to_be_bytes().to_vec())
        });
        let mut statement = self.transaction.prepare_cached(
            "SELECT at_unix_ms, transaction_id, began FROM handfast_branch \
             WHERE state <> 1 AND at_unix_ms < ?1 AND (at_unix_ms, transaction_id) > (?2, ?3) \
             ORDER BY at_unix_ms, transaction_id LIMIT ?4",
        )?;
        let rows =
            statement.query_map(params![to_sql(before_unix_ms), at, last, limit], |row| {
                let key = OutcomeKey { at_unix_ms: from_sql(row.get(0)?), id: id(row, 1)? };
                Ok(Outcome { key, began: began(row, 2)? })
            })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn commit(self) -> Result<Synced, CommitError<Error>> {
        if self.transaction.is_autocommit() {
            return Err(CommitError::Fault(Error::StepEnded { source: None }));
        }
        match self.transaction.commit() {
            Ok(()) => Ok(Synced::now()),
            // A deferred foreign key. The transaction is still open, and is rolled back.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                Err(CommitError::Refused(error.into()))
            }
            Err(error) => Err(CommitError::Fault(error.into())),
        }
    }
}

/// While it lives, statements are compiled for a handler.
struct Restricted<'a>(&'a AtomicBool);

impl<'a> Restricted<'a> {
    fn new(handler_runs: &'a AtomicBool) -> Self {
        handler_runs.store(true, Ordering::Relaxed);
        Self(handler_runs)
    }
}

impl Drop for Restricted<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A handler that commits would leave its changes without the record of the branch, and its work
/// would be done twice. So it cannot: such a statement fails with "not authorized".
fn is_for_handlers(action: &AuthAction<'_>) -> bool {
    let is_ours =
        |name: &str| name.get(..OURS.len()).is_some_and(|start| start.eq_ignore_ascii_case(OURS));
    match action {
        AuthAction::Transaction { .. } => false,
        AuthAction::Savepoint { savepoint_name: name, .. }
        | AuthAction::Insert { table_name: name }
        | AuthAction::Update { table_name: name, .. }
        | AuthAction::Delete { table_name: name }
        | AuthAction::DropTable { table_name: name }
        | AuthAction::AlterTable { table_name: name, .. } => !is_ours(name),
        _ => true,
    }
}

fn begin(connection: &mut Connection, waited: Duration) -> Result<Transaction<'_>, Error> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|error| {
        if is_busy(&error) { Error::Busy { waited } } else { Error::Sqlite(error) }
    })
}

fn is_busy(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Whoever opens a new file at the same moment holds it exclusively for an instant, and SQLite
/// does not apply the busy timeout to that.
fn turn_wal_on(connection: &Connection, path: &Path, timeout: Duration) -> Result<(), Error> {
    let began = Instant::now();
    loop {
        let set = connection
            .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0));
        match set {
            Ok(mode) if mode.eq_ignore_ascii_case("wal") => return Ok(()),
            Ok(mode) => return Err(Error::NotWal { path: path.to_owned(), mode }),
            Err(error) if !is_busy(&error) => {
                return Err(Error::Open { path: path.to_owned(), source: error });
            }
            Err(_) if began.elapsed() >= timeout => return Err(Error::Busy { waited: timeout }),
            Err(_) => thread::sleep(OPEN_PAUSE),
        }
    }
}

fn make_tables(connection: &mut Connection, waited: Duration) -> Result<StateId, Error> {
    let transaction = begin(connection, waited)?;
    let exists = transaction
        .query_row("SELECT 1 FROM sqlite_schema WHERE name = 'handfast_state'", [], |_| Ok(()))
        .optional()?;
    if exists.is_none() {
        transaction.execute_batch(TABLES)?;
        let random = transaction.query_row("SELECT randomblob(16)", [], |row| row.get(0))?;
        transaction.execute(
            "INSERT INTO handfast_state (one, state_id, layout) VALUES (1, ?1, ?2)",
            params![uuid_v4(u128::from_be_bytes(random)).to_be_bytes(), LAYOUT],
        )?;
    }
    let (state_id, layout): ([u8; 16], i64) =
        transaction.query_row("SELECT state_id, layout FROM handfast_state", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    if layout != LAYOUT {
        return Err(Error::OtherLayout { found: layout });
    }
    // What a killed process has written may be readable and not be on disk. This write syncs the
    // WAL with everything before it, so that nothing is ever answered that a power cut undoes.
    transaction.execute("UPDATE handfast_state SET openings = openings + 1", [])?;
    transaction.commit()?;
    // And this one copies it into the database. If another process is in the way, there was
    // nothing to recover.
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
    Ok(StateId(u128::from_be_bytes(state_id)))
}

/// Random bits as a UUID of version 4.
fn uuid_v4(bits: u128) -> u128 {
    let version = 0xf << 76;
    let variant = 0x3 << 62;
    (bits & !version & !variant) | (0x4 << 76) | (0x2 << 62)
}

fn branch(row: &Row<'_>) -> rusqlite::Result<Branch> {
    let no = match row.get(2)? {
        None => None,
        Some(reason) => Some(No { reason, retryable: row.get(3)? }),
    };
    let recorded = match row.get(0)? {
        PREPARED => Recorded::Prepared { work: row.get(1)? },
        COMMITTED => Recorded::Committed,
        ABORTED => Recorded::Aborted { no },
        state => return Err(rusqlite::Error::IntegralValueOutOfRange(0, state)),
    };
    Ok(Branch { recorded, began: began(row, 4)?, at_unix_ms: from_sql(row.get(5)?) })
}

fn began(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Began>> {
    let bytes: Option<[u8; Began::BYTES]> = row.get(column)?;
    Ok(bytes.and_then(|bytes| Began::from_bytes(&bytes)))
}

fn id(row: &Row<'_>, column: usize) -> rusqlite::Result<TransactionId> {
    let bytes: [u8; 16] = row.get(column).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Blob, Box::new(error))
    })?;
    Ok(TransactionId(u128::from_be_bytes(bytes)))
}

/// Times beyond the year 292 million are the same to us.
fn to_sql(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

fn from_sql(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0)
}
