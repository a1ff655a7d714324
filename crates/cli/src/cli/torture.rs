//! `handfast torture`: kills everything while transactions run, and proves that nothing was lost.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Exit, Failure};
use crate::harness::{Problem, Urls};
use crate::torture::part;
use crate::torture::report::Report;
use crate::torture::{self, Options};

const HELP: &str = "Without URLs it starts a private PostgreSQL and a private MariaDB from the \
installed programs and
kills those too. With URLs it uses those databases (both URLs are needed, and the tables
torture_account and torture_effect are made anew there) and kills the server and the application
only.

Examples:
  handfast torture
  handfast torture --transfers 50000 --kills 300 --seed 7 --json";

/// Kill server, databases and application while transactions run; prove nothing is lost
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// A PostgreSQL to use
    #[arg(long, value_name = "URL", requires = "mariadb")]
    postgres: Option<String>,
    /// A MariaDB to use
    #[arg(long, value_name = "URL", requires = "postgres")]
    mariadb: Option<String>,
    /// Transfers, at least
    #[arg(long, value_name = "N", default_value_t = 2_000,
          value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    transfers: u64,
    /// Kills
    #[arg(long, value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(..=100_000))]
    kills: u32,
    /// Transfers that are under way at once
    #[arg(long, value_name = "N", default_value_t = 16,
          value_parser = clap::value_parser!(u16).range(1..=1_000))]
    clients: u16,
    /// Decides the transfers and the kills; told at the end [default: another each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print the last report as JSON, and nothing else, on stdout
    #[arg(long)]
    json: bool,
    /// Show nothing while it runs
    #[arg(long, short)]
    quiet: bool,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let Args { postgres, mariadb, transfers, kills, clients, seed, json, quiet } = args;
    let seed = seed.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::from(since.subsec_nanos()) % 1_000_000
    });
    let urls = postgres.zip(mariadb).map(|(postgres, mariadb)| Urls { postgres, mariadb });
    let options = Options { urls, transfers, kills, clients: clients.into(), seed, quiet };
    let (report, kept) = torture::run(options).map_err(|problem| {
        let exit = match problem {
            Problem::Interrupted => Exit::Interrupted,
            _ => Exit::Failed,
        };
        Failure::new(exit, problem).with_json(json)
    })?;
    tell(&report, json).map_err(|error| Failure::new(Exit::Failed, error).with_json(json))?;
    if report.ok {
        return Ok(());
    }
    let place = kept.map(|dir| format!("; everything is in {}", dir.display()));
    let failed = report.failed_proofs().join(", ");
    let message = format!("not proven: {failed}{}", place.unwrap_or_default());
    Err(Failure::new(Exit::Failed, message).with_json(json))
}

fn tell(report: &Report, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(report)?)?;
    } else {
        writeln!(out, "{}", report.text())?;
    }
    out.flush()
}

/// The application of the torture, started by it.
pub(super) fn run_part(args: &part::Args) -> Result<(), Failure> {
    part::run(args).map_err(|problem| Failure::new(Exit::Failed, problem))
}
