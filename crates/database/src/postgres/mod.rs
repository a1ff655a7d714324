//! PostgreSQL, from the server's side: one implementation of [`Database`].
//!
//! Rows PG1 to PG12 of `docs/databases.md`. It never commits on its own, and takes only SQLSTATE
//! 42704 for "not there".

pub mod application;
mod doctor;
mod finish;
mod install;
mod marker;
mod owner;
mod pooler;
mod subscriptions;

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use handfast_core::ids::StoreId;
use handfast_core::input::Resolution;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};

use crate::doctor::{Grade, Report};
use crate::errors::postgres::fault;
use crate::pool::{self, within};
use crate::{
    BranchId, ConnectError, Database, End, Fault, Finished, Holder, Identity, Kind, Options,
    Outcome, Owner, OwnerRow, Prepared,
};

type Lease = pool::Lease<sqlx::Postgres>;
type Pool = pool::Pool<sqlx::Postgres>;

/// A PostgreSQL database.
pub struct Postgres {
    work: Pool,
    resolutions: Pool,
    options: Options,
    connect: PgConnectOptions,
    /// The last check has seen that no pooler in transaction mode stands between.
    keeps_session: AtomicBool,
    /// The last branch belonged to another role: look who it is before the next one (PG6).
    by_role: AtomicBool,
}

impl Postgres {
    pub(crate) fn new(url: &str, options: Options) -> Result<Self, ConnectError> {
        let connect = PgConnectOptions::from_str(url)
            .map_err(|error| ConnectError::Url(error.to_string()))?;
        if connect.get_database().is_none() {
            return Err(ConnectError::NoDatabase);
        }
        let connect = connect.application_name("handfast");
        let pool = |size| Pool::new(pool(size, &options), connect.clone(), fault);
        let (work, resolutions) = (pool(options.pool), pool(options.resolve_pool));
        let (keeps_session, by_role) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self { work, resolutions, options, connect, keeps_session, by_role })
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        within(self.options.call_timeout, work).await
    }

    async fn lease(&self) -> Result<Lease, Fault> {
        self.work.lease().await
    }
}

/// No `statement_timeout`: it would end the wait of COMMIT PREPARED for a synchronous standby, which
/// then reports success. The call's own bound does without that.
fn pool(size: u32, options: &Options) -> PgPoolOptions {
    let lock_ms = options.lock_timeout.as_millis().max(1);
    PgPoolOptions::new()
        .max_connections(size.max(1))
        .acquire_timeout(options.call_timeout)
        .idle_timeout(options.idle_timeout)
        .after_connect(move |connection, _| {
            let set = format!("SET synchronous_commit = on; SET lock_timeout = {lock_ms}");
            Box::pin(async move {
                connection.execute(sqlx::raw_sql(AssertSqlSafe(set))).await?;
                Ok(())
            })
        })
}

/// Refuses a standby: its lists and markers are behind (PG8).
async fn on_primary(connection: &mut PgConnection) -> Result<(), Fault> {
    let standby: bool = sqlx::query_scalar("SELECT pg_is_in_recovery()")
        .fetch_one(connection)
        .await
        .map_err(|error| fault(&error))?;
    if standby {
        return Err(Fault::NotPrimary("it is in recovery".to_owned()));
    }
    Ok(())
}

#[async_trait]
impl Database for Postgres {
    fn kind(&self) -> Kind {
        Kind::Postgres
    }

    async fn list(&self) -> Result<Vec<Prepared>, Fault> {
        self.within(async {
            let mut lease = self.lease().await?;
            on_primary(&mut lease).await?;
            let rows = sqlx::query(
                "SELECT p.gid, p.owner::text, EXTRACT(EPOCH FROM now() - p.prepared)::float8, \
                   (SELECT count(*) FROM pg_locks w WHERE NOT w.granted \
                     AND w.locktype = 'transactionid' AND w.transactionid = p.transaction) \
                 FROM pg_prepared_xacts p WHERE p.database = current_database()",
            )
            .fetch_all(&mut *lease)
            .await
            .map_err(|error| fault(&error))?;
            let list = rows.iter().map(listed).collect::<Result<Vec<_>, _>>();
            let mut list = list.map_err(|error| fault(&error))?;
            if list.iter().any(subscriptions::may_own) {
                subscriptions::name_owners(&mut lease, &mut list).await?;
            }
            lease.give_back();
            Ok(list)
        })
        .await
    }

