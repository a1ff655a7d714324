//! The row of `handfast_owner`, by compare-and-set.

use handfast_core::ids::StoreId;
use handfast_core::owner::Owner;
use sqlx::PgConnection;

use crate::Fault;
use crate::errors::postgres::fault;
use crate::owner::{OwnerRow, decode, stored, stored_node};

pub(super) async fn read(
    connection: &mut PgConnection,
    store: StoreId,
    shard: u32,
) -> Result<Option<OwnerRow>, Fault> {
    let row = sqlx::query(
        "SELECT epoch, node, opening, durable_lsn, claim, \
           (EXTRACT(EPOCH FROM at) * 1000)::bigint \
         FROM public.handfast_owner WHERE store_id = $1 AND shard = $2",
    )
    .bind(store.to_string())
    .bind(i64::from(shard))
    .fetch_optional(connection)
    .await
    .map_err(|error| fault(&error))?;
    row.map(|row| decode(&row, store, shard).map_err(|error| fault(&error))).transpose()
}

/// One statement, so that nobody comes between the look and the write.
pub(super) async fn claim(
    connection: &mut PgConnection,
    ours: &Owner,
    before: Option<&Owner>,
) -> Result<bool, Fault> {
    let query = match before {
        None => sqlx::query(
            "INSERT INTO public.handfast_owner \
               (store_id, shard, epoch, node, opening, durable_lsn, claim) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (store_id, shard) DO NOTHING",
        ),
        Some(_) => sqlx::query(
            "UPDATE public.handfast_owner SET epoch = $3, node = $4, opening = $5, \
               durable_lsn = $6, claim = $7, at = clock_timestamp() \
             WHERE store_id = $1 AND shard = $2 AND epoch = $8 AND node = $9 AND opening = $10 \
               AND durable_lsn = $11 AND claim = $12",
        ),
    };
    let mut query = query
        .bind(ours.store.to_string())
        .bind(i64::from(ours.shard))
        .bind(stored(ours.epoch))
        .bind(stored_node(&ours.node))
        .bind(ours.opening.to_string())
        .bind(stored(ours.durable_lsn.0))
        .bind(stored(ours.claim));
    if let Some(before) = before {
        query = query
            .bind(stored(before.epoch))
            .bind(stored_node(&before.node))
            .bind(before.opening.to_string())
            .bind(stored(before.durable_lsn.0))
            .bind(stored(before.claim));
    }
    let done = query.execute(connection).await.map_err(|error| fault(&error))?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn adopt(connection: &mut PgConnection, ours: &Owner) -> Result<(), Fault> {
    sqlx::query(
        "INSERT INTO public.handfast_owner \
           (store_id, shard, epoch, node, opening, durable_lsn, claim) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (store_id, shard) DO UPDATE SET \
           epoch = excluded.epoch, node = excluded.node, opening = excluded.opening, \
           durable_lsn = excluded.durable_lsn, claim = excluded.claim, at = clock_timestamp()",
    )
    .bind(ours.store.to_string())
    .bind(i64::from(ours.shard))
    .bind(stored(ours.epoch))
    .bind(stored_node(&ours.node))
    .bind(ours.opening.to_string())
    .bind(stored(ours.durable_lsn.0))
    .bind(stored(ours.claim))
    .execute(connection)
    .await
    .map_err(|error| fault(&error))?;
    Ok(())
}
