//! What is looked at all the time: the sum of all money, and how long anything stays prepared.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use handfast_database::{BranchId, Database, Options, connect};
use sqlx::{Connection, MySqlConnection, PgConnection};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::bank::{self, ACCOUNTS, START};
use crate::harness::{Problem, Urls};

/// Pause between two reads of all balances, which hold up every transfer.
const READ: Duration = Duration::from_millis(20);
/// Pause between two looks at what is prepared.
const LOOK: Duration = Duration::from_millis(100);
/// A read that takes longer than this waits for a database that is gone.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Reads of all balances that came to an end.
    pub(super) reads: AtomicU64,
    /// Reads that a killed database, or a lock, did not let come to an end.
    pub(super) blocked: AtomicU64,
    /// Reads with another sum than at the start.
    pub(super) wrong_sums: AtomicU64,
    /// The longest that one branch was seen prepared.
    pub(super) longest_in_doubt_ms: AtomicU64,
}

/// Reads the balances until it is told to stop.
pub(super) async fn sums(urls: Urls, seen: Arc<Seen>, stop: watch::Receiver<bool>) {
    let expected = 2 * ACCOUNTS * START;
    while !*stop.borrow() {
        sleep(READ).await;
        // A database that was killed a moment ago is not there to be read.
        let Ok(Ok((mut postgres, mut mariadb))) = timeout(PATIENCE, open(&urls)).await else {
            continue;
        };
        match timeout(PATIENCE, bank::locked_sum(&mut postgres, &mut mariadb)).await {
            Ok(Ok(sum)) => {
                seen.reads.fetch_add(1, Ordering::Relaxed);
                if sum != expected {
                    seen.wrong_sums.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(Err(_)) | Err(_) => {
                seen.blocked.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// All money, as of one moment.
pub(super) async fn sum(urls: &Urls) -> Result<i64, sqlx::Error> {
    let (mut postgres, mut mariadb) = open(urls).await?;
    bank::locked_sum(&mut postgres, &mut mariadb).await
}

async fn open(urls: &Urls) -> Result<(PgConnection, MySqlConnection), sqlx::Error> {
    let postgres = PgConnection::connect(&urls.postgres).await?;
    Ok((postgres, MySqlConnection::connect(&urls.mariadb).await?))
}

/// The two databases, to list what is prepared.
pub(super) fn databases(urls: &Urls) -> Result<[Arc<dyn Database>; 2], Problem> {
    let open = |url: &str| {
        let options = Options::default().with_pool(1).with_call_timeout(Duration::from_secs(5));
        connect(url, options).map_err(|error| Problem::Part(error.to_string()))
    };
    Ok([open(&urls.postgres)?, open(&urls.mariadb)?])
}

/// Branches of ours that are prepared; none: a database does not answer.
pub(super) async fn prepared(databases: &[Arc<dyn Database>; 2]) -> Option<Vec<BranchId>> {
    let mut all = Vec::new();
    for database in databases {
        all.extend(database.list().await.ok()?.into_iter().filter_map(|p| p.branch));
    }
    Some(all)
}

/// Looks at what is prepared until it is told to stop.
pub(super) async fn doubts(
    databases: [Arc<dyn Database>; 2],
    seen: Arc<Seen>,
    stop: watch::Receiver<bool>,
) {
    let mut since: HashMap<BranchId, Instant> = HashMap::new();
    while !*stop.borrow() {
        if let Some(listed) = prepared(&databases).await {
            let now = Instant::now();
            since.retain(|branch, _| listed.contains(branch));
            for branch in listed {
                let age = now.duration_since(*since.entry(branch).or_insert(now)).as_millis();
                let age = u64::try_from(age).unwrap_or(u64::MAX);
                seen.longest_in_doubt_ms.fetch_max(age, Ordering::Relaxed);
            }
        }
        sleep(LOOK).await;
    }
}
