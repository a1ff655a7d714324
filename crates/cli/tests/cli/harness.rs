//! Runs the program: the server once for each test, the commands as processes that ask it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What a command did.
pub(crate) struct Done {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    /// Succeeded; what it said for people.
    #[track_caller]
    pub(crate) fn text(self) -> String {
        assert_eq!(self.status, 0, "{}", self.stderr);
        assert!(!self.stdout.contains('\x1b'), "colour without a terminal: {:?}", self.stdout);
        self.stdout
    }

    /// Succeeded; its one document.
    #[track_caller]
    pub(crate) fn json(self) -> Value {
        assert_eq!((self.status, self.stderr.as_str()), (0, ""));
        assert_eq!(self.stdout.lines().count(), 1, "{}", self.stdout);
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// Failed as a program sees it: status and error.
    #[track_caller]
    pub(crate) fn error(self) -> (i32, Value) {
        assert_eq!(self.stdout, "", "{}", self.stderr);
        let document: Value = serde_json::from_str(&self.stderr).unwrap();
        let error = document["error"].clone();
        for field in ["code", "message", "retryable", "hint", "exit_status"] {
            assert!(error.get(field).is_some(), "{field} is missing: {error}");
        }
        assert_eq!(error["exit_status"], self.status);
        (self.status, error)
    }

    /// Failed; what it said for people.
    #[track_caller]
    pub(crate) fn sentence(self) -> (i32, String) {
        assert_eq!(self.stdout, "");
        (self.status, self.stderr)
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_handfast"));
    command
        .args(arguments)
        .env_remove("HANDFAST_SERVER")
        .env_remove("HANDFAST_DATABASE")
        .stdin(Stdio::null());
    command
}

fn done(output: Output) -> Done {
    let Output { status, stdout, stderr } = output;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done { status: status.code().unwrap(), stdout: text(stdout), stderr: text(stderr) }
}

pub(crate) fn run(arguments: &[&str]) -> Done {
    done(command(arguments).output().unwrap())
}

/// A command line, split at spaces, that asks this server.
pub(crate) fn ask(server: &Server, line: &str) -> Done {
    let arguments: Vec<&str> = line.split(' ').collect();
    done(command(&arguments).env("HANDFAST_SERVER", server.url()).output().unwrap())
}

pub(crate) fn ask_with_input(server: &Server, line: &str, input: &[u8]) -> Done {
    let arguments: Vec<&str> = line.split(' ').collect();
    let mut command = command(&arguments);
    command.env("HANDFAST_SERVER", server.url()).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A command that fails early does not read it all.
    let writing = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    done(output)
}

pub(crate) fn start() -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("store"), "");
    (directory, server)
}

/// Asks until the answer fits, for what happens after a call has been answered.
#[track_caller]
pub(crate) fn until(mut ask: impl FnMut() -> Value, fits: impl Fn(&Value) -> bool) -> Value {
    let give_up = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = ask();
        if fits(&answer) {
            return answer;
        }
        assert!(Instant::now() < give_up, "never: {answer}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) fn lines_of(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A running `handfast serve` on a port of its own. It is killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    address: String,
}

impl Server {
    /// Starts one with a configuration and waits until its banner says where it listens.
    pub(crate) fn start(directory: &Path, config: &str) -> Self {
        let file = directory.with_extension("toml");
        std::fs::write(&file, config).unwrap();
        let mut command = command(&["serve", "--listen", "127.0.0.1:0"]);
        for name in ["DATA_DIR", "LISTEN", "LOG"] {
            command.env_remove(format!("HANDFAST_{name}"));
        }
        command.env("HANDFAST_CONFIG", file).arg("--data-dir").arg(directory);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut lines = stdout.lines().map_while(Result::ok);
        let address = lines
            .find_map(|line| Some(line.trim().strip_prefix("listens on")?.trim().to_owned()))
            .expect("the server listens before it ends");
        let address = address.split(' ').next().unwrap_or_default().to_owned();
        // The rest of the banner is read, so that the server never waits for somebody to do so.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
