//! What happened, as lines of text: kept, or only hashed, or not made at all.

use std::collections::VecDeque;
use std::fmt::{self, Write};

/// Lines that are kept for a failure's report.
pub const KEPT_LINES: usize = 60;

/// How much of a trace is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Nothing: the fastest.
    Off,
    /// A hash over all lines, to compare two runs.
    Hash,
    /// The hash and the last lines.
    Lines,
    /// The hash and every line.
    All,
}

/// The trace of one run.
#[derive(Debug)]
pub struct Trace {
    detail: Detail,
    hash: Fnv,
    count: u64,
    lines: VecDeque<String>,
}

impl Trace {
    /// An empty trace.
    #[must_use]
    pub fn new(detail: Detail) -> Self {
        Self { detail, hash: Fnv(0xCBF2_9CE4_8422_2325), count: 0, lines: VecDeque::new() }
    }

    /// Notes one thing that happened.
    pub fn line(&mut self, line: fmt::Arguments<'_>) {
        match self.detail {
            Detail::Off => {}
            Detail::Hash => {
                self.count += 1;
                let _ = self.hash.write_fmt(line);
            }
            Detail::Lines | Detail::All => {
                self.count += 1;
                let _ = self.hash.write_fmt(line);
                if self.detail == Detail::Lines && self.lines.len() == KEPT_LINES {
                    self.lines.pop_front();
                }
                self.lines.push_back(format!("{:>6} {line}", self.count));
            }
        }
    }

    /// A hash over every line so far.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.hash.0 ^ self.count
    }

    /// The last lines.
    #[must_use]
    pub fn last_lines(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }
}

/// A 64-bit FNV-1a hash that text can be written into.
#[derive(Clone, Copy, Debug)]
pub struct Fnv(pub u64);

impl Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
        Ok(())
    }
}
