//! A transfer by hand, as somebody would write it who knows both databases: two-phase commit with
//! a marker row in each, and between the phases a decision row, committed in PostgreSQL. It does
//! at the same time what can be, and sends statements together that need no answer in between,
//! as handfast does. What it lacks is everybody who finishes it after a crash.

use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, MySql, MySqlPool, PgPool};
use uuid::Uuid;

use super::bank::Work;

/// One transfer.
pub(super) async fn transfer(
    postgres: &PgPool,
    mariadb: &MySqlPool,
    work: Work,
) -> Result<(), sqlx::Error> {
    let id = format!("bench-{}-{}", Uuid::now_v7().simple(), work.number);
    let ((), mut session) =
        tokio::try_join!(in_postgres(postgres, &id, work), in_mariadb(mariadb, &id, work))?;
    sqlx::query("INSERT INTO bench_decision (id) VALUES ($1)").bind(&id).execute(postgres).await?;
    let orders = sqlx::raw_sql(AssertSqlSafe(format!("COMMIT PREPARED '{id}'"))).execute(postgres);
    let ledger = sqlx::raw_sql(AssertSqlSafe(format!("XA COMMIT '{id}'"))).execute(&mut *session);
    tokio::try_join!(orders, ledger)?;
    Ok(())
}

async fn in_postgres(pool: &PgPool, id: &str, work: Work) -> Result<(), sqlx::Error> {
    let mut db = pool.acquire().await?;
    sqlx::raw_sql("BEGIN").execute(&mut *db).await?;
    work.in_postgres(&mut db).await?;
    let prepare = format!(
        "INSERT INTO bench_marker (id, outcome) VALUES ('{id}', 'committed'); \
         PREPARE TRANSACTION '{id}'"
    );
    sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut *db).await?;
    Ok(())
}

/// The session that has prepared is the one that may finish soonest, so it is kept.
async fn in_mariadb(
    pool: &MySqlPool,
    id: &str,
    work: Work,
) -> Result<PoolConnection<MySql>, sqlx::Error> {
    let mut db = pool.acquire().await?;
    sqlx::raw_sql(AssertSqlSafe(format!("XA START '{id}'"))).execute(&mut *db).await?;
    work.in_mariadb(&mut db).await?;
    let prepare = format!(
        "INSERT INTO bench_marker (id, outcome) VALUES ('{id}', 'committed'); \
         XA END '{id}'; XA PREPARE '{id}'"
    );
    sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut *db).await?;
    Ok(db)
}
