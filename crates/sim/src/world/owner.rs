//! Whose a database is: claims of the store and of its copies, adoption, and the auditor.
//!
//! What an owner row says against a log and what a log's silence is worth is judged by the product's
//! own code (`handfast_core::owner`, `openings` and `silence`), and a COMMIT waits for a claim in the
//! core itself. What the server does around them, in its tasks, is modelled here: it asks the other
//! databases before its first claim, looks for committed markers that its log has never begun, and
//! rolls nothing back while another database contradicts it or cannot be asked. A copy is never
//! recognised by its files here: every one is the snapshot of a disk, which keeps them.

use std::collections::BTreeSet;

use handfast_core::ids::{Lsn, Name, OpeningId, StoreId, TransactionId};
use handfast_core::input::Input;
use handfast_core::openings::Openings;
use handfast_core::owner::{Owner, SHARD};
use handfast_core::silence::{self, Adopted};

use super::{Database, World};
use crate::fault::Fault;
use crate::invariants::Seen;

/// One opening of the store, or of a copy of it, and the databases.
#[derive(Clone, Debug)]
pub(super) struct Life {
    /// Which.
    pub opening: OpeningId,
    /// Its claims, of which each may stand in a row.
    claims: Vec<u64>,
    /// Databases that are its own.
    ours: BTreeSet<Name>,
    /// Databases that say something against it.
    against: BTreeSet<Name>,
}

impl Life {
    pub(super) fn new(opening: OpeningId) -> Self {
        let (claims, ours, against) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        Self { opening, claims, ours, against }
    }

    /// The database has confirmed that it is this life's.
    pub(super) fn has(&self, database: &Name) -> bool {
        self.ours.contains(database)
    }
}

/// What a log says.
pub(super) struct Says<'a> {
    /// Its openings.
    pub openings: &'a Openings,
    /// How much of it is durable.
    pub durable: Lsn,
    /// What it has of a transaction.
    pub knows: &'a dyn Fn(TransactionId) -> Known,
}

/// What a log has of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing.
    Nothing,
    /// That it was aborted, durably.
    Aborted,
    /// Something else.
    Otherwise,
}

impl World {
    /// A life makes a database its own, if nothing speaks against it.
    pub(super) fn claim_for(&mut self, life: &mut Life, says: &Says<'_>, at: usize) -> bool {
        if !self.databases[at].up {
            return false;
        }
        let name = self.databases[at].name.clone();
        let first = !life.has(&name);
        if first && self.said_elsewhere(life, says, at) {
            return false;
        }
        let ours = self.owner_row(life, says);
        if self.contradicts(life, says, at, first) {
            life.ours.remove(&name);
            life.against.insert(name);
            return false;
        }
        life.claims.push(ours.claim);
        self.databases[at].owner = Some(ours);
        life.against.remove(&name);
        life.ours.insert(name);
        true
    }

    /// All that answer are asked before the first one is claimed.
    fn said_elsewhere(&self, life: &mut Life, says: &Says<'_>, but: usize) -> bool {
        for at in (0..self.databases.len()).filter(|at| *at != but) {
            let database = &self.databases[at];
            if database.up && !life.has(&database.name) && self.contradicts(life, says, at, true) {
                life.against.insert(database.name.clone());
            }
        }
        life.against.iter().any(|name| *name != self.databases[but].name)
    }

    /// A database contradicts a log: by its row, and before the first claim by its markers.
    fn contradicts(&self, life: &Life, says: &Says<'_>, at: usize, first: bool) -> bool {
        let Some(row) = &self.databases[at].owner else { return false };
        let ours = Owner { claim: 0, ..self.row_of(life, says) };
        if self.fault == Some(Fault::OwnerByEpochAndLsn) {
            return row.epoch > ours.epoch || row.durable_lsn > ours.durable_lsn;
        }
        if !row.contradictions(&ours, says.openings, &life.claims).is_empty() {
            return true;
        }
        let Database { name, adopted, .. } = &self.databases[at];
        let after_ms = silence::markers_after(says.openings, Some(row.opening), *adopted);
        let unknown = |((of, id), committed): (&(Name, TransactionId), &bool)| {
            let new = of == name && *committed && id.unix_ms() > after_ms;
            let elsewhere = silence::is_begun_elsewhere(says.openings, *id);
            new && (elsewhere || (says.knows)(*id) == Known::Nothing)
        };
        first && self.facts.rows.iter().any(unknown)
    }

    fn owner_row(&mut self, life: &Life, says: &Says<'_>) -> Owner {
        self.claims += 1;
        Owner { claim: self.claims, ..self.row_of(life, says) }
    }

    /// What a life says about itself. The copy of a disk takes itself for the same machine.
    fn row_of(&self, life: &Life, says: &Says<'_>) -> Owner {
        let epoch = says.openings.current().map_or(0, |current| current.epoch);
        Owner {
            store: StoreId(1),
            shard: SHARD,
            epoch: u64::from(epoch),
            node: "machine".into(),
            opening: life.opening,
            durable_lsn: says.durable,
            claim: 0,
        }
    }

    /// The auditor of a life looks into its databases: what its log has aborted, or has never heard
    /// of where that proves something, is rolled back. One branch at a time.
    pub(super) fn audit_for(&mut self, life: &mut Life, says: &Says<'_>) {
        let mut strays = Vec::new();
        for (name, id) in &self.facts.prepared {
            let Some(at) = self.index(name).filter(|at| self.databases[*at].up) else { continue };
            let adopted = self.databases[at].adopted;
            let stray = match (says.knows)(*id) {
                Known::Aborted => true,
                Known::Otherwise => false,
                Known::Nothing => silence::unproven(says.openings, adopted, *id).is_none(),
            };
            if stray && life.has(name) {
                strays.push((at, *id, (says.knows)(*id) == Known::Nothing));
            }
        }
        for (at, id, unknown) in strays {
            // Whether the store is what it takes itself for is asked now, not remembered.
            if unknown && !self.claim_for(life, says, at) {
                return;
            }
            let earlier = says.openings.of(id).is_none_or(|made| made.end.is_some());
            if earlier && !self.may_roll_back(life, at, id) {
                continue;
            }
            let name = self.databases[at].name.clone();
            self.facts.prepared.remove(&(name.clone(), id));
            return self.see(&Seen::RolledBack(&name, id));
        }
    }

