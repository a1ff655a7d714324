//! `handfast dead list|show|retry|drop`: events that failed too often and wait for a person.

use handfast::{DeadLetter, DeadLetters, StoredEvent};
use serde::Serialize;

use super::cloudevent::{self, unix_ms};
use super::output::{Column, bold, counted, rfc3339, table, time, visible, wrapped};
use super::remote::{self, Server};
use super::{Exit, Failure, parse};

const LIST: &str = "Example:
  handfast dead list billing";
const SHOW: &str = "Example:
  handfast dead show billing 42";
const RETRY: &str = "Examples:
  handfast dead retry billing 42 57
  handfast dead retry billing --all";
const DROP: &str = "Examples:
  handfast dead drop billing 42
  handfast dead drop billing --all";

/// Dead letters: events that failed too often
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    remote: remote::Args,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the dead letters of a subscription
    #[command(after_help = LIST)]
    List {
        /// The subscription
        #[arg(value_name = "SUBSCRIPTION", value_parser = parse::name)]
        subscription: String,
        /// At most this many
        #[arg(long, value_name = "N", default_value_t = 100,
              value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Show a dead letter with its event
    #[command(after_help = SHOW)]
    Show {
        /// The subscription
        #[arg(value_name = "SUBSCRIPTION", value_parser = parse::name)]
        subscription: String,
        /// The event's offset
        #[arg(value_name = "OFFSET")]
        offset: u64,
    },
    /// Deliver dead letters again
    #[command(after_help = RETRY)]
    Retry(Which),
    /// Drop dead letters for good
    #[command(after_help = DROP)]
    Drop(Which),
}

#[derive(Debug, clap::Args)]
struct Which {
    /// The subscription
    #[arg(value_name = "SUBSCRIPTION", value_parser = parse::name)]
    subscription: String,
    /// Offsets of the events
    #[arg(value_name = "OFFSET", required_unless_present = "all", conflicts_with = "all")]
    offsets: Vec<u64>,
    /// All dead letters of the subscription
    #[arg(long)]
    all: bool,
}

impl Which {
    fn letters(&self) -> DeadLetters {
        if self.all { DeadLetters::All } else { DeadLetters::At(self.offsets.clone()) }
    }
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    remote::run(&args.remote, async |server| match &args.command {
        Command::List { subscription, limit } => list(server, subscription, *limit).await,
        Command::Show { subscription, offset } => show(server, subscription, *offset).await,
        Command::Retry(which) => {
            let name = which.subscription.as_str();
            let asking = server.handfast.retry_dead_letters(name, which.letters());
            let taken = server.ask("retrying dead letters", asking).await?;
            let document = serde_json::json!({ "subscription": name, "retried": taken });
            server.out.result(&document, || {
                let letters = counted(taken.into(), "dead letter", "dead letters");
                format!("{letters} of {name} will be delivered again.")
            })
        }
        Command::Drop(which) => {
            let name = which.subscription.as_str();
            let asking = server.handfast.drop_dead_letters(name, which.letters());
            let taken = server.ask("dropping dead letters", asking).await?;
            let document = serde_json::json!({ "subscription": name, "dropped": taken });
            server.out.result(&document, || {
                format!(
                    "Dropped {} of {name}.",
                    counted(taken.into(), "dead letter", "dead letters")
                )
            })
        }
    })
}

/// Most dead letters that the server lists in one answer.
const PAGE: usize = 1_000;

async fn list(server: &Server, subscription: &str, limit: u32) -> Result<(), Failure> {
    let limit = limit as usize;
    let mut letters: Vec<DeadLetter> = Vec::new();
    let mut from = 0;
    while letters.len() <= limit {
        let size = PAGE.min(limit + 1 - letters.len());
        let count = u32::try_from(size).unwrap_or(u32::MAX);
        let asking = server.handfast.dead_letters(subscription, from, count);
        let page = server.ask("asking for dead letters", asking).await?;
        let (is_last, last) = (page.len() < size, page.last().map(|letter| letter.offset));
        letters.extend(page);
        match last.and_then(|last| last.checked_add(1)) {
            Some(next) if !is_last => from = next,
            _ => break,
        }
    }
    let has_more = letters.len() > limit;
    letters.truncate(limit);
    let documents: Vec<Letter> = letters.iter().map(Letter::from).collect();
    let document = serde_json::json!({
        "subscription": subscription, "dead_letters": documents, "has_more": has_more
    });
    server.out.result(&document, || listed(&letters, subscription))?;
    if has_more {
        server.out.note(format!("These are the first {limit}; see more with --limit."));
    }
    Ok(())
}

async fn show(server: &Server, subscription: &str, offset: u64) -> Result<(), Failure> {
    let asking = server.handfast.dead_letter(subscription, offset);
    let (letter, stored) = server.ask("asking for the dead letter", asking).await?;
    let event = cloudevent::json(&stored).map_err(|error| Failure::new(Exit::Failed, error))?;
    let document = Shown { subscription, dead_letter: Letter::from(&letter), event };
    server.out.result(&document, || shown(subscription, &letter, &stored))
}

#[derive(Serialize)]
struct Shown<'a> {
    subscription: &'a str,
    dead_letter: Letter,
    event: cloudevent::Json,
}

#[derive(Serialize)]
struct Letter {
    offset: u64,
    attempts: u32,
    reason: Option<String>,
    since: Option<String>,
    since_unix_ms: u64,
}

impl From<&DeadLetter> for Letter {
    fn from(letter: &DeadLetter) -> Self {
        let since_unix_ms = unix_ms(letter.since);
        Self {
            offset: letter.offset,
            attempts: letter.attempts,
            reason: (!letter.reason.is_empty()).then(|| letter.reason.clone()),
            since: rfc3339(since_unix_ms),
            since_unix_ms,
        }
    }
}

fn listed(letters: &[DeadLetter], subscription: &str) -> String {
    let columns = [
        Column::Right("OFFSET"),
        Column::Left("SINCE"),
        Column::Right("ATTEMPTS"),
        Column::Left("REASON"),
    ];
    let rows = letters.iter().map(|letter| {
        vec![
            letter.offset.to_string(),
            time(unix_ms(letter.since)),
            letter.attempts.to_string(),
            visible(&letter.reason),
        ]
    });
    table(&columns, rows.collect(), &format!("Subscription {subscription} has no dead letters."))
}

fn shown(subscription: &str, letter: &DeadLetter, stored: &StoredEvent) -> String {
    let mut lines = vec![bold(&format!("Dead letter {} of {subscription}", letter.offset))];
    lines.push(format!("  since       {}", time(unix_ms(letter.since))));
    lines.push(format!("  attempts    {}", letter.attempts));
    let reason = if letter.reason.is_empty() { "none given" } else { letter.reason.as_str() };
    for (at, line) in wrapped(&visible(reason), 66).iter().enumerate() {
        lines.push(format!("  {:<11} {line}", if at == 0 { "reason" } else { "" }));
    }
    lines.push(String::new());
    lines.push(bold("Event"));
    lines.extend(cloudevent::lines(stored).into_iter().map(|line| format!("  {line}")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Cli;

    #[test]
    fn offsets_or_all_but_not_both_and_not_neither() {
        for (line, fits) in [
            ("handfast dead retry s 1 2", true),
            ("handfast dead drop s --all", true),
            ("handfast dead drop s", false),
            ("handfast dead retry s 1 --all", false),
            ("handfast dead drop s one", false),
        ] {
            assert_eq!(Cli::try_parse_from(line.split(' ')).is_ok(), fits, "{line}");
        }
    }
}
