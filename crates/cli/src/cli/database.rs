//! `handfast database list|adopt`: the databases that the server's configuration registers, and the
//! step by which an operator says that one of them is this store's.

use std::time::Duration;

use handfast::{DatabaseFinding, RegisteredDatabase};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::cloudevent::unix_ms;
use super::output::{Column, rfc3339, table, time, visible, wrapped};
use super::remote::{self, Server};
use super::{Exit, Failure, parse};

const LIST: &str = "Databases are registered in the configuration of the server and nowhere else.
CONDITION: up; starting or down: it does not answer; refused: it may not be trusted; not_ours: it
belongs to another life of the store, or this store was restored or is a copy. Beneath the table it
says which life wrote the owner row: opening, epoch, node, place in the log, and when.
IN DOUBT counts prepared transactions of this store at the last audit; - is not known.

Examples:
  handfast database list
  handfast database list --json | jq '.databases[] | select(.condition != \"up\")'";
const ADOPT: &str =
    "Every database holds a row that says which life of which store coordinates it. A store that finds a
row of an opening that its log does not contain, or of another machine, is a copy, or older than the
database: it resolves nothing there; nor does one that was restored or copied. Adopting says that no
other copy of the store is in use, and that database and store are of the same moment. If that is not so, transactions that another life of the store
has decided to commit may be rolled back here.

Examples:
  handfast database adopt ledger
  handfast database adopt ledger --yes";

/// How long it may take until the server has looked at what was adopted.
const LOOK: Duration = Duration::from_secs(5);
/// How often that is asked.
const PAUSE: Duration = Duration::from_millis(100);
/// How wide lines beneath the table are.
const WIDTH: usize = 96;

/// Databases that take part in transactions
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    remote: remote::Args,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List registered databases, with what is wrong with them
    #[command(after_help = LIST)]
    List,
    /// Make a database this store's, whatever its owner row says
    #[command(after_help = ADOPT)]
    Adopt {
        /// The name under which it is registered
        #[arg(value_name = "NAME", value_parser = parse::name)]
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    remote::run(&args.remote, async |server| match &args.command {
        Command::List => list(server).await,
        Command::Adopt { name, yes } => adopt(server, name, *yes).await,
    })
}

/// Every registered database.
pub(super) async fn registered(server: &Server) -> Result<Vec<RegisteredDatabase>, Failure> {
    let mut all = server.ask("asking for databases", server.handfast.databases()).await?;
    for database in &mut all {
        // The server does not know how it is reached from here.
        database.why = database.why.take().map(|why| server.reach.commands(&why).into_owned());
    }
    Ok(all)
}

async fn list(server: &Server) -> Result<(), Failure> {
    let databases = registered(server).await?;
    let documents: Vec<Database> = databases.iter().map(Database::from).collect();
    server.out.result(&serde_json::json!({ "databases": documents }), || listed(&databases))
}

async fn adopt(server: &Server, name: &str, yes: bool) -> Result<(), Failure> {
    let before = find(server, name).await?;
    if matches!(before.condition.as_str(), "down" | "starting") {
        let why = before.why.as_deref().unwrap_or("it has not answered yet");
        let message = format!("database {name} does not answer: {}", visible(why));
        return Err(Failure::new(Exit::Failed, message)
            .with_code("database_down")
            .with_retryable(true)
            .with_hint("adopt it when it is there again; its owner row is in it"));
    }
    if before.condition == "up" {
        server.out.note(format!("Database {name} is this store's already."));
    } else {
        remote::confirm(yes, &question(&before))?;
    }
    let asking = server.handfast.adopt_database(name);
    server.ask("adopting the database", asking).await?;
    // The server looks at it at once, but not before it answers.
    let give_up = Instant::now() + LOOK;
    let mut after = find(server, name).await?;
    while after.condition == "not_ours" && Instant::now() < give_up {
        sleep(PAUSE).await;
        after = find(server, name).await?;
    }
    server.out.result(&Database::from(&after), || match &after.why {
        None => format!("Adopted {name}: it is {}.", after.condition),
        Some(why) => format!("Adopted {name}: it is {}, because {}", after.condition, visible(why)),
    })
}