    /// Nothing speaks against rolling back a branch that is of an earlier life than this one: every
    /// other database can be asked, and has not committed the transaction.
    pub(super) fn may_roll_back(&self, life: &Life, at: usize, id: TransactionId) -> bool {
        let asked = |other: &Database| {
            other.up && self.facts.rows.get(&(other.name.clone(), id)) != Some(&true)
        };
        let mut others = (0..self.databases.len()).filter(|other| *other != at);
        life.against.is_empty() && others.all(|other| asked(&self.databases[other]))
    }

    /// The store's own auditor.
    pub(super) fn audit_ours(&mut self) {
        let mut life = self.life.clone();
        self.with_our_log(|world, says| world.audit_for(&mut life, says));
        self.life = life;
        let down = self.life.against.iter().next().cloned();
        if let Some(at) = down.and_then(|name| self.index(&name)) {
            // An operator makes sure that no copy is in use.
            if self.rng.percent(20) {
                return self.adopt(at);
            }
        }
        // The row says how far the log has come; and what was another's may be adopted by now.
        let planted = self.fault == Some(Fault::DecidedBeforeClaimed);
        if planted || (!self.healing && self.rng.percent(70)) {
            return;
        }
        for at in 0..self.databases.len() {
            let Database { name, owner, .. } = &self.databases[at];
            let behind = owner.as_ref().is_some_and(|row| row.durable_lsn.0 < self.facts.durable);
            let ours = self.life.has(name);
            if (ours && behind) || (!ours && self.life.against.is_empty()) {
                self.claim(at);
            }
        }
    }

    fn with_our_log<T>(&mut self, look: impl FnOnce(&mut Self, &Says<'_>) -> T) -> T {
        let log = &self.facts;
        let durable = Lsn(log.durable);
        let chains: std::collections::BTreeMap<TransactionId, Known> = log
            .chains
            .keys()
            .map(|id| match log.durable_decision(*id) {
                Some(false) => (*id, Known::Aborted),
                Some(true) | None => (*id, Known::Otherwise),
            })
            .collect();
        let openings = self.core.openings().clone();
        let knows = |id| chains.get(&id).copied().unwrap_or(Known::Nothing);
        look(self, &Says { openings: &openings, durable, knows: &knows })
    }

    /// The server looks at a database: whether it answers, and is its own.
    pub(super) fn look_at(&mut self, at: usize) {
        let (name, up) = (self.databases[at].name.clone(), self.databases[at].up);
        if !up {
            // What was confirmed stays so: the row says whether it is true when it is back.
            return self.feed(Input::Database { name, up });
        }
        // Planted: it says so, and has written it down the first time only.
        let planted = self.databases[at].owner.is_some();
        if planted && self.fault == Some(Fault::DecidedBeforeClaimed) {
            self.life.ours.insert(name);
            return self.claimed(at, true);
        }
        self.claim(at);
    }

    /// The store makes a database its own, if nothing speaks against it.
    fn claim(&mut self, at: usize) {
        if self.databases[at].up {
            let mut life = self.life.clone();
            let ours = self.with_our_log(|world, says| world.claim_for(&mut life, says, at));
            self.life = life;
            self.claimed(at, ours);
        }
    }

    /// The core is told whether a database is the store's.
    fn claimed(&mut self, at: usize, ours: bool) {
        let name = self.databases[at].name.clone();
        let asked_ms = self.now.mono_ms;
        let why = (!ours).then(|| "another life of the store was there".to_owned());
        let refused = why.clone();
        if ours {
            self.feed(Input::Claimed { name: name.clone(), asked_ms });
        }
        self.feed(Input::DatabaseRefused { name: name.clone(), local: why, distributed: refused });
        self.feed(Input::Database { name, up: ours });
    }

    /// An operator makes a database the store's, and has seen to it that no copy is in use.
    pub(super) fn adopt(&mut self, at: usize) {
        let database = &self.databases[at];
        if !database.up || !self.life.against.contains(&database.name) {
            return;
        }
        let name = database.name.clone();
        self.trace.line(format_args!("{} {name} is adopted", self.now.mono_ms));
        self.copies.clear();
        let before = self.new_transaction_id();
        let markers = self.facts.rows.keys().filter(|(of, _)| *of == name).map(|(_, id)| *id);
        let markers_to_ms = markers.max().max(Some(before)).map_or(0, TransactionId::unix_ms);
        let adopted = Adopted { epoch: self.epoch, before, markers_to_ms };
        self.databases[at].adopted = Some(adopted);
        let mut life = self.life.clone();
        let row = self.with_our_log(|world, says| world.owner_row(&life, says));
        life.claims.push(row.claim);
        life.against.remove(&name);
        life.ours.insert(name);
        self.life = life;
        self.databases[at].owner = Some(row);
        self.claim(at);
    }

    /// A branch that the store's log knows nothing of, and that nobody may roll back but a person.
    pub(super) fn is_left_alone(&self, (database, id): &(Name, TransactionId)) -> bool {
        let adopted = self.index(database).and_then(|at| self.databases[at].adopted);
        !self.facts.chains.contains_key(id)
            && silence::unproven(self.core.openings(), adopted, *id).is_some()
    }
}
