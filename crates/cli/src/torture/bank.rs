//! The accounts, in both databases, and what a transfer does to them.
//!
//! Every transfer changes rows in the same order (PostgreSQL first, then MariaDB, within each by
//! number), so that no two of them can wait for each other.

use sqlx::mysql::MySqlConnection;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};

/// Accounts in each database.
pub(super) const ACCOUNTS: i64 = 16;
/// What each has at the start.
pub(super) const START: i64 = 1_000_000;
/// The topic of what was transferred.
pub(super) const TOPIC: &str = "transfers";
/// The databases' names.
pub(super) const ORDERS: &str = "orders";
pub(super) const LEDGER: &str = "ledger";

const TABLES: &str = "
    CREATE TABLE torture_account (number bigint PRIMARY KEY, amount bigint NOT NULL);
    CREATE TABLE torture_effect (transfer bigint NOT NULL)";

/// Where money goes from and to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Between the databases.
    Distributed,
    /// Within PostgreSQL.
    Orders,
    /// Within MariaDB.
    Ledger,
}

/// One transfer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    pub(super) number: i64,
    pub(super) kind: Kind,
    /// Account numbers: the first in PostgreSQL, the second in MariaDB; within one database two
    /// different ones.
    pub(super) accounts: (i64, i64),
    /// Leaves the first, arrives at the second; may be negative.
    pub(super) amount: i64,
}

/// Makes the tables anew.
pub(super) async fn create(postgres: &str, mariadb: &str) -> Result<(), sqlx::Error> {
    let rows: Vec<String> = (0..ACCOUNTS).map(|n| format!("({n}, {START})")).collect();
    let rows = format!("INSERT INTO torture_account VALUES {}", rows.join(", "));
    let drop = "DROP TABLE IF EXISTS torture_account, torture_effect";
    let mut db = PgConnection::connect(postgres).await?;
    for sql in [drop, TABLES, &rows] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut db).await?;
    }
    let mut db = MySqlConnection::connect(mariadb).await?;
    for sql in [drop, TABLES, &rows] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut db).await?;
    }
    Ok(())
}

/// A transfer's changes in PostgreSQL.
pub(super) async fn in_postgres(
    db: &mut PgConnection,
    transfer: &Transfer,
) -> Result<(), sqlx::Error> {
    for (account, amount) in changes(transfer, Kind::Orders) {
        sqlx::query("UPDATE torture_account SET amount = amount + $1 WHERE number = $2")
            .bind(amount)
            .bind(account)
            .execute(&mut *db)
            .await?;
    }
    let effect = sqlx::query("INSERT INTO torture_effect VALUES ($1)").bind(transfer.number);
    db.execute(effect).await?;
    Ok(())
}

/// A transfer's changes in MariaDB.
pub(super) async fn in_mariadb(
    db: &mut MySqlConnection,
    transfer: &Transfer,
) -> Result<(), sqlx::Error> {
    for (account, amount) in changes(transfer, Kind::Ledger) {
        sqlx::query("UPDATE torture_account SET amount = amount + ? WHERE number = ?")
            .bind(amount)
            .bind(account)
            .execute(&mut *db)
            .await?;
    }
    let effect = sqlx::query("INSERT INTO torture_effect VALUES (?)").bind(transfer.number);
    db.execute(effect).await?;
    Ok(())
}

/// What changes in one database, by account.
fn changes(transfer: &Transfer, place: Kind) -> Vec<(i64, i64)> {
    let (first, second) = transfer.accounts;
    let mut changes = match (transfer.kind, place) {
        (Kind::Distributed, Kind::Orders) => vec![(first, -transfer.amount)],
        (Kind::Distributed, _) => vec![(second, transfer.amount)],
        _ => vec![(first, -transfer.amount), (second, transfer.amount)],
    };
    changes.sort_unstable();
    changes
}

/// The sum of all accounts as of one moment: every row of PostgreSQL is locked first, then every
/// row of MariaDB, so that a transfer is seen in both or in neither.
pub(super) async fn locked_sum(
    postgres: &mut PgConnection,
    mariadb: &mut MySqlConnection,
) -> Result<i64, sqlx::Error> {
    let mut orders = postgres.begin().await?;
    sqlx::query("SET LOCAL lock_timeout = 8000").execute(&mut *orders).await?;
    let sql = "SELECT amount FROM torture_account ORDER BY number FOR SHARE";
    let first: Vec<(i64,)> = sqlx::query_as(sql).fetch_all(&mut *orders).await?;
    let mut ledger = mariadb.begin().await?;
    sqlx::query("SET innodb_lock_wait_timeout = 8").execute(&mut *ledger).await?;
    let sql = "SELECT amount FROM torture_account ORDER BY number LOCK IN SHARE MODE";
    let second: Vec<(i64,)> = sqlx::query_as(sql).fetch_all(&mut *ledger).await?;
    ledger.rollback().await?;
    orders.rollback().await?;
    Ok(first.iter().chain(&second).map(|(amount,)| amount).sum())
}

/// The numbers of all transfers that took effect in each database.
pub(super) async fn effects(
    postgres: &str,
    mariadb: &str,
) -> Result<(Vec<i64>, Vec<i64>), sqlx::Error> {
    let sql = "SELECT transfer FROM torture_effect ORDER BY transfer";
    let mut db = PgConnection::connect(postgres).await?;
    let first: Vec<(i64,)> = sqlx::query_as(sql).fetch_all(&mut db).await?;
    let mut db = MySqlConnection::connect(mariadb).await?;
    let second: Vec<(i64,)> = sqlx::query_as(sql).fetch_all(&mut db).await?;
    let numbers = |rows: Vec<(i64,)>| rows.into_iter().map(|(number,)| number).collect();
    Ok((numbers(first), numbers(second)))
}

/// How many markers say "committed" in each database.
pub(super) async fn markers(postgres: &str, mariadb: &str) -> Result<(i64, i64), sqlx::Error> {
    let sql = "SELECT count(*) FROM handfast_branch WHERE outcome = 'committed'";
    let mut db = PgConnection::connect(postgres).await?;
    let first: (i64,) = sqlx::query_as(sql).fetch_one(&mut db).await?;
    let mut db = MySqlConnection::connect(mariadb).await?;
    let second: (i64,) = sqlx::query_as(sql).fetch_one(&mut db).await?;
    Ok((first.0, second.0))
}
