//! MariaDB, from the server's side: one implementation of [`Database`].
//!
//! Rows MY1 to MY20 of `docs/databases.md`. It never takes an OK to `XA COMMIT` for a commit: only
//! the marker says that (MY4).

pub mod application;
mod doctor;
mod engines;
mod finish;
mod install;
mod marker;
mod owner;
mod session;

use std::collections::HashSet;
use std::str::FromStr;
use std::sync::Mutex;

use async_trait::async_trait;
use handfast_core::ids::StoreId;
use handfast_core::input::Resolution;
use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};
use sqlx::{AssertSqlSafe, Executor, MySqlConnection, Row};

use crate::doctor::Report;
use crate::errors::mariadb::fault;
use crate::pool::{self, within};
use crate::{
    BranchId, ConnectError, Database, End, Fault, Finished, Holder, Identity, Kind, Options,
    Outcome, Owner, OwnerRow, Prepared,
};

type Lease = pool::Lease<sqlx::MySql>;
type Pool = pool::Pool<sqlx::MySql>;

/// A MariaDB database.
pub struct MariaDb {
    work: Pool,
    resolutions: Pool,
    options: Options,
    /// The server that the last [`Database::identity`] saw. Branches are finished on no other
    /// (MY8), until the caller has looked again.
    server: Mutex<Option<u64>>,
}

impl MariaDb {
    pub(crate) fn new(url: &str, options: Options) -> Result<Self, ConnectError> {
        let connect = MySqlConnectOptions::from_str(url)
            .map_err(|error| ConnectError::Url(error.to_string()))?;
        if connect.get_database().is_none() {
            return Err(ConnectError::NoDatabase);
        }
        let pool = |size| Pool::new(pool(size, &options), connect.clone(), fault);
        let (work, resolutions) = (pool(options.pool), pool(options.resolve_pool));
        Ok(Self { work, resolutions, options, server: Mutex::new(None) })
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        within(self.options.call_timeout, work).await
    }

    async fn lease(&self) -> Result<Lease, Fault> {
        self.work.lease().await
    }

    fn expected_server(&self) -> Option<u64> {
        *self.server.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn expect_server(&self, server: u64) {
        *self.server.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(server);
    }
}

/// `lock_wait_timeout` is for metadata locks, and a day long by default.
fn pool(size: u32, options: &Options) -> MySqlPoolOptions {
    let row_lock_s = options.lock_timeout.as_secs().max(1);
    let table_lock_s = options.call_timeout.as_secs().max(1);
    MySqlPoolOptions::new()
        .max_connections(size.max(1))
        .acquire_timeout(options.call_timeout)
        .idle_timeout(options.idle_timeout)
        .after_connect(move |connection, _| {
            let set = format!(
                "SET SESSION autocommit = 1, innodb_lock_wait_timeout = {row_lock_s}, \
                 lock_wait_timeout = {table_lock_s}"
            );
            Box::pin(async move {
                connection.execute(sqlx::raw_sql(AssertSqlSafe(set))).await?;
                Ok(())
            })
        })
}

/// Refuses a server that is read-only, or another one than before (MY8).
async fn on_primary(connection: &mut MySqlConnection, expected: Option<u64>) -> Result<(), Fault> {
    let row = sqlx::raw_sql("SELECT CAST(@@global.read_only AS CHAR), @@global.server_id")
        .fetch_one(connection)
        .await
        .map_err(|error| fault(&error))?;
    let read_only: String = row.try_get(0).map_err(|error| fault(&error))?;
    let server: u64 = row.try_get(1).map_err(|error| fault(&error))?;
    if !matches!(read_only.as_str(), "0" | "OFF") {
        return Err(Fault::NotPrimary("it is read-only".to_owned()));
    }
    match expected {
        Some(expected) if expected != server => {
            Err(Fault::NotPrimary(format!("server_id is {server} and was {expected}")))
        }
        _ => Ok(()),
    }
}

#[async_trait]
impl Database for MariaDb {
    fn kind(&self) -> Kind {
        Kind::MariaDb
    }

    async fn list(&self) -> Result<Vec<Prepared>, Fault> {
        self.within(async {
            let mut lease = self.lease().await?;
            on_primary(&mut lease, self.expected_server()).await?;
            let xids = finish::listed(&mut lease).await?;
            lease.give_back();
            Ok(xids.into_iter().map(listed).collect())
        })
        .await
    }

