//! The two databases: private ones, or those that were given.

use std::path::Path;
use std::time::Duration;

use handfast::Handfast;
use handfast_database::private::{MariaDb, MariaDbOptions, Postgres, PostgresOptions};
use handfast_database::{Options, connect};
use tokio::time::{Instant, sleep};

use super::args::Args;
use super::bank::{self, LEDGER, ORDERS};
use crate::harness::Problem;

/// Databases may take this long to be up for the server.
const COMING_UP: Duration = Duration::from_secs(60);

/// Two databases with the tables of handfast and of the benchmark.
#[derive(Debug)]
pub(super) struct Databases {
    pub(super) postgres: String,
    pub(super) mariadb: String,
    /// They end with this value.
    _private: Option<(Postgres, MariaDb)>,
}

impl Databases {
    pub(super) async fn start(args: &Args, dir: &Path) -> Result<Self, Problem> {
        let databases = match (&args.postgres, &args.mariadb) {
            (Some(postgres), Some(mariadb)) => {
                let (postgres, mariadb) = (postgres.clone(), mariadb.clone());
                Self { postgres, mariadb, _private: None }
            }
            _ => Self::private(dir, args.binlog).await?,
        };
        for url in [&databases.postgres, &databases.mariadb] {
            let database = connect(url, Options::default());
            let database = database.map_err(|error| Problem::Part(error.to_string()))?;
            let installed = database.install(None).await;
            installed.map_err(|fault| Problem::Part(fault.to_string()))?;
        }
        bank::create(&databases.postgres, &databases.mariadb).await?;
        Ok(databases)
    }

    async fn private(dir: &Path, binlog: bool) -> Result<Self, Problem> {
        let (orders, ledger) = (dir.join("postgres"), dir.join("mariadb"));
        let starting = tokio::task::spawn_blocking(move || {
            let options = PostgresOptions::default()
                .with_max_prepared_transactions(1_000)
                .with_setting("max_connections=1000");
            let postgres = Postgres::start(&orders, &options)?;
            let options = MariaDbOptions::default().with_setting("max-connections=1000");
            let options = if binlog { options.with_binlog() } else { options };
            Ok::<_, Problem>((postgres, MariaDb::start(&ledger, &options)?))
        });
        let private = starting.await.map_err(|error| Problem::Part(error.to_string()))??;
        let (postgres, mariadb) = (private.0.url(), private.1.url());
        Ok(Self { postgres, mariadb, _private: Some(private) })
    }

    /// The server's configuration.
    pub(super) fn config(&self, pool: Option<u32>) -> String {
        let pool = pool.map(|pool| format!("pool = {pool}\n")).unwrap_or_default();
        let table = |name: &str, url: &str| format!("[databases.{name}]\nurl = {url:?}\n{pool}");
        table(ORDERS, &self.postgres) + &table(LEDGER, &self.mariadb)
    }
}

/// Waits until the server trusts both.
pub(super) async fn until_up(hf: &Handfast) -> Result<(), Problem> {
    let give_up = Instant::now() + COMING_UP;
    loop {
        let all = hf.databases().await?;
        if all.iter().all(|database| database.condition == "up") {
            return Ok(());
        }
        let refused = all.iter().find(|database| database.condition == "refused");
        if refused.is_some() || Instant::now() > give_up {
            let told = all.iter().map(|database| {
                format!(
                    "{} is {} {}",
                    database.name,
                    database.condition,
                    database.why.as_deref().unwrap_or_default()
                )
            });
            return Err(Problem::Part(told.collect::<Vec<_>>().join("; ")));
        }
        sleep(Duration::from_millis(50)).await;
    }
}
