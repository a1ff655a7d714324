//! What `handfast bench journal` is asked for.

use std::path::PathBuf;

use serde::Serialize;

const HELP: &str = "A record is what a transaction with two participants and two events leaves: a \
decision of about
200 bytes with two events of 300. The bare loop writes as many bytes behind each other into one
file and calls fdatasync after each group, as fast as it can: what lies between the two is what
the journal costs. They are run by turns.

Examples:
  handfast bench journal
  handfast bench journal --outstanding 1,256,4096 --seconds 10 --dir /mnt/fast";

/// The log alone, beside a bare loop of write and fdatasync
#[derive(Clone, Debug, clap::Args, Serialize)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Records that are submitted and not durable yet
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "256,4096",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) outstanding: Vec<u32>,
    /// Seconds for each of the two at each number, in slices of one
    #[arg(long, value_name = "S", default_value_t = 5,
          value_parser = clap::value_parser!(u16).range(1..=600))]
    pub(super) seconds: u16,
    /// Where the files are made: what is measured is that disk [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
}
