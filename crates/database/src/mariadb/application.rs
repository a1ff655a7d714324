//! MariaDB, from the application's side: what its own connection runs.
//!
//! Everything goes by the text protocol, because a placeholder in an XA statement is a syntax error
//! (MY15); the ids have a fixed alphabet. After any error of these functions the connection has to
//! be closed and not given back to a pool (MY11).
//!
//! Without this crate the same statements do:
//!
//! ```sql
//! XA START <xid>;                             -- or START TRANSACTION, for a local transaction
//! SAVEPOINT handfast;
//! -- The work. What has to stay as it was read has to be changed, not only read: shared locks end
//! -- at XA PREPARE, and those of FOR UPDATE when MariaDB restarts (MY14).
//! -- At the end, as one message:
//! RELEASE SAVEPOINT handfast;
//! INSERT INTO handfast_branch (id, outcome) VALUES ('<id>', 'committed');
//! XA END <xid>; XA PREPARE <xid>;             -- or COMMIT
//! ```
//!
//! The savepoint is a guard. A deadlock, a statement such as CREATE TABLE, a lock that is waited for
//! too long (by a setting) and others end the transaction in which they happen, and the application
//! may overlook it: with `autocommit = 0`, and in some versions always, its next statement opens
//! another one, in which the marker would be committed and vouch for work that is gone (MY16). The
//! savepoint ends with the transaction in which it was made; RELEASE then fails (1305), and what
//! follows in its message is not run.

use std::time::Duration;

use futures_util::StreamExt;
use sqlx::{AssertSqlSafe, Either, MySqlConnection};

use super::session;
use crate::application::{ApplicationError, milliseconds};
use crate::errors::mariadb::{NO_SAVEPOINT, code, may_pass, message as words, number};
use crate::{BranchId, End, Holder, Home, Marker};

/// Ties what is open to the guard at its end: see the module.
const GUARD: &str = "SAVEPOINT handfast";
/// Fails if the transaction is another one than that which was begun.
const GUARDED: &str = "RELEASE SAVEPOINT handfast";
const RESET: &str = "SET SESSION innodb_lock_wait_timeout = DEFAULT, max_statement_time = DEFAULT, \
                     idle_transaction_timeout = DEFAULT";

/// Opens a branch. The remaining deadline bounds each of its statements and each wait for a lock
/// (X4), and the time it may sit idle; MariaDB takes whole seconds for the last two, so they are
/// rounded up. These are settings of the session; [`finish_own`] and [`roll_back`] take them back.
///
/// Says which session it is, for the vote (MY3): once it has prepared, it answers nothing else.
///
/// # Errors
/// The driver's; close the connection.
pub async fn start(
    connection: &mut MySqlConnection,
    branch: &BranchId,
    remaining: Duration,
) -> Result<Holder, sqlx::Error> {
    let sql =
        format!("{}; {}; XA START {}; {GUARD}", limits(remaining), session::OWN, branch.xid());
    let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut *connection).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    session::own(connection, row).await
}

/// Writes the marker and prepares: a YES vote if it succeeds. The session then belongs to the
/// branch, until [`finish_own`] or its end.
///
/// # Errors
/// Always [`ApplicationError::No`], and the connection is to be closed.
pub async fn prepare(
    connection: &mut MySqlConnection,
    marker: impl Into<Marker<'_>>,
) -> Result<(), ApplicationError> {
    let marker = marker.into();
    let xid = marker.branch.xid();
    let sql = format!("{GUARDED}; {}; XA END {xid}; XA PREPARE {xid}", insert(marker));
    let no = match message_of(connection, sql).await {
        Said { rows, error: None } if rows.get(1) == Some(&1) => return Ok(()),
        Said { rows, error: None } => rolled_back(None, swallowed(&rows)),
        Said { error: Some(error), .. } => refused(&error),
    };
    give_up(connection, marker.branch).await;
    Err(elsewhere(connection, marker.home, no).await)
}

/// Which session this is, as [`start`] says it. Has to be asked before [`prepare`].
///
/// # Errors
/// The driver's.
pub async fn holder(connection: &mut MySqlConnection) -> Result<Holder, sqlx::Error> {
    let row = sqlx::raw_sql(session::OWN).fetch_one(&mut *connection).await?;
    session::own(connection, &row).await
}

