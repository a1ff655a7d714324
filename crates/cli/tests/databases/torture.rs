//! `handfast torture` that is told to stop.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::world::{databases, shared};

/// Whatever it does at that moment: its processes end with it, and it leaves no directory behind.
#[tokio::test(flavor = "multi_thread")]
async fn torture_that_is_told_to_stop_ends_what_it_started() {
    let (postgres, mariadb) = shared();
    let (postgres, mariadb) = databases(&postgres, &mariadb).await;
    let temporary = tempfile::tempdir().unwrap();
    let mut torture = Command::new(env!("CARGO_BIN_EXE_handfast"))
        .args(["torture", "--postgres", &postgres, "--mariadb", &mariadb])
        .args(["--transfers", "1000000", "--kills", "100000", "--seed", "1"])
        .env("TMPDIR", temporary.path())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(torture.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.contains("SIGKILL"), "{line}");
    assert!(!processes_in(temporary.path()).is_empty(), "they are there");
    kill_process(Pid::from_child(&torture), Signal::TERM).unwrap();
    assert_eq!(torture.wait().unwrap().code(), Some(130));
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("stopped by a signal"), "{rest}");
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
    // They were killed; the system may take a moment to be done with them.
    let give_up = Instant::now() + Duration::from_secs(60);
    while let Some(process) = processes_in(temporary.path()).pop() {
        assert!(Instant::now() < give_up, "still there: {process}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The command lines of processes that were started with something in this directory.
fn processes_in(directory: &Path) -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(directory.to_str().unwrap())).collect()
}
