//! `handfast demo`: shows the main job and proves it. Its parts are hidden commands of the same
//! program.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Subcommand;

use super::{Exit, Failure, serve};
use crate::demo::bank::Home;
use crate::demo::parts::{self, Part};
use crate::demo::plan::{Plan, Side};
use crate::demo::report::Report;
use crate::demo::{self, Done, Failed, Options};
use crate::harness::{Problem, Urls, exit_with_stdin};

/// Transfers that are made up when there is no file.
const TRANSFERS: u32 = 2_000;

/// Show it working: transfers between two services while parts are killed, then proofs.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Transfers to make up [default: 2000]
    #[arg(long, value_name = "N", conflicts_with = "input",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    transfers: Option<u32>,
    /// How often a process is killed with SIGKILL and started again
    #[arg(long, value_name = "N", default_value_t = 6,
          value_parser = clap::value_parser!(u32).range(..=1_000))]
    kills: u32,
    /// Decides the transfers and the kills; told at the end [default: another each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Transfers of your own: a CSV file with the columns from,to,cents. Each account starts with
    /// 100.00; east-... and west-... are kept by those services, others alternate
    #[arg(long, value_name = "FILE.csv")]
    input: Option<PathBuf>,
    /// Put everything into this empty directory and leave it there
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Keep the accounts of the east in this PostgreSQL, and those of the west in a MariaDB: the
    /// tables demo_account, demo_hold and demo_effect are made anew there
    #[arg(long, value_name = "URL", requires = "mariadb")]
    postgres: Option<String>,
    /// See --postgres
    #[arg(long, value_name = "URL", requires = "postgres")]
    mariadb: Option<String>,
    /// Leave the temporary directory where it is
    #[arg(long)]
    keep: bool,
    /// Print the last report as JSON, and nothing else, on stdout
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let Args { transfers, kills, seed, input, dir, postgres, mariadb, keep, json } = args;
    let seed = seed.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::from(since.subsec_nanos()) % 1_000_000
    });
    let plan = match input {
        Some(path) => Plan::from_csv(&path),
        None => Ok(Plan::from_seed(seed, transfers.unwrap_or(TRANSFERS))),
    };
    let plan = plan.map_err(|problem| Failure::new(Exit::Usage, problem).with_json(json))?;
    let urls = postgres.zip(mariadb).map(|(postgres, mariadb)| Urls { postgres, mariadb });
    let Done { report, kept } = demo::run(&Options { plan, kills, seed, dir, keep, urls })
        .map_err(|failed| failure(&failed).with_json(json))?;
    tell(&report, json).map_err(|error| Failure::new(Exit::Failed, error).with_json(json))?;
    let place = kept.map(|dir| format!("everything is in {}", dir.display()));
    if !report.ok {
        let failed = report.failed_proofs().join("; ");
        let place = place.map(|place| format!("; {place}")).unwrap_or_default();
        let message = format!("not proven: {failed}{place}");
        return Err(Failure::new(Exit::Failed, message).with_json(json));
    }
    if let Some(place) = place {
        // If standard error is closed nobody wants to read it.
        let _ = writeln!(io::stderr().lock(), "{place}");
    }
    Ok(())
}

fn failure(failed: &Failed) -> Failure {
    let exit = match *failed.problem {
        Problem::Interrupted => Exit::Interrupted,
        Problem::Directory(_) => Exit::Usage,
        _ => Exit::Failed,
    };
    let place = match &failed.kept {
        Some(dir) => format!("\n  logs and stores are in {}", dir.display()),
        None => String::new(),
    };
    Failure::new(exit, format!("{}{place}", failed.problem))
}

fn tell(report: &Report, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(report)?)?;
    } else {
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        writeln!(out, "{}", report.text(out.is_terminal() && !is_plain))?;
        if report.ok {
            writeln!(
                out,
                "\nTry next:\n  handfast demo --input FILE.csv   your own transfers: from,to,cents\n  \
                 handfast serve                   a server of your own\n  \
                 handfast tx list                 its open transactions\n  \
                 README.md                        a first service in Rust"
            )?;
        }
    }
    out.flush()
}

/// A part of the demo, started by it.
#[derive(Debug, Subcommand)]
pub(crate) enum PartArgs {
    /// The server; ends with its standard input
    Server(serve::Args),
    /// An instance of an account service
    Service {
        #[command(flatten)]
        place: Place,
        #[arg(long, value_parser = side)]
        side: Side,
        #[arg(long)]
        instance: String,
        /// Where it keeps its accounts; a file in the directory otherwise
        #[arg(long)]
        database: Option<String>,
    },
    /// The subscriber
    Subscriber(Place),
    /// The client
    Client {
        #[command(flatten)]
        place: Place,
        #[arg(long)]
        in_flight: usize,
    },
}

/// All that a part has to know.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    #[arg(long)]
    server: String,
    #[arg(long)]
    dir: PathBuf,
}

fn side(text: &str) -> Result<Side, String> {
    let found = Side::BOTH.into_iter().find(|side| side.name() == text);
    found.ok_or_else(|| format!("{text:?} is neither east nor west"))
}

pub(super) fn run_part(args: PartArgs) -> Result<(), Failure> {
    let (part, Place { server, dir }) = match args {
        PartArgs::Server(args) => {
            exit_with_stdin();
            return serve::run(args);
        }
        PartArgs::Service { place, side, instance, database } => {
            let home =
                database.map_or_else(|| Home::new(&place.dir, side, None), |url| Home::of(&url));
            (Part::Service { side, instance, home }, place)
        }
        PartArgs::Subscriber(place) => (Part::Subscriber, place),
        PartArgs::Client { place, in_flight } => (Part::Client { in_flight }, place),
    };
    parts::run(part, &server, dir).map_err(|error| Failure::new(Exit::Failed, error))
}
