//! A store of a service in memory: what a service costs that keeps nothing. Everything in it is
//! lost with the process, so it proves nothing, and no real service may use it.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::ops::Bound::{Excluded, Unbounded};

use handfast::service::{
    Branch, CommitError, Outcome, OutcomeKey, Recorded, ServiceStore, StoreStep,
};
use handfast::{StateId, TransactionId};
use handfast_core::ids::{Began, StoreId};
use handfast_core::participant::Synced;
use uuid::Uuid;

/// See the module.
#[derive(Debug)]
pub(in crate::bench) struct Memory {
    state_id: StateId,
    branches: HashMap<TransactionId, Branch>,
    prepared: BTreeSet<TransactionId>,
    outcomes: BTreeSet<OutcomeKey>,
    horizons: HashMap<StoreId, Began>,
}

impl Memory {
    pub(in crate::bench) fn new() -> Self {
        Self {
            state_id: StateId(Uuid::now_v7().as_u128()),
            branches: HashMap::new(),
            prepared: BTreeSet::new(),
            outcomes: BTreeSet::new(),
            horizons: HashMap::new(),
        }
    }

    fn remove(&mut self, id: TransactionId) {
        let Some(branch) = self.branches.remove(&id) else { return };
        if matches!(branch.recorded, Recorded::Prepared { .. }) {
            self.prepared.remove(&id);
        } else {
            self.outcomes.remove(&OutcomeKey { at_unix_ms: branch.at_unix_ms, id });
        }
    }
}

impl ServiceStore for Memory {
    type Db = ();
    type Error = Infallible;
    type Step<'a> = Step<'a>;

    fn state_id(&self) -> StateId {
        self.state_id
    }

    fn open_step(&mut self) -> Result<Step<'_>, Infallible> {
        Ok(Step(self))
    }
}

/// A step that takes effect at once: nothing here can fail, so nothing has to be undone.
#[derive(Debug)]
pub(in crate::bench) struct Step<'a>(&'a mut Memory);

impl StoreStep for Step<'_> {
    type Db = ();
    type Error = Infallible;

    fn attempt<T, E>(
        &mut self,
        work: impl FnOnce(&()) -> Result<T, E>,
    ) -> Result<Result<T, E>, Infallible> {
        Ok(work(&()))
    }

    fn load(&mut self, id: TransactionId) -> Result<Option<Branch>, Infallible> {
        Ok(self.0.branches.get(&id).cloned())
    }

    fn save(&mut self, id: TransactionId, branch: &Branch) -> Result<(), Infallible> {
        self.0.remove(id);
        if matches!(branch.recorded, Recorded::Prepared { .. }) {
            self.0.prepared.insert(id);
        } else {
            self.0.outcomes.insert(OutcomeKey { at_unix_ms: branch.at_unix_ms, id });
        }
        self.0.branches.insert(id, branch.clone());
        Ok(())
    }

    fn forget(&mut self, id: TransactionId) -> Result<(), Infallible> {
        self.0.remove(id);
        Ok(())
    }

    fn horizon(&mut self, store: StoreId) -> Result<Option<Began>, Infallible> {
        Ok(self.0.horizons.get(&store).copied())
    }

    fn raise_horizon(&mut self, began: Began) -> Result<(), Infallible> {
        let horizon = self.0.horizons.entry(began.store).or_insert(began);
        *horizon = began.max(*horizon);
        Ok(())
    }

    fn prepared(
        &mut self,
        after: Option<TransactionId>,
        limit: u32,
    ) -> Result<Vec<TransactionId>, Infallible> {
        let later = self.0.prepared.range((after.map_or(Unbounded, Excluded), Unbounded));
        Ok(later.take(limit as usize).copied().collect())
    }

    fn outcomes(
        &mut self,
        before_unix_ms: u64,
        after: Option<OutcomeKey>,
        limit: u32,
    ) -> Result<Vec<Outcome>, Infallible> {
        let keys = self.0.outcomes.range((after.map_or(Unbounded, Excluded), Unbounded));
        let keys = keys.take_while(|key| key.at_unix_ms < before_unix_ms);
        let began = |key: &OutcomeKey| self.0.branches.get(&key.id).and_then(|b| b.began);
        let outcomes = keys.map(|key| Outcome { key: *key, began: began(key) });
        Ok(outcomes.take(limit as usize).collect())
    }

    fn commit(self) -> Result<Synced, CommitError<Infallible>> {
        Ok(Synced::now())
    }
}