async fn find(server: &Server, name: &str) -> Result<RegisteredDatabase, Failure> {
    let all = registered(server).await?;
    let known = all.into_iter().find(|database| database.name == name);
    known.ok_or_else(|| {
        Failure::new(Exit::Failed, format!("no database {name} is registered (unknown_database)"))
            .with_code("unknown_database")
            .with_hint("`handfast database list` shows all databases")
    })
}

fn question(database: &RegisteredDatabase) -> String {
    let why = database.why.as_deref().unwrap_or_default();
    format!(
        "{} at {} is {}: {}\nAdopting it says that this is the only copy of the store in use, and \
         that store and database are of the same moment. Otherwise what another life of the store \
         has committed may be rolled back.\nAdopt {}?",
        database.name,
        visible(&database.url),
        database.condition,
        visible(why),
        database.name
    )
}

#[derive(Serialize)]
struct Database {
    name: String,
    kind: String,
    url: String,
    condition: String,
    why: Option<String>,
    since: Option<String>,
    since_unix_ms: u64,
    /// Null: not known yet, as with `grade`.
    version: Option<String>,
    grade: Option<String>,
    findings: Vec<Finding>,
    /// Null: not audited yet.
    in_doubt: Option<u64>,
    /// Null: it is up.
    next_try_unix_ms: Option<u64>,
}

/// One thing that a check found.
#[derive(Serialize)]
struct Finding {
    check: String,
    grade: String,
    what: String,
    remedy: Option<String>,
}

impl From<&RegisteredDatabase> for Database {
    fn from(database: &RegisteredDatabase) -> Self {
        let since_unix_ms = unix_ms(database.since);
        Self {
            name: database.name.clone(),
            kind: database.kind.clone(),
            url: database.url.clone(),
            condition: database.condition.clone(),
            why: database.why.clone(),
            since: rfc3339(since_unix_ms),
            since_unix_ms,
            version: known(&database.version),
            grade: known(&database.grade),
            findings: database.findings.iter().map(Finding::from).collect(),
            in_doubt: database.in_doubt,
            next_try_unix_ms: database.next_try.map(unix_ms),
        }
    }
}

impl From<&DatabaseFinding> for Finding {
    fn from(finding: &DatabaseFinding) -> Self {
        Self {
            check: finding.check.clone(),
            grade: finding.grade.clone(),
            what: finding.what.clone(),
            remedy: known(&finding.remedy),
        }
    }
}

fn known(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn listed(databases: &[RegisteredDatabase]) -> String {
    let columns = [
        Column::Left("DATABASE"),
        Column::Left("KIND"),
        Column::Left("CONDITION"),
        Column::Left("SINCE"),
        Column::Left("GRADE"),
        Column::Right("IN DOUBT"),
        Column::Left("URL"),
    ];
    let rows = databases.iter().map(|database| {
        vec![
            visible(&database.name),
            visible(&database.kind),
            visible(&database.condition),
            time(unix_ms(database.since)),
            visible(known(&database.grade).as_deref().unwrap_or("-")),
            database.in_doubt.map_or_else(|| "-".to_owned(), |count| count.to_string()),
            visible(&database.url),
        ]
    });
    let mut lines = vec![table(&columns, rows.collect(), "No databases are registered.")];
    for database in databases {
        lines.extend(beneath(database));
    }
    lines.join("\n")
}

/// What a person should know of a database that does not fit a row.
fn beneath(database: &RegisteredDatabase) -> Vec<String> {
    let why = database.why.as_deref().map(|why| (database.condition.as_str(), why.to_owned()));
    let said = |what: &str| database.why.as_deref().is_some_and(|why| why.contains(what));
    let findings = database.findings.iter().filter(|finding| !said(&finding.what));
    let findings = findings
        .map(|finding| (finding.grade.as_str(), format!("{} {}", finding.what, finding.remedy)));
    let told: Vec<(&str, String)> = why.into_iter().chain(findings).collect();
    if told.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![String::new(), visible(&database.name)];
    for (word, text) in told {
        lines.extend(paragraph("  ", &format!("{word}: {text}")));
    }
    lines
}

/// Text of others on lines that fit, the later ones further in.
pub(super) fn paragraph(indent: &str, text: &str) -> Vec<String> {
    let lines = wrapped(&visible(text), WIDTH - indent.len() - 2);
    let later = |at: usize| if at == 0 { "" } else { "  " };
    lines.iter().enumerate().map(|(at, line)| format!("{indent}{}{line}", later(at))).collect()
}
