//! The command `handfast`: one file per command, one place for exit statuses and error messages.
//!
//! A command says its result on stdout and everything else on stderr, and returns a [`Failure`]
//! instead of ending the process.

mod backup;
mod bench;
mod cloudevent;
mod database;
mod dead;
mod demo;
mod doctor;
mod explain;
mod failure;
mod help;
mod indoubt;
mod journal;
mod output;
mod parse;
mod participant;
mod progress;
mod publish;
mod reach;
mod remote;
mod restore;
mod serve;
mod store;
mod subscription;
mod tail;
mod timeline;
mod topic;
mod torture;
mod tx;

use std::process::ExitCode;

use clap::{FromArgMatches, Parser, Subcommand};
use handfast_server::VERSION;

pub(crate) use failure::{Exit, Failure};

/// A durable event bus and a two-phase-commit coordinator in one server.
#[derive(Debug, Parser)]
#[command(name = "handfast", version = VERSION)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Demo(demo::Args),
    #[command(subcommand, hide = true)]
    DemoPart(demo::PartArgs),
    Bench(bench::Args),
    #[command(subcommand, hide = true)]
    BenchPart(bench::PartArgs),
    Torture(torture::Args),
    #[command(hide = true)]
    TorturePart(crate::torture::part::Args),
    Tx(tx::Args),
    Topic(topic::Args),
    Subscription(subscription::Args),
    Dead(dead::Args),
    Participant(participant::Args),
    Database(database::Args),
    Indoubt(indoubt::Args),
    Doctor(doctor::Args),
    Backup(backup::Args),
    Restore(restore::Args),
    Journal(journal::Args),
    Explain(explain::Args),
}

const EXITS: &str = "Exit status:
  0    done
  1    failed, or refused
  2    the command line or the configuration is wrong
  3    the store was refused: open elsewhere, damaged, not a store, not readable
  4    nothing answers at the server's URL
  70   the server ended by itself, because of a fault of the disk under it
  130  ended at once by a second signal, or by one while the store was being opened";

/// Runs the command that the process was started with.
#[must_use]
pub(crate) fn run() -> ExitCode {
    let result = command_line().and_then(|cli| match cli.command {
        Command::Serve(args) => serve::run(args),
        Command::Demo(args) => demo::run(args),
        Command::DemoPart(args) => demo::run_part(args),
        Command::Bench(args) => bench::run(args),
        Command::BenchPart(args) => bench::run_part(args),
        Command::Torture(args) => torture::run(args),
        Command::TorturePart(args) => torture::run_part(&args),
        Command::Tx(args) => tx::run(&args),
        Command::Topic(args) => topic::run(&args),
        Command::Subscription(args) => subscription::run(&args),
        Command::Dead(args) => dead::run(&args),
        Command::Participant(args) => participant::run(&args),
        Command::Database(args) => database::run(&args),
        Command::Indoubt(args) => indoubt::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Backup(args) => backup::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Journal(args) => journal::run(args),
        Command::Explain(args) => explain::run(&args),
    });
    let Err(failure) = result else { return ExitCode::SUCCESS };
    failure.tell();
    ExitCode::from(failure.exit as u8)
}

/// What was asked for. Help and the version are told here, and so is what is wrong, unless it was
/// asked for as JSON.
fn command_line() -> Result<Cli, Failure> {
    let parsed = help::command()
        .try_get_matches()
        .and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches));
    parsed.map_err(|error| {
        let is_json = std::env::args_os().any(|arg| arg == "--json");
        if !(is_json && error.use_stderr()) {
            error.exit();
        }
        let text = error.render().to_string();
        let problem = text.split("\n\nUsage:").next().unwrap_or_default();
        let words: Vec<&str> = problem.split_whitespace().skip_while(|w| *w == "error:").collect();
        let message = words.join(" ");
        Failure::new(Exit::Usage, message)
            .with_hint("see `handfast help`, or --help of the command")
            .with_json(true)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_exit_status_is_documented() {
        for exit in Exit::ALL {
            let number = format!("  {} ", exit as u8);
            assert!(EXITS.contains(&number), "{exit:?}");
        }
    }
}
