//! A private MariaDB server.

use std::io::Read;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use super::server::Server;
use super::{PrivateError, binaries};

/// How a private MariaDB server is set up.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct MariaDbOptions {
    /// Write the binary log, synced at every commit.
    pub binlog: bool,
    /// Further settings, `name=value` each.
    pub settings: Vec<String>,
    /// Remove the directory, with everything in it, when the server ends for good.
    pub remove_directory: bool,
    /// Where its programs are: a directory with `bin`, `scripts` and `share`. None: the system's.
    pub home: Option<PathBuf>,
}

impl MariaDbOptions {
    /// With the binary log.
    #[must_use]
    pub fn with_binlog(mut self) -> Self {
        self.binlog = true;
        self
    }

    /// With one more setting, `name=value`.
    #[must_use]
    pub fn with_setting(mut self, setting: &str) -> Self {
        self.settings.push(setting.to_owned());
        self
    }

    /// With the programs in this directory (`bin`, `scripts`, `share`) and not the system's.
    #[must_use]
    pub fn with_home(mut self, home: &Path) -> Self {
        self.home = Some(home.to_owned());
        self
    }

    /// Removes the directory when the server ends for good.
    #[must_use]
    pub fn with_directory_removed(mut self) -> Self {
        self.remove_directory = true;
        self
    }
}

/// A MariaDB server of one's own, with a user `root` that needs no password and a database
/// `handfast`.
#[derive(Debug)]
pub struct MariaDb {
    server: Server,
    program: PathBuf,
    arguments: Vec<String>,
}

impl MariaDb {
    /// Initialises a server in an empty or missing directory, starts it and waits until it
    /// answers. Blocks.
    ///
    /// # Errors
    /// [`PrivateError`], which names the Debian package if MariaDB is not installed, or the
    /// directory in which it is not.
    pub fn start(directory: &Path, options: &MariaDbOptions) -> Result<Self, PrivateError> {
        let home = options.home.as_deref();
        let init = binaries::mariadb(home, "mariadb-install-db")?;
        let program = binaries::mariadb(home, "mariadbd")?;
        let base = home.map(|home| format!("--basedir={}", home.to_string_lossy()));
        let user = binaries::user("mysql", "mariadb-server")?;
        let server = Server::new(directory, user, options.remove_directory)?;
        let data = server.directory.join("data").to_string_lossy().into_owned();
        // A server that starts removes every temporary table of the directory that it is given,
        // those of others that run included.
        let temporary = server.directory.join("tmp").to_string_lossy().into_owned();
        server.run("making a directory", {
            let mut command = server.command(Path::new("/bin/mkdir"));
            command.arg(&temporary);
            command
        })?;
        let temporary = format!("--tmpdir={temporary}");
        let mut command = server.command(&init);
        command.arg("--no-defaults").args(&base).args(["--skip-test-db", "--skip-name-resolve"]);
        command.arg("--auth-root-authentication-method=normal").arg(format!("--datadir={data}"));
        command.arg(&temporary);
        server.run("mariadb-install-db", command)?;
        // The server makes a database of each directory that it finds.
        server.run("making a database", {
            let mut command = server.command(Path::new("/bin/mkdir"));
            command.arg("data/handfast");
            command
        })?;
        let mut arguments = vec![
            "--no-defaults".to_owned(),
            format!("--datadir={data}"),
            temporary,
            format!("--port={}", server.port),
            format!("--socket={}", server.directory.join("socket").to_string_lossy()),
            format!("--pid-file={}", server.directory.join("pid").to_string_lossy()),
            "--bind-address=127.0.0.1".to_owned(),
            "--skip-name-resolve".to_owned(),
            "--innodb-buffer-pool-size=64M".to_owned(),
            "--innodb-flush-log-at-trx-commit=1".to_owned(),
            // What it waits for at most when it is asked to end with prepared branches.
            "--innodb-fast-shutdown=1".to_owned(),
        ];
        arguments.extend(base);
        if options.binlog {
            arguments.extend(
                ["--log-bin=binlog", "--sync-binlog=1", "--server-id=1"].map(str::to_owned),
            );
        }
        arguments.extend(options.settings.iter().map(|setting| format!("--{setting}")));
        let mut mariadb = Self { server, program, arguments };
        mariadb.run()?;
        Ok(mariadb)
    }

    /// The URL of `root` and the database `handfast`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("root", "handfast")
    }

    /// The URL of a user and a database, without a password.
    #[must_use]
    pub fn url_of(&self, user: &str, database: &str) -> String {
        format!("mysql://{user}@127.0.0.1:{}/{database}", self.server.port)
    }

    /// The process id of the server, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.server.id()
    }

    /// Kills it with SIGKILL: a crash of the server, though not of the machine.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Asks it to end, and waits.
    pub fn stop(&mut self) {
        self.server.stop(Signal::TERM);
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
        let server = self.server.copy(directory, &["data", "tmp"])?;
        let (from, to) =
            (self.server.directory.to_string_lossy(), server.directory.to_string_lossy());
        let (from_port, to_port) = (self.server.port.to_string(), server.port.to_string());
        let moved = |argument: &String| match argument.strip_prefix("--port=") {
            Some(port) => format!("--port={}", port.replace(&from_port, &to_port)),
            None => argument.replace(&*from, &to),
        };
        let arguments = self.arguments.iter().map(moved).collect();
        let mut copy = Self { server, program: self.program.clone(), arguments };
        copy.run()?;
        self.run()?;
        Ok(copy)
    }

    fn run(&mut self) -> Result<(), PrivateError> {
        self.server.start(&self.program, &self.arguments, |server| greets(server.port))
    }
}

/// MariaDB speaks first, as soon as it is ready.
fn greets(port: u16) -> bool {
    let Ok(mut socket) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
        return false;
    };
    let bounded = socket.set_read_timeout(Some(Duration::from_secs(5)));
    bounded.is_ok() && socket.read_exact(&mut [0; 5]).is_ok()
}
