//! What `handfast bench tx` is asked for.

use std::path::PathBuf;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

const HELP: &str = "Without --rate each of N callers asks again as soon as it was answered (a \
closed loop), and a
latency is how long a caller waited. With --rate transactions are due at fixed times whatever
the server does (an open loop), and a latency starts when the transaction was due, so that a
stall counts for everything that had to wait. Lists give one run for each value.

Examples:
  handfast bench tx --concurrency 1,64,1024 --seconds 10
  handfast bench tx --rate 5000,10000,20000 --concurrency 4096 --json
  handfast bench tx --durable-votes --abort-percent 10
  handfast bench tx --overload --concurrency 1024

With --overload the server takes no more transactions at once than --concurrency says. So many
callers find out what it can do at most; then twice as much is due, whatever the server refuses;
then the callers come again. What it can do at most is measured again after each of the two.
Transactions count as done when all have finished.";

/// Transactions over services in processes of their own
#[derive(Clone, Debug, clap::Args, Serialize)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Services that take part in each transaction
    #[arg(long, value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u16).range(0..=64))]
    pub(super) participants: u16,
    /// Transactions under way at once; with --rate at most
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "64",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) concurrency: Vec<u32>,
    /// Seconds that are measured, after one that is not
    #[arg(long, value_name = "S", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub(super) seconds: u32,
    /// Transactions that are due per second [default: none, as many as are done]
    #[arg(long, value_name = "R", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(super) rate: Vec<u32>,
    /// Twice as much is due as the server does at most, and it refuses what is too much
    #[arg(long, conflicts_with_all = ["rate", "server", "in_process", "wait"])]
    pub(super) overload: bool,
    /// Each run once more, while so many other transactions are open
    #[arg(long, value_name = "N", default_value_t = 0,
          conflicts_with_all = ["server", "in_process", "overload"],
          value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(super) open: u32,
    /// Of 100 transactions so many are refused by a participant
    #[arg(long, value_name = "P", default_value_t = 0,
          value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(super) abort_percent: u8,
    /// Events that each transaction publishes
    #[arg(long, value_name = "K", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(0..=1_000))]
    pub(super) events: u16,
    /// Bytes of data of each event
    #[arg(long, value_name = "BYTES", default_value_t = 200,
          value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    pub(super) event_bytes: u32,
    /// Participants keep their votes on disk (SQLite, synced), instead of in memory
    #[arg(long, conflicts_with = "in_process")]
    pub(super) durable_votes: bool,
    /// When a transaction counts as done: when it is decided, or when all have finished
    #[arg(long, value_name = "WHEN", default_value = "decided")]
    pub(super) wait: WaitFor,
    /// Server, participants and client in one process, without sockets
    #[arg(long, conflicts_with_all = ["server", "rate"])]
    pub(super) in_process: bool,
    /// A server that runs, instead of one of its own; its process is not looked at
    #[arg(long, value_name = "URL")]
    pub(super) server: Option<String>,
    /// Threads of the client and of each participant for the network
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(super) threads: u8,
    /// Where the server's store is made: what is measured is that disk [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
}

/// See [`Args::wait`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WaitFor {
    /// The decision is durable.
    Decided,
    /// Every participant has finished.
    Finished,
}

impl From<WaitFor> for handfast::Wait {
    fn from(wait: WaitFor) -> Self {
        match wait {
            WaitFor::Decided => Self::Decided,
            WaitFor::Finished => Self::Finished,
        }
    }
}
