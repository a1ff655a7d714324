//! Looks for commits that a database has lost.
//!
//! A standby that took over before it had everything, a copy that was put in place, a server that
//! does not flush: they all come back without what was committed last, and say nothing. The marker of
//! each transaction is part of its commit and is kept for a day, so one that is not there tells. What
//! ended in the hour before is looked up when another server, or another life of it, answers.

use handfast_core::branch::BranchId;
use handfast_core::ids::{Name, TransactionId};
use handfast_core::input::Input;
use handfast_core::output::PublicState;
use handfast_core::record::ParticipantKind;
use handfast_core::view::{TransactionView, VoteKind};
use handfast_database::Outcome;
use handfast_wire::ended::{EndedQuery, Ending};

use super::Shared;

/// What ended so long before is looked up, in milliseconds: the nearest first.
const BACK_MS: [u64; 3] = [60_000, 600_000, 3_600_000];
/// So many transactions are looked at; those that ended longer ago are left when there are more.
const MOST: usize = 200_000;
/// So many lost ones are told to the core: each is a record, and an entry for a person.
const TOLD: usize = 1_000;
/// Transactions in one look at the log.
const PAGE: usize = 1_000;

/// One look at what has ended; an error says why it has to be repeated.
pub(super) async fn recheck(shared: &Shared) -> Result<(), String> {
    let now_ms = shared.node.log_time_ms();
    let mut search = Search { shared, looked_at: 0, lost: Vec::new() };
    let mut until_ms = u64::MAX;
    for back_ms in BACK_MS {
        let since_ms = now_ms.saturating_sub(back_ms);
        search.look(since_ms, until_ms).await?;
        until_ms = since_ms;
        if search.looked_at >= MOST {
            tracing::warn!(
                database = %shared.name,
                "only the last {MOST} transactions were looked up: not all of the last hour"
            );
            break;
        }
    }
    search.tell();
    Ok(())
}

struct Search<'a> {
    shared: &'a Shared,
    looked_at: usize,
    lost: Vec<TransactionId>,
}

impl Search<'_> {
    /// What ended from one Unix time in milliseconds to another.
    async fn look(&mut self, since_ms: u64, until_ms: u64) -> Result<(), String> {
        let mut from = None;
        loop {
            let ending = Some(Ending::Committed);
            let query = EndedQuery { since_ms, ending, from, limit: PAGE };
            let page = self.shared.node.ended(query).await.map_err(|error| error.to_string())?;
            let is_earlier = |view: &TransactionView| view.ended_wall_ms < Some(until_ms);
            let is_over = page.views.iter().any(|view| !is_earlier(view));
            self.looked_at += page.views.len();
            let views = page.views.iter().filter(|view| is_earlier(view));
            let ids = views.filter(|view| had_committed_in(view, &self.shared.name));
            self.look_up(ids.map(|view| view.id).collect()).await?;
            from = page.next;
            if from.is_none() || is_over || self.looked_at >= MOST {
                return Ok(());
            }
        }
    }

    async fn look_up(&mut self, ids: Vec<TransactionId>) -> Result<(), String> {
        if ids.is_empty() {
            return Ok(());
        }
        let store = self.shared.node.info().store;
        let branch = |id: &TransactionId| BranchId::new(*id, store, &self.shared.name);
        let branches: Vec<BranchId> = ids.iter().map(branch).collect();
        let found = self.shared.database.outcomes(&branches).await.map_err(|f| f.to_string())?;
        let lost = ids.into_iter().zip(found);
        let lost = lost.filter(|(_, outcome)| *outcome != Some(Outcome::Committed));
        self.lost.extend(lost.map(|(id, _)| id));
        Ok(())
    }

    fn tell(self) {
        let (name, lost) = (&self.shared.name, self.lost.len());
        if lost == 0 {
            tracing::info!(database = %name, "{} recent commits are all there", self.looked_at);
            return;
        }
        tracing::error!(
            database = %name, lost,
            "the database has lost commits: `handfast tx list --attention` names them{}",
            if lost > TOLD { ", the first of them" } else { "" }
        );
        let gone = |id| Input::CommitGone { id, database: name.clone() };
        let inputs = self.lost.into_iter().take(TOLD).map(gone).collect();
        // The node has stopped: so will this.
        let _ = self.shared.node.databases_said(inputs);
    }
}

/// Whether its commit has left a marker in this database.
fn had_committed_in(view: &TransactionView, name: &Name) -> bool {
    let has_branch = view.branches.iter().any(|branch| {
        branch.kind == ParticipantKind::Database
            && branch.participant == *name
            && branch.vote == Some(VoteKind::Yes)
    });
    view.state == PublicState::Committed && (has_branch || view.local.as_ref() == Some(name))
}