    async fn finish(&self, branch: &BranchId, end: End, _: Option<Holder>) -> Finished {
        let finished = self.within(async {
            finish::finish(self.lease().await?, branch, end, &self.by_role).await
        });
        finished.await.unwrap_or_else(|fault| Finished::Unknown(fault.to_string()))
    }

    async fn outcomes(&self, branches: &[BranchId]) -> Result<Vec<Option<Outcome>>, Fault> {
        self.within(async {
            let mut lease = self.lease().await?;
            on_primary(&mut lease).await?;
            let outcomes = marker::read(&mut lease, branches).await?;
            lease.give_back();
            Ok(outcomes)
        })
        .await
    }

    async fn prepared(&self, branches: &[BranchId]) -> Result<Vec<bool>, Fault> {
        self.within(async {
            let mut lease = self.lease().await?;
            on_primary(&mut lease).await?;
            let prepared = finish::listed(&mut lease, branches).await?;
            lease.give_back();
            Ok(prepared)
        })
        .await
    }

    async fn resolve(&self, branch: &BranchId) -> Resolution {
        let resolution = self.within(async {
            let lease = self.resolutions.lease().await?;
            marker::resolve(lease, branch).await
        });
        resolution.await.unwrap_or_else(|fault| {
            tracing::debug!(%branch, %fault, "a local transaction is not resolved yet");
            Resolution::Unknown
        })
    }

    async fn holders(&self) -> Result<Vec<String>, Fault> {
        self.within(async {
            let mut lease = self.lease().await?;
            let found = marker::holders(&mut lease).await.map_err(|error| fault(&error))?;
            lease.give_back();
            Ok(found)
        })
        .await
    }

    async fn old_markers(
        &self,
        of: &BranchId,
        began_before_ms: u64,
    ) -> Result<Vec<(BranchId, Outcome)>, Fault> {
        self.within(async {
            let mut lease = self.lease().await?;
            let found = marker::old(&mut lease, of, began_before_ms).await?;
            lease.give_back();
            Ok(found)
        })
        .await
    }

    async fn new_markers(
        &self,
        of: &BranchId,
        began_after_ms: u64,
    ) -> Result<Vec<BranchId>, Fault> {
        self.within(async {
            let mut lease = self.lease().await?;
            on_primary(&mut lease).await?;
            let found = marker::new(&mut lease, of, began_after_ms).await?;
            lease.give_back();
            Ok(found)
        })
        .await
    }

    async fn forget(&self, branches: &[BranchId]) -> Result<u64, Fault> {
        self.within(async {
            let mut lease = self.lease().await?;
            let deleted = marker::forget(&mut lease, branches).await?;
            lease.give_back();
            Ok(deleted)
        })
        .await
    }

    async fn owner(&self, store: StoreId, shard: u32) -> Result<Option<OwnerRow>, Fault> {
        self.within(async {
            let mut lease = self.lease().await?;
            on_primary(&mut lease).await?;
            let row = owner::read(&mut lease, store, shard).await?;
            lease.give_back();
            Ok(row)
        })
        .await
    }

    async fn stands(&self) -> Result<bool, Fault> {
        self.within(async {
            let mut lease = self.lease().await?;
            let sql = "SELECT EXISTS (SELECT 1 FROM public.handfast_owner), \
                       EXISTS (SELECT 1 FROM public.handfast_branch WHERE id = '')";
            let row = sqlx::raw_sql(sql).fetch_one(&mut *lease).await;
            let row = row.map_err(|error| fault(&error))?;
            let has_row: bool = row.try_get(0).map_err(|error| fault(&error))?;
            lease.give_back();
            Ok(has_row)
        })
        .await
    }

