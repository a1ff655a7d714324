//! PostgreSQL.

use std::time::Duration;

use handfast_database::errors::postgres::code;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Postgres, Row};

use super::dialect::Dialect;
use super::text::hexadecimal;

impl Dialect for Postgres {
    const CREATE_STATE: &'static str = include_str!("../../../sql/service.postgres.sql");
    const TABLES: [&'static str; 3] = [
        "public.handfast_service_state",
        "public.handfast_service_branch",
        "public.handfast_service_horizon",
    ];
    const UNLESS_THERE: &'static str = "ON CONFLICT (service) DO NOTHING";
    const IN_PLACE: &'static str = "ON CONFLICT (service, transaction_id) DO UPDATE SET state = excluded.state, \
         work = excluded.work, reason = excluded.reason, retryable = excluded.retryable, \
         began = excluded.began, at_unix_ms = excluded.at_unix_ms";
    const RAISED: &'static str = "ON CONFLICT (service, store_id) DO UPDATE SET \
         began = greatest(handfast_service_horizon.began, excluded.began)";

    fn bytes(bytes: &[u8]) -> String {
        // Without a backslash, which an old setting of a server would take for an escape.
        format!("decode('{}', 'hex')", hexadecimal(bytes))
    }

    async fn set_up(
        connection: &mut PgConnection,
        _: Duration,
    ) -> Result<Option<String>, sqlx::Error> {
        // Only whole servers are set so; the rest is set in each transaction, so that nothing is
        // left behind in a pooler's session (PG12).
        let query = sqlx::raw_sql("SHOW fsync").fetch_one(connection).await?;
        let fsync: String = query.try_get(0)?;
        Ok((fsync != "on").then(|| format!("fsync is {fsync}")))
    }

    fn begin(turn: Duration) -> String {
        // READ COMMITTED: under a higher level the snapshot would be from before the turn.
        format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
             SET LOCAL synchronous_commit = on; SET LOCAL lock_timeout = {}; \
             SET LOCAL idle_in_transaction_session_timeout = {}",
            turn.as_millis(),
            6 * turn.as_millis()
        )
    }

    async fn run(connection: &mut PgConnection, sql: String) -> Result<u64, sqlx::Error> {
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
        Ok(done.rows_affected())
    }

    async fn rows(connection: &mut PgConnection, sql: String) -> Result<Vec<PgRow>, sqlx::Error> {
        sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(connection).await
    }

    fn number(row: &PgRow, column: usize) -> Result<Option<i64>, sqlx::Error> {
        row.try_get(column)
    }

    fn blob(row: &PgRow, column: usize) -> Result<Option<Vec<u8>>, sqlx::Error> {
        row.try_get(column)
    }

    fn is_busy(error: &sqlx::Error) -> bool {
        code(error) == Some("55P03")
    }

    fn has_ended(error: &sqlx::Error) -> bool {
        // No such savepoint; no transaction block at all.
        matches!(code(error), Some("3B001" | "25P01"))
    }

    fn has_failed(error: &sqlx::Error) -> bool {
        code(error) == Some("25P02")
    }

    fn is_refused(error: &sqlx::Error) -> bool {
        // A deferred constraint. What conflicts with another transaction may pass, and is a fault.
        code(error).is_some_and(|code| code.starts_with("23") || code.starts_with("P0"))
    }
}
