//! A pooler in transaction mode between the server and PostgreSQL.
//!
//! It hands each transaction to a session of its choice: settings and roles that the server sets
//! would act on the connections of others, and what it prepares in one session is missing in the
//! next. Whether it passes prepared statements on (PgBouncer does since 1.21) changes nothing
//! about that, so it is told by the sessions and not by an error.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection, Row};
use tokio::time::timeout;

use crate::Fault;
use crate::doctor::{Finding, Grade};
use crate::errors::postgres::fault;

/// How long a second transaction may wait for the first one. PostgreSQL itself lets none wait.
const BESIDE: Duration = Duration::from_secs(2);

/// How long a database may take to let somebody in: whoever looks at one that is gone should know
/// soon.
const ADMITTED: Duration = Duration::from_secs(2);
/// As many connections as the server, the database or the role may have.
const TOO_MANY: &str = "53300";

/// Looks whether one connection keeps its session, with two connections of its own.
pub(super) async fn check(options: &PgConnectOptions) -> Result<Finding, Fault> {
    let mut one = open(options).await?;
    let mut two = match open(options).await {
        Ok(two) => two,
        // Whoever has one connection to spare and no second one is no worse for it.
        Err(Fault::Refused { code, .. }) if code == TOO_MANY => return Ok(kept()),
        Err(fault) => return Err(fault),
    };
    let before = begin(&mut one).await?;
    // A pooler whose sessions are all in use lets it wait. Then nothing is known.
    let beside = timeout(BESIDE, begin(&mut two)).await;
    end(&mut one).await?;
    let keeps = match beside {
        Err(_) => true,
        Ok(beside) => {
            let beside = beside?;
            end(&mut two).await?;
            // Both sessions are free now. Whichever a pooler gives away first, the last or the
            // first that came back, one of two transactions gets the other one.
            let mut keeps = beside != before;
            for _ in 0..2 {
                keeps &= begin(&mut one).await? == before;
                end(&mut one).await?;
            }
            keeps
        }
    };
    // They were of use; how they leave says nothing.
    drop((one, two));
    if keeps {
        return Ok(kept());
    }
    Ok(stands_between("one connection reaches several sessions of PostgreSQL"))
}

/// Nothing was seen that stands between.
pub(super) fn kept() -> Finding {
    Finding::good("pooler", "A connection keeps its session.")
}

/// The finding, and what showed it.
pub(super) fn stands_between(shown: &str) -> Finding {
    Finding::bad(
        "pooler",
        Grade::Fail,
        format!(
            "A pooler in transaction mode (PgBouncer, for example) stands between: {shown}. What \
             the server sets in its session would act on others, and what it prepared be missing."
        ),
        "Register PostgreSQL's own address, or a pool in session mode. The application's own \
         connections may go through the pooler.",
    )
}

/// What a driver's prepared statements meet there: one that exists already, or does not.
pub(super) fn is_shown_by(error: &Fault) -> bool {
    matches!(error, Fault::Refused { code, .. } if matches!(code.as_str(), "42P05" | "26000"))
}

async fn open(options: &PgConnectOptions) -> Result<PgConnection, Fault> {
    match timeout(ADMITTED, options.connect()).await {
        Ok(connected) => connected.map_err(|error| fault(&error)),
        Err(_) => Err(Fault::TimedOut(ADMITTED)),
    }
}

/// Begins a transaction and says in which session. Nothing here is a prepared statement.
async fn begin(connection: &mut PgConnection) -> Result<i32, Fault> {
    let began = async {
        sqlx::raw_sql("BEGIN").execute(&mut *connection).await?;
        let row = sqlx::raw_sql("SELECT pg_backend_pid()").fetch_one(&mut *connection).await?;
        row.try_get::<i32, _>(0)
    };
    began.await.map_err(|error: sqlx::Error| fault(&error))
}

async fn end(connection: &mut PgConnection) -> Result<(), Fault> {
    let ended = sqlx::raw_sql("ROLLBACK").execute(connection).await;
    ended.map(drop).map_err(|error| fault(&error))
}
