//! PostgreSQL, from the application's side: what its own connection runs.
//!
//! These are functions on a bare connection. An `sqlx::Transaction` does not fit: it would believe
//! that the transaction is still open after the prepare. Only the simple query protocol is used,
//! and only `SET LOCAL`, so a pooler such as PgBouncer in transaction mode may stand in between
//! (PG12).
//!
//! Without this crate the same statements do, in one message:
//!
//! ```sql
//! SET LOCAL synchronous_commit = on;
//! INSERT INTO public.handfast_branch (id, outcome) VALUES ('<id>', 'committed');
//! SAVEPOINT handfast;
//! PREPARE TRANSACTION 'handfast.<id>'   -- or COMMIT, for a local transaction
//! ```
//!
//! The marker's statement also says where it belongs, if that is known ([`Home`]): in another
//! database the name of the table is refused (0A000), and on another server, or a copy of the same
//! one, the outcome is NULL, which the table refuses (23502).
//!
//! The savepoint is a guard. In a block that has failed PREPARE and COMMIT *succeed* and prepare
//! nothing; there the marker's INSERT fails already, and what follows it in the message is not run.
//! With no block open they would prepare or commit the marker alone, because a message is a
//! transaction of its own; there SAVEPOINT fails, and takes the marker back.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::application::{ApplicationError, milliseconds};
use crate::errors::postgres::{code, may_pass, meaning, message};
use crate::errors::{Meaning, Step};
use crate::{Home, Marker};

/// Opens the transaction. The remaining deadline bounds each of its statements, and with them each
/// wait for a lock (X4), and the time it may sit idle, so that a stopped application does not hold
/// its locks or a resolution back. A `lock_timeout` of the session's own stays as it is.
///
/// # Errors
/// The driver's; no transaction is open then, or the connection is lost.
pub async fn begin(connection: &mut PgConnection, remaining: Duration) -> Result<(), sqlx::Error> {
    let ms = milliseconds(remaining);
    let sql = format!(
        "BEGIN; SET LOCAL statement_timeout = {ms}; \
         SET LOCAL idle_in_transaction_session_timeout = {ms}"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}

/// The guarded prepare: a YES vote if it succeeds. The connection is free for other work
/// afterwards.
///
/// # Errors
/// Always [`ApplicationError::No`]; a connection that was lost is one too, because no vote was
/// given (PG3). The work is rolled back, or will be by the auditor.
pub async fn prepare(
    connection: &mut PgConnection,
    marker: impl Into<Marker<'_>>,
) -> Result<(), ApplicationError> {
    let marker = marker.into();
    let branch = marker.branch;
    let end = format!("PREPARE TRANSACTION '{}'", branch.gid());
    match guarded(connection, marker, &end).await {
        Ok(1) => Ok(()),
        Ok(rows) => {
            // A trigger or rule swallowed the marker. A branch without one must not be voted for.
            let undo = format!("ROLLBACK PREPARED '{}'", branch.gid());
            let undone = sqlx::raw_sql(AssertSqlSafe(undo)).execute(connection).await;
            Err(no_marker(rows, undone.is_err()))
        }
        Err(error) => Err(refused(connection, Step::Prepare, marker.home, &error).await),
    }
}

/// The guarded COMMIT of a local transaction.
///
/// # Errors
/// [`ApplicationError::No`] if it is certain that nothing was committed, else
/// [`ApplicationError::Unknown`]: then the server has to resolve it.
pub async fn commit_local(
    connection: &mut PgConnection,
    marker: impl Into<Marker<'_>>,
) -> Result<(), ApplicationError> {
    let marker = marker.into();
    match guarded(connection, marker, "COMMIT").await {
        Ok(1) => Ok(()),
        Ok(_) => Err(ApplicationError::Unknown {
            code: String::new(),
            message: "committed, but a trigger or rule swallowed the marker".to_owned(),
        }),
        Err(error) => Err(refused(connection, Step::CommitLocal, marker.home, &error).await),
    }
}

/// Rolls back what is open.
///
/// # Errors
/// The driver's; the connection has to be closed then, which rolls back too.
pub async fn roll_back(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("ROLLBACK").execute(connection).await?;
    Ok(())
}

/// Where a connection leads. Two databases are the same if and only if their homes are.
///
/// # Errors
/// The driver's.
pub async fn home(connection: &mut PgConnection) -> Result<Home, sqlx::Error> {
    let sql = format!("SELECT current_database()::text, {SINCE}");
    let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(connection).await?;
    let (database, since): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Home::in_postgres(&database, &since))
}

