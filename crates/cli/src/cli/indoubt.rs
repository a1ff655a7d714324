//! `handfast indoubt`: what is prepared in the databases, and which open transactions need a
//! person. Only looks, and says how each kind is ended.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use handfast::{InDoubt, PreparedTransaction, RegisteredDatabase, TransactionView};
use handfast_core::branch::BranchId;
use serde::Serialize;

use super::cloudevent::unix_ms;
use super::database::{self, paragraph};
use super::output::{Column, bold, duration, rfc3339, table, visible};
use super::reach::Reach;
use super::remote::{self, Server};
use super::{Failure, timeline, tx};

const HELP: &str =
    "LABEL: committing, aborting: decided, being finished; undecided: left until its deadline; unknown:
ours by its name, but the log does not know it; elsewhere: of another store, or of another
database here; foreign: somebody else's, never touched.
The list is that of the last audit, a few seconds old for a database that is up; the labels are
those of now.

Examples:
  handfast indoubt
  handfast indoubt --json | jq '.prepared[] | select(.label == \"foreign\")'";

/// Most transactions in attention that are told at once.
const MOST: usize = 1_000;

/// What is prepared in databases, and what needs a person
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    #[command(flatten)]
    remote: remote::Args,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    remote::run(&args.remote, async |server| {
        let looked = look(server).await?;
        server.out.result(&looked.document(), || looked.text())
    })
}

async fn look(server: &Server) -> Result<Looked, Failure> {
    let databases = database::registered(server).await?;
    let in_doubt = server.ask("asking what is in doubt", server.handfast.in_doubt()).await?;
    let (transactions, has_more) = tx::listing(server, MOST, true, |_| true).await?;
    let (now, reach) = (SystemTime::now(), server.reach.clone());
    Ok(Looked { databases, in_doubt, transactions, has_more, now, reach })
}

/// All of it, at one moment.
struct Looked {
    databases: Vec<RegisteredDatabase>,
    in_doubt: InDoubt,
    /// Those that need attention, open or ended.
    transactions: Vec<TransactionView>,
    has_more: bool,
    now: SystemTime,
    reach: Reach,
}

#[derive(Serialize)]
struct Document {
    /// When the oldest of the audits was; null: a database was not audited yet, or there is none.
    audited: Option<String>,
    audited_unix_ms: Option<u64>,
    prepared: Vec<Prepared>,
    /// Databases of which the list may be old.
    not_up: Vec<NotUp>,
    /// Transactions that need attention: open ones, and ended ones of which nobody has taken note.
    transactions: Vec<Attention>,
    /// There are more of them.
    has_more: bool,
}

#[derive(Serialize)]
struct Prepared {
    database: String,
    label: String,
    transaction_id: Option<String>,
    name: String,
    age_ms: Option<u64>,
    user: Option<String>,
    waiting: Option<u64>,
    /// Who alone may end it; null: not known.
    belongs_to: Option<String>,
    /// Why the server does not roll it back; null: nothing is in the way, or it is not its to do.
    why_left: Option<String>,
    /// How it is ended.
    remedy: String,
}

#[derive(Serialize)]
struct NotUp {
    database: String,
    condition: String,
    why: Option<String>,
}

#[derive(Serialize)]
struct Attention {
    transaction_id: String,
    state: &'static str,
    begun: Option<String>,
    begun_unix_ms: u64,
    attention: Option<String>,
}

