//! What `handfast bench restart` is asked for.

use std::path::PathBuf;

use serde::Serialize;

const HELP: &str = "A store is filled: first with transactions that are decided and not finished, \
because their
participant never says that it has, then with events of 1,000 bytes, until the journal has the
size. Then it is killed with SIGKILL and started again, as often as is asked for.

Examples:
  handfast bench restart
  handfast bench restart --gib 4 --open 100000 --times 5 --json";

/// A large store is killed and started again: time until it is ready
#[derive(Clone, Debug, clap::Args, Serialize)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Size of the journal in GiB
    #[arg(long, value_name = "SIZE", default_value_t = 1.0, value_parser = gib)]
    pub(super) gib: f64,
    /// Transactions that are open
    #[arg(long, value_name = "N", default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u32).range(..=50_000_000))]
    pub(super) open: u32,
    /// The open transactions publish nothing, instead of one event of 200 bytes each
    #[arg(long)]
    pub(super) no_events: bool,
    /// How often it is killed and started again
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(super) times: u16,
    /// Where the store is made: what is measured is that disk [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
}

fn gib(text: &str) -> Result<f64, String> {
    let size = text.parse().ok().filter(|size| (0.0..=1_000.0).contains(size));
    size.ok_or_else(|| "expected a number of GiB, 0 to 1000".to_owned())
}