/// When the server was started: no two that run have the same microsecond, a copy of the files
/// neither. Does not depend on the settings of a session, and any role may ask.
pub(super) const SINCE: &str = "to_char(pg_catalog.pg_postmaster_start_time() AT TIME ZONE 'UTC', \
                                'YYYY-MM-DD HH24:MI:SS.US')";

fn insert(Marker { branch, home }: Marker<'_>) -> String {
    match home {
        None => format!(
            "INSERT INTO public.handfast_branch (id, outcome) VALUES ('{branch}', 'committed')"
        ),
        Some(home) => format!(
            "INSERT INTO {} (id, outcome) VALUES ('{branch}', CASE {SINCE} WHEN {} \
             THEN 'committed' END)",
            home.table(),
            home.literal()
        ),
    }
}

/// One message: guard, marker, end. Returns the rows that the marker's INSERT reported.
///
/// `synchronous_commit` has to be on, because the marker must not be visible before it is durable
/// (PG11). The deadline in `statement_timeout` does not cut off COMMIT's or PREPARE's wait for a
/// synchronous standby: PostgreSQL takes the statement as over before that.
async fn guarded(
    connection: &mut PgConnection,
    marker: Marker<'_>,
    end: &str,
) -> Result<u64, sqlx::Error> {
    let sql =
        format!("SET LOCAL synchronous_commit = on; {}; SAVEPOINT handfast; {end}", insert(marker));
    let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(done.rows_affected())
}

async fn refused(
    connection: &mut PgConnection,
    step: Step,
    belongs: Option<&Home>,
    error: &sqlx::Error,
) -> ApplicationError {
    let text = code(error).unwrap_or_default().to_owned();
    if meaning(step, error) != Meaning::No {
        return ApplicationError::Unknown { code: text, message: message(error) };
    }
    let discard = roll_back(connection).await.is_err();
    if let Some(belongs) = belongs
        && ELSEWHERE.contains(&text.as_str())
        && let Ok(here) = home(connection).await
        && here != *belongs
    {
        return ApplicationError::Elsewhere { here, discard };
    }
    let prepares = step == Step::Prepare;
    // All places for prepared transactions are taken: one of them is free in a moment.
    let retryable = may_pass(&text) || prepares && text == NO_PLACE;
    let message = match text.as_str() {
        CANNOT_BE_PREPARED if prepares => format!("{}: {INSTEAD}", message(error)),
        _ => message(error),
    };
    ApplicationError::No { code: text, message, retryable, discard }
}

/// What another database answers to the marker: its name, its server's start, that it has no such
/// table or that the role may not write it.
const ELSEWHERE: [&str; 4] = [CANNOT_BE_PREPARED, "23502", "42P01", "42501"];
/// Out of memory, which is what PostgreSQL says when `max_prepared_transactions` are prepared.
const NO_PLACE: &str = "53200";
/// "Feature not supported" (PG4).
const CANNOT_BE_PREPARED: &str = "0A000";
/// PostgreSQL does not say where to look: it may have been a trigger, or in a savepoint.
const INSTEAD: &str = "no distributed transaction can do this, not in a trigger and not in a savepoint \
                       that was rolled back either; a local one can";

fn no_marker(rows: u64, discard: bool) -> ApplicationError {
    ApplicationError::No {
        code: String::new(),
        message: format!("the marker's INSERT reported {rows} rows instead of 1"),
        retryable: false,
        discard,
    }
}
