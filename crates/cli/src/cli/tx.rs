//! `handfast tx list|show|resolve`: what the server knows about transactions, and the three steps
//! that an operator has. None of them writes a commit.

mod ended;

use std::time::{SystemTime, UNIX_EPOCH};

use handfast::{
    BranchView, Ending, NoteView, ParticipantKind, RegisteredDatabase, Resolve, State,
    TransactionId, TransactionView, VoteKind,
};
use serde::Serialize;

use super::cloudevent::unix_ms;
use super::database::{self, paragraph};
use super::output::{Column, bold, duration, rfc3339, table, visible};
use super::participant::kind;
use super::reach::Reach;
use super::remote::{self, Server};
use super::{Exit, Failure, parse, timeline};

const LIST: &str =
    "VOTED counts the branches whose vote is in. LEFT is the time until the deadline.
Of those that have ended WHY says why one failed, or how a branch ended otherwise than was decided
(heuristic). The log keeps an end for an hour at least, and with an idempotency key as long as that.

Examples:
  handfast tx list
  handfast tx list --state committing
  handfast tx list --attention
  handfast tx list --ended --since 12h --state failed
  handfast tx list --json | jq -r '.transactions[] | select(.attention) | .transaction_id'";
const SHOW: &str =
    "Times are milliseconds since the transaction began, for a branch that outlived \
a restart of the
server since that.

Example:
  handfast tx show 0192f0a1-b2c3-7d4e-8f90-a1b2c3d4e5f6";
const RESOLVE: &str = "Nothing here writes a commit: what is decided stays decided.
--abort fails what is not decided yet. --release waits no longer for a participant that is gone for
good: nobody knows how its branch ended, and the transaction says so for ever. --note says that what
needed attention was seen: a transaction that ended otherwise than decided is listed until then. All of it is recorded with --why, at most 512 bytes.

Examples:
  handfast tx resolve 0192f0a1-b2c3-7d4e-8f90-a1b2c3d4e5f6 --abort --why \"client is gone\"
  handfast tx resolve 0192f0a1-b2c3-7d4e-8f90-a1b2c3d4e5f6 --release ledger --why \"disk lost\"";

/// Transactions: what is open, and how one went
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    remote: remote::Args,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List transactions that are open, need a person, or have ended, the oldest first
    #[command(after_help = LIST)]
    List {
        /// At most this many
        #[arg(long, value_name = "N", default_value_t = 100,
              value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        limit: u32,
        /// Only those in this state: open ones, or with --ended those that have ended so
        #[arg(long, value_name = "STATE")]
        state: Option<Wanted>,
        /// Those that a person should look at, also ended ones that nobody has taken note of
        #[arg(long)]
        attention: bool,
        /// Those that have ended, by when they did; beyond --limit what failed before the rest
        #[arg(long, conflicts_with = "attention")]
        ended: bool,
        /// With --ended: since when, how long ago, such as 12h, or RFC 3339
        #[arg(long, value_name = "TIME", value_parser = parse::moment, default_value = "1h",
              requires = "ended")]
        since: SystemTime,
    },
    /// Show one transaction with its timeline, branch by branch
    #[command(after_help = SHOW)]
    Show {
        /// The transaction
        #[arg(value_name = "ID", value_parser = parse::transaction)]
        id: TransactionId,
    },
    /// Step in: abort what is undecided, release a branch that is gone, or take note
    #[command(after_help = RESOLVE)]
    Resolve {
        /// The transaction
        #[arg(value_name = "ID", value_parser = parse::transaction)]
        id: TransactionId,
        #[command(flatten)]
        step: Step,
        /// Who and why, kept with the transaction
        #[arg(long, value_name = "TEXT", value_parser = why)]
        why: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// What an operator can do; exactly one of them.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Step {
    /// Fail it, if it is not decided
    #[arg(long)]
    abort: bool,
    /// Wait no longer for this participant, which is gone for good
    #[arg(long, value_name = "PARTICIPANT", value_parser = parse::name)]
    release: Option<String>,
    /// What needed attention was seen
    #[arg(long)]
    note: bool,
}

/// Longest reason; the server would cut off more.
const WHY_BYTES: usize = 512;

