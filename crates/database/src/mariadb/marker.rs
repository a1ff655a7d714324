//! Markers and tombstones, from the server's side. Every statement is its own transaction: under
//! REPEATABLE READ a duplicate key is reported for a row that the same transaction cannot see.

use std::collections::{HashMap, HashSet};

use handfast_core::input::Resolution;
use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::Lease;
use crate::errors::mariadb::{DUPLICATE, LOCK_TIMEOUT, fault, meaning, number};
use crate::errors::{Meaning, Step};
use crate::{BranchId, Fault, HOLDERS, NEW_MARKERS, OLD_MARKERS, Outcome, markers_of};

/// Most ids in one statement.
const CHUNK: usize = 1000;

/// What the markers say. Those that say committed are durable when this returns: without the
/// binary log a commit is visible an instant before it is on disk. A later commit that waits for
/// its own record waits for all earlier ones.
pub(super) async fn read(
    connection: &mut MySqlConnection,
    branches: &[BranchId],
) -> Result<Vec<Option<Outcome>>, Fault> {
    let mut found = HashMap::new();
    for chunk in branches.chunks(CHUNK) {
        let sql = format!(
            "SELECT id, CAST(outcome AS CHAR) FROM handfast_branch WHERE id IN ({})",
            literals(chunk)
        );
        let rows = sqlx::raw_sql(AssertSqlSafe(sql))
            .fetch_all(&mut *connection)
            .await
            .map_err(|error| fault(&error))?;
        for row in rows {
            let (id, outcome) = decode(&row).map_err(|error| fault(&error))?;
            found.insert(id, said(&outcome)?);
        }
    }
    // One of them is enough, because the log is one.
    if let Some((id, _)) = found.iter().find(|(_, outcome)| **outcome == Outcome::Committed) {
        touch(connection, id).await?;
    }
    Ok(branches.iter().map(|branch| found.get(&branch.to_string()).copied()).collect())
}

/// Which of these prepared branches have their marker in this very table, where it cannot be read
/// yet: a dirty read. One whose session was in another database of the same server has written it
/// there, and could never be told from one that somebody has rolled back.
pub(super) async fn written(
    connection: &mut MySqlConnection,
    branches: &[BranchId],
) -> Result<HashSet<BranchId>, Fault> {
    let mut written = HashSet::new();
    for chunk in branches.chunks(CHUNK) {
        let sql = format!(
            "SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED; \
             SELECT id FROM handfast_branch WHERE id IN ({})",
            literals(chunk)
        );
        let rows = sqlx::raw_sql(AssertSqlSafe(sql))
            .fetch_all(&mut *connection)
            .await
            .map_err(|error| fault(&error))?;
        for row in rows {
            let id: String = row.try_get(0).map_err(|error| fault(&error))?;
            written.extend(id.parse::<BranchId>().ok());
        }
    }
    Ok(written)
}

/// L4 to L7.
pub(super) async fn resolve(mut lease: Lease, branch: &BranchId) -> Result<Resolution, Fault> {
    let sql = format!("INSERT INTO handfast_branch (id, outcome) VALUES ('{branch}', 'aborted')");
    let resolution = match sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *lease).await {
        Ok(done) if done.rows_affected() == 1 => Resolution::Tombstone,
        Ok(_) => return Err(Fault::Unexpected("the tombstone was not inserted".to_owned())),
        Err(error) if meaning(Step::Resolve, &error) == Meaning::Done => {
            match read(&mut lease, &[*branch]).await?.first() {
                Some(Some(Outcome::Committed)) => Resolution::Committed,
                Some(Some(Outcome::Aborted)) => Resolution::Aborted,
                // Deleted in between: the next attempt inserts.
                Some(None) | None => Resolution::Unknown,
            }
        }
        Err(error) => return Err(fault(&error)),
    };
    lease.give_back();
    Ok(resolution)
}

/// What a marker's key shows to somebody who tries to insert it.
pub(super) enum Key {
    /// Nobody has inserted it, visibly or not.
    Free,
    /// It is there.
    Taken,
    /// A transaction that has not ended has inserted it.
    Locked,
}

/// Tries the key and leaves nothing behind.
pub(super) async fn probe(mut lease: Lease, branch: &BranchId) -> Result<Key, Fault> {
    let sql = format!(
        "START TRANSACTION; \
         INSERT INTO handfast_branch (id, outcome) VALUES ('{branch}', 'aborted'); ROLLBACK"
    );
    // After an error the connection is closed, which ends its transaction.
    match sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *lease).await {
        Ok(_) => {
            lease.give_back();
            Ok(Key::Free)
        }
        Err(error) => match number(&error) {
            Some(DUPLICATE) => Ok(Key::Taken),
            Some(LOCK_TIMEOUT) => Ok(Key::Locked),
            _ => Err(fault(&error)),
        },
    }
}

