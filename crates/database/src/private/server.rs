//! One server process, whichever database it is.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::binaries::User;
use super::{PrivateError, io_error};

/// How long a server may take to answer, or to end when asked.
const PATIENCE: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(20);

/// Runs a server and ends it when its standard input ends: when whoever holds the other end closes
/// it or dies. Then it also removes the directory if `$2` says so, unless it was told to keep it.
/// Being the server's parent, it alone can reap it, so the id it signals cannot have become
/// somebody else's.
const GUARD: &str = r#"
directory=$1; remove=$2; shift 2
"$@" >>"$directory/log" 2>&1 </dev/null &
server=$!
echo "$server"
read -r word
kill -s KILL "$server" 2>/dev/null
wait "$server"
if [ "$remove" = yes ] && [ "$word" != keep ]; then cd / && rm -rf "$directory"; fi
"#;

/// What is the same for both databases.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) directory: PathBuf,
    pub(super) port: u16,
    pub(super) user: Option<User>,
    pub(super) remove: bool,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    guard: Child,
    server: Pid,
}

impl Server {
    /// Takes an empty or missing directory.
    pub(super) fn new(
        directory: &Path,
        user: Option<User>,
        remove: bool,
    ) -> Result<Self, PrivateError> {
        fs::create_dir_all(directory).map_err(io_error("making the server's directory"))?;
        let directory = fs::canonicalize(directory).map_err(io_error("the server's directory"))?;
        if let Some(user) = user {
            chown(&directory, Some(user.uid), Some(user.gid))
                .map_err(io_error("giving the directory to the server's user"))?;
        }
        Ok(Self { directory, port: free_port()?, user, remove, running: None })
    }

    /// One with the same files, which is to be run while this one does not.
    pub(super) fn copy(&self, directory: &Path, parts: &[&str]) -> Result<Self, PrivateError> {
        let copy = Self::new(directory, self.user, self.remove)?;
        let mut command = copy.command(Path::new("/bin/cp"));
        command.arg("-a").args(parts.iter().map(|part| self.directory.join(part))).arg(".");
        copy.run("copying a server's files", command)?;
        Ok(copy)
    }

    /// A program that runs as the server's user, in its directory.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.directory).env("HOME", &self.directory).env("LC_ALL", "C");
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }

    /// Runs a program to its end.
    pub(super) fn run(&self, what: &str, mut command: Command) -> Result<(), PrivateError> {
        let log = || {
            let log = self.directory.join("log");
            File::options().create(true).append(true).open(log).map_err(io_error("the log"))
        };
        command.stdin(Stdio::null()).stdout(log()?).stderr(log()?);
        let status = command.status().map_err(io_error("starting a program"))?;
        if let Some(user) = self.user {
            chown(self.directory.join("log"), Some(user.uid), Some(user.gid))
                .map_err(io_error("giving the log to the server's user"))?;
        }
        if status.success() { Ok(()) } else { Err(self.failed(what)) }
    }

    /// Starts the server and waits until `answers`.
    pub(super) fn start(
        &mut self,
        program: &Path,
        arguments: &[String],
        answers: impl Fn(&Self) -> bool,
    ) -> Result<(), PrivateError> {
        let mut command = self.command(Path::new("/bin/sh"));
        command.arg("-c").arg(GUARD).arg("guard").arg(&self.directory);
        command.arg(if self.remove { "yes" } else { "no" }).arg(program).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        // A group of its own, so that Ctrl-C in a terminal ends the test and not the server.
        let mut guard = command.process_group(0).spawn().map_err(io_error("starting a server"))?;
        let mut line = String::new();
        if let Some(stdout) = guard.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(io_error("the server's id"))?;
        }
        let server = line.trim().parse().ok().and_then(Pid::from_raw);
        let Some(server) = server else {
            return Err(self.failed("starting the server"));
        };
        self.running = Some(Running { guard, server });
        let until = Instant::now() + PATIENCE;
        while !answers(self) {
            if Instant::now() > until || !self.is_running() {
                let failed = self.failed("starting the server");
                self.kill();
                return Err(failed);
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// The process id, while it runs.
    pub(super) fn id(&self) -> Option<u32> {
        self.running.as_ref().and_then(|r| u32::try_from(r.server.as_raw_nonzero().get()).ok())
    }

    fn is_running(&self) -> bool {
        self.running.as_ref().is_some_and(|running| is_alive(running.server))
    }

    /// SIGKILL, to the server and the processes that it started, and waits until they are gone.
    /// The directory stays.
    pub(super) fn kill(&mut self) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        if let Some(stdin) = &mut running.guard.stdin {
            // If the guard is gone, nobody removes the directory either.
            let _ = stdin.write_all(b"keep\n");
        }
        // Stopped first: one that it started between the look and the kill would live on for a
        // moment and keep the next server from starting.
        let _ = kill_process(running.server, Signal::STOP);
        wait_until(|| !matches!(state(running.server), Some('R' | 'S' | 'D')));
        let children = children(running.server);
        for process in [running.server].into_iter().chain(children.iter().copied()) {
            // One that has ended already is as it should be.
            let _ = kill_process(process, Signal::KILL);
        }
        drop(running.guard.stdin.take());
        let _ = running.guard.wait();
        wait_until(|| !children.iter().any(|child| is_alive(*child)));
    }

    /// Asks the server to end, waits, and kills it if it does not.
    pub(super) fn stop(&mut self, signal: Signal) {
        if let Some(running) = &self.running {
            let server = running.server;
            let _ = kill_process(server, signal);
            wait_until(|| !is_alive(server));
        }
        self.kill();
    }

    fn failed(&self, what: &str) -> PrivateError {
        let log = self.directory.join("log");
        let text = fs::read_to_string(&log).unwrap_or_default();
        // What is wrong often stands before pages of advice.
        let wrong = |line: &&str| ["ERROR", "FATAL", "PANIC"].iter().any(|w| line.contains(w));
        let mut lines: Vec<&str> = text.lines().filter(wrong).take(5).collect();
        if lines.is_empty() {
            lines = text.lines().rev().take(5).collect();
            lines.reverse();
        }
        let tail = lines.join(" | ");
        PrivateError::Failed { what: what.to_owned(), log, tail }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if self.remove {
            // What cannot be removed is under the system's directory for such files.
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

fn free_port() -> Result<u16, PrivateError> {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(io_error("a free port"))?;
    Ok(socket.local_addr().map_err(io_error("a free port"))?.port())
}

fn wait_until(holds: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() && Instant::now() < until {
        thread::sleep(POLL);
    }
}

/// State and parent of a process, as Linux tells them.
fn stat(process: &str) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may contain anything; what follows the last one does not.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn state(process: Pid) -> Option<char> {
    stat(&process.as_raw_nonzero().to_string()).map(|(state, _)| state)
}

fn is_alive(process: Pid) -> bool {
    state(process).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// PostgreSQL's own processes are in sessions of their own, which no signal to a group reaches.
fn children(parent: Pid) -> Vec<Pid> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            let id: i32 = name.parse().ok()?;
            (stat(&name)?.1 == parent.as_raw_nonzero().get()).then(|| Pid::from_raw(id))?
        })
        .collect()
}
