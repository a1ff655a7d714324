//! The auditor: lists what is prepared in a database, joins it to the journal, and ends what is
//! decided or was never this store's to leave. Everything else it only reports.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use handfast_core::branch::BranchId;
use handfast_core::command::Command;
use handfast_core::ids::TransactionId;
use handfast_core::output::{BranchDecision, Reply};
use handfast_database::{End, Finished, Kind, Prepared};
use tokio::time::sleep;

use super::{Condition, Shared, claims, rollback};

/// An unknown branch is rolled back only when two scans, so far apart, both see it.
const TWICE: Duration = Duration::from_secs(2);
/// So long after the first look the session that prepared a branch is no longer about to end.
const ENDING: Duration = Duration::from_millis(500);
/// For so long after its begin is "the log has never heard of it" a proof: outcomes are kept for
/// an hour after END, and a deadline is at most an hour.
const PROOF: Duration = Duration::from_secs(3_600);

/// What a prepared transaction is to this store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// Ours, and decided: it is being finished.
    Decided {
        /// To commit.
        commit: bool,
    },
    /// Ours, and not decided: it is left until the deadline.
    Undecided,
    /// Ours by its name, and the log has never heard of it, or no longer.
    Unknown,
    /// Of another handfast store, or another database of this one.
    Elsewhere,
    /// Somebody else's: never touched.
    Foreign,
}

impl Label {
    /// It may be left although nobody has decided to commit it.
    pub(super) fn may_be_left(self) -> bool {
        matches!(self, Self::Unknown | Self::Decided { commit: false })
    }

    /// One word for programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Decided { commit: true } => "committing",
            Self::Decided { commit: false } => "aborting",
            Self::Undecided => "undecided",
            Self::Unknown => "unknown",
            Self::Elsewhere => "elsewhere",
            Self::Foreign => "foreign",
        }
    }
}

/// One prepared transaction, as the auditor sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InDoubt {
    /// What the database has.
    pub prepared: Prepared,
    /// What it is to this store.
    pub label: Label,
    /// How long it has been in doubt, by the database or by its transaction's begin.
    pub age: Option<Duration>,
    /// Why it is not rolled back although nobody has decided it; none: nothing is in the way, or
    /// it is not ours to roll back.
    pub why_left: Option<String>,
}

/// Transactions whose branches an audit leaves alone, each with the reason.
type Left = BTreeMap<TransactionId, String>;

/// A branch stays prepared although the log has no decision to commit it.
fn leave(shared: &Shared, left: &mut Left, id: TransactionId, why: String) {
    shared.say_left(id, &why);
    left.insert(id, why);
}

/// One audit.
pub(super) async fn audit(shared: &Shared) -> Result<(), String> {
    // It may have gone and come back as another between two looks.
    let identity = shared.database.identity().await.map_err(|fault| fault.to_string())?;
    let known = shared.status().identity.clone();
    if known.is_some_and(|known| identity.is_other_than(&known)) {
        return Err("another life of the server answers: it is looked at anew".to_owned());
    }
    match shared.database.stands().await {
        Ok(true) => {}
        Ok(false) => return Err("the owner row is gone: it is written again".to_owned()),
        Err(fault) => return Err(fault.to_string()),
    }
    let mut left = Left::new();
    let mut seen = scan(shared).await?;
    if shared.database.kind() == Kind::Postgres {
        // Votes are not written down, so after a restart nobody but this look knows of a branch
        // that was prepared and never decided. It holds locks: it goes at once. MariaDB's wait for
        // the second look, because the session that prepared one may be ending just now (MY3).
        for (branch, commit) in seen.iter().filter_map(decided).filter(|(_, commit)| !commit) {
            end_decided(shared, &mut left, branch, commit).await;
        }
    }
    let before: Vec<(BranchId, bool)> = seen.iter().filter_map(decided).collect();
    let unknown = strays(shared, &mut left, &seen);
    if !before.is_empty() || !unknown.is_empty() {
        // What is only just being finished, or whose session is only just ending, is gone by then.
        sleep(if unknown.is_empty() { ENDING } else { TWICE }).await;
        let again = scan(shared).await?;
        for (branch, commit) in again.iter().filter_map(decided) {
            if before.contains(&(branch, commit)) {
                end_decided(shared, &mut left, branch, commit).await;
            }
        }
        let mut twice = strays(shared, &mut left, &again);
        twice.retain(|branch| unknown.contains(branch));
        roll_back(shared, &mut left, &twice).await?;
        seen = again;
    }
    claims::raise(shared).await?;
    for row in seen.iter_mut().filter(|row| row.label.may_be_left()) {
        row.why_left =
            row.prepared.branch.and_then(|branch| left.get(&branch.transaction).cloned());
    }
    let mut status = shared.status();
    status.in_doubt = seen;
    status.audited = Some(SystemTime::now());
    Ok(())
}