fn why(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("expected who and why".to_owned()),
        text if text.len() > WHY_BYTES => Err(format!("expected at most {WHY_BYTES} bytes")),
        text => Ok(text.to_owned()),
    }
}

/// States that a list can be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Wanted {
    /// Open: not decided
    Preparing,
    /// Open: decided to commit; participants are being told
    Committing,
    /// Ended, and every participant has committed
    Committed,
    /// Failed; or a branch ended otherwise than decided, or nobody knows how
    Failed,
}

/// What a list is of.
enum Listed {
    Open(Option<State>),
    Ended(Option<Ending>),
}

/// Open ones and those that have ended are two lists.
fn listed_by(state: Option<Wanted>, is_ended: bool) -> Result<Listed, Failure> {
    let usage = |message: &str| Err(Failure::new(Exit::Usage, message));
    match (state, is_ended) {
        (None, false) => Ok(Listed::Open(None)),
        (Some(Wanted::Preparing), false) => Ok(Listed::Open(Some(State::Preparing))),
        (Some(Wanted::Committing), false) => Ok(Listed::Open(Some(State::Committing))),
        (None, true) => Ok(Listed::Ended(None)),
        (Some(Wanted::Committed), true) => Ok(Listed::Ended(Some(Ending::Committed))),
        (Some(Wanted::Failed), true) => Ok(Listed::Ended(Some(Ending::Failed))),
        (Some(Wanted::Committed | Wanted::Failed), false) => {
            usage("a transaction in that state has ended: add --ended")
        }
        (Some(Wanted::Preparing | Wanted::Committing), true) => usage(
            "a transaction in that state has not ended: leave out --ended, or name another state",
        ),
    }
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    if let Command::List { state, ended, .. } = &args.command {
        // Before anybody is asked.
        listed_by(*state, *ended).map_err(|failure| args.remote.said(failure))?;
    }
    remote::run(&args.remote, async |server| match &args.command {
        Command::List { limit, state, attention, ended, since } => {
            let limit = *limit as usize;
            match listed_by(*state, *ended)? {
                Listed::Open(state) => list(server, limit, state, *attention).await,
                Listed::Ended(ending) => ended::list(server, limit, ending, *since).await,
            }
        }
        Command::Show { id } => show(server, *id).await,
        Command::Resolve { id, step, why, yes } => resolve(server, *id, step, why, *yes).await,
    })
}

/// Most transactions that the server lists in one answer.
const PAGE: usize = 1_000;

async fn list(
    server: &Server,
    limit: usize,
    state: Option<State>,
    attention: bool,
) -> Result<(), Failure> {
    let wanted = |view: &TransactionView| state.is_none_or(|state| view.state == state);
    let (views, has_more) = listing(server, limit, attention, wanted).await?;
    let transactions: Vec<Transaction> = views.iter().map(Transaction::from).collect();
    let document = serde_json::json!({ "transactions": transactions, "has_more": has_more });
    let none = if attention { "No transaction needs attention." } else { "No open transactions." };
    server.out.result(&document, || listed(&views, now_ms(), none))?;
    if has_more {
        server.out.note(format!("These are the first {limit}; see more with --limit."));
    }
    Ok(())
}

/// The first transactions that are wanted of those that are open, or need attention, and whether
/// there are more of them.
pub(super) async fn listing(
    server: &Server,
    limit: usize,
    attention: bool,
    wanted: impl Fn(&TransactionView) -> bool,
) -> Result<(Vec<TransactionView>, bool), Failure> {
    let mut views: Vec<TransactionView> = Vec::new();
    let mut after = None;
    // One more than is shown, to be able to say that there are more.
    while views.len() <= limit {
        let size = u32::try_from(PAGE).unwrap_or(u32::MAX);
        let page = if attention {
            let asking = server.handfast.transactions_in_attention(after, size);
            server.ask("asking for transactions", asking).await?
        } else {
            let asking = server.handfast.transactions(after, size);
            server.ask("asking for transactions", asking).await?
        };
        let is_last = page.len() < PAGE;
        after = page.last().map(|view| view.id);
        views.extend(page.into_iter().filter(&wanted));
        if is_last {
            break;
        }
    }
    let has_more = views.len() > limit;
    views.truncate(limit);
    Ok((views, has_more))
}

