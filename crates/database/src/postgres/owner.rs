//! The row of `handfast_owner`, by compare-and-set.

use handfast_core::ids::Lsn;
use sqlx::{PgConnection, Row};

use crate::errors::postgres::fault;
use crate::owner::{loaded, stored};
use crate::{Claim, Fault, Owner};

pub(super) async fn claim(connection: &mut PgConnection, owner: &Owner) -> Result<Claim, Fault> {
    let raised = sqlx::query(
        "INSERT INTO public.handfast_owner AS o (store_id, host, epoch, durable_lsn) \
         VALUES ($1, $2, $3, $4) ON CONFLICT (store_id) DO UPDATE SET \
           epoch = excluded.epoch, durable_lsn = excluded.durable_lsn, at = clock_timestamp() \
         WHERE o.host = excluded.host AND o.epoch <= excluded.epoch \
           AND o.durable_lsn <= excluded.durable_lsn",
    )
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
    let row = sqlx::query(
        "SELECT host, epoch, durable_lsn FROM public.handfast_owner WHERE store_id = $1",
    )
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

pub(super) async fn adopt(connection: &mut PgConnection, owner: &Owner) -> Result<(), Fault> {
    sqlx::query(
        "INSERT INTO public.handfast_owner (store_id, host, epoch, durable_lsn) \
         VALUES ($1, $2, $3, $4) ON CONFLICT (store_id) DO UPDATE SET host = excluded.host, \
           epoch = excluded.epoch, durable_lsn = excluded.durable_lsn, at = clock_timestamp()",
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
