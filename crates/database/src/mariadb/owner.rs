//! The row of `handfast_owner`, by compare-and-set.

use handfast_core::ids::StoreId;
use handfast_core::owner::Owner;
use sqlx::MySqlConnection;

use crate::Fault;
use crate::errors::mariadb::{DUPLICATE, fault, number};
use crate::owner::{OwnerRow, decode, stored, stored_node};

pub(super) async fn read(
    connection: &mut MySqlConnection,
    store: StoreId,
    shard: u32,
) -> Result<Option<OwnerRow>, Fault> {
    let row = sqlx::query(
        "SELECT epoch, node, opening, durable_lsn, claim, \
           CAST(UNIX_TIMESTAMP(at) * 1000 AS SIGNED) \
         FROM handfast_owner WHERE store_id = ? AND shard = ?",
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
    connection: &mut MySqlConnection,
    ours: &Owner,
    before: Option<&Owner>,
) -> Result<bool, Fault> {
    let Some(before) = before else {
        return match insert(connection, ours).await {
            Ok(()) => Ok(true),
            Err(error) if number(&error) == Some(DUPLICATE) => Ok(false),
            Err(error) => Err(fault(&error)),
        };
    };
    // The driver asks for rows found, not rows changed, so the same claim again is one row.
    let done = sqlx::query(
        "UPDATE handfast_owner SET epoch = ?, node = ?, opening = ?, durable_lsn = ?, claim = ?, \
           at = current_timestamp(6) \
         WHERE store_id = ? AND shard = ? AND epoch = ? AND node = ? AND opening = ? \
           AND durable_lsn = ? AND claim = ?",
    )
    .bind(stored(ours.epoch))
    .bind(stored_node(&ours.node))
    .bind(ours.opening.to_string())
    .bind(stored(ours.durable_lsn.0))
    .bind(stored(ours.claim))
    .bind(ours.store.to_string())
    .bind(i64::from(ours.shard))
    .bind(stored(before.epoch))
    .bind(stored_node(&before.node))
    .bind(before.opening.to_string())
    .bind(stored(before.durable_lsn.0))
    .bind(stored(before.claim))
    .execute(connection)
    .await
    .map_err(|error| fault(&error))?;
    Ok(done.rows_affected() == 1)
}

async fn insert(connection: &mut MySqlConnection, ours: &Owner) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO handfast_owner \
                 (store_id, shard, epoch, node, opening, durable_lsn, claim) \
               VALUES (?, ?, ?, ?, ?, ?, ?)";
    write(connection, sql, ours).await
}

pub(super) async fn adopt(connection: &mut MySqlConnection, ours: &Owner) -> Result<(), Fault> {
    let sql = "INSERT INTO handfast_owner \
                 (store_id, shard, epoch, node, opening, durable_lsn, claim) \
               VALUES (?, ?, ?, ?, ?, ?, ?) ON DUPLICATE KEY UPDATE epoch = VALUES(epoch), \
                 node = VALUES(node), opening = VALUES(opening), \
                 durable_lsn = VALUES(durable_lsn), claim = VALUES(claim), \
                 at = current_timestamp(6)";
    write(connection, sql, ours).await.map_err(|error| fault(&error))
}

async fn write(
    connection: &mut MySqlConnection,
    sql: &'static str,
    ours: &Owner,
) -> Result<(), sqlx::Error> {
    sqlx::query(sql)
        .bind(ours.store.to_string())
        .bind(i64::from(ours.shard))
        .bind(stored(ours.epoch))
        .bind(stored_node(&ours.node))
        .bind(ours.opening.to_string())
        .bind(stored(ours.durable_lsn.0))
        .bind(stored(ours.claim))
        .execute(connection)
        .await?;
    Ok(())
}
