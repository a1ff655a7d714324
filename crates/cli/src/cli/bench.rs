//! `handfast bench`: figures, and the proof that what was measured was also done. Its parts are
//! hidden commands of the same program.

use clap::Subcommand;

use super::output::Output;
use super::{Exit, Failure, serve};
use crate::bench::{Common, Report, db, events, idle, journal, restart, tx};
use crate::harness::{PartError, Problem, exit_with_stdin};

/// Measure: everything durable, over real processes, and checked afterwards
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    /// Print the report as one JSON document, and nothing else, on stdout
    #[arg(long, global = true, help_heading = "Output")]
    json: bool,
    /// Show nothing while it runs
    #[arg(long, short, global = true, help_heading = "Output")]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Tx(tx::Args),
    Events(events::Args),
    Db(db::Args),
    Journal(journal::Args),
    Restart(restart::Args),
    Idle(idle::Args),
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let Args { command, json, quiet } = args;
    let common = Common { is_quiet: quiet, is_json: json };
    let report = match command {
        Command::Tx(args) => tx::run(&args, common),
        Command::Events(args) => events::run(&args, common),
        Command::Db(args) => db::run(&args, common),
        Command::Journal(args) => journal::run(&args, common),
        Command::Restart(args) => restart::run(&args, common),
        Command::Idle(args) => idle::run(&args, common),
    };
    report.map_err(failure).and_then(|report| tell(&report, json)).map_err(|f| f.with_json(json))
}

fn failure(problem: Problem) -> Failure {
    let exit = match problem {
        Problem::Interrupted => Exit::Interrupted,
        _ => Exit::Failed,
    };
    Failure::new(exit, problem)
}

/// The figures are told even if something was wrong: they may say what.
fn tell(report: &Report, is_json: bool) -> Result<(), Failure> {
    Output { is_json, is_quiet: false }.result(report, || report.text())?;
    if report.ok {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, format!("something was wrong: {}", report.problems.join("; "))))
}

/// A process of a benchmark, started by it.
#[derive(Debug, Subcommand)]
pub(crate) enum PartArgs {
    /// The server; ends with its standard input
    Server(serve::Args),
    TxClient(Plan),
    TxParticipant(Plan),
    TxEmbedded(Plan),
    EventsPublisher(Plan),
    EventsConsumer(Plan),
    DbApplication(Plan),
    JournalWriter(Plan),
    RestartFiller(Plan),
    IdleCrowd(Plan),
}

/// What a process has to do.
#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    json: String,
}

pub(super) fn run_part(args: PartArgs) -> Result<(), Failure> {
    let ended: Result<(), PartError> = match args {
        PartArgs::Server(args) => {
            exit_with_stdin();
            return serve::run(args);
        }
        PartArgs::TxClient(plan) => tx::run_client(&plan.json),
        PartArgs::TxParticipant(plan) => tx::run_participant(&plan.json),
        PartArgs::TxEmbedded(plan) => tx::run_embedded(&plan.json),
        PartArgs::EventsPublisher(plan) => events::run_publisher(&plan.json),
        PartArgs::EventsConsumer(plan) => events::run_consumer(&plan.json),
        PartArgs::DbApplication(plan) => db::run_application(&plan.json),
        PartArgs::JournalWriter(plan) => journal::run_writer(&plan.json),
        PartArgs::RestartFiller(plan) => restart::run_filler(&plan.json),
        PartArgs::IdleCrowd(plan) => idle::run_crowd(&plan.json),
    };
    ended.map_err(|error| Failure::new(Exit::Failed, error))
}
