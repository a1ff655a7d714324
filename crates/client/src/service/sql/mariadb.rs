//! MariaDB.

use std::time::Duration;

use handfast_database::errors::mariadb::number;
use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, MySql, MySqlConnection, Row};

use super::dialect::Dialect;
use super::text::hexadecimal;

/// A lock was waited for too long.
const LOCK_WAIT: u16 = 1205;
/// There is no such savepoint.
const NO_SAVEPOINT: u16 = 1305;

impl Dialect for MySql {
    const CREATE_STATE: &'static str = include_str!("../../../sql/service.mariadb.sql");
    const TABLES: [&'static str; 3] =
        ["handfast_service_state", "handfast_service_branch", "handfast_service_horizon"];
    const UNLESS_THERE: &'static str = "ON DUPLICATE KEY UPDATE service = service";
    const IN_PLACE: &'static str = "ON DUPLICATE KEY UPDATE state = VALUES(state), work = VALUES(work), \
         reason = VALUES(reason), retryable = VALUES(retryable), began = VALUES(began), \
         at_unix_ms = VALUES(at_unix_ms)";
    const RAISED: &'static str = "ON DUPLICATE KEY UPDATE began = greatest(began, VALUES(began))";

    fn bytes(bytes: &[u8]) -> String {
        format!("X'{}'", hexadecimal(bytes))
    }

    async fn set_up(
        connection: &mut MySqlConnection,
        turn: Duration,
    ) -> Result<Option<String>, sqlx::Error> {
        // Without autocommit a statement after a deadlock, which has ended the transaction, does
        // not commit on its own: the step finds its savepoint gone and drops it all.
        let turn_s = turn.as_secs().max(1);
        let sql = format!(
            "SET SESSION autocommit = 0, innodb_lock_wait_timeout = {turn_s}, \
             lock_wait_timeout = {turn_s}, idle_transaction_timeout = {}",
            6 * turn_s
        );
        Self::run(&mut *connection, sql).await?;
        let sql = "SELECT CAST(@@global.innodb_flush_log_at_trx_commit AS SIGNED)";
        let row = sqlx::raw_sql(sql).fetch_one(connection).await?;
        let flush: i64 = row.try_get(0)?;
        Ok((flush != 1).then(|| format!("innodb_flush_log_at_trx_commit is {flush}")))
    }

    fn begin(_: Duration) -> String {
        // The snapshot is made by the first read, which follows the turn.
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION READ WRITE".to_owned()
    }

    async fn run(connection: &mut MySqlConnection, sql: String) -> Result<u64, sqlx::Error> {
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
        Ok(done.rows_affected())
    }

    async fn rows(
        connection: &mut MySqlConnection,
        sql: String,
    ) -> Result<Vec<MySqlRow>, sqlx::Error> {
        sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(connection).await
    }

    fn number(row: &MySqlRow, column: usize) -> Result<Option<i64>, sqlx::Error> {
        row.try_get(column)
    }

    fn blob(row: &MySqlRow, column: usize) -> Result<Option<Vec<u8>>, sqlx::Error> {
        row.try_get(column)
    }

    fn is_busy(error: &sqlx::Error) -> bool {
        number(error) == Some(LOCK_WAIT)
    }

    fn has_ended(error: &sqlx::Error) -> bool {
        number(error) == Some(NO_SAVEPOINT)
    }

    fn has_failed(_: &sqlx::Error) -> bool {
        // It undoes the statement that has failed, and goes on.
        false
    }

    fn is_refused(_: &sqlx::Error) -> bool {
        // Every rule is checked by the statement that might break it.
        false
    }
}
