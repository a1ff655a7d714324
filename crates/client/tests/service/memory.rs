//! A store in memory, shared by all who open it; and the same with bugs planted in it, to show
//! that the suites would find them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use handfast::service::conformance::Subject;
use handfast::service::{
    Branch, CommitError, Outcome, OutcomeKey, Recorded, ServiceStore, StoreStep,
};
use handfast_core::ids::{Began, StateId, StoreId, TransactionId};
use handfast_core::participant::Synced;

use crate::bookkeeper::{BookDb, Books};

/// Something that an implementation could get wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    StateIdChanges,
    StateIdIsNotRandom,
    KeepsWithoutCommit,
    KeepsFailedAttempts,
    UndoesTheWholeStep,
    KeepsNoReason,
    ListsOutcomesAsPrepared,
    PagesOverlap,
    OutcomesById,
    OutcomesOfThatVeryTime,
    ForgetsNothing,
    HorizonFalls,
    HorizonByLsn,
    OneHorizonForAll,
    PlacesAreLost,
    StepsOverlap,
    ReadsAtOpening,
}

impl Bug {
    pub(crate) const ALL: [Self; 17] = [
        Self::StateIdChanges,
        Self::StateIdIsNotRandom,
        Self::KeepsWithoutCommit,
        Self::KeepsFailedAttempts,
        Self::UndoesTheWholeStep,
        Self::KeepsNoReason,
        Self::ListsOutcomesAsPrepared,
        Self::PagesOverlap,
        Self::OutcomesById,
        Self::OutcomesOfThatVeryTime,
        Self::ForgetsNothing,
        Self::HorizonFalls,
        Self::HorizonByLsn,
        Self::OneHorizonForAll,
        Self::PlacesAreLost,
        Self::StepsOverlap,
        Self::ReadsAtOpening,
    ];
}

/// The durable state.
#[derive(Clone, Debug, Default)]
struct State {
    branches: BTreeMap<TransactionId, Branch>,
    horizons: BTreeMap<StoreId, Began>,
    db: MemoryDb,
}

/// The service's own tables.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryDb(RefCell<Books>);

impl BookDb for MemoryDb {
    fn add(&self, id: TransactionId, held: i64, applied: i64) {
        let mut books = self.0.borrow_mut();
        let counts = books.entry(id).or_default();
        *counts = (counts.0 + held, counts.1 + applied);
    }

    fn books(&self) -> Books {
        let mut books = self.0.borrow().clone();
        books.retain(|_, counts| *counts != (0, 0));
        books
    }
}

/// A durable state that outlives whoever opens it.
#[derive(Debug)]
pub(crate) struct Memory {
    id: u128,
    bug: Bug,
    state: Arc<Mutex<State>>,
}

impl Memory {
    pub(crate) fn with_bug(bug: Bug) -> Self {
        let state = Arc::<Mutex<State>>::default();
        // Unlike every other of this process that lives.
        let id = if bug == Bug::StateIdIsNotRandom { 1 } else { Arc::as_ptr(&state) as usize };
        Self { id: id as u128, bug, state }
    }
}

impl Subject for Memory {
    type Store = MemoryStore;

    fn open(&self) -> MemoryStore {
        let mut id = self.id;
        if self.bug == Bug::StateIdChanges {
            id += Arc::strong_count(&self.state) as u128 * 1_000_003;
        }
        let mut state = Arc::clone(&self.state);
        if self.bug == Bug::ReadsAtOpening {
            state = Arc::new(Mutex::new(lock(&self.state).clone()));
        }
        MemoryStore { id: StateId(id), bug: self.bug, origin: Arc::clone(&self.state), state }
    }

    fn add(db: &MemoryDb) {
        db.add(TransactionId(0), 0, 1);
    }

    fn number(db: &MemoryDb) -> u64 {
        let counted = db.books().get(&TransactionId(0)).map_or(0, |counts| counts.1);
        u64::try_from(counted).expect("it only grows")
    }
}

/// The state, opened.
#[derive(Debug)]
pub(crate) struct MemoryStore {
    id: StateId,
    bug: Bug,
    origin: Arc<Mutex<State>>,
    state: Arc<Mutex<State>>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ServiceStore for MemoryStore {
    type Db = MemoryDb;
    type Error = Infallible;
    type Step<'a> = MemoryStep<'a>;

    fn state_id(&self) -> StateId {
        self.id
    }

    fn open_step(&mut self) -> Result<MemoryStep<'_>, Infallible> {
        let mut held = Some(lock(&self.state));
        let state = held.as_deref().cloned().unwrap_or_default();
        if self.bug == Bug::StepsOverlap {
            held = None;
        }
        Ok(MemoryStep { store: self, held, before: state.clone(), state })
    }
}

