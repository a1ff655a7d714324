//! A transfer through handfast.

use handfast::database::Error;
use handfast::{BeginOptions, Handfast};
use sqlx::{MySqlPool, PgPool};

use super::bank::{LEDGER, ORDERS, Work};

/// One transfer. `detached`: the server finishes MariaDB's branch as well, because no stream is
/// there that would bring the decision to the session that prepared it.
pub(super) async fn handfast(
    hf: &Handfast,
    postgres: &PgPool,
    mariadb: &MySqlPool,
    work: Work,
    detached: bool,
) -> Result<(), String> {
    let options = if detached { BeginOptions::new().detached() } else { BeginOptions::new() };
    let text = |error: handfast::TransactionError| error.to_string();
    let (tx, [orders, ledger]) = hf.begin_across([ORDERS, LEDGER], options).await.map_err(text)?;
    let worked = tokio::try_join!(
        orders.run(postgres, async |db: &mut _| work.in_postgres(db).await),
        ledger.run(mariadb, async |db: &mut _| work.in_mariadb(db).await),
    );
    worked.map_err(|error: Error<sqlx::Error>| error.to_string())?;
    let committed = tx.commit().await.map_err(text)?;
    if committed.finished { Ok(()) } else { Err("decided, and not finished in 5 s".to_owned()) }
}
