//! Where and with what a benchmark ran.

use std::fs;
use std::thread;

use handfast_server::VERSION;
use jiff::Timestamp;
use serde::Serialize;

/// The machine and the program.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    version: &'static str,
    kernel: Option<String>,
    cores: Option<usize>,
    cpu: Option<String>,
    memory_bytes: Option<u64>,
    /// When it was looked at, RFC 3339.
    time: String,
}

impl Machine {
    pub(super) fn look() -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").ok();
        Self {
            version: VERSION,
            kernel: kernel.map(|kernel| kernel.trim().to_owned()),
            cores: thread::available_parallelism().ok().map(Into::into),
            cpu: value("/proc/cpuinfo", "model name").map(|name| name.trim().to_owned()),
            memory_bytes: value("/proc/meminfo", "MemTotal").and_then(|size| kib(&size)),
            time: format!("{:.0}", Timestamp::now()),
        }
    }

    /// On one line.
    pub(super) fn text(&self) -> String {
        let unknown = || "unknown".to_owned();
        let cores = self.cores.map_or_else(unknown, |cores| cores.to_string());
        let cpu = self.cpu.clone().unwrap_or_else(unknown);
        let kernel = self.kernel.clone().unwrap_or_else(unknown);
        format!("handfast {}, {cores} cores ({cpu}), Linux {kernel}", self.version)
    }
}

/// What stands behind the first colon of the line of this name.
fn value(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.to_owned())
}

fn kib(text: &str) -> Option<u64> {
    Some(text.split_whitespace().next()?.parse::<u64>().ok()? * 1_024)
}