impl Looked {
    fn document(&self) -> Document {
        let audited_unix_ms = self.in_doubt.audited.map(unix_ms);
        let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let prepared = self.in_doubt.prepared.iter().map(|row| Prepared {
            database: row.database.clone(),
            label: row.label.clone(),
            transaction_id: row.transaction.map(|id| id.to_string()),
            name: row.name.clone(),
            age_ms: row.age.map(millis),
            user: known(&row.user),
            waiting: row.waiting,
            belongs_to: known(&row.belongs_to),
            why_left: known(&row.why_left),
            remedy: self.remedy(row),
        });
        let not_up = self.not_up().map(|database| NotUp {
            database: database.name.clone(),
            condition: database.condition.clone(),
            why: database.why.clone(),
        });
        let transactions = self.transactions.iter().map(|view| Attention {
            transaction_id: view.id.to_string(),
            state: tx::state_name(view.state),
            begun: rfc3339(view.begun_wall_ms),
            begun_unix_ms: view.begun_wall_ms,
            attention: view.attention.clone(),
        });
        Document {
            audited: audited_unix_ms.and_then(rfc3339),
            audited_unix_ms,
            prepared: prepared.collect(),
            not_up: not_up.collect(),
            transactions: transactions.collect(),
            has_more: self.has_more,
        }
    }

    fn kind(&self, database: &str) -> &str {
        let found = self.databases.iter().find(|known| known.name == database);
        found.map_or("", |database| database.kind.as_str())
    }

    fn remedy(&self, row: &PreparedTransaction) -> String {
        let text = remedy(row, self.kind(&row.database));
        self.reach.commands(&text).into_owned()
    }

    fn not_up(&self) -> impl Iterator<Item = &RegisteredDatabase> {
        self.databases.iter().filter(|database| database.condition != "up")
    }

    fn text(&self) -> String {
        let mut lines = vec![self.prepared()];
        lines.extend(self.remedies());
        lines.push(self.audited());
        for database in self.not_up() {
            let why = database.why.as_deref().unwrap_or("it has not answered yet");
            let text = format!(
                "{} is {}, so its list may be old: {why}",
                database.name, database.condition
            );
            lines.extend(paragraph("", &text));
        }
        lines.push(String::new());
        lines.extend(self.attention());
        lines.join("\n")
    }

    fn prepared(&self) -> String {
        let columns = [
            Column::Left("DATABASE"),
            Column::Left("LABEL"),
            Column::Right("AGE"),
            Column::Right("WAITING"),
            Column::Left("WHO"),
            Column::Left("TRANSACTION"),
        ];
        let rows = self.in_doubt.prepared.iter().map(|row| {
            let name = || visible(&row.name);
            vec![
                visible(&row.database),
                visible(&row.label),
                row.age.map_or_else(|| "-".to_owned(), |age| duration(millis(age))),
                row.waiting.map_or_else(|| "-".to_owned(), |count| count.to_string()),
                visible(if row.user.is_empty() { "-" } else { &row.user }),
                row.transaction.map_or_else(name, |id| id.to_string()),
            ]
        });
        table(&columns, rows.collect(), "Nothing is prepared.")
    }

    /// How each kind that is there is ended, with the first of them as the example.
    fn remedies(&self) -> Vec<String> {
        let mut first: BTreeMap<(&str, &str, &str, &str), &PreparedTransaction> = BTreeMap::new();
        for row in &self.in_doubt.prepared {
            let kind = self.kind(&row.database);
            first.entry((&row.label, kind, &row.belongs_to, &row.why_left)).or_insert(row);
        }
        if first.is_empty() {
            return Vec::new();
        }
        // Not wrapped: statements are there to be copied.
        let told = first
            .into_values()
            .map(|row| format!("  {}: {}", visible(&row.label), visible(&self.remedy(row))));
        [String::new()].into_iter().chain(told).chain([String::new()]).collect()
    }

    fn audited(&self) -> String {
        let age = |at| self.now.duration_since(at).unwrap_or_default();
        match self.in_doubt.audited {
            _ if self.databases.is_empty() => "No databases are registered.".to_owned(),
            Some(at) => format!("Audited {} ago.", duration(millis(age(at)))),
            None => "Not every database has been audited yet.".to_owned(),
        }
    }