async fn show(server: &Server, id: TransactionId) -> Result<(), Failure> {
    let view = server.ask("asking for the transaction", server.handfast.show(id)).await?;
    let in_the_way = in_the_way(server, &view).await?;
    let databases = in_the_way.iter().map(InTheWay::from).collect();
    let document = Shown { transaction: Transaction::from(&view), databases };
    server.out.result(&document, || {
        let shown = timeline::shown(&view, &server.reach);
        [shown].into_iter().chain(blocked(&view, &in_the_way)).collect::<Vec<_>>().join("\n")
    })
}

/// Databases that an open transaction waits for, and that are not up or hold its marker.
async fn in_the_way(
    server: &Server,
    view: &TransactionView,
) -> Result<Vec<RegisteredDatabase>, Failure> {
    let is_open = |branch: &&BranchView| {
        branch.kind == ParticipantKind::Database && branch.finished_ms.is_none()
    };
    let branches = view.branches.iter().filter(is_open).map(|branch| &branch.participant);
    let names: Vec<&str> = branches.chain(&view.local).map(handfast::Name::as_str).collect();
    if view.ended_wall_ms.is_some() || names.is_empty() {
        return Ok(Vec::new());
    }
    let mut databases = database::registered(server).await?;
    for found in &mut databases {
        found.waits.retain(|(id, _)| *id == view.id);
    }
    databases.retain(|found| {
        let stands = found.condition != "up" || !found.waits.is_empty();
        stands && names.contains(&found.name.as_str())
    });
    Ok(databases)
}

fn blocked(view: &TransactionView, databases: &[RegisteredDatabase]) -> Vec<String> {
    let mut lines = Vec::new();
    for branch in &view.branches {
        let Some(trouble) = &branch.trouble else { continue };
        let told = if view.state == State::Failed { "abort" } else { "commit" };
        let name = &branch.participant;
        let text = format!("{name} could not {told} and tries again: {trouble}");
        lines.extend(paragraph("  ", &text));
    }
    for found in databases {
        for (_, holders) in &found.waits {
            let text = format!("{}: its marker may be held by {holders}", found.name);
            lines.extend(paragraph("  ", &text));
        }
        if found.condition == "up" {
            continue;
        }
        let now = now_ms();
        let since = duration(now.saturating_sub(unix_ms(found.since)));
        let why = found.why.as_deref().unwrap_or("it has not answered yet");
        let again = found.next_try.map(|at| match unix_ms(at).saturating_sub(now) {
            0 => " It is being tried.".to_owned(),
            ms => format!(" Tried again in {}.", duration(ms)),
        });
        let again = again.unwrap_or_default();
        let text = format!("{} is {} since {since}: {why}{again}", found.name, found.condition);
        lines.extend(paragraph("  ", &text));
    }
    if !lines.is_empty() {
        lines.splice(0..0, [String::new(), bold("In the way")]);
    }
    lines
}

async fn resolve(
    server: &Server,
    id: TransactionId,
    step: &Step,
    why: &str,
    yes: bool,
) -> Result<(), Failure> {
    let (step, what) = match &step.release {
        _ if step.abort => (Resolve::Abort, "Abort"),
        Some(name) => (Resolve::Release(name.clone()), "Release"),
        None => (Resolve::Note, "Take note of"),
    };
    // A note changes nothing, so nobody is asked about it.
    if step != Resolve::Note {
        let before = server.ask("asking for the transaction", server.handfast.show(id)).await?;
        remote::confirm(yes, &question(&before, &step, what, &server.reach))?;
    }
    let asking = server.handfast.resolve(id, step, why);
    server.ask("stepping in", asking).await?;
    // What stands now, with the trace that this has left.
    show(server, id).await.map_err(|failure| match failure.exit {
        Exit::Done => failure,
        _ => failure.with_history("it was done, but what stands now could not be asked"),
    })
}

fn question(view: &TransactionView, step: &Resolve, what: &str, reach: &Reach) -> String {
    let shown = timeline::shown(view, reach);
    let last = match step {
        Resolve::Release(name) => format!(
            "{name} is waited for no longer: nobody will know how its branch ended, and the \
             transaction says so for ever.\nRelease {name} in"
        ),
        Resolve::Abort | Resolve::Note => what.to_owned(),
    };
    format!("{shown}\n\n{last} {}?", view.id)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    transaction: Transaction,
    /// Those that it waits for and that are not up, or in which somebody holds its marker.
    databases: Vec<InTheWay>,
}