/// Ends a prepared branch on the session that prepared it, as decided. The connection is free for
/// other work afterwards.
///
/// # Errors
/// [`ApplicationError::Unknown`]: close the connection; the server finishes the branch.
pub async fn finish_own(
    connection: &mut MySqlConnection,
    branch: &BranchId,
    end: End,
) -> Result<(), ApplicationError> {
    let verb = match end {
        End::Commit => "COMMIT",
        End::Abort => "ROLLBACK",
    };
    let sql = format!("XA {verb} {}; {RESET}", branch.xid());
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map_err(|error| unknown(&error))?;
    Ok(())
}

/// Opens a local transaction with the same limits as [`start`].
///
/// # Errors
/// The driver's; close the connection.
pub async fn begin_local(
    connection: &mut MySqlConnection,
    remaining: Duration,
) -> Result<(), sqlx::Error> {
    let sql = format!("{}; {}; START TRANSACTION; {GUARD}", limits(remaining), session::OWN);
    let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut *connection).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    // The session has to know its server for the marker.
    session::own(connection, row).await?;
    Ok(())
}

/// Writes the marker and commits a local transaction.
///
/// # Errors
/// [`ApplicationError::No`] if the marker could not be written: everything is rolled back.
/// [`ApplicationError::Unknown`] if COMMIT itself failed, or the connection: the server has to
/// resolve it.
pub async fn commit_local(
    connection: &mut MySqlConnection,
    marker: impl Into<Marker<'_>>,
) -> Result<(), ApplicationError> {
    let marker = marker.into();
    let sql = format!("{GUARDED}; {}; COMMIT; {RESET}", insert(marker));
    let rows = match commit(connection, sql, 2).await {
        Ok(rows) => rows,
        Err(error) => return Err(elsewhere(connection, marker.home, error).await),
    };
    match rows.get(1) {
        Some(1) => Ok(()),
        _ => Err(ApplicationError::Unknown { code: String::new(), message: swallowed(&rows) }),
    }
}

/// The guarded COMMIT of a transaction that [`begin_local`] opened and that needs no marker.
///
/// # Errors
/// As [`commit_local`]; nobody can resolve it.
pub async fn commit_alone(connection: &mut MySqlConnection) -> Result<(), ApplicationError> {
    commit(connection, format!("{GUARDED}; COMMIT; {RESET}"), 1).await.map(|_| ())
}

/// Sends a message that ends with COMMIT, which so many statements precede, and [`RESET`]. Says how
/// many rows each has touched.
async fn commit(
    connection: &mut MySqlConnection,
    sql: String,
    before: usize,
) -> Result<Vec<u64>, ApplicationError> {
    let Said { rows, error } = message_of(connection, sql).await;
    let Some(error) = error else { return Ok(rows) };
    if rows.len() > before {
        // It has committed; only the session's limits may not be taken back.
        tracing::debug!(%error, "a session was not reset");
        return Ok(rows);
    }
    if number(&error).is_none() || rows.len() == before {
        // A connection that is lost says nothing of the statements that were sent.
        return Err(ApplicationError::Unknown { code: code(&error), message: words(&error) });
    }
    // MariaDB undoes only the statement that failed. If this fails too, closing undoes.
    let _ = roll_back(connection).await;
    Err(refused(&error))
}

/// Rolls back an open local transaction.
///
/// # Errors
/// The driver's; the connection has to be closed then, which rolls back too.
pub async fn roll_back(connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(format!("ROLLBACK; {RESET}"))).execute(connection).await?;
    Ok(())
}

/// Ends and rolls back a branch that was not prepared.
///
/// # Errors
/// The driver's; the connection has to be closed then, which rolls back too.
pub async fn roll_back_branch(
    connection: &mut MySqlConnection,
    branch: &BranchId,
) -> Result<(), sqlx::Error> {
    let xid = branch.xid();
    let sql = format!("XA END {xid}; XA ROLLBACK {xid}; {RESET}");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}

/// Where a connection leads.
///
/// # Errors
/// The driver's.
pub async fn home(connection: &mut MySqlConnection) -> Result<Home, sqlx::Error> {
    session::home(connection).await
}

