//! The accounts in both databases, and the work of a transaction, the same whoever does it: one
//! account changes, and a row says by what. No two transactions wait for each other for long,
//! because there are many accounts.

use sqlx::mysql::MySqlConnection;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

use super::plan::Way;
use crate::harness::Problem;

/// The databases' names, and the topic of local transactions.
pub(super) const ORDERS: &str = "orders";
pub(super) const LEDGER: &str = "ledger";
pub(super) const TOPIC: &str = "bench-orders";
/// Accounts in each database.
pub(super) const ACCOUNTS: i64 = 10_000;
/// What each has at the start.
pub(super) const START: i64 = 1_000_000;

const DROP: &str = "DROP TABLE IF EXISTS \
                    bench_account, bench_effect, bench_marker, bench_decision, bench_outbox";
const TABLES: &str = "
    CREATE TABLE bench_account (number bigint PRIMARY KEY, amount bigint NOT NULL);
    CREATE TABLE bench_effect (transaction bigint PRIMARY KEY, way smallint NOT NULL)";
/// What is done by hand that handfast has tables of its own, or its log, for.
const POSTGRES: &str = "
    CREATE TABLE bench_marker (id varchar(64) PRIMARY KEY, outcome varchar(16) NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp());
    CREATE TABLE bench_decision (id varchar(64) PRIMARY KEY,
        at timestamptz NOT NULL DEFAULT clock_timestamp());
    CREATE TABLE bench_outbox (id bigserial PRIMARY KEY, topic varchar(64) NOT NULL,
        kind varchar(64) NOT NULL, event bytea NOT NULL)";
const MARIADB: &str = "
    CREATE TABLE bench_marker (
        id varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
        outcome enum('committed', 'aborted') CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        at timestamp(6) NOT NULL DEFAULT current_timestamp(6)) ENGINE = InnoDB";

/// Makes the tables anew.
pub(super) async fn create(postgres: &str, mariadb: &str) -> Result<(), Problem> {
    let rows: Vec<String> = (0..ACCOUNTS).map(|n| format!("({n}, {START})")).collect();
    let rows = format!("INSERT INTO bench_account VALUES {}", rows.join(", "));
    let mut db = PgConnection::connect(postgres).await?;
    for sql in [DROP, TABLES, POSTGRES, &rows] {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut db).await?;
    }
    let mut db = MySqlConnection::connect(mariadb).await?;
    for sql in [DROP, TABLES, MARIADB, &rows] {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut db).await?;
    }
    Ok(())
}

/// One transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    pub(super) number: i64,
    pub(super) way: Way,
}

impl Work {
    /// An account that looks drawn by lot and is always the same.
    fn account(self) -> i64 {
        let mixed = self.number.unsigned_abs().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        i64::try_from(mixed >> 32).unwrap_or(0) % ACCOUNTS
    }

    pub(super) async fn in_postgres(self, db: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query("UPDATE bench_account SET amount = amount - 1 WHERE number = $1")
            .bind(self.account())
            .execute(&mut *db)
            .await?;
        sqlx::query("INSERT INTO bench_effect VALUES ($1, $2)")
            .bind(self.number)
            .bind(self.way.number())
            .execute(db)
            .await?;
        Ok(())
    }

    pub(super) async fn in_mariadb(self, db: &mut MySqlConnection) -> Result<(), sqlx::Error> {
        sqlx::query("UPDATE bench_account SET amount = amount + 1 WHERE number = ?")
            .bind(self.account())
            .execute(&mut *db)
            .await?;
        sqlx::query("INSERT INTO bench_effect VALUES (?, ?)")
            .bind(self.number)
            .bind(self.way.number())
            .execute(db)
            .await?;
        Ok(())
    }
}