/// Sessions in this database with an open transaction that has written something: which table that
/// was is not to be seen.
pub(super) async fn holders(connection: &mut MySqlConnection) -> Result<Vec<String>, sqlx::Error> {
    let sql = format!(
        "SELECT CONVERT(CONCAT('session ', p.ID, ' of ', p.USER, '@', p.HOST, ', ', p.COMMAND, \
           ', its transaction open for ', TIMESTAMPDIFF(SECOND, t.trx_started, NOW()), \
           ' s, statement: ', IFNULL(LEFT(p.INFO, 120), 'none')) USING utf8mb4) \
         FROM information_schema.INNODB_TRX t \
         JOIN information_schema.PROCESSLIST p ON p.ID = t.trx_mysql_thread_id \
         WHERE p.DB = DATABASE() AND t.trx_rows_modified > 0 AND p.ID <> CONNECTION_ID() \
         ORDER BY t.trx_started LIMIT {HOLDERS}"
    );
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(connection).await
}

pub(super) async fn old(
    connection: &mut MySqlConnection,
    of: &BranchId,
    began_before_ms: u64,
) -> Result<Vec<(BranchId, Outcome)>, Fault> {
    let (bound, pattern) = markers_of(of, began_before_ms);
    // Both have the fixed alphabet of ids, and `_`.
    let sql = format!(
        "SELECT id, CAST(outcome AS CHAR) FROM handfast_branch \
         WHERE id < '{bound}' AND id LIKE '{pattern}' ORDER BY id LIMIT {OLD_MARKERS}"
    );
    let rows = sqlx::raw_sql(AssertSqlSafe(sql))
        .fetch_all(connection)
        .await
        .map_err(|error| fault(&error))?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let (id, outcome) = decode(&row).map_err(|error| fault(&error))?;
        if let Ok(id) = id.parse() {
            found.push((id, said(&outcome)?));
        }
    }
    Ok(found)
}

/// Committed ones only: a tombstone may stand for a transaction that was never begun.
pub(super) async fn new(
    connection: &mut MySqlConnection,
    of: &BranchId,
    began_after_ms: u64,
) -> Result<Vec<BranchId>, Fault> {
    let (bound, pattern) = markers_of(of, began_after_ms.saturating_add(1));
    // Both have the fixed alphabet of ids, and `_`.
    let sql = format!(
        "SELECT id FROM handfast_branch WHERE id >= '{bound}' AND id LIKE '{pattern}' \
         AND outcome = 'committed' ORDER BY id DESC LIMIT {NEW_MARKERS}"
    );
    let rows = sqlx::raw_sql(AssertSqlSafe(sql))
        .fetch_all(connection)
        .await
        .map_err(|error| fault(&error))?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let id: String = row.try_get(0).map_err(|error| fault(&error))?;
        found.extend(id.parse::<BranchId>().ok());
    }
    Ok(found)
}

pub(super) async fn forget(
    connection: &mut MySqlConnection,
    branches: &[BranchId],
) -> Result<u64, Fault> {
    let mut deleted = 0;
    for chunk in branches.chunks(CHUNK) {
        let sql = format!("DELETE FROM handfast_branch WHERE id IN ({})", literals(chunk));
        deleted += sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut *connection)
            .await
            .map_err(|error| fault(&error))?
            .rows_affected();
    }
    Ok(deleted)
}

/// A commit that is durable when it is answered, and after the one that wrote this marker.
async fn touch(connection: &mut MySqlConnection, id: &str) -> Result<(), Fault> {
    sqlx::query("UPDATE handfast_branch SET at = current_timestamp(6) WHERE id = ?")
        .bind(id)
        .execute(connection)
        .await
        .map_err(|error| fault(&error))?;
    Ok(())
}

/// The ids as a list of literals: their alphabet is fixed.
fn literals(branches: &[BranchId]) -> String {
    let quoted: Vec<String> = branches.iter().map(|branch| format!("'{branch}'")).collect();
    quoted.join(",")
}

fn decode(row: &sqlx::mysql::MySqlRow) -> Result<(String, String), sqlx::Error> {
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// What a marker's text says; anything else is not ours.
fn said(text: &str) -> Result<Outcome, Fault> {
    Outcome::parse(text).ok_or_else(|| Fault::Unexpected(format!("a marker says {text:?}")))
}