/// On another server, or a copy of the same one, the outcome is NULL, which the table refuses
/// (1048, in every `sql_mode`).
fn insert(Marker { branch, home }: Marker<'_>) -> String {
    match home {
        None => {
            format!("INSERT INTO handfast_branch (id, outcome) VALUES ('{branch}', 'committed')")
        }
        Some(home) => format!(
            "INSERT INTO {} (id, outcome) VALUES ('{branch}', IF({} = {}, 'committed', NULL))",
            home.table(),
            session::HOME,
            home.literal()
        ),
    }
}

/// Whether a NO says that the connection leads to another server than the one where the marker
/// belongs. Another database of the same server is as good: its engine is one, and so is the
/// transaction.
async fn elsewhere(
    connection: &mut MySqlConnection,
    belongs: Option<&Home>,
    no: ApplicationError,
) -> ApplicationError {
    let (Some(belongs), ApplicationError::No { code, discard, .. }) = (belongs, &no) else {
        return no;
    };
    if !ELSEWHERE.contains(&code.as_str()) {
        return no;
    }
    match home(connection).await {
        Ok(here) if here.identity() != belongs.identity() => {
            ApplicationError::Elsewhere { here, discard: *discard }
        }
        Ok(_) | Err(_) => no,
    }
}

/// What another server answers to the marker: that it is another one, has no such database or
/// table, or that the account may not write there.
const ELSEWHERE: [&str; 6] = ["1048", "1044", "1049", "1142", "1143", "1146"];

/// What was heard of the statements of a message, in their order.
struct Said {
    /// The rows that each touched, of those that succeeded.
    rows: Vec<u64>,
    /// Why the next one did not: MariaDB runs none after one that fails.
    error: Option<sqlx::Error>,
}

async fn message_of(connection: &mut MySqlConnection, sql: String) -> Said {
    let mut said = Said { rows: Vec::new(), error: None };
    let mut answers = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_many(connection);
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(Either::Left(done)) => said.rows.push(done.rows_affected()),
            // None of them gives rows.
            Ok(Either::Right(_)) => {}
            Err(error) => {
                said.error = Some(error);
                break;
            }
        }
    }
    said
}

fn swallowed(rows: &[u64]) -> String {
    let rows = rows.get(1).copied().unwrap_or(0);
    format!("the marker's INSERT reported {rows} rows instead of 1")
}

fn limits(remaining: Duration) -> String {
    let ms = milliseconds(remaining);
    let whole_s = ms.div_ceil(1000);
    format!(
        "SET SESSION innodb_lock_wait_timeout = {whole_s}, max_statement_time = {}.{:03}, \
         idle_transaction_timeout = {whole_s}",
        ms / 1000,
        ms % 1000
    )
}

/// A deadlock leaves a branch that needs END and ROLLBACK; which of these succeed depends on what
/// failed, so each is tried on its own (MY11).
async fn give_up(connection: &mut MySqlConnection, branch: &BranchId) {
    let xid = branch.xid();
    for sql in [format!("XA END {xid}"), format!("XA ROLLBACK {xid}"), "ROLLBACK".to_owned()] {
        if let Err(error) = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection).await {
            tracing::trace!(%branch, %error, "giving a branch up");
        }
    }
}

/// The database refused a statement of the message before its end.
fn refused(error: &sqlx::Error) -> ApplicationError {
    if number(error) == Some(NO_SAVEPOINT) {
        // The number's own words are of no help to anybody.
        let ended = "the transaction that was begun is open no longer: a deadlock, a statement such \
                     as CREATE TABLE, or a COMMIT or ROLLBACK of the application's has ended it";
        return rolled_back(Some(error), ended.to_owned());
    }
    rolled_back(Some(error), words(error))
}

fn rolled_back(error: Option<&sqlx::Error>, message: String) -> ApplicationError {
    ApplicationError::No {
        code: error.map(code).unwrap_or_default(),
        message,
        retryable: error.and_then(number).is_some_and(may_pass),
        discard: true,
    }
}

fn unknown(error: &sqlx::Error) -> ApplicationError {
    ApplicationError::Unknown { code: code(error), message: words(error) }
}
