//! A transaction in one database: through handfast with an event, with an outbox row in its
//! place, and bare.

use handfast::{Event, Handfast};
use sqlx::PgPool;

use super::bank::{ORDERS, TOPIC, Work};

/// Bytes of data of the event.
const DATA: [u8; 200] = [b'.'; 200];
const KIND: &str = "bench";

/// With an event that appears if and only if it commits.
pub(super) async fn handfast(hf: &Handfast, pool: &PgPool, work: Work) -> Result<(), String> {
    let local = hf.local(ORDERS, pool, async |db, tx| {
        work.in_postgres(db).await?;
        let event = Event::new(KIND, "/handfast/bench").with_id(work.number.to_string());
        tx.publish(TOPIC, event.with_data(DATA.to_vec()));
        Ok::<_, sqlx::Error>(())
    });
    local.await.map_err(|error| error.to_string())
}

/// With a row for a relay that would publish it later.
pub(super) async fn outbox(pool: &PgPool, work: Work) -> Result<(), sqlx::Error> {
    let mut db = pool.acquire().await?;
    sqlx::raw_sql("BEGIN").execute(&mut *db).await?;
    work.in_postgres(&mut db).await?;
    sqlx::query("INSERT INTO bench_outbox (topic, kind, event) VALUES ($1, $2, $3)")
        .bind(TOPIC)
        .bind(KIND)
        .bind(&DATA[..])
        .execute(&mut *db)
        .await?;
    sqlx::raw_sql("COMMIT").execute(&mut *db).await?;
    Ok(())
}

/// Nobody hears of it.
pub(super) async fn plain(pool: &PgPool, work: Work) -> Result<(), sqlx::Error> {
    let mut db = pool.acquire().await?;
    sqlx::raw_sql("BEGIN").execute(&mut *db).await?;
    work.in_postgres(&mut db).await?;
    sqlx::raw_sql("COMMIT").execute(&mut *db).await?;
    Ok(())
}
