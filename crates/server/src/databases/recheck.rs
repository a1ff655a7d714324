//! Looks for commits that a database has lost.
//!
//! A standby that took over before it had everything, a copy that was put in place, a server that
//! does not flush: they all come back without what was committed last, and say nothing. The marker of
//! each transaction is part of its commit and is kept for a day, so one that is not there tells. What
//! ended in the hour before is looked up when another server, or another life of it, answers, and
//! once after each start and each registration, because nobody saw then what answered before.

use std::collections::BTreeSet;

use handfast_core::branch::BranchId;
use handfast_core::ids::{Name, TransactionId};
use handfast_core::input::Input;
use handfast_core::output::PublicState;
use handfast_core::record::ParticipantKind;
use handfast_core::view::{TransactionView, VoteKind};
use handfast_database::{Fault, Outcome};
use handfast_wire::ended::{EndedQuery, Ending};

use super::{Shared, sweeper};
use crate::node::Node;

/// What ended so long before is looked up, in milliseconds: the nearest first.
const BACK_MS: [u64; 3] = [60_000, 600_000, 3_600_000];
/// After a start the hour before the end of each of so many earlier lives is looked at: the newest
/// may have done nothing but start.
const LIVES: usize = 4;
/// So many transactions are looked at; those that ended longer ago are left when there are more.
const MOST: usize = 200_000;
/// So many lost ones are told to the core at once: each is a record, and an entry for a person.
const TOLD: usize = 1_000;
/// Transactions in one look at the log.
const PAGE: usize = 1_000;

/// Up to when a database is known to have had what was committed in it: log time, Unix time in
/// milliseconds, the newest first and one at least.
pub(super) type Had = Vec<u64>;

/// When this server, starting, had its databases last.
pub(super) fn earlier_lives(node: &Node) -> Had {
    let openings = node.info().openings.restate();
    openings.iter().rev().take(LIVES).map(|opened| opened.newest_ms).collect()
}

/// One look at what has ended; an error says why it has to be repeated. The first one of a
/// registration finds out whether the name led to another database before.
pub(super) async fn recheck(shared: &Shared, had: &[u64], is_first: bool) -> Result<(), String> {
    let kept_ms = u64::try_from(sweeper::KEPT.as_millis()).unwrap_or(u64::MAX);
    let oldest_ms = shared.node.log_time_ms().saturating_sub(kept_ms);
    let oldest_ms = oldest_ms.max(shared.adoption.new_since_ms(&shared.name));
    let mut search = Search::new(shared, is_first);
    for (since_ms, until_ms) in stretches(had, oldest_ms) {
        search.look(since_ms, until_ms).await?;
        if search.looked_at >= MOST {
            tracing::warn!(
                database = %shared.name,
                "only the last {MOST} transactions were looked up: not all of the last hour"
            );
            break;
        }
    }
    search.tell().await.map_err(|fault| fault.to_string())
}

/// From when to when is looked, one after the other. Markers of what ended before the oldest time
/// may have been swept.
fn stretches(had: &[u64], oldest_ms: u64) -> Vec<(u64, u64)> {
    let newest_ms = had.first().map_or(oldest_ms, |had_ms| oldest_ms.max(*had_ms));
    // It may have had a little more than anybody has seen.
    let after_ms = newest_ms.saturating_add(BACK_MS[0]);
    let mut all = vec![(newest_ms, after_ms)];
    let mut until_ms = newest_ms;
    for had_ms in had {
        until_ms = until_ms.min(*had_ms);
        for back_ms in BACK_MS {
            let since_ms = oldest_ms.max(had_ms.saturating_sub(back_ms));
            if since_ms < until_ms {
                all.push((since_ms, until_ms));
                until_ms = since_ms;
            }
        }
    }
    all.push((after_ms, u64::MAX));
    all
}

struct Search<'a> {
    shared: &'a Shared,
    is_first: bool,
    looked_at: usize,
    /// Commits of which it has the marker.
    there: usize,
    /// Some of them are of before it was registered.
    had_any: bool,
    /// Of which it was said before that it has lost them.
    told: usize,
    lost: Vec<TransactionId>,
    /// Other names under which databases had parts in what was looked at.
    others: BTreeSet<Name>,
}

impl<'a> Search<'a> {
    fn new(shared: &'a Shared, is_first: bool) -> Self {
        let others = shared.peers().iter().map(|peer| peer.name.clone()).collect();
        let (looked_at, there, had_any, told, lost) = (0, 0, false, 0, Vec::new());
        Self { shared, is_first, looked_at, there, had_any, told, lost, others }
    }

