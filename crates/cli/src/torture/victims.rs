//! Everything that is killed: the server, the databases if they are private, the application.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use handfast_database::private::{MariaDb, MariaDbOptions, Postgres, PostgresOptions};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::bank::{LEDGER, ORDERS};
use super::{Problem, Urls};

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
    process: Child,
}

impl Server {
    pub(super) async fn start(dir: &Path, urls: &Urls) -> Result<Self, Problem> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        drop(listener);
        let config = format!(
            "[databases.{ORDERS}]\nurl = {:?}\n[databases.{LEDGER}]\nurl = {:?}\n",
            urls.postgres, urls.mariadb
        );
        std::fs::write(dir.join("handfast.toml"), config)?;
        let process = serve(dir, &address).await?;
        Ok(Self { dir: dir.to_path_buf(), address, process })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// SIGKILL, and another start. Returns when it is ready again.
    pub(super) async fn kill(&mut self) -> Result<(), Problem> {
        self.process.kill().await?;
        self.process = serve(&self.dir, &self.address).await?;
        Ok(())
    }
}

async fn serve(dir: &Path, address: &str) -> Result<Child, Problem> {
    let log = File::options().create(true).append(true).open(dir.join("server.log"))?;
    let mut process = ours(&["serve", "--listen", address, "--data-dir"])?
        .arg(dir.join("store"))
        .arg("--config")
        .arg(dir.join("handfast.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()?;
    let stdout = process.stdout.take().ok_or_else(|| io::Error::other("it has no output"))?;
    let mut lines = BufReader::new(stdout).lines();
    // Its last line of the banner says what to try next.
    while let Some(line) = lines.next_line().await? {
        if line.contains("try next") {
            return Ok(process);
        }
    }
    let log = dir.join("server.log");
    Err(Problem::Part(format!("the server has ended; its log is {}", log.display())))
}

/// This very program with other arguments, without the person's own settings.
fn ours(arguments: &[&str]) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    for (variable, _) in std::env::vars_os() {
        if variable.to_str().is_some_and(|variable| variable.starts_with("HANDFAST_")) {
            command.env_remove(variable);
        }
    }
    command.args(arguments).kill_on_drop(true).process_group(0);
    Ok(command)
}

/// The application: see `part`.
pub(super) struct Application {
    process: Child,
    stdin: Option<ChildStdin>,
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
    ) -> Result<Self, Problem> {
        let log = File::options().create(true).append(true).open(dir.join("application.log"))?;
        let (clients, seed, after) = (clients.to_string(), seed.to_string(), after.to_string());
        let mut process = ours(&["torture-part", "--server", server])?
            .args(["--postgres", &urls.postgres, "--mariadb", &urls.mariadb])
            .args(["--clients", &clients, "--seed", &seed, "--after", &after])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let stdin = process.stdin.take();
        let stdout = process.stdout.take().ok_or_else(|| io::Error::other("it has no output"))?;
        Ok(Self { process, stdin, lines: BufReader::new(stdout).lines() })
    }

    /// SIGKILL.
    pub(super) async fn kill(&mut self) -> io::Result<()> {
        self.process.kill().await
    }

    /// It ends when what is under way has.
    pub(super) fn leave(&mut self) {
        self.stdin = None;
    }
}
