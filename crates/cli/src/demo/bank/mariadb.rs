//! An account service over MariaDB.

use handfast::TransactionId;
use handfast::service::sql::{SqlConnection, create_tables};
use handfast::service::{Handler, HandlerError, No, Prepared};
use sqlx::{Connection, MySql, MySqlConnection, MySqlPool};

use super::books::{self, Books, EffectRow, accounts, effects};
use super::{Bank, Change, INSUFFICIENT, Work};
use crate::demo::plan::{Plan, Side};

const TABLES: &str = "
    DROP TABLE IF EXISTS demo_account, demo_hold, demo_effect;
    CREATE TABLE demo_account (
        name  varchar(100) COLLATE utf8mb4_bin NOT NULL PRIMARY KEY,
        cents bigint NOT NULL CHECK (cents >= 0)
    );
    CREATE TABLE demo_hold (
        transaction_id varchar(36) NOT NULL,
        transfer       bigint NOT NULL,
        account        varchar(100) COLLATE utf8mb4_bin NOT NULL,
        cents          bigint NOT NULL
    );
    CREATE INDEX demo_hold_transaction ON demo_hold (transaction_id);
    CREATE INDEX demo_hold_account ON demo_hold (account);
    CREATE TABLE demo_effect (
        transaction_id varchar(36) NOT NULL,
        transfer       bigint NOT NULL,
        account        varchar(100) COLLATE utf8mb4_bin NOT NULL,
        cents          bigint NOT NULL
    );
";

/// Makes the tables anew, and forgets what an earlier demo has left.
pub(super) async fn create(url: &str, side: Side, plan: &Plan) -> Result<(), sqlx::Error> {
    let pool = MySqlPool::connect(url).await?;
    create_tables(&pool).await?;
    let mut step = pool.begin().await?;
    for table in ["handfast_service_branch", "handfast_service_horizon", "handfast_service_state"] {
        let sql = sqlx::AssertSqlSafe(format!("DELETE FROM {table} WHERE service = ?"));
        sqlx::query(sql).bind(books::state_name(side)).execute(&mut *step).await?;
    }
    sqlx::raw_sql(TABLES).execute(&mut *step).await?;
    for (name, cents) in accounts(side, plan) {
        sqlx::query("INSERT INTO demo_account (name, cents) VALUES (?, ?)")
            .bind(name)
            .bind(cents)
            .execute(&mut *step)
            .await?;
    }
    step.commit().await
}

/// Everything that is written down.
pub(super) async fn read(url: &str) -> Result<Books, sqlx::Error> {
    let mut db = MySqlConnection::connect(url).await?;
    let accounts =
        sqlx::query_as("SELECT name, cents FROM demo_account").fetch_all(&mut db).await?;
    let (holds,): (i64,) =
        sqlx::query_as("SELECT count(*) FROM demo_hold").fetch_one(&mut db).await?;
    let sql = "SELECT transfer, transaction_id, account, cents FROM demo_effect";
    let rows: Vec<EffectRow> = sqlx::query_as(sql).fetch_all(&mut db).await?;
    Ok(Books { accounts, holds: holds.unsigned_abs(), effects: effects(rows) })
}

/// Branches of the demo that have voted YES and are not finished.
pub(super) async fn prepared(url: &str) -> Result<i64, sqlx::Error> {
    let mut db = MySqlConnection::connect(url).await?;
    let sql = "SELECT count(*) FROM handfast_service_branch \
               WHERE state = 1 AND service LIKE 'demo-%'";
    let (prepared,) = sqlx::query_as(sql).fetch_one(&mut db).await?;
    Ok(prepared)
}

impl Handler<SqlConnection<MySql>> for Bank {
    fn prepare(
        &self,
        db: &SqlConnection<MySql>,
        id: TransactionId,
        work: &[u8],
    ) -> Result<Prepared, No> {
        let work: Work = serde_json::from_slice(work)?;
        db.run(async |db| {
            for Change { account, cents } in &work.changes {
                let sql = "SELECT cents FROM demo_account WHERE name = ?";
                let balance: Option<(i64,)> =
                    sqlx::query_as(sql).bind(account).fetch_optional(&mut *db).await?;
                let Some((balance,)) = balance else {
                    return Err(No::new(format!("there is no account {account:?}")));
                };
                // Only what leaves is reserved: what is to arrive cannot be spent yet.
                let sql = "SELECT CAST(coalesce(sum(least(cents, 0)), 0) AS SIGNED) FROM demo_hold \
                           WHERE account = ?";
                let (reserved,): (i64,) =
                    sqlx::query_as(sql).bind(account).fetch_one(&mut *db).await?;
                if *cents < 0 && balance + reserved + cents < 0 {
                    return Err(No::new(INSUFFICIENT));
                }
                let sql = "INSERT INTO demo_hold (transaction_id, transfer, account, cents) \
                           VALUES (?, ?, ?, ?)";
                sqlx::query(sql)
                    .bind(id.to_string())
                    .bind(i64::from(work.transfer))
                    .bind(account)
                    .bind(cents)
                    .execute(&mut *db)
                    .await?;
            }
            Ok(Prepared::Yes)
        })
    }

    fn commit(
        &self,
        db: &SqlConnection<MySql>,
        id: TransactionId,
        _: &[u8],
    ) -> Result<(), HandlerError> {
        db.run(async |db| {
            let book = "UPDATE demo_account JOIN demo_hold ON demo_hold.account = demo_account.name \
                        SET demo_account.cents = demo_account.cents + demo_hold.cents \
                        WHERE demo_hold.transaction_id = ?";
            let note = "INSERT INTO demo_effect (transaction_id, transfer, account, cents) \
                        SELECT transaction_id, transfer, account, cents FROM demo_hold \
                        WHERE transaction_id = ?";
            let booked = run(db, book, id).await?;
            let noted = run(db, note, id).await?;
            let released = run(db, RELEASE, id).await?;
            if booked == 0 || booked != noted || noted != released {
                return Err(format!("{booked} booked, {noted} noted, {released} released").into());
            }
            Ok(())
        })
    }

    fn abort(
        &self,
        db: &SqlConnection<MySql>,
        id: TransactionId,
        _: &[u8],
    ) -> Result<(), HandlerError> {
        db.run(async |db| run(db, RELEASE, id).await)?;
        Ok(())
    }
}

const RELEASE: &str = "DELETE FROM demo_hold WHERE transaction_id = ?";

/// Runs a statement about a transaction; says how many rows it touched.
async fn run(
    db: &mut MySqlConnection,
    sql: &'static str,
    id: TransactionId,
) -> Result<u64, sqlx::Error> {
    Ok(sqlx::query(sql).bind(id.to_string()).execute(db).await?.rows_affected())
}
