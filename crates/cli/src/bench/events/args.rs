//! What `handfast bench events` is asked for.

use std::path::PathBuf;

use serde::Serialize;

const HELP: &str = "Each caller publishes, waits until that is durable, and publishes again; its \
events have keys
of its own. Every consumer group is a process, and proves that each event came to it once and in
the order of its key. A publishing latency ends when the event is durable; a delivery latency
ends when a consumer has it in hand.

Examples:
  handfast bench events --in-flight 64,1024 --groups 2 --size 300
  handfast bench events --in-tx --events 2 --in-flight 256 --json";

/// Durable events, and their delivery to consumer groups
#[derive(Clone, Debug, clap::Args, Serialize)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Connections that publish
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub(super) publishers: u16,
    /// Publishes (or transactions) under way at once, over all connections
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "64",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) in_flight: Vec<u32>,
    /// Consumer groups that read along, each in a process of its own
    #[arg(long, value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u16).range(0..=64))]
    pub(super) groups: u16,
    /// Keys of each caller, which its events have by turns. An event is delivered when the one
    /// before it of the same key is acknowledged
    #[arg(long, value_name = "N", default_value_t = 16,
          value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub(super) keys: u16,
    /// Bytes of data of each event
    #[arg(long, value_name = "BYTES", default_value_t = 300,
          value_parser = clap::value_parser!(u32).range(32..=1_000_000))]
    pub(super) size: u32,
    /// Events of one publish, or of one transaction [default: 1, in a transaction 2]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub(super) events: Option<u16>,
    /// Publish in transactions, by turns to two topics
    #[arg(long)]
    pub(super) in_tx: bool,
    /// Events that a consumer may have in hand
    #[arg(long, value_name = "N", default_value_t = 5_000,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) credit: u32,
    /// Seconds that are measured, after one that is not
    #[arg(long, value_name = "S", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub(super) seconds: u32,
    /// Threads of each process for the network
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(super) threads: u8,
    /// Where the server's store is made: what is measured is that disk [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
}

impl Args {
    pub(super) fn events(&self) -> u16 {
        self.events.unwrap_or(if self.in_tx { 2 } else { 1 })
    }

    pub(super) fn topics(&self) -> usize {
        if self.in_tx { 2 } else { 1 }
    }
}
