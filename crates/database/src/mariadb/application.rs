//! MariaDB, from the application's side: what its own connection runs.
//!
//! XA statements are refused as prepared statements (MY15), so everything goes by the text
//! protocol; the ids have a fixed alphabet. After any error of these functions the connection has
//! to be closed and not given back to a pool (MY11).
//!
//! Without this crate the same statements do:
//!
//! ```sql
//! XA START <xid>;
//! -- the work; what you rely on read with FOR UPDATE, because shared locks end at XA PREPARE (MY14)
//! INSERT INTO handfast_branch (id, outcome)
//!   SELECT '<id>', 'committed' FROM DUAL WHERE @@in_transaction = 1;   -- exactly one row
//! XA END <xid>; XA PREPARE <xid>;
//! ```
//!
//! The condition is a guard. After a deadlock MariaDB has ended a local transaction, and each
//! further statement commits on its own: so would the marker, and vouch for work that is gone.

use std::time::Duration;

use sqlx::{AssertSqlSafe, MySqlConnection};

use super::session;
use crate::application::{ApplicationError, milliseconds};
use crate::errors::mariadb::{code, may_pass, message, number};
use crate::{BranchId, End, Holder};

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
    let sql = format!("{}; {}; XA START {}", limits(remaining), session::OWN, branch.xid());
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
    branch: &BranchId,
) -> Result<(), ApplicationError> {
    // One message: what follows a statement that fails is not run.
    let xid = branch.xid();
    let sql = format!("{}; XA END {xid}; XA PREPARE {xid}", marker(branch));
    let message = match sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection).await {
        Ok(done) if done.rows_affected() == 1 => return Ok(()),
        Ok(done) => {
            let rows = done.rows_affected();
            no(None, format!("the marker's INSERT reported {rows} rows instead of 1"))
        }
        Err(error) => no(Some(&error), message(&error)),
    };
    give_up(connection, branch).await;
    Err(message)
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
    let sql = format!("{}; START TRANSACTION", limits(remaining));
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}

/// Writes the marker and commits a local transaction.
///
/// # Errors
/// [`ApplicationError::No`] if the marker could not be written: everything is rolled back.
/// [`ApplicationError::Unknown`] if COMMIT itself failed: the server has to resolve it.
pub async fn commit_local(
    connection: &mut MySqlConnection,
    branch: &BranchId,
) -> Result<(), ApplicationError> {
    let inserted = sqlx::raw_sql(AssertSqlSafe(marker(branch))).execute(&mut *connection).await;
    let refused = match inserted {
        Ok(done) if done.rows_affected() == 1 => None,
        Ok(_) => Some(no(
            None,
            "no transaction is open: a deadlock or a statement such as CREATE \
                                TABLE has ended it"
                .to_owned(),
        )),
        Err(error) => Some(no(Some(&error), message(&error))),
    };
    if let Some(refused) = refused {
        // MariaDB undoes only the statement that failed. If this fails too, closing undoes.
        let _ = roll_back(connection).await;
        return Err(refused);
    }
    let sql = format!("COMMIT; {RESET}");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map_err(|error| unknown(&error))?;
    Ok(())
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

fn marker(branch: &BranchId) -> String {
    format!(
        "INSERT INTO handfast_branch (id, outcome) \
         SELECT '{branch}', 'committed' FROM DUAL WHERE @@in_transaction = 1"
    )
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

fn no(error: Option<&sqlx::Error>, message: String) -> ApplicationError {
    ApplicationError::No {
        code: error.map(code).unwrap_or_default(),
        message,
        retryable: error.and_then(number).is_some_and(may_pass),
        discard: true,
    }
}

fn unknown(error: &sqlx::Error) -> ApplicationError {
    ApplicationError::Unknown { code: code(error), message: message(error) }
}
