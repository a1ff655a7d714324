//! A store whose commit fails: before it took place, or after it did and nobody knows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use handfast::service::{Branch, CommitError, Outcome, OutcomeKey, ServiceStore, StoreStep};
use handfast_core::command::Command;
use handfast_core::ids::{Began, StateId, StoreId, TransactionId};
use handfast_core::participant::Synced;

use crate::bookkeeper::{Bookkeeper, Books, at, books, commit, finished, open, prepare, x, yes};
use crate::conformance::SqliteFile;

/// How the next commit ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Works = 0,
    FailsBefore = 1,
    FailsAfter = 2,
}

/// Decides the fate of one commit; the ones after it work.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fates(Arc<AtomicU8>);

impl Fates {
    pub(crate) fn next(&self, fate: Fate) {
        self.0.store(fate as u8, Ordering::Relaxed);
    }
}

/// A store with a fate.
#[derive(Debug)]
pub(crate) struct Faulty<S> {
    pub(crate) inner: S,
    pub(crate) fates: Fates,
}

/// A fault.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault<E> {
    #[error("the disk is gone")]
    Injected,
    #[error(transparent)]
    Inner(#[from] E),
}

/// A step with a fate.
#[derive(Debug)]
pub(crate) struct FaultyStep<St> {
    inner: St,
    fates: Fates,
}

impl<S: ServiceStore> ServiceStore for Faulty<S> {
    type Db = S::Db;
    type Error = Fault<S::Error>;
    type Step<'a>
        = FaultyStep<S::Step<'a>>
    where
        Self: 'a;

    fn state_id(&self) -> StateId {
        self.inner.state_id()
    }

    fn open_step(&mut self) -> Result<Self::Step<'_>, Self::Error> {
        Ok(FaultyStep { inner: self.inner.open_step()?, fates: self.fates.clone() })
    }
}

impl<St: StoreStep<Error: std::error::Error>> StoreStep for FaultyStep<St> {
    type Db = St::Db;
    type Error = Fault<St::Error>;

    fn attempt<T, E>(
        &mut self,
        work: impl FnOnce(&Self::Db) -> Result<T, E>,
    ) -> Result<Result<T, E>, Self::Error> {
        Ok(self.inner.attempt(work)?)
    }

    fn load(&mut self, id: TransactionId) -> Result<Option<Branch>, Self::Error> {
        Ok(self.inner.load(id)?)
    }

    fn save(&mut self, id: TransactionId, branch: &Branch) -> Result<(), Self::Error> {
        Ok(self.inner.save(id, branch)?)
    }

    fn forget(&mut self, id: TransactionId) -> Result<(), Self::Error> {
        Ok(self.inner.forget(id)?)
    }

    fn horizon(&mut self, store: StoreId) -> Result<Option<Began>, Self::Error> {
        Ok(self.inner.horizon(store)?)
    }

    fn raise_horizon(&mut self, began: Began) -> Result<(), Self::Error> {
        Ok(self.inner.raise_horizon(began)?)
    }

    fn prepared(
        &mut self,
        after: Option<TransactionId>,
        limit: u32,
    ) -> Result<Vec<TransactionId>, Self::Error> {
        Ok(self.inner.prepared(after, limit)?)
    }

    fn outcomes(
        &mut self,
        before_unix_ms: u64,
        after: Option<OutcomeKey>,
        limit: u32,
    ) -> Result<Vec<Outcome>, Self::Error> {
        Ok(self.inner.outcomes(before_unix_ms, after, limit)?)
    }

    fn commit(self) -> Result<Synced, CommitError<Self::Error>> {
        let fate = self.fates.0.swap(Fate::Works as u8, Ordering::Relaxed);
        if fate == Fate::FailsBefore as u8 {
            return Err(CommitError::Fault(Fault::Injected));
        }
        let committed = self.inner.commit().map_err(|error| match error {
            CommitError::Refused(error) => CommitError::Refused(error.into()),
            CommitError::Fault(error) => CommitError::Fault(error.into()),
        })?;
        if fate == Fate::FailsAfter as u8 {
            return Err(CommitError::Fault(Fault::Injected));
        }
        Ok(committed)
    }
}

#[test]
fn a_fault_answers_nothing_and_the_repeat_tells_what_stands() {
    for fate in [Fate::FailsBefore, Fate::FailsAfter] {
        let file = SqliteFile::new();
        let keeper = Bookkeeper::default();
        let fates = Fates::default();
        let open = || Faulty { inner: open(&file.path()), fates: fates.clone() };
        let mut driver = keeper.driver(open());
        let (prepares, commits) = ([prepare(x(1), "yes"), prepare(x(2), "no")], [commit(x(1))]);

        fates.next(fate);
        driver.process(at(0), &prepares).expect_err("a fault");
        drop(driver);
        let mut driver = keeper.driver(open());
        // What stands is found at the start, and the repeat gives the same votes either way.
        let inquiry = [Command::Inquire { id: x(1) }];
        let started = driver.start(at(0)).expect("started");
        assert_eq!(started, inquiry[..usize::from(fate == Fate::FailsAfter)]);
        let answers = driver.process(at(0), &prepares).expect("processed");
        assert_eq!(answers, [yes(x(1)), crate::bookkeeper::no(x(2), "no such account", false)]);

        fates.next(fate);
        driver.process(at(0), &commits).expect_err("a fault");
        let answers = driver.process(at(0), &commits).expect("processed");
        assert_eq!(answers, [finished(x(1), true)]);
        drop(driver);
        assert_eq!(books(&mut open().inner), Books::from([(x(1), (0, 1))]));
    }
}
