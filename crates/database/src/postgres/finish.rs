//! COMMIT PREPARED and ROLLBACK PREPARED, and what it means when there is nothing to end.

use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::{AssertSqlSafe, PgConnection};

use super::{Lease, marker, on_primary, subscriptions};
use crate::errors::postgres::{code, fault, meaning, message};
use crate::errors::{Meaning, Step};
use crate::{BranchId, End, Fault, Finished, verdict};

/// "You are not the owner, and no superuser" (PG6).
const NOT_THE_OWNER: &str = "42501";

pub(super) async fn finish(
    mut lease: Lease,
    branch: &BranchId,
    end: End,
    by_role: &AtomicBool,
) -> Result<Finished, Fault> {
    let mut answer = if by_role.load(Ordering::Relaxed) {
        end_as_owner(&mut lease, branch, end).await
    } else {
        end_prepared(&mut lease, branch, end).await
    };
    if answer.as_ref().is_err_and(|error| code(error) == Some(NOT_THE_OWNER)) {
        by_role.store(true, Ordering::Relaxed);
        answer = end_as_owner(&mut lease, branch, end).await;
    }
    let Err(error) = answer else {
        lease.give_back();
        return Ok(Finished::Done);
    };
    match meaning(Step::Finish, &error) {
        Meaning::NotThere => decide(lease, branch, end).await,
        Meaning::Done | Meaning::No | Meaning::Unknown => Ok(Finished::Unknown(message(&error))),
    }
}

/// The branch has ended, or has never been: list first, then the marker, then decide.
async fn decide(mut lease: Lease, branch: &BranchId, end: End) -> Result<Finished, Fault> {
    on_primary(&mut lease).await?;
    if listed(&mut lease, &[*branch]).await? == [true] {
        return Ok(Finished::Unknown("it is listed as prepared; try again".to_owned()));
    }
    let marker = marker::read(&mut lease, &[*branch]).await?;
    let marker = marker.first().copied().flatten();
    let elsewhere = (end, marker) == (End::Commit, None) && subscriptions::any(&mut lease).await?;
    lease.give_back();
    if elsewhere {
        return Ok(Finished::Held(
            "decided to commit, and neither prepared under its name nor marked; but a logical \
             subscription has prepared branches here, and after a switch-over to a logical \
             replica it can be one of them. See `handfast indoubt`: nothing is given up while they \
             are there"
                .to_owned(),
        ));
    }
    Ok(verdict::of_ended(end, marker))
}

/// Which of the branches are prepared in this database.
pub(super) async fn listed(
    connection: &mut PgConnection,
    branches: &[BranchId],
) -> Result<Vec<bool>, Fault> {
    let gids: Vec<String> = branches.iter().map(BranchId::gid).collect();
    let found: Vec<String> = sqlx::query_scalar(
        "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND gid = ANY($1)",
    )
    .bind(&gids)
    .fetch_all(connection)
    .await
    .map_err(|error| fault(&error))?;
    Ok(gids.iter().map(|gid| found.contains(gid)).collect())
}

async fn end_prepared(
    connection: &mut PgConnection,
    branch: &BranchId,
    end: End,
) -> Result<(), sqlx::Error> {
    let verb = match end {
        End::Commit => "COMMIT",
        End::Abort => "ROLLBACK",
    };
    let sql = format!("{verb} PREPARED '{}'", branch.gid());
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}

/// The same in the role that prepared it, of which ours has to be a member. The role's name comes
/// from the catalog and goes back as a value, never as text of a statement.
async fn end_as_owner(
    connection: &mut PgConnection,
    branch: &BranchId,
    end: End,
) -> Result<(), sqlx::Error> {
    let assumed: Option<String> = sqlx::query_scalar(
        "SELECT set_config('role', owner::text, false) FROM pg_prepared_xacts \
         WHERE database = current_database() AND gid = $1",
    )
    .bind(branch.gid())
    .fetch_optional(&mut *connection)
    .await?;
    let ended = end_prepared(connection, branch, end).await;
    if assumed.is_some() {
        // If this fails, the connection is lost, and the role with it.
        sqlx::raw_sql("RESET ROLE").execute(connection).await?;
    }
    ended
}