    fn attention(&self) -> Vec<String> {
        if self.transactions.is_empty() {
            return vec!["No transaction needs attention.".to_owned()];
        }
        let mut lines = vec![bold("Transactions that need a person")];
        for view in &self.transactions {
            let attention = view.attention.as_deref().unwrap_or_default();
            let begun = Duration::from_millis(view.begun_wall_ms);
            let age = unix_ms(self.now).saturating_sub(millis(begun));
            let text = format!(
                "{}  {}, {} old: {attention}",
                view.id,
                timeline::state(view.state),
                duration(age)
            );
            lines.extend(paragraph("  ", &text));
        }
        if self.has_more {
            lines.push(format!("These are the first {MOST}."));
        }
        let first = self.transactions.first().map(|view| view.id.to_string()).unwrap_or_default();
        let see = format!(
            "See one with `handfast tx show {first}`, for example; `handfast tx resolve --help` \
             says how to step in."
        );
        lines.push(self.reach.commands(&see).into_owned());
        let ended = self.transactions.iter().find(|view| view.ended_wall_ms.is_some());
        lines.extend(ended.map(|view| {
            let id = view.id;
            let words = "What has ended is listed until somebody has seen it: `handfast tx resolve";
            let note = format!("{words} {id} --note --why \"who and why\"`.");
            self.reach.commands(&note).into_owned()
        }));
        lines
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How a prepared transaction is ended.
fn remedy(row: &PreparedTransaction, kind: &str) -> String {
    let id = row.transaction.map(|id| id.to_string()).unwrap_or_default();
    match row.label.as_str() {
        "aborting" if !row.why_left.is_empty() => format!(
            "a restart has aborted its transaction, and the server leaves it alone: {}. {}",
            row.why_left,
            by_hand(row, kind)
        ),
        "committing" | "aborting" => {
            "the server finishes it; if it stays, `handfast database list` says what is in the way"
                .to_owned()
        }
        "undecided" => format!(
            "it ends at its deadline at the latest; sooner with `handfast tx resolve {id} --abort \
             --why \"who and why\"`"
        ),
        "unknown" if !row.why_left.is_empty() => format!(
            "the log does not know its transaction, and the server leaves it alone: {}. {}",
            row.why_left,
            by_hand(row, kind)
        ),
        "unknown" => "the log does not know its transaction; the server rolls it back within \
                      seconds"
            .to_owned(),
        "elsewhere" => "another store, or another name here, coordinates it: see that one's \
                        `handfast indoubt` before anything else"
            .to_owned(),
        "foreign" if !row.belongs_to.is_empty() => format!(
            "it is not handfast's: {} has prepared it, and its publisher ends it. Ended here, \
             either way, the subscription stops for ever. If it stays, finish the transaction \
             where it was begun, and see that the subscription is enabled",
            row.belongs_to
        ),
        "foreign" => format!(
            "it is not handfast's and never touched; whoever made it ends it, with {}",
            statements(kind, &row.name, false)
        ),
        other => format!("this version of the command does not know {other}"),
    }
}

/// What a person does about a branch that the server leaves alone.
fn by_hand(row: &PreparedTransaction, kind: &str) -> String {
    format!(
        "If it stays, find out how its other branches ended, then end it as they did, with {}",
        statements(kind, &row.name, true)
    )
}

/// The database's own statements for it, as its owner or an administrator runs them.
fn statements(kind: &str, name: &str, is_ours: bool) -> String {
    let branch: Option<BranchId> = if is_ours { name.parse().ok() } else { None };
    match kind {
        "PostgreSQL" => {
            let gid = branch.map_or_else(|| name.to_owned(), |branch| branch.gid());
            let gid = gid.replace('\'', "''");
            format!("ROLLBACK PREPARED '{gid}'; or COMMIT PREPARED '{gid}'; in that database")
        }
        "MariaDB" => {
            let xid = branch.map_or_else(|| name.to_owned(), |branch| branch.xid());
            format!("XA ROLLBACK {xid}; or XA COMMIT {xid}; on that server")
        }
        _ => "the database's own statements".to_owned(),
    }
}
