//! The seam to a service's own database: what the driver needs to keep a branch durable.
//!
//! A store decides nothing about transactions and caches nothing: several processes may share it.
//! Every implementation runs the suite in `conformance`.

use std::error::Error;

use handfast_core::ids::{Began, StateId, StoreId, TransactionId};
use handfast_core::participant::{BranchState, Synced};

use super::handler::No;

/// A service's durable state.
pub trait ServiceStore {
    /// What handlers read and write through.
    type Db: ?Sized;
    /// A fault of the store.
    type Error: Error + Send + Sync + 'static;
    /// An open durable step.
    type Step<'a>: StoreStep<Db = Self::Db, Error = Self::Error>
    where
        Self: 'a;

    /// Names the durable state: made once at random, the same for everybody who opens it.
    fn state_id(&self) -> StateId;

    /// Opens a step. While it is open no other step is, in any process, and it sees everything
    /// that was committed before it. Waits for its turn for a bounded time.
    ///
    /// # Errors
    /// The store cannot be reached, or the turn did not come in time.
    fn open_step(&mut self) -> Result<Self::Step<'_>, Self::Error>;
}

/// One durable step: all that is written through it becomes durable together, by
/// [`StoreStep::commit`], or not at all, when it is dropped.
///
/// After an error of any method the step can only be dropped.
pub trait StoreStep: Sized {
    /// See [`ServiceStore::Db`].
    type Db: ?Sized;
    /// See [`ServiceStore::Error`].
    type Error;

    /// Lets a handler work. If it fails, what it wrote is undone, and the rest of the step stays.
    ///
    /// # Errors
    /// The outer one: the step itself is lost, for instance because the handler ended it.
    fn attempt<T, E>(
        &mut self,
        work: impl FnOnce(&Self::Db) -> Result<T, E>,
    ) -> Result<Result<T, E>, Self::Error>;

    /// What is recorded about a branch.
    ///
    /// # Errors
    /// The store failed, or what it holds is malformed.
    fn load(&mut self, id: TransactionId) -> Result<Option<Branch>, Self::Error>;

    /// Records a branch, in place of what was recorded.
    ///
    /// # Errors
    /// The store failed.
    fn save(&mut self, id: TransactionId, branch: &Branch) -> Result<(), Self::Error>;

    /// Removes what is recorded about a branch.
    ///
    /// # Errors
    /// The store failed.
    fn forget(&mut self, id: TransactionId) -> Result<(), Self::Error>;

    /// The latest of what [`StoreStep::raise_horizon`] was ever called with for this store of a
    /// server.
    ///
    /// # Errors
    /// The store failed.
    fn horizon(&mut self, store: StoreId) -> Result<Option<Began>, Self::Error>;

    /// Notes that the outcome of a committed transaction was forgotten that began then. What is
    /// noted of other stores stays.
    ///
    /// # Errors
    /// The store failed.
    fn raise_horizon(&mut self, began: Began) -> Result<(), Self::Error>;

    /// Prepared branches by id, after `after`, at most `limit`.
    ///
    /// # Errors
    /// The store failed.
    fn prepared(
        &mut self,
        after: Option<TransactionId>,
        limit: u32,
    ) -> Result<Vec<TransactionId>, Self::Error>;

    /// Outcomes recorded before `before_unix_ms`, ascending, after `after`, at most `limit`.
    ///
    /// # Errors
    /// The store failed.
    fn outcomes(
        &mut self,
        before_unix_ms: u64,
        after: Option<OutcomeKey>,
        limit: u32,
    ) -> Result<Vec<Outcome>, Self::Error>;

    /// Makes the step durable: when it returns, the step survives a power cut.
    ///
    /// # Errors
    /// See [`CommitError`]. After a fault it is not known whether the step took place.
    fn commit(self) -> Result<Synced, CommitError<Self::Error>>;
}

/// A step was not committed.
#[derive(Debug)]
pub enum CommitError<E> {
    /// Something that a handler wrote violates a rule that is checked at commit. The step did not
    /// take place; the store is sound, and the same step would be refused again.
    Refused(E),
    /// The store failed.
    Fault(E),
}

/// What is recorded about a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The state, with what belongs to it.
    pub recorded: Recorded,
    /// When the transaction began, as its prepare said, or its commit; none: an abort came before a
    /// prepare.
    pub began: Option<Began>,
    /// Unix time in milliseconds at which it was recorded: for people, and for keeping outcomes.
    pub at_unix_ms: u64,
}

/// A durable state of a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It voted YES.
    Prepared {
        /// What it was asked to do.
        work: Vec<u8>,
    },
    /// It is in effect.
    Committed,
    /// It never will be.
    Aborted {
        /// Why it refused, if that is how it ended.
        no: Option<No>,
    },
}

impl Recorded {
    /// The state as the protocol knows it.
    #[must_use]
    pub fn state(&self) -> BranchState {
        match self {
            Self::Prepared { .. } => BranchState::Prepared,
            Self::Committed => BranchState::Committed,
            Self::Aborted { .. } => BranchState::Aborted,
        }
    }
}

/// An outcome, as it is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its place.
    pub key: OutcomeKey,
    /// When the transaction began, if that was recorded.
    pub began: Option<Began>,
}

/// The place of an outcome in the order in which outcomes are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutcomeKey {
    /// When it was recorded.
    pub at_unix_ms: u64,
    /// The transaction.
    pub id: TransactionId,
}