#[derive(Serialize)]
struct InTheWay {
    name: String,
    condition: String,
    since: Option<String>,
    since_unix_ms: u64,
    why: Option<String>,
    /// Null: it is not known.
    next_try_unix_ms: Option<u64>,
    /// Sessions that may hold its marker; null: none is known.
    holders: Option<String>,
}

impl From<&RegisteredDatabase> for InTheWay {
    fn from(database: &RegisteredDatabase) -> Self {
        let since_unix_ms = unix_ms(database.since);
        Self {
            name: database.name.clone(),
            condition: database.condition.clone(),
            since: rfc3339(since_unix_ms),
            since_unix_ms,
            why: database.why.clone(),
            next_try_unix_ms: database.next_try.map(unix_ms),
            holders: database.waits.first().map(|(_, holders)| holders.clone()),
        }
    }
}

#[derive(Serialize)]
struct Transaction {
    transaction_id: String,
    state: &'static str,
    local_database: Option<String>,
    begun: Option<String>,
    begun_unix_ms: u64,
    /// Null once it is decided.
    remaining_ms: Option<u64>,
    commit_asked: bool,
    /// Null where the log does not keep it: of those that failed.
    events: Option<u32>,
    acknowledgements: Option<u32>,
    reason: Option<Reason>,
    decided: Option<String>,
    decided_unix_ms: Option<u64>,
    ended: Option<String>,
    ended_unix_ms: Option<u64>,
    heuristic: bool,
    /// Which branch made it so, and how; null: none, or an operator's release was all.
    why: Option<String>,
    attention: Option<String>,
    notes: Vec<Note>,
    branches: Vec<Branch>,
}

#[derive(Serialize)]
struct Reason {
    code: &'static str,
    participant: Option<String>,
    detail: Option<String>,
    retryable: bool,
}

/// What an operator did.
#[derive(Serialize)]
struct Note {
    at: Option<String>,
    unix_ms: u64,
    text: String,
}

/// Times are milliseconds since the transaction's begin.
#[derive(Serialize)]
struct Branch {
    participant: String,
    kind: &'static str,
    state_id: Option<String>,
    instance: Option<String>,
    prepare_sent_ms: Option<u64>,
    vote: Option<&'static str>,
    voted_ms: Option<u64>,
    decision_sent_ms: Option<u64>,
    finished_ms: Option<u64>,
    /// Null where it is not known any more.
    sends: Option<u32>,
    /// Why its service could not finish it yet, in its words.
    trouble: Option<String>,
}

/// The word for a state, for programs.
pub(super) fn state_name(state: State) -> &'static str {
    match state {
        State::Preparing => "preparing",
        State::Committing => "committing",
        State::Committed => "committed",
        State::Failed => "failed",
    }
}

impl From<&TransactionView> for Transaction {
    fn from(view: &TransactionView) -> Self {
        let items = |count: u32| (count > 0 || view.state != State::Failed).then_some(count);
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Self {
            transaction_id: view.id.to_string(),
            state: state_name(view.state),
            local_database: view.local.as_ref().map(ToString::to_string),
            begun: rfc3339(view.begun_wall_ms),
            begun_unix_ms: view.begun_wall_ms,
            remaining_ms: view.remaining_ms,
            commit_asked: view.commit_asked,
            events: items(view.events),
            acknowledgements: items(view.acknowledgements),
            reason: view.reason.as_ref().map(|reason| Reason {
                code: reason.code.as_str(),
                participant: reason.participant.as_ref().map(ToString::to_string),
                detail: text(&reason.detail),
                retryable: reason.retryable,
            }),
            decided: view.decided_wall_ms.and_then(rfc3339),
            decided_unix_ms: view.decided_wall_ms,
            ended: view.ended_wall_ms.and_then(rfc3339),
            ended_unix_ms: view.ended_wall_ms,
            heuristic: view.heuristic,
            why: view.why.clone(),
            attention: view.attention.clone(),
            notes: view.notes.iter().map(Note::from).collect(),
            branches: view.branches.iter().map(Branch::from).collect(),
        }
    }
}

