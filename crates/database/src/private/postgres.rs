//! A private PostgreSQL server.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::server::Server;
use super::{PrivateError, binaries, io_error};

/// How a private PostgreSQL server is set up.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PostgresOptions {
    /// 0 refuses every prepare, as PostgreSQL does by default (PG1).
    pub max_prepared_transactions: u32,
    /// Further settings, `name=value` each.
    pub settings: Vec<String>,
    /// Remove the directory, with everything in it, when the server ends for good.
    pub remove_directory: bool,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self { max_prepared_transactions: 100, settings: Vec::new(), remove_directory: false }
    }
}

impl PostgresOptions {
    /// With so many prepared transactions at once.
    #[must_use]
    pub fn with_max_prepared_transactions(mut self, most: u32) -> Self {
        self.max_prepared_transactions = most;
        self
    }

    /// With one more setting, `name=value`.
    #[must_use]
    pub fn with_setting(mut self, setting: &str) -> Self {
        self.settings.push(setting.to_owned());
        self
    }

    /// Removes the directory when the server ends for good.
    #[must_use]
    pub fn with_directory_removed(mut self) -> Self {
        self.remove_directory = true;
        self
    }
}

/// A PostgreSQL server of one's own, with a superuser `postgres` that needs no password.
#[derive(Debug)]
pub struct Postgres {
    server: Server,
    program: PathBuf,
    arguments: Vec<String>,
    ready: PathBuf,
}

impl Postgres {
    /// Initialises a server in an empty or missing directory, starts it and waits until it
    /// answers. Blocks.
    ///
    /// # Errors
    /// [`PrivateError`], which names the Debian package if PostgreSQL is not installed.
    pub fn start(directory: &Path, options: &PostgresOptions) -> Result<Self, PrivateError> {
        let (init, program) = (binaries::postgres("initdb")?, binaries::postgres("postgres")?);
        let ready = binaries::postgres("pg_isready")?;
        let user = binaries::user("postgres", "postgresql")?;
        let server = Server::new(directory, user, options.remove_directory)?;
        let mut command = server.command(&init);
        command.args(["-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]);
        server.run("initdb", command)?;
        let mut arguments = vec![
            "-D".to_owned(),
            server.directory.join("data").to_string_lossy().into_owned(),
            "-p".to_owned(),
            server.port.to_string(),
        ];
        let settings = [
            "listen_addresses=127.0.0.1".to_owned(),
            "unix_socket_directories=".to_owned(),
            format!("max_prepared_transactions={}", options.max_prepared_transactions),
        ];
        for setting in settings.iter().chain(&options.settings) {
            arguments.extend(["-c".to_owned(), setting.clone()]);
        }
        let mut postgres = Self { server, program, arguments, ready };
        postgres.run()?;
        Ok(postgres)
    }

    /// The superuser's URL of the database `postgres`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("postgres", "postgres")
    }

    /// The URL of a user and a database; nobody needs a password.
    #[must_use]
    pub fn url_of(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.server.port)
    }

    /// Makes a standby of it, without a primary, from its next start on: in recovery and read-only
    /// until it is promoted. To be called while it does not run.
    ///
    /// # Errors
    /// [`PrivateError`] if the file that says so cannot be written.
    pub fn make_standby(&self) -> Result<(), PrivateError> {
        let signal = self.server.directory.join("data").join("standby.signal");
        std::fs::write(signal, "").map_err(io_error("making a standby"))
    }

    /// The process id of the server, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.server.id()
    }

    /// Kills it and everything that it started with SIGKILL: a crash of the server, though not of
    /// the machine.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Asks it to end, and waits.
    pub fn stop(&mut self) {
        self.server.stop(Signal::INT);
    }

    /// Starts it again, on the same port and directory, killing it first if it runs.
    ///
    /// # Errors
    /// [`PrivateError`].
    pub fn restart(&mut self) -> Result<(), PrivateError> {
        self.kill();
        self.run()
    }

    /// A copy of it, as a restored clone is one: the same databases, on another port, from an empty
    /// or missing directory. This one is stopped for it and started again; then both run.
    ///
    /// # Errors
    /// [`PrivateError`].
    pub fn copy(&mut self, directory: &Path) -> Result<Self, PrivateError> {
        self.stop();
        let server = self.server.copy(directory, &["data"])?;
        let data = server.directory.join("data").to_string_lossy().into_owned();
        let mut arguments = self.arguments.clone();
        arguments.splice(1..4, [data, "-p".to_owned(), server.port.to_string()]);
        let (program, ready) = (self.program.clone(), self.ready.clone());
        let mut copy = Self { server, program, arguments, ready };
        copy.run()?;
        self.run()?;
        Ok(copy)
    }

    /// After a kill the memory that the processes shared can be in use for a moment after the last
    /// of them is gone from the list; only PostgreSQL itself knows when it is free.
    fn run(&mut self) -> Result<(), PrivateError> {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            match self.run_once() {
                Err(PrivateError::Failed { tail, .. })
                    if tail.contains("is still in use") && Instant::now() < until =>
                {
                    thread::sleep(Duration::from_millis(50));
                }
                started => return started,
            }
        }
    }

    fn run_once(&mut self) -> Result<(), PrivateError> {
        let ready = self.ready.clone();
        self.server.start(&self.program, &self.arguments, |server| {
            let mut command = server.command(&ready);
            command.args(["-q", "-h", "127.0.0.1", "-p"]).arg(server.port.to_string());
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        })
    }
}