/// A copy of the state, taken over at commit.
#[derive(Debug)]
pub(crate) struct MemoryStep<'a> {
    store: &'a MemoryStore,
    held: Option<MutexGuard<'a, State>>,
    before: State,
    state: State,
}

impl MemoryStep<'_> {
    fn take_over(&mut self) {
        let state = mem::take(&mut self.state);
        match &mut self.held {
            Some(held) => **held = state,
            None => *lock(&self.store.state) = state,
        }
    }
}

impl Drop for MemoryStep<'_> {
    fn drop(&mut self) {
        if self.store.bug == Bug::KeepsWithoutCommit {
            self.take_over();
        }
    }
}

impl StoreStep for MemoryStep<'_> {
    type Db = MemoryDb;
    type Error = Infallible;

    fn attempt<T, E>(
        &mut self,
        work: impl FnOnce(&MemoryDb) -> Result<T, E>,
    ) -> Result<Result<T, E>, Infallible> {
        let before = self.state.db.clone();
        let result = work(&self.state.db);
        if result.is_err() {
            match self.store.bug {
                Bug::KeepsFailedAttempts => {}
                Bug::UndoesTheWholeStep => self.state = self.before.clone(),
                _ => self.state.db = before,
            }
        }
        Ok(result)
    }

    fn load(&mut self, id: TransactionId) -> Result<Option<Branch>, Infallible> {
        Ok(self.state.branches.get(&id).cloned())
    }

    fn save(&mut self, id: TransactionId, branch: &Branch) -> Result<(), Infallible> {
        let mut branch = branch.clone();
        if self.store.bug == Bug::KeepsNoReason
            && let Recorded::Aborted { no } = &mut branch.recorded
        {
            *no = None;
        }
        if self.store.bug == Bug::PlacesAreLost {
            branch.began = None;
        }
        self.state.branches.insert(id, branch);
        Ok(())
    }

    fn forget(&mut self, id: TransactionId) -> Result<(), Infallible> {
        if self.store.bug != Bug::ForgetsNothing {
            self.state.branches.remove(&id);
        }
        Ok(())
    }

    fn horizon(&mut self, store: StoreId) -> Result<Option<Began>, Infallible> {
        if self.store.bug == Bug::OneHorizonForAll {
            return Ok(self.state.horizons.values().max().copied());
        }
        Ok(self.state.horizons.get(&store).copied())
    }

    fn raise_horizon(&mut self, began: Began) -> Result<(), Infallible> {
        let horizon = self.state.horizons.entry(began.store).or_insert(began);
        *horizon = match self.store.bug {
            Bug::HorizonFalls => began,
            Bug::HorizonByLsn if began.lsn < horizon.lsn => *horizon,
            Bug::HorizonByLsn => began,
            _ => began.max(*horizon),
        };
        Ok(())
    }

    fn prepared(
        &mut self,
        after: Option<TransactionId>,
        limit: u32,
    ) -> Result<Vec<TransactionId>, Infallible> {
        let bug = self.store.bug;
        let found = self.state.branches.iter().filter(|(id, branch)| {
            let is_prepared = matches!(branch.recorded, Recorded::Prepared { .. });
            let is_after = Some(**id) > after || (bug == Bug::PagesOverlap && after == Some(**id));
            (is_prepared || bug == Bug::ListsOutcomesAsPrepared) && is_after
        });
        Ok(found.map(|(id, _)| *id).take(limit as usize).collect())
    }

    fn outcomes(
        &mut self,
        before_unix_ms: u64,
        after: Option<OutcomeKey>,
        limit: u32,
    ) -> Result<Vec<Outcome>, Infallible> {
        let inclusive = u64::from(self.store.bug == Bug::OutcomesOfThatVeryTime);
        let mut found: Vec<_> = self
            .state
            .branches
            .iter()
            .filter(|(_, branch)| !matches!(branch.recorded, Recorded::Prepared { .. }))
            .map(|(id, branch)| {
                let key = OutcomeKey { at_unix_ms: branch.at_unix_ms, id: *id };
                Outcome { key, began: branch.began }
            })
            .filter(|Outcome { key, .. }| {
                Some(*key) > after && key.at_unix_ms < before_unix_ms + inclusive
            })
            .collect();
        if self.store.bug != Bug::OutcomesById {
            found.sort_by_key(|outcome| outcome.key);
        }
        found.truncate(limit as usize);
        Ok(found)
    }

    fn commit(mut self) -> Result<Synced, CommitError<Infallible>> {
        if self.store.bug == Bug::ReadsAtOpening {
            *lock(&self.store.origin) = self.state.clone();
        }
        self.take_over();
        self.before = State::default();
        self.state = self.held.as_deref().cloned().unwrap_or_default();
        Ok(Synced::now())
    }
}
