//! What a process has used, as the kernel counts it.

use std::fs;
use std::io;

/// Ticks of a second in `/proc/PID/stat`: the same on every Linux, whatever the kernel's own clock.
const TICKS: f64 = 100.0;

/// What one process has used since it started.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// In user and kernel mode, all threads, those that have ended too.
    pub(super) cpu_seconds: f64,
    /// The most memory that it ever had resident.
    pub(super) peak_memory_bytes: u64,
    /// Bytes that it caused to be written to storage.
    pub(super) written_bytes: u64,
}

impl Usage {
    /// Of a process that runs.
    ///
    /// # Errors
    /// It has ended, or is not ours to look at.
    pub(super) fn of(process: u32) -> io::Result<Self> {
        let read = |name: &str| fs::read_to_string(format!("/proc/{process}/{name}"));
        let missing = |what: &str| io::Error::other(format!("/proc/{process} says no {what}"));
        let peak = field(&read("status")?, "VmHWM:").ok_or_else(|| missing("VmHWM"))?;
        Ok(Self {
            cpu_seconds: cpu_seconds(&read("stat")?).ok_or_else(|| missing("CPU time"))?,
            peak_memory_bytes: peak * 1_024,
            written_bytes: field(&read("io")?, "write_bytes:")
                .ok_or_else(|| missing("write_bytes"))?,
        })
    }

    /// What was used since an earlier look. The peak stays what it is.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds - earlier.cpu_seconds,
            peak_memory_bytes: self.peak_memory_bytes,
            written_bytes: self.written_bytes.saturating_sub(earlier.written_bytes),
        }
    }
}

/// The number behind a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The program's name comes second, in brackets, and may hold anything: what counts is behind it.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, behind) = stat.rsplit_once(')')?;
    let mut fields = behind.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some((ticks()? + ticks()?) as f64 / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_can_look_at_itself() {
        let usage = Usage::of(std::process::id()).expect("it runs");
        assert!(usage.peak_memory_bytes > 100_000, "{usage:?}");
        assert!(Usage::of(u32::MAX).is_err());
    }

    #[test]
    fn a_name_with_brackets_is_no_obstacle() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 5 0 0";
        assert_eq!(cpu_seconds(stat), Some(3.0));
    }
}
