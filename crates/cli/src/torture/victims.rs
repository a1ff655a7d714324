//! Everything that is killed: the server, the databases if they are private, the application.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use handfast_database::private::{MariaDb, MariaDbOptions, Postgres, PostgresOptions};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::ChildStdout;

use super::bank::{LEDGER, ORDERS};
use crate::harness::{self, Child, Problem, Urls};

/// The server may take this long until it listens.
const LISTENING: Duration = Duration::from_secs(60);

/// Two database servers of our own.
#[derive(Clone)]
pub(super) struct Private {
    postgres: Arc<Mutex<Postgres>>,
    mariadb: Arc<Mutex<MariaDb>>,
}

impl Private {
    pub(super) async fn start(dir: &Path) -> Result<(Self, Urls), Problem> {
        let (pg, maria) = (dir.join("postgres"), dir.join("mariadb"));
        let starting = tokio::task::spawn_blocking(move || {
            let options = PostgresOptions::default().with_max_prepared_transactions(256);
            let postgres = Postgres::start(&pg, &options)?;
            let options = MariaDbOptions::default().with_binlog();
            let mariadb = MariaDb::start(&maria, &options)?;
            Ok::<_, Problem>((postgres, mariadb))
        });
        let (postgres, mariadb) = starting.await.map_err(|e| Problem::Part(e.to_string()))??;
        let urls = Urls { postgres: postgres.url(), mariadb: mariadb.url() };
        let postgres = Arc::new(Mutex::new(postgres));
        Ok((Self { postgres, mariadb: Arc::new(Mutex::new(mariadb)) }, urls))
    }

    /// SIGKILL for one or both, and another start.
    pub(super) async fn kill(&self, postgres: bool, mariadb: bool) -> Result<(), Problem> {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let mut pg = this.postgres.lock().unwrap_or_else(PoisonError::into_inner);
            let mut maria = this.mariadb.lock().unwrap_or_else(PoisonError::into_inner);
            if postgres {
                pg.kill();
            }
            if mariadb {
                maria.kill();
            }
            if postgres {
                pg.restart()?;
            }
            if mariadb {
                maria.restart()?;
            }
            Ok::<_, Problem>(())
        });
        done.await.map_err(|error| Problem::Part(error.to_string()))?
    }
}

/// `handfast serve` over the two databases.
pub(super) struct Server {
    dir: PathBuf,
    address: String,
    child: Child,
}

impl Server {
    pub(super) async fn start(dir: &Path, urls: &Urls) -> Result<Self, Problem> {
        let config = format!(
            "[databases.{ORDERS}]\nurl = {:?}\n[databases.{LEDGER}]\nurl = {:?}\n",
            urls.postgres, urls.mariadb
        );
        std::fs::write(config_path(dir), config)?;
        let (child, address) = serve(dir, "127.0.0.1:0").await?;
        Ok(Self { dir: dir.to_path_buf(), address, child })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// SIGKILL, and another start at the same address. Returns when it is ready again.
    pub(super) async fn kill(&mut self) -> Result<(), Problem> {
        self.child.kill().await?;
        (self.child, self.address) = serve(&self.dir, &self.address).await?;
        Ok(())
    }
}

fn config_path(dir: &Path) -> PathBuf {
    dir.join("handfast.toml")
}

async fn serve(dir: &Path, address: &str) -> Result<(Child, String), Problem> {
    let arguments = [
        "serve".to_owned(),
        format!("--listen={address}"),
        format!("--data-dir={}", dir.join("store").display()),
        format!("--config={}", config_path(dir).display()),
    ];
    harness::Server::start(dir, &arguments, LISTENING).await?.listens()
}

/// The application: see `part`.
pub(super) struct Application {
    child: Child,
    pub(super) lines: Lines<BufReader<ChildStdout>>,
}

impl Application {
    pub(super) fn start(
        dir: &Path,
        server: &str,
        urls: &Urls,
        clients: usize,
        seed: u64,
        after: i64,
    ) -> io::Result<Self> {
        let arguments = [
            "torture-part".to_owned(),
            format!("--server={server}"),
            format!("--postgres={}", urls.postgres),
            format!("--mariadb={}", urls.mariadb),
            format!("--clients={clients}"),
            format!("--seed={seed}"),
            format!("--after={after}"),
        ];
        let (child, stdout) = Child::start(dir, "application", &arguments)?;
        Ok(Self { child, lines: BufReader::new(stdout).lines() })
    }

    /// SIGKILL.
    pub(super) async fn kill(&mut self) -> io::Result<()> {
        self.child.kill().await.map(drop)
    }

    /// It ends when what is under way has.
    pub(super) fn leave(&mut self) {
        self.child.tell_to_leave();
    }
}
