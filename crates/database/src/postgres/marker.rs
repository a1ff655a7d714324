//! Markers and tombstones, from the server's side. Every statement is its own transaction.

use std::collections::HashMap;

use handfast_core::input::Resolution;
use sqlx::{PgConnection, Row};

use super::Lease;
use crate::errors::postgres::{fault, meaning};
use crate::errors::{Meaning, Step};
use crate::{BranchId, Fault, HOLDERS, NEW_MARKERS, OLD_MARKERS, Outcome, markers_of};

/// Most ids in one statement.
const CHUNK: usize = 1000;

/// What the markers say. Those that say committed are durable when this returns: a commit with
/// `synchronous_commit` off is visible first and could still vanish in a crash (PG11). A later
/// commit that waits for its own record waits for all earlier ones.
pub(super) async fn read(
    connection: &mut PgConnection,
    branches: &[BranchId],
) -> Result<Vec<Option<Outcome>>, Fault> {
    let mut found = HashMap::new();
    for chunk in branches.chunks(CHUNK) {
        let ids = texts(chunk);
        let rows = sqlx::query("SELECT id, outcome FROM public.handfast_branch WHERE id = ANY($1)")
            .bind(&ids)
            .fetch_all(&mut *connection)
            .await
            .map_err(|error| fault(&error))?;
        for row in rows {
            let (id, outcome) = decode(&row).map_err(|error| fault(&error))?;
            let known = Outcome::parse(&outcome)
                .ok_or_else(|| Fault::Unexpected(format!("a marker says {outcome:?}")))?;
            found.insert(id, known);
        }
    }
    // One of them is enough, because the log is one.
    if let Some((id, _)) = found.iter().find(|(_, outcome)| **outcome == Outcome::Committed) {
        touch(connection, id).await?;
    }
    Ok(branches.iter().map(|branch| found.get(&branch.to_string()).copied()).collect())
}

/// L4 to L7.
pub(super) async fn resolve(mut lease: Lease, branch: &BranchId) -> Result<Resolution, Fault> {
    let id = branch.to_string();
    let inserted =
        sqlx::query("INSERT INTO public.handfast_branch (id, outcome) VALUES ($1, 'aborted')")
            .bind(&id)
            .execute(&mut *lease)
            .await;
    let resolution = match inserted {
        Ok(done) if done.rows_affected() == 1 => Resolution::Tombstone,
        Ok(_) => return Err(Fault::Unexpected("the tombstone was not inserted".to_owned())),
        Err(error) if meaning(Step::Resolve, &error) == Meaning::Done => {
            match touch(&mut lease, &id).await? {
                Some(Outcome::Committed) => Resolution::Committed,
                Some(Outcome::Aborted) => Resolution::Aborted,
                // Deleted in between: the next attempt inserts.
                None => Resolution::Unknown,
            }
        }
        Err(error) => return Err(fault(&error)),
    };
    lease.give_back();
    Ok(resolution)
}

/// Sessions with an open transaction that has written to the marker's table.
pub(super) async fn holders(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT format('session %s of %s (%s), %s, its transaction open for %s s, last statement: %s', \
           a.pid, coalesce(a.usename, '?'), coalesce(nullif(a.application_name, ''), 'no name'), \
           coalesce(a.state, '?'), round(extract(epoch FROM now() - a.xact_start))::bigint, \
           left(coalesce(nullif(a.query, ''), '?'), 120)) \
         FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid \
         WHERE l.relation = to_regclass('public.handfast_branch') AND l.granted \
           AND l.mode = 'RowExclusiveLock' AND a.backend_xid IS NOT NULL \
           AND a.pid <> pg_backend_pid() AND a.application_name <> 'handfast' \
         ORDER BY a.xact_start LIMIT $1",
    )
    .bind(i64::from(HOLDERS))
    .fetch_all(connection)
    .await
}

pub(super) async fn old(
    connection: &mut PgConnection,
    of: &BranchId,
    began_before_ms: u64,
) -> Result<Vec<(BranchId, Outcome)>, Fault> {
    let (bound, pattern) = markers_of(of, began_before_ms);
    let sql = "SELECT id, outcome FROM public.handfast_branch WHERE id < $1 AND id LIKE $2 \
               ORDER BY id LIMIT $3";
    let rows = sqlx::query(sql)
        .bind(bound)
        .bind(pattern)
        .bind(i64::try_from(OLD_MARKERS).unwrap_or(i64::MAX))
        .fetch_all(connection)
        .await
        .map_err(|error| fault(&error))?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let (id, outcome) = decode(&row).map_err(|error| fault(&error))?;
        found.extend(id.parse().ok().zip(Outcome::parse(&outcome)));
    }
    Ok(found)
}

/// Committed ones only: a tombstone may stand for a transaction that was never begun.
pub(super) async fn new(
    connection: &mut PgConnection,
    of: &BranchId,
    began_after_ms: u64,
) -> Result<Vec<BranchId>, Fault> {
    let (bound, pattern) = markers_of(of, began_after_ms.saturating_add(1));
    let sql = "SELECT id FROM public.handfast_branch \
               WHERE id >= $1 AND id LIKE $2 AND outcome = 'committed' ORDER BY id DESC LIMIT $3";
    let found: Vec<String> = sqlx::query_scalar(sql)
        .bind(bound)
        .bind(pattern)
        .bind(i64::try_from(NEW_MARKERS).unwrap_or(i64::MAX))
        .fetch_all(connection)
        .await
        .map_err(|error| fault(&error))?;
    Ok(found.iter().filter_map(|id| id.parse().ok()).collect())
}

pub(super) async fn forget(
    connection: &mut PgConnection,
    branches: &[BranchId],
) -> Result<u64, Fault> {
    let mut deleted = 0;
    for chunk in branches.chunks(CHUNK) {
        deleted += sqlx::query("DELETE FROM public.handfast_branch WHERE id = ANY($1)")
            .bind(texts(chunk))
            .execute(&mut *connection)
            .await
            .map_err(|error| fault(&error))?
            .rows_affected();
    }
    Ok(deleted)
}

/// Reads one marker by writing to it, with a commit that is durable when it is answered.
async fn touch(connection: &mut PgConnection, id: &str) -> Result<Option<Outcome>, Fault> {
    let outcome: Option<String> = sqlx::query_scalar(
        "UPDATE public.handfast_branch SET at = clock_timestamp() WHERE id = $1 RETURNING outcome",
    )
    .bind(id)
    .fetch_optional(connection)
    .await
    .map_err(|error| fault(&error))?;
    Ok(outcome.as_deref().and_then(Outcome::parse))
}

fn texts(branches: &[BranchId]) -> Vec<String> {
    branches.iter().map(BranchId::to_string).collect()
}

fn decode(row: &sqlx::postgres::PgRow) -> Result<(String, String), sqlx::Error> {
    Ok((row.try_get(0)?, row.try_get(1)?))
}
