//! Simulated databases: markers and tombstones, prepared branches, and the server's own
//! connections, which may do what they were asked without the answer ever arriving. Who may use them
//! is in `owner`.

use std::collections::BTreeSet;

use handfast_core::ids::{Name, TransactionId};
use handfast_core::input::{BranchReport, Found, Input, Resolution};
use handfast_core::owner::Owner;
use handfast_core::silence::Adopted;

use super::World;
use crate::fault::Fault;
use crate::invariants::Seen;

/// One database. Its rows and prepared branches are in the facts.
#[derive(Debug)]
pub(super) struct Database {
    /// Its name.
    pub name: Name,
    /// Whether it answers.
    pub up: bool,
    /// Local transactions that have written their marker and not committed: they hold its lock.
    pub open: BTreeSet<TransactionId>,
    /// Its owner row.
    pub owner: Option<Owner>,
    /// When an operator has made it the store's.
    pub adopted: Option<Adopted>,
}

impl Database {
    /// An empty database.
    #[must_use]
    pub(super) fn new(name: Name) -> Self {
        Self { name, up: true, open: BTreeSet::new(), owner: None, adopted: None }
    }
}

impl World {
    /// One of the server's connections gets something done, or the auditor looks.
    pub(super) fn database_step(&mut self) {
        if !self.verifies.is_empty() && self.rng.percent(50) {
            let at = self.rng.index(self.verifies.len());
            let (id, database, local) = self.verifies.swap_remove(at);
            let ours = self.life.has(&database);
            let found = if ours { self.look_up(id, &database, local) } else { Found::Unknown };
            let lost = !self.healing && self.rng.percent(15);
            let found = if lost { Found::Unknown } else { found };
            return self.feed(Input::Verified { id, database, found });
        }
        let waiting = self.finishes.len() + self.resolves.len();
        if waiting == 0 || (!self.healing && self.rng.percent(5)) {
            return self.audit_ours();
        }
        let at = self.rng.index(waiting);
        if at < self.finishes.len() {
            let (id, database, commit) = self.finishes.swap_remove(at);
            let ours = self.life.has(&database);
            let lost = !ours || (!self.healing && self.rng.percent(10));
            let report =
                if ours { self.finish(id, &database, commit) } else { BranchReport::Unknown };
            let report = if lost { BranchReport::Unknown } else { report };
            self.feed(Input::BranchFinished { id, database, report });
        } else {
            let (id, database) = self.resolves.swap_remove(at - self.finishes.len());
            let ours = self.life.has(&database);
            let lost = !ours || (!self.healing && self.rng.percent(15));
            let resolution = if ours { self.resolve(id, &database) } else { Resolution::Unknown };
            let resolution = if lost { Resolution::Unknown } else { resolution };
            self.feed(Input::Resolved { id, resolution });
        }
    }

    /// The server is gone: its connections may still do what they were asked.
    pub(super) fn forget_database_work(&mut self) {
        for (id, database, commit) in std::mem::take(&mut self.finishes) {
            if self.rng.percent(50) {
                self.finish(id, &database, commit);
            }
        }
        self.verifies.clear();
        for (id, database) in std::mem::take(&mut self.resolves) {
            if self.rng.percent(50) {
                self.resolve(id, &database);
            }
        }
    }

    pub(super) fn index(&self, database: &Name) -> Option<usize> {
        self.databases.iter().position(|d| d.name == *database)
    }

    /// Is it prepared? Of a local transaction: is its marker visible?
    fn look_up(&mut self, id: TransactionId, database: &Name, local: bool) -> Found {
        let branch = (database.clone(), id);
        let there = match self.index(database).filter(|at| self.databases[*at].up) {
            None => return Found::Unknown,
            Some(_) if local => self.facts.rows.get(&branch) == Some(&true),
            Some(_) => self.facts.prepared.contains(&branch),
        };
        let believed = self.fault == Some(Fault::VoteNotVerified);
        if there || believed {
            return Found::Yes;
        }
        if !local {
            self.facts.refusals.insert(branch);
        }
        Found::No
    }

    pub(super) fn finish(
        &mut self,
        id: TransactionId,
        database: &Name,
        commit: bool,
    ) -> BranchReport {
        let Some(at) = self.index(database) else { return BranchReport::Unknown };
        if !self.databases[at].up {
            return BranchReport::Unknown;
        }
        let branch = (database.clone(), id);
        if self.facts.prepared.remove(&branch) {
            if commit {
                self.facts.rows.insert(branch, true);
                self.see(&Seen::Visible(database, id));
            } else {
                self.see(&Seen::RolledBack(database, id));
            }
            return BranchReport::Done;
        }
        let committed = self.facts.rows.get(&branch) == Some(&true);
        if committed == commit {
            BranchReport::Done
        } else {
            BranchReport::Heuristic("somebody else has finished it".into())
        }
    }

    pub(super) fn resolve(&mut self, id: TransactionId, database: &Name) -> Resolution {
        let Some(at) = self.index(database) else { return Resolution::Unknown };
        if !self.databases[at].up || self.databases[at].open.contains(&id) {
            return Resolution::Unknown;
        }
        let branch = (database.clone(), id);
        match (self.facts.rows.get(&branch), self.fault) {
            (Some(true), _) => Resolution::Committed,
            (Some(false), _) => Resolution::Aborted,
            (None, Some(Fault::MarkerNotChecked)) => Resolution::Committed,
            (None, Some(Fault::TombstoneNotWritten)) => Resolution::Tombstone,
            (None, _) => {
                self.facts.rows.insert(branch, false);
                Resolution::Tombstone
            }
        }
    }

    /// A database goes away, or comes back.
    pub(super) fn toggle_database(&mut self, at: usize) {
        let Some(database) = self.databases.get_mut(at) else { return };
        database.up = !database.up;
        if !database.up {
            database.open.clear();
        }
        self.look_at(at);
    }
}