    async fn finish(&self, branch: &BranchId, end: End, holder: Option<Holder>) -> Finished {
        let finished = self.within(async {
            let mut lease = self.lease().await?;
            on_primary(&mut lease, self.expected_server()).await?;
            if let Some(holder) = holder {
                if finish::has_ended(&mut lease, branch, end).await? {
                    // Its session may serve another transaction by now: it is left alone.
                    return finish::after_nota(lease, branch, end).await;
                }
                session::end(&mut lease, holder, self.options.session_gone_timeout).await?;
            }
            finish::finish(lease, branch, end).await
        });
        finished.await.unwrap_or_else(|fault| Finished::Unknown(fault.to_string()))
    }

    async fn outcomes(&self, branches: &[BranchId]) -> Result<Vec<Option<Outcome>>, Fault> {
        self.within(async {
            let mut lease = self.lease().await?;
            on_primary(&mut lease, self.expected_server()).await?;
            let outcomes = marker::read(&mut lease, branches).await?;
            lease.give_back();
            Ok(outcomes)
        })
        .await
    }

    async fn prepared(&self, branches: &[BranchId]) -> Result<Vec<bool>, Fault> {
        self.within(async {
            let mut lease = self.lease().await?;
            on_primary(&mut lease, self.expected_server()).await?;
            let xids = finish::listed(&mut lease).await?;
            let listed: HashSet<BranchId> =
                xids.iter().filter_map(|xid| BranchId::from_xid(xid)).collect();
            let asked = branches.iter().filter(|branch| listed.contains(branch));
            let asked: Vec<BranchId> = asked.copied().collect();
            let marked = marker::written(&mut lease, &asked).await?;
            lease.give_back();
            Ok(branches.iter().map(|branch| marked.contains(branch)).collect())
        })
        .await
    }

    async fn resolve(&self, branch: &BranchId) -> Resolution {
        let resolution = self.within(async {
            let mut lease = self.resolutions.lease().await?;
            on_primary(&mut lease, self.expected_server()).await?;
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
            on_primary(&mut lease, self.expected_server()).await?;
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
            on_primary(&mut lease, self.expected_server()).await?;
            let row = owner::read(&mut lease, store, shard).await?;
            lease.give_back();
            Ok(row)
        })
        .await
    }

    async fn stands(&self) -> Result<bool, Fault> {
        self.within(async {
            let mut lease = self.lease().await?;
            let sql = "SELECT EXISTS (SELECT 1 FROM handfast_owner), \
                       EXISTS (SELECT 1 FROM handfast_branch WHERE id = '')";
            let row = sqlx::raw_sql(sql).fetch_one(&mut *lease).await;
            let row = row.map_err(|error| fault(&error))?;
            let rows: i64 = row.try_get(0).map_err(|error| fault(&error))?;
            lease.give_back();
            Ok(rows > 0)
        })
        .await
    }

    async fn claim(&self, ours: &Owner, before: Option<&Owner>) -> Result<bool, Fault> {
        self.within(async {
            let mut lease = self.lease().await?;
            on_primary(&mut lease, self.expected_server()).await?;
            let claimed = owner::claim(&mut lease, ours, before).await?;
            lease.give_back();
            Ok(claimed)
        })
        .await
    }

    async fn adopt(&self, ours: &Owner) -> Result<(), Fault> {
        self.within(async {
            let mut lease = self.lease().await?;
            on_primary(&mut lease, self.expected_server()).await?;
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
            Ok(version) => Report::new(Kind::MariaDb, version, findings),
            Err(fault) => Report::failed(Kind::MariaDb, findings, &fault),
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
            let started = session::server_start(&mut lease).await.map_err(|error| fault(&error))?;
            let home = application::home(&mut lease).await.map_err(|error| fault(&error))?;
            let named = named(&mut lease).await.map_err(|error| fault(&error))?;
            let Named { id, host, port, files, schema } = named;
            lease.give_back();
            self.expect_server(id);
            Ok(Identity {
                server: format!("{id} at {host}:{port}"),
                incarnation: started,
                database: format!("{host}:{port} {files} since {started}, database {schema}"),
                home,
            })
        })
        .await
    }
}

/// What tells a server, and one of its databases, from others.
struct Named {
    id: u64,
    host: String,
    port: u64,
    files: String,
    schema: String,
}

async fn named(connection: &mut MySqlConnection) -> Result<Named, sqlx::Error> {
    let sql = "SELECT @@global.server_id, @@hostname, @@port, @@datadir, DATABASE()";
    let row = sqlx::raw_sql(sql).fetch_one(connection).await?;
    Ok(Named {
        id: row.try_get(0)?,
        host: row.try_get(1)?,
        port: row.try_get(2)?,
        files: row.try_get(3)?,
        schema: row.try_get(4)?,
    })
}

fn listed(xid: String) -> Prepared {
    let branch = BranchId::from_xid(&xid);
    let foreign = branch.is_none().then_some(xid);
    Prepared { branch, foreign, age: None, user: None, waiting: None, belongs_to: None }
}
