//! PostgreSQL, from the server's side: one implementation of [`Database`].
//!
//! Rows PG1 to PG12 of the specification. It never commits on its own, and takes only SQLSTATE
//! 42704 for "not there".

pub mod application;
mod doctor;
mod finish;
mod install;
mod marker;
mod owner;

use std::str::FromStr;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use handfast_core::ids::StoreId;
use handfast_core::input::Resolution;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};

use crate::doctor::Report;
use crate::errors::postgres::fault;
use crate::pool::{self, within};
use crate::{
    BranchId, ConnectError, Database, End, Fault, Finished, Holder, Identity, Kind, Options,
    Outcome, Owner, OwnerRow, Prepared,
};

type Lease = pool::Lease<sqlx::Postgres>;

/// A PostgreSQL database.
pub struct Postgres {
    work: PgPool,
    resolutions: PgPool,
    options: Options,
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
        let pool = |size| pool(size, &options).connect_lazy_with(connect.clone());
        let (work, resolutions) = (pool(options.pool), pool(options.resolve_pool));
        Ok(Self { work, resolutions, options, by_role: AtomicBool::new(false) })
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        within(self.options.call_timeout, work).await
    }

    async fn lease(&self) -> Result<Lease, Fault> {
        Lease::new(&self.work).await.map_err(|error| fault(&error))
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
            let list = rows.iter().map(listed).collect::<Result<_, _>>();
            lease.give_back();
            list.map_err(|error| fault(&error))
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
            let lease = Lease::new(&self.resolutions).await.map_err(|error| fault(&error))?;
            marker::resolve(lease, branch).await
        });
        resolution.await.unwrap_or_else(|fault| {
            tracing::debug!(%branch, %fault, "a local transaction is not resolved yet");
            Resolution::Unknown
        })
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
            let mut lease = self.lease().await?;
            let version = doctor::check(&mut lease, &mut findings).await?;
            lease.give_back();
            Ok(version)
        });
        match checked.await {
            Ok(version) => Report::new(Kind::Postgres, version, findings),
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