    async fn claim(&self, ours: &Owner, before: Option<&Owner>) -> Result<bool, Fault> {
        self.within(async {
            let mut lease = self.lease().await?;
            let claimed = owner::claim(&mut lease, ours, before).await?;
            lease.give_back();
            Ok(claimed)
        })
        .await
    }

    async fn adopt(&self, ours: &Owner) -> Result<(), Fault> {
        self.within(async {
            let mut lease = self.lease().await?;
            owner::adopt(&mut lease, ours).await?;
            lease.give_back();
            Ok(())
        })
        .await
    }

    async fn check(&self) -> Report {
        let mut findings = Vec::new();
        let checked = self.within(async {
            // Two more connections are much to ask for each time.
            let pooler = if self.keeps_session.load(Ordering::Relaxed) {
                pooler::kept()
            } else {
                pooler::check(&self.connect).await?
            };
            let stands_between = pooler.grade == Grade::Fail;
            findings.push(pooler);
            if stands_between {
                // What the other checks would see is of any session.
                return Ok(String::new());
            }
            let mut lease = self.lease().await?;
            let version = doctor::check(&mut lease, &mut findings).await?;
            lease.give_back();
            Ok(version)
        });
        let checked = checked.await;
        let keeps = checked.as_ref().is_ok_and(|version| !version.is_empty());
        self.keeps_session.store(keeps, Ordering::Relaxed);
        match checked {
            Ok(version) => Report::new(Kind::Postgres, version, findings),
            Err(fault) if pooler::is_shown_by(&fault) => {
                findings.push(pooler::stands_between(&fault.to_string()));
                Report::new(Kind::Postgres, String::new(), findings)
            }
            Err(fault) => Report::failed(Kind::Postgres, findings, &fault),
        }
    }

    async fn install(&self, application_role: Option<&str>) -> Result<Vec<String>, Fault> {
        self.within(async {
            let mut lease = self.lease().await?;
            let done = install::install(&mut lease, application_role).await?;
            lease.give_back();
            Ok(done)
        })
        .await
    }

    async fn identity(&self) -> Result<Identity, Fault> {
        self.within(async {
            let mut lease = self.lease().await?;
            let identity = identity(&mut lease).await.map_err(|error| fault(&error))?;
            lease.give_back();
            Ok(identity)
        })
        .await
    }
}

fn listed(row: &sqlx::postgres::PgRow) -> Result<Prepared, sqlx::Error> {
    let gid: String = row.try_get(0)?;
    let branch = BranchId::from_gid(&gid);
    let age: f64 = row.try_get(2)?;
    let waiting: i64 = row.try_get(3)?;
    Ok(Prepared {
        branch,
        foreign: branch.is_none().then_some(gid),
        age: Duration::try_from_secs_f64(age).ok(),
        user: Some(row.try_get(1)?),
        waiting: u64::try_from(waiting).ok(),
        belongs_to: None,
    })
}

/// The timeline of the control file is behind until the first checkpoint after a promotion, so it
/// is taken from the name of the file that is written now.
async fn identity(connection: &mut PgConnection) -> Result<Identity, sqlx::Error> {
    let home = application::home(&mut *connection).await?;
    let row = sqlx::query(
        "SELECT (SELECT system_identifier FROM pg_control_system())::text, \
           CASE WHEN pg_is_in_recovery() \
             THEN (SELECT timeline_id FROM pg_control_checkpoint())::bigint \
             ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint \
           END, \
           (SELECT system_identifier FROM pg_control_system()) || ' since ' \
             || pg_postmaster_start_time()::timestamptz(6) AT TIME ZONE 'UTC' || ', database ' \
             || (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    .fetch_one(connection)
    .await?;
    let timeline: i64 = row.try_get(1)?;
    Ok(Identity {
        server: row.try_get(0)?,
        incarnation: u64::try_from(timeline).unwrap_or(0),
        database: row.try_get(2)?,
        home,
    })
}
