//! XA COMMIT and XA ROLLBACK, and what their answers are worth (MY2 to MY5).

use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::Lease;
use super::marker::{self, Key};
use crate::errors::mariadb::{fault, meaning, message};
use crate::errors::{Meaning, Step};
use crate::{BranchId, End, Fault, Finished, verdict};

pub(super) async fn finish(
    mut lease: Lease,
    branch: &BranchId,
    end: End,
) -> Result<Finished, Fault> {
    let verb = match end {
        End::Commit => "COMMIT",
        End::Abort => "ROLLBACK",
    };
    let sql = format!("XA {verb} {}", branch.xid());
    match sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *lease).await {
        Ok(_) => after_ok(lease, branch, end).await,
        Err(error) => match meaning(Step::Finish, &error) {
            Meaning::NotThere => after_nota(lease, branch, end).await,
            Meaning::Done | Meaning::No | Meaning::Unknown => {
                Ok(Finished::Unknown(message(&error)))
            }
        },
    }
}

/// MariaDB said OK, which it also says in the instant of a disconnect without doing anything.
async fn after_ok(mut lease: Lease, branch: &BranchId, end: End) -> Result<Finished, Fault> {
    let marker = marker::read(&mut lease, &[*branch]).await?;
    if let Some(Some(outcome)) = marker.first() {
        lease.give_back();
        return Ok(verdict::of_ended(end, Some(*outcome)));
    }
    if is_listed(&mut lease, branch).await? {
        return Ok(Finished::Unknown("it is still listed as prepared".to_owned()));
    }
    match (marker::probe(lease, branch).await?, end) {
        (Key::Free, End::Abort) => Ok(Finished::Done),
        (Key::Taken, _) => Ok(Finished::Unknown("its marker has just appeared".to_owned())),
        (Key::Locked, _) => Ok(held()),
        (Key::Free, End::Commit) => Ok(Finished::Held(
            "MariaDB answered OK, but there is no marker: it was prepared without one, or \
             MariaDB holds it until it restarts"
                .to_owned(),
        )),
    }
}

/// XAER_NOTA has three meanings (MY5): its session still lives, it has ended, or MariaDB hides it.
/// The order list, marker, decide tells the first two apart; the lock on the marker's key tells
/// the third, also after this server has restarted and forgotten what it saw.
pub(super) async fn after_nota(
    mut lease: Lease,
    branch: &BranchId,
    end: End,
) -> Result<Finished, Fault> {
    if is_listed(&mut lease, branch).await? {
        return Ok(Finished::Unknown(
            "it is listed as prepared, and the session that prepared it still lives".to_owned(),
        ));
    }
    let marker = marker::read(&mut lease, &[*branch]).await?;
    if let Some(Some(outcome)) = marker.first() {
        lease.give_back();
        return Ok(verdict::of_ended(end, Some(*outcome)));
    }
    match (marker::probe(lease, branch).await?, end) {
        (Key::Free, _) => Ok(verdict::of_ended(end, None)),
        (Key::Taken, _) => Ok(Finished::Unknown("its marker has just appeared".to_owned())),
        (Key::Locked, End::Commit) => Ok(held()),
        // A session that has not prepared yet may hold the lock as well.
        (Key::Locked, End::Abort) => Ok(Finished::Unknown(
            "it is not listed, but its marker is locked: its session is still at work, or \
             MariaDB holds the branch until it restarts"
                .to_owned(),
        )),
    }
}

fn held() -> Finished {
    Finished::Held(
        "MariaDB neither lists the branch nor has ended it, and keeps its locks until it restarts"
            .to_owned(),
    )
}

/// Whether a branch that was prepared has ended already: it is not listed, and its marker is what
/// such an end leaves. Where that does not fit, its session is ended all the same.
pub(super) async fn has_ended(
    connection: &mut MySqlConnection,
    branch: &BranchId,
    end: End,
) -> Result<bool, Fault> {
    if is_listed(connection, branch).await? {
        return Ok(false);
    }
    let marker = marker::read(connection, &[*branch]).await?;
    Ok(match (marker.first(), end) {
        (Some(Some(_)), _) | (_, End::Abort) => true,
        (Some(None) | None, End::Commit) => false,
    })
}

async fn is_listed(connection: &mut MySqlConnection, branch: &BranchId) -> Result<bool, Fault> {
    let xids = listed(connection).await?;
    Ok(xids.iter().any(|xid| BranchId::from_xid(xid) == Some(*branch)))
}

/// What `XA RECOVER` lists, as literals: everything that is prepared on this server.
pub(super) async fn listed(connection: &mut MySqlConnection) -> Result<Vec<String>, Fault> {
    let rows = sqlx::raw_sql("XA RECOVER FORMAT = 'SQL'")
        .fetch_all(connection)
        .await
        .map_err(|error| fault(&error))?;
    // The names of others are bytes of any kind.
    let data = |row: &sqlx::mysql::MySqlRow| -> Result<String, sqlx::Error> {
        Ok(String::from_utf8_lossy(row.try_get_unchecked::<&[u8], _>(3)?).into_owned())
    };
    rows.iter().map(|row| data(row).map_err(|error| fault(&error))).collect()
}
