//! What `handfast bench idle` is asked for.

use serde::Serialize;

const HELP: &str = "Transactions run three times on one server: alone, beside the idle \
connections, and alone again
when these have gone. Half of the connections are subscribers of a topic in which nothing
happens, half are instances of services that nobody calls; each is a connection of its own.

Examples:
  handfast bench idle --connections 10000
  handfast bench idle --connections 1000 --concurrency 64 --rate 5000 --json";

/// Thousands of connections that are idle, and the transactions beside them
#[derive(Clone, Debug, clap::Args, Serialize)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Idle connections
    #[arg(long, value_name = "N", default_value_t = 10_000,
          value_parser = clap::value_parser!(u32).range(1..=25_000))]
    pub(super) connections: u32,
    /// Transactions under way at once; with --rate at most
    #[arg(long, value_name = "N", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) concurrency: u32,
    /// Transactions that are due per second [default: none, as many as are done]
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(super) rate: Option<u32>,
    /// Seconds that are measured each time, after one that is not
    #[arg(long, value_name = "S", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(super) seconds: u32,
}
