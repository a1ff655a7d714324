//! The real server as a process of its own, that can be killed.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running `handfast serve`. It is killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    directory: PathBuf,
    /// Files that it may have open, if that is not what this process may.
    files: Option<u64>,
    pub(crate) address: String,
}

impl Server {
    /// Starts a server on a port that was free, and waits until it says that it listens.
    pub(crate) fn start(directory: &Path) -> Self {
        Self::start_with(directory, "")
    }

    /// The same with a configuration.
    pub(crate) fn start_with(directory: &Path, config: &str) -> Self {
        Self::start_limited(directory, config, None)
    }

    /// The same with so many files that it may have open.
    pub(crate) fn start_with_files(directory: &Path, config: &str, files: u64) -> Self {
        Self::start_limited(directory, config, Some(files))
    }

    fn start_limited(directory: &Path, config: &str, files: Option<u64>) -> Self {
        std::fs::write(directory.with_extension("toml"), config).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let child = spawn(directory, &address, files);
        Self { child, directory: directory.to_path_buf(), files, address }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The most that it ever had resident, in bytes.
    pub(crate) fn peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        kib << 10
    }

    /// Files that it has open.
    pub(crate) fn open_files(&self) -> u64 {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count() as u64
    }

    /// It has not ended by itself.
    pub(crate) fn assert_runs(&mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "it has ended");
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The same server once more, on the same directory and port.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.directory, &self.address, self.files);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(directory: &Path, address: &str, files: Option<u64>) -> Child {
    let limit = files.map_or_else(String::new, |files| format!("ulimit -n {files}; "));
    // The server is this very process then.
    let mut child = Command::new("sh")
        .args(["-c", &format!("{limit}exec \"$@\""), "sh", env!("CARGO_BIN_EXE_handfast")])
        .args(["serve", "--listen", address, "--data-dir"])
        .arg(directory)
        .arg("--config")
        .arg(directory.with_extension("toml"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let port = address.rsplit(':').next().unwrap();
    let mut lines = stdout.lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains(port)), "the server ended before it listened");
    // The rest of the banner is read, so that the server never waits for somebody to do so.
    std::thread::spawn(move || lines.for_each(drop));
    child
}