/// Branches that the log has never heard of, as far as that is a proof.
fn strays(shared: &Shared, left: &mut Left, seen: &[InDoubt]) -> Vec<BranchId> {
    let unknown = seen.iter().filter(|row| row.label == Label::Unknown);
    let branches = unknown.filter_map(|row| row.prepared.branch);
    branches.filter(|branch| is_provable(shared, left, branch)).collect()
}

fn decided(row: &InDoubt) -> Option<(BranchId, bool)> {
    match row.label {
        Label::Decided { commit } => row.prepared.branch.map(|branch| (branch, commit)),
        Label::Undecided | Label::Unknown | Label::Elsewhere | Label::Foreign => None,
    }
}

/// Rolls back branches that nobody has decided, as far as the log and the times go.
async fn roll_back(shared: &Shared, left: &mut Left, strays: &[BranchId]) -> Result<(), String> {
    if strays.is_empty() {
        return Ok(());
    }
    // Whether the store is what it takes itself for is asked now, not remembered.
    match claims::claim(shared).await {
        Ok(Condition::Up) => {}
        Ok(other) => return Err(other.why().unwrap_or_default().to_owned()),
        Err(fault) => return Err(fault.to_string()),
    }
    for branch in strays {
        let id = branch.transaction;
        if let Some(why) = rollback::against(shared, id, false).await {
            leave(shared, left, id, why);
            continue;
        }
        tracing::warn!(
            database = %shared.name,
            transaction = %id,
            "rolls back a prepared branch that the log has never heard of"
        );
        end(shared, *branch, false).await;
    }
    Ok(())
}

/// Ends a branch as decided, unless it was aborted for want of a decision that another life of the
/// store seems to have made.
async fn end_decided(shared: &Shared, left: &mut Left, branch: BranchId, commit: bool) {
    let id = branch.transaction;
    if !commit
        && rollback::is_of_earlier_life(shared, id)
        && let Some(why) = rollback::against(shared, id, true).await
    {
        return leave(shared, left, id, why);
    }
    end(shared, branch, commit).await;
}

/// Ends a branch as decided. Idempotent, so that the core may be doing the same.
async fn end(shared: &Shared, branch: BranchId, commit: bool) {
    let end = if commit { End::Commit } else { End::Abort };
    match shared.database.finish(&branch, end, None).await {
        Finished::Done => {}
        Finished::Unknown(why) | Finished::Held(why) | Finished::Heuristic(why) => {
            tracing::warn!(
                database = %shared.name,
                transaction = %branch.transaction,
                "the auditor could not end a branch: {why}"
            );
        }
    }
}

/// "Never heard of it" proves that it was never decided, within the time for which outcomes are
/// kept.
fn is_provable(shared: &Shared, left: &mut Left, branch: &BranchId) -> bool {
    let id = branch.transaction;
    let too_old = || {
        let young = age(shared, branch).is_some_and(|age| age < PROOF);
        (!young).then(|| "it is older than what the log has to remember".to_owned())
    };
    match rollback::unproven(shared, id).or_else(too_old) {
        None => true,
        Some(why) => {
            leave(shared, left, id, why);
            false
        }
    }
}

/// By log time, as ids are: none for an id that is younger than anything in this log.
fn age(shared: &Shared, branch: &BranchId) -> Option<Duration> {
    let age_ms = shared.node.log_time_ms().checked_sub(branch.transaction.unix_ms());
    age_ms.map(Duration::from_millis)
}

async fn scan(shared: &Shared) -> Result<Vec<InDoubt>, String> {
    let list = shared.database.list().await.map_err(|fault| fault.to_string())?;
    let mut rows = Vec::with_capacity(list.len());
    for prepared in list {
        let label = match prepared.branch {
            None => Label::Foreign,
            Some(branch) => label(shared, &branch).await?,
        };
        let age = prepared.age.or_else(|| prepared.branch.as_ref().and_then(|b| age(shared, b)));
        rows.push(InDoubt { prepared, label, age, why_left: None });
    }
    Ok(rows)
}

/// What a branch is to this store, at this moment.
pub(super) async fn label(shared: &Shared, branch: &BranchId) -> Result<Label, String> {
    let id = branch.transaction;
    // The same server may be registered under two names, or by two stores.
    if *branch != BranchId::new(id, shared.node.info().store, &shared.name) {
        return Ok(Label::Elsewhere);
    }
    let database = shared.name.clone();
    let reply = shared.node.call(Command::InquireBranch { id, database }).await;
    match reply.map_err(|stopped| stopped.to_string())? {
        Reply::Branch(BranchDecision::Commit) => Ok(Label::Decided { commit: true }),
        Reply::Branch(BranchDecision::Abort) => Ok(Label::Decided { commit: false }),
        Reply::Branch(BranchDecision::Pending) => Ok(Label::Undecided),
        Reply::Branch(BranchDecision::Unknown) => Ok(Label::Unknown),
        other => Err(format!("the node gave another answer: {other:?}")),
    }
}
