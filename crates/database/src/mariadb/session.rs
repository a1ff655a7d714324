//! The session that prepared a branch, and how it ends before anybody else touches the branch.
//!
//! In the instant of a disconnect, `XA COMMIT` from another session answers OK without committing,
//! and MariaDB holds the branch until it restarts (MY3): it gives the id out before its engine lets
//! go of the transaction. That a session has left the list of threads does not say that the engine
//! has (MY18), and nothing that can be asked does: `information_schema.innodb_trx` is a copy, which
//! is not made anew while it is asked for more often than every 100 ms. So there is a pause, and in
//! any case only the marker says that a branch has committed (MY4).

use std::time::Duration;

use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, MySqlConnection, Row};
use tokio::time::{Instant, sleep};

use crate::errors::mariadb::{NO_SUCH_THREAD, fault, message, number};
use crate::{Fault, Holder, Home};

/// `KILL` of another user's session without the privilege.
const KILL_DENIED: u16 = 1095;
const FIRST_POLL: Duration = Duration::from_millis(1);
const LONGEST_POLL: Duration = Duration::from_millis(50);
/// From the answer that a session is not there to the first touch of its branch. Measured: without
/// it 12 of 10,000 branches were held by 10.11.19 and 6 of 15,000 by 11.4.5, with 1 ms or 5 ms none
/// of 16,000. No proof on a machine that is busy enough: hence some more, and MY4.
const SETTLED: Duration = Duration::from_millis(20);

/// Ends a session, if the server is still the one that it belonged to, and waits until it is gone
/// and its engine has let go of the branch.
///
/// `KILL` itself is asked whether it is, because it searches all threads: the process list leaves
/// out a thread whose socket is closed already, and those of other users without a privilege.
pub(super) async fn end(
    connection: &mut MySqlConnection,
    holder: Holder,
    bound: Duration,
) -> Result<(), Fault> {
    if server_start(connection).await.map_err(|error| fault(&error))? != holder.server_start {
        return Ok(());
    }
    let until = Instant::now() + bound;
    let mut pause = FIRST_POLL;
    loop {
        let kill = format!("KILL CONNECTION {}", holder.connection);
        let killed = sqlx::raw_sql(AssertSqlSafe(kill)).execute(&mut *connection).await;
        match killed {
            Ok(_) => {}
            Err(error) if number(&error) == Some(NO_SUCH_THREAD) => {
                sleep(SETTLED).await;
                return Ok(());
            }
            Err(error) if number(&error) == Some(KILL_DENIED) => {
                return Err(Fault::Refused {
                    code: KILL_DENIED.to_string(),
                    message: format!(
                        "the session that prepared the branch still lives, and may not be killed \
                         without CONNECTION ADMIN: {}",
                        message(&error)
                    ),
                    retryable: true,
                });
            }
            Err(error) => return Err(fault(&error)),
        }
        if Instant::now() >= until {
            return Err(Fault::TimedOut(bound));
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_POLL);
    }
}

/// When the server started, in Unix seconds. Both numbers are taken at the start of the same
/// statement, so the difference is the same every time, whatever clock the session was given.
pub(super) async fn server_start(connection: &mut MySqlConnection) -> Result<u64, sqlx::Error> {
    let row = sqlx::raw_sql(
        "SELECT CAST(CAST(UNIX_TIMESTAMP() AS SIGNED) - CAST(VARIABLE_VALUE AS SIGNED) AS SIGNED) \
         FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'UPTIME'",
    )
    .fetch_one(connection)
    .await?;
    let start: i64 = row.try_get(0)?;
    Ok(u64::try_from(start).unwrap_or(0))
}

/// What the server calls itself, in words of its own; `@handfast_server_start` has to be set.
const SERVER: &str = "CONCAT(@@global.server_id, ' at ', @@hostname, ':', @@port, ' ', @@datadir, \
                      ' since ', @handfast_server_start)";
/// Which server and which of its lives a session is on, as the marker's statement asks for it: a
/// variable of the session, because one of the server's would make the statement another one on a
/// replica that runs it again.
pub(super) const HOME: &str = "@handfast_home";

/// Where a connection leads: a database, and what [`HOME`] says of its server.
pub(super) async fn home(connection: &mut MySqlConnection) -> Result<Home, sqlx::Error> {
    let row = sqlx::raw_sql(OWN).fetch_one(&mut *connection).await?;
    own(connection, &row).await?;
    let sql = "SELECT IFNULL(DATABASE(), ''), CAST(@handfast_home AS CHAR)";
    let row = sqlx::raw_sql(sql).fetch_one(connection).await?;
    let (database, server): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Home::in_mariadb(&database, &server))
}

/// What [`own`] is read from. When the server started is dear to find out (MariaDB gathers all its
/// status for it) and cannot change while the session lives, so the session remembers it.
pub(super) const OWN: &str = "SELECT CONNECTION_ID(), @handfast_server_start";

/// This session's own name, which its vote carries, from the row of [`OWN`].
pub(super) async fn own(
    connection: &mut MySqlConnection,
    row: &MySqlRow,
) -> Result<Holder, sqlx::Error> {
    let number = row.try_get(0)?;
    let known: Option<i64> = row.try_get(1)?;
    let server_start = match known.and_then(|start| u64::try_from(start).ok()) {
        Some(start) => start,
        None => {
            let start = server_start(connection).await?;
            let remember = format!("SET @handfast_server_start = {start}; SET {HOME} = {SERVER}");
            sqlx::raw_sql(AssertSqlSafe(remember)).execute(connection).await?;
            start
        }
    };
    Ok(Holder { connection: number, server_start })
}
