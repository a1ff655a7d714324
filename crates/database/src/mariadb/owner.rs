//! The row of `handfast_owner`, by compare-and-set.

use handfast_core::ids::Lsn;
use sqlx::{MySqlConnection, Row};

use crate::errors::mariadb::{DUPLICATE, fault, number};
use crate::owner::{loaded, stored};
use crate::{Claim, Fault, Owner};

pub(super) async fn claim(connection: &mut MySqlConnection, owner: &Owner) -> Result<Claim, Fault> {
    // The driver asks for rows found, not rows changed, so the same claim again is one row.
    let raised = sqlx::query(
        "UPDATE handfast_owner SET epoch = ?, durable_lsn = ?, at = current_timestamp(6) \
         WHERE store_id = ? AND host = ? AND epoch <= ? AND durable_lsn <= ?",
    )
    .bind(stored(owner.epoch))
    .bind(stored(owner.durable_lsn.0))
    .bind(owner.store.to_string())
    .bind(owner.stored_host())
    .bind(stored(owner.epoch))
    .bind(stored(owner.durable_lsn.0))
    .execute(&mut *connection)
    .await
    .map_err(|error| fault(&error))?;
    if raised.rows_affected() == 1 {
        return Ok(Claim::Ours);
    }
    match insert(connection, owner).await {
        Ok(()) => return Ok(Claim::Ours),
        Err(error) if number(&error) == Some(DUPLICATE) => {}
        Err(error) => return Err(fault(&error)),
    }
    let row = sqlx::query("SELECT host, epoch, durable_lsn FROM handfast_owner WHERE store_id = ?")
        .bind(owner.store.to_string())
        .fetch_one(connection)
        .await
        .and_then(|row| {
            Ok(Owner {
                store: owner.store,
                host: row.try_get(0)?,
                epoch: loaded(row.try_get(1)?),
                durable_lsn: Lsn(loaded(row.try_get(2)?)),
            })
        })
        .map_err(|error| fault(&error))?;
    Ok(Claim::refused(owner, row))
}

async fn insert(connection: &mut MySqlConnection, owner: &Owner) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO handfast_owner (store_id, host, epoch, durable_lsn) VALUES (?, ?, ?, ?)",
    )
    .bind(owner.store.to_string())
    .bind(owner.stored_host())
    .bind(stored(owner.epoch))
    .bind(stored(owner.durable_lsn.0))
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn adopt(connection: &mut MySqlConnection, owner: &Owner) -> Result<(), Fault> {
    sqlx::query(
        "INSERT INTO handfast_owner (store_id, host, epoch, durable_lsn) VALUES (?, ?, ?, ?) \
         ON DUPLICATE KEY UPDATE host = VALUES(host), epoch = VALUES(epoch), \
           durable_lsn = VALUES(durable_lsn), at = current_timestamp(6)",
    )
    .bind(owner.store.to_string())
    .bind(owner.stored_host())
    .bind(stored(owner.epoch))
    .bind(stored(owner.durable_lsn.0))
    .execute(connection)
    .await
    .map_err(|error| fault(&error))?;
    Ok(())
}