    /// What ended from one Unix time in milliseconds to another.
    async fn look(&mut self, since_ms: u64, until_ms: u64) -> Result<(), String> {
        let name = &self.shared.name;
        let mut from = None;
        loop {
            let ending = Some(Ending::Committed);
            let query = EndedQuery { since_ms, ending, from, limit: PAGE };
            let page = self.shared.node.ended(query).await.map_err(|error| error.to_string())?;
            let is_earlier = |view: &TransactionView| view.ended_wall_ms < Some(until_ms);
            let is_over = page.views.iter().any(|view| !is_earlier(view));
            let mut ids = Vec::new();
            for view in page.views.iter().filter(|view| is_earlier(view)) {
                self.looked_at += 1;
                for database in databases(view) {
                    if database != name {
                        self.others.insert(database.clone());
                    } else if view.is_told_lost_by(name) {
                        self.told += 1;
                    } else {
                        ids.push(view.id);
                    }
                }
            }
            self.look_up(ids).await.map_err(|fault| fault.to_string())?;
            from = page.next;
            if from.is_none() || is_over || self.looked_at >= MOST {
                return Ok(());
            }
        }
    }

    async fn look_up(&mut self, ids: Vec<TransactionId>) -> Result<(), Fault> {
        if ids.is_empty() {
            return Ok(());
        }
        let store = self.shared.node.info().store;
        let branch = |id: &TransactionId| BranchId::new(*id, store, &self.shared.name);
        let branches: Vec<BranchId> = ids.iter().map(branch).collect();
        let found = self.shared.database.outcomes(&branches).await?;
        for (id, outcome) in ids.into_iter().zip(found) {
            if outcome == Some(Outcome::Committed) {
                self.there += 1;
                self.had_any |= id.unix_ms() < self.shared.registered_ms;
            } else {
                self.lost.push(id);
            }
        }
        Ok(())
    }

    async fn tell(self) -> Result<(), Fault> {
        let (name, lost) = (&self.shared.name, self.lost.len());
        if lost == 0 {
            let Self { there, told, .. } = self;
            tracing::info!(
                database = %name,
                "{there} recent commits are there, and {told} are known to be lost"
            );
            return Ok(());
        }
        if self.is_first && !self.had_any && self.is_another_database().await? {
            self.shared.note_new().await;
            tracing::warn!(
                database = %name,
                "{lost} recent commits are not in it, and nothing else of this name: another database \
                 than before is registered under it, so they are not called lost"
            );
            return Ok(());
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
        Ok(())
    }

    /// It had nothing of this name when it was registered, but of another name of this store. A
    /// database that has lost all that it had has neither, and one that was never this store's is
    /// known by its first claim.
    async fn is_another_database(&self) -> Result<bool, Fault> {
        let Shared { database, registered_ms, .. } = self.shared;
        if !database.old_markers(&self.shared.any_branch(), *registered_ms).await?.is_empty() {
            return Ok(false);
        }
        for other in &self.others {
            let any = BranchId::new(TransactionId(0), self.shared.node.info().store, other);
            if !database.old_markers(&any, *registered_ms).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// In which databases its commit has left a marker.
fn databases(view: &TransactionView) -> BTreeSet<&Name> {
    if view.state != PublicState::Committed {
        return BTreeSet::new();
    }
    let branches = view.branches.iter().filter(|branch| {
        branch.kind == ParticipantKind::Database && branch.vote == Some(VoteKind::Yes)
    });
    branches.map(|branch| &branch.participant).chain(&view.local).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: u64 = 60_000;

    #[test]
    fn the_hour_before_is_looked_at_and_the_nearest_first() {
        let minutes = |had: &[u64], oldest: u64| -> Vec<(u64, u64)> {
            let had: Vec<u64> = had.iter().map(|minute| minute * MINUTE_MS).collect();
            let all = stretches(&had, oldest * MINUTE_MS);
            all.into_iter().map(|(since, until)| (since / MINUTE_MS, until / MINUTE_MS)).collect()
        };
        let around = |at: u64, rest: &[(u64, u64)]| -> Vec<(u64, u64)> {
            let (before, after) = ((at, at + 1), (at + 1, u64::MAX / MINUTE_MS));
            [before].into_iter().chain(rest.iter().copied()).chain([after]).collect()
        };
        let hour = [(999, 1_000), (990, 999), (940, 990)];
        assert_eq!(minutes(&[1_000], 0), around(1_000, &hour));
        // Lives that followed each other at once are looked at once, and another one of long before.
        let before = [(939, 940), (499, 500), (490, 499), (440, 490)];
        assert_eq!(minutes(&[1_000, 999, 500], 0), around(1_000, &[&hour[..], &before].concat()));
        // What may have been swept is not looked for.
        assert_eq!(minutes(&[1_000, 500], 995), around(1_000, &[(999, 1_000), (995, 999)]));
        assert_eq!(minutes(&[0], 995), around(995, &[]), "a store that was only just made");
    }
}