impl From<&NoteView> for Note {
    fn from(view: &NoteView) -> Self {
        Self { at: rfc3339(view.wall_ms), unix_ms: view.wall_ms, text: view.text.clone() }
    }
}

impl From<&BranchView> for Branch {
    fn from(view: &BranchView) -> Self {
        Self {
            participant: view.participant.to_string(),
            kind: kind(view.kind),
            state_id: view.state_id.map(|id| id.to_string()),
            instance: view.instance.as_ref().map(ToString::to_string),
            prepare_sent_ms: view.prepare_sent_ms,
            vote: view.vote.map(|vote| match vote {
                VoteKind::Yes => "yes",
                VoteKind::No => "no",
                VoteKind::ReadOnly => "read_only",
            }),
            voted_ms: view.voted_ms,
            decision_sent_ms: view.decision_sent_ms,
            finished_ms: view.finished_ms,
            sends: timeline::sends(view),
            trouble: view.trouble.clone(),
        }
    }
}

fn listed(views: &[TransactionView], now_ms: u64, none: &str) -> String {
    let columns = [
        Column::Left("TRANSACTION"),
        Column::Left("STATE"),
        Column::Right("AGE"),
        Column::Right("VOTED"),
        Column::Right("LEFT"),
        Column::Left("ATTENTION"),
    ];
    let rows = views.iter().map(|view| {
        let voted = view.branches.iter().filter(|branch| branch.vote.is_some()).count();
        let votes = match (&view.local, view.branches.len()) {
            (Some(_), _) => "local".to_owned(),
            // An ended one in attention: the list has it without its branches.
            (None, 0) => "-".to_owned(),
            (None, all) => format!("{voted}/{all}"),
        };
        vec![
            view.id.to_string(),
            timeline::state(view.state).to_owned(),
            duration(now_ms.saturating_sub(view.begun_wall_ms)),
            votes,
            view.remaining_ms.map_or_else(|| "-".to_owned(), duration),
            visible(view.attention.as_deref().unwrap_or_default()),
        ]
    });
    table(&columns, rows.collect(), none)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::timeline::tests::{committed, failed, preparing};

    #[test]
    fn the_list_fits_a_terminal() {
        let mut stuck = preparing();
        stuck.attention = Some("payments \x1b[2J is silent".to_owned());
        let now = stuck.begun_wall_ms + 12_340;
        let expected = "\
TRANSACTION                           STATE        AGE  VOTED   LEFT  ATTENTION
0192f0a1-b2c3-7d4e-8f90-a1b2c3d4e5f6  Preparing  12.3s    1/2  17.6s
0192f0a1-b2c3-7d4e-8f90-a1b2c3d4e5f6  Preparing  12.3s    1/2  17.6s  payments \\u{1b}[2J is silent";
        assert_eq!(listed(&[preparing(), stuck], now, ""), expected);
        assert_eq!(listed(&[], 0, "No open transactions."), "No open transactions.");
    }

    #[test]
    fn unknown_is_null_and_never_zero() {
        let document =
            |view: &TransactionView| serde_json::to_value(Transaction::from(view)).expect("JSON");
        let open = document(&preparing());
        for field in ["decided", "decided_unix_ms", "ended", "ended_unix_ms", "reason", "attention"]
        {
            assert!(open[field].is_null(), "{field}: {open}");
        }
        assert_eq!(open["remaining_ms"], 17_660);
        assert_eq!(open["branches"][1]["vote"], serde_json::Value::Null);
        assert_eq!(open["branches"][1]["sends"], 0);

        let ended = document(&committed());
        assert_eq!(ended["begun"], "2026-11-22T18:00:00.000Z");
        assert_eq!(ended["begun_unix_ms"], 1_795_370_400_000_u64);
        assert!(ended["remaining_ms"].is_null());

        // The log keeps of a failed one neither what it would have published nor what was sent.
        let failed = document(&failed());
        assert!(failed["events"].is_null() && failed["branches"][0]["sends"].is_null(), "{failed}");
        assert_eq!(
            failed["reason"],
            serde_json::json!({
                "code": "voted_no", "participant": "payments", "detail": "no money",
                "retryable": false
            })
        );
    }
}
