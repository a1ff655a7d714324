//! What every implementation of [`ServiceStore`] has to do, as a suite that it runs.
//!
//! It panics at the first thing that is wrong. It waits for nothing and measures no time.

use std::collections::BTreeSet;
use std::thread;

use handfast_core::ids::{Began, Lsn, StateId, StoreId, TransactionId};

use super::handler::No;
use super::store::{Branch, Outcome, OutcomeKey, Recorded, ServiceStore, StoreStep};

type Store<T> = <T as Subject>::Store;
type Db<T> = <Store<T> as ServiceStore>::Db;

/// A durable state to test with, fresh and empty when it is made.
pub trait Subject: Sync {
    /// The implementation.
    type Store: ServiceStore;

    /// Opens the state: the same one each time, also while it is open elsewhere.
    fn open(&self) -> Self::Store;

    /// A change such as a handler makes: adds one to a number in the service's own tables.
    fn add(db: &<Self::Store as ServiceStore>::Db);

    /// That number.
    fn number(db: &<Self::Store as ServiceStore>::Db) -> u64;
}

/// Runs the whole suite; `fresh` makes a durable state for each part of it.
pub fn run<T: Subject>(fresh: impl Fn() -> T) {
    state_id_stays(&fresh);
    what_is_saved_is_loaded(&fresh());
    a_dropped_step_leaves_nothing(&fresh());
    a_failed_attempt_is_undone_and_the_rest_stays(&fresh());
    a_step_reads_its_own_writes(&fresh());
    prepared_branches_are_listed_in_pages(&fresh());
    outcomes_are_listed_in_pages(&fresh());
    forgotten_is_gone_and_the_horizon_never_falls(&fresh());
    two_stores_see_each_others_steps(&fresh());
    steps_take_turns(&fresh());
}

fn state_id_stays<T: Subject>(fresh: impl Fn() -> T) {
    let (one, other) = (fresh(), fresh());
    let id = one.open().state_id();
    assert_ne!(id, StateId(0));
    assert_eq!(one.open().state_id(), id, "the state id changed when it was opened again");
    assert_ne!(other.open().state_id(), id, "two states have the same id");
    let (first, second) = (one.open(), one.open());
    assert_eq!(first.state_id(), second.state_id(), "two who share a state differ about its id");
}

fn what_is_saved_is_loaded<T: Subject>(subject: &T) {
    let branches = [
        prepared(b""),
        prepared(b"\0\xffwork"),
        prepared(&vec![7; 1 << 20]),
        Branch {
            recorded: Recorded::Committed,
            began: Some(began(1, u32::MAX, u64::MAX)),
            at_unix_ms: 0,
        },
        aborted(1, None),
        aborted(u64::from(u32::MAX), Some(No::new(""))),
        aborted(1 << 47, Some(No::retryable("zu wenig, \u{1f4b6} \0 fehlt"))),
    ];
    // Every record in the place of every other, at the ends of the ids' order as well.
    for id in [TransactionId(0), TransactionId(1 << 127), TransactionId(u128::MAX)] {
        assert_eq!(step(subject, |step| step.load(id)), None);
        for branch in branches.iter().chain(branches.iter().rev()) {
            step(subject, |step| step.save(id, branch));
            assert_eq!(step(subject, |step| step.load(id)).as_ref(), Some(branch));
        }
    }
}

fn a_dropped_step_leaves_nothing<T: Subject>(subject: &T) {
    let mut store = subject.open();
    {
        let mut step = store.open_step().expect("a step");
        add::<T>(&mut step);
        step.save(x(1), &prepared(b"lost")).expect("saved");
        step.raise_horizon(began(1, 1, 5)).expect("raised");
    }
    for mut store in [store, subject.open()] {
        let mut step = store.open_step().expect("a step after one that was dropped");
        assert_eq!(step.load(x(1)).expect("loaded"), None, "a step was kept without commit");
        let horizon = step.horizon(StoreId(1)).expect("read");
        assert_eq!(horizon, None, "a step was kept without commit");
        assert_eq!(number::<T>(&mut step), 0, "a handler's change was kept without commit");
    }
}

fn a_failed_attempt_is_undone_and_the_rest_stays<T: Subject>(subject: &T) {
    let attempts = [true, false, false, true, false];
    step(subject, |step| {
        for kept in attempts {
            let result = step.attempt(|db| {
                T::add(db);
                T::add(db);
                if kept { Ok("kept") } else { Err("undone") }
            })?;
            assert_eq!(result, if kept { Ok("kept") } else { Err("undone") });
        }
        step.save(x(1), &prepared(b"rest"))
    });
    step(subject, |step| {
        assert_eq!(number::<T>(step), 4, "of five attempts two were to be kept");
        assert_eq!(step.load(x(1))?, Some(prepared(b"rest")));
        Ok(())
    });
}

fn a_step_reads_its_own_writes<T: Subject>(subject: &T) {
    step(subject, |step| {
        step.save(x(1), &prepared(b"1"))?;
        step.save(x(2), &aborted(10, None))?;
        assert_eq!(step.load(x(1))?, Some(prepared(b"1")));
        assert_eq!(step.prepared(None, 10)?, [x(1)]);
        assert_eq!(step.outcomes(11, None, 10)?, [outcome(10, 2)]);
        step.save(x(1), &committed(3))?;
        assert_eq!(step.prepared(None, 10)?, []);
        assert_eq!(step.outcomes(11, None, 10)?.len(), 2);
        step.forget(x(1))?;
        assert_eq!(step.load(x(1))?, None);
        step.raise_horizon(began(1, 1, 4))?;
        assert_eq!(step.horizon(StoreId(1))?, Some(began(1, 1, 4)));
        Ok(())
    });
}

fn prepared_branches_are_listed_in_pages<T: Subject>(subject: &T) {
    let ids = [0, 1, 0xff, 1 << 64, 1 << 127, u128::MAX].map(TransactionId);
    step(subject, |step| {
        for id in ids.into_iter().rev() {
            step.save(id, &prepared(b""))?;
        }
        step.save(x(77), &aborted(1, None))?;
        step.save(x(78), &committed(1))
    });
    for limit in 1..=ids.len() + 1 {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let limit = u32::try_from(limit).expect("a small number");
            let page = step(subject, |step| step.prepared(after, limit));
            assert!(page.len() <= limit as usize, "a page is over its limit");
            let Some(last) = page.last().copied() else { break };
            assert!(after < Some(last), "pages do not advance");
            after = Some(last);
            found.extend(page);
        }
        assert_eq!(found, ids, "prepared branches, {limit} at a time");
    }
}

fn outcomes_are_listed_in_pages<T: Subject>(subject: &T) {
    // Ids and times run against each other, and some times are the same.
    let mut keys: Vec<_> = (0..6).map(|i| key(100 + i / 2, 50 - u128::from(i))).collect();
    step(subject, |step| {
        for (at, key) in keys.iter().enumerate() {
            let recorded = match at % 2 {
                0 => Recorded::Committed,
                _ => Recorded::Aborted { no: None },
            };
            let began = place(*key);
            step.save(key.id, &Branch { recorded, began, at_unix_ms: key.at_unix_ms })?;
        }
        step.save(x(99), &prepared(b"not an outcome"))
    });
    keys.sort();
    for (before, limit) in (99..=104).flat_map(|before| (1..=7).map(move |limit| (before, limit))) {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = step(subject, |step| step.outcomes(before, after, limit));
            assert!(page.len() <= limit as usize, "a page is over its limit");
            let Some(last) = page.last().copied() else { break };
            assert!(after < Some(last.key), "pages do not advance");
            after = Some(last.key);
            found.extend(page);
        }
        let older = keys.iter().copied().filter(|key| key.at_unix_ms < before);
        let older = older.map(|key| Outcome { key, began: place(key) });
        assert_eq!(found, older.collect::<Vec<_>>(), "before {before}, {limit} at a time");
    }
}

fn forgotten_is_gone_and_the_horizon_never_falls<T: Subject>(subject: &T) {
    step(subject, |step| {
        step.save(x(1), &committed(1))?;
        step.save(x(2), &aborted(1, None))
    });
    step(subject, |step| step.forget(x(1)));
    step(subject, |step| step.forget(x(3)));
    step(subject, |step| {
        assert_eq!(step.load(x(1))?, None);
        assert_eq!(step.load(x(2))?, Some(aborted(1, None)));
        assert_eq!(step.outcomes(9, None, 9)?, [outcome(1, 2)]);
        assert_eq!(step.horizon(StoreId(1))?, None);
        Ok(())
    });
    let mut highest = None;
    let places = [(1, 0), (1, 500), (1, 3), (2, 4), (1, 1 << 47), (300, 1), (2, u64::MAX), (0, 7)];
    for raised in places.map(|(epoch, lsn)| began(1, epoch, lsn)) {
        step(subject, |step| step.raise_horizon(raised));
        highest = highest.max(Some(raised));
        let horizon = step(subject, |step| step.horizon(StoreId(1)));
        assert_eq!(horizon, highest, "raised to {raised:?}");
    }
    // Each store has its own.
    for store in [0, 2, u128::MAX] {
        assert_eq!(step(subject, |step| step.horizon(StoreId(store))), None);
        step(subject, |step| step.raise_horizon(began(store, 1, 9)));
        let horizon = step(subject, |step| step.horizon(StoreId(store)));
        assert_eq!(horizon, Some(began(store, 1, 9)));
    }
    assert_eq!(step(subject, |step| step.horizon(StoreId(1))), highest);
}

fn two_stores_see_each_others_steps<T: Subject>(subject: &T) {
    let (mut one, mut other) = (subject.open(), subject.open());
    for round in 0..20 {
        let (writer, reader) =
            if round % 2 == 0 { (&mut one, &mut other) } else { (&mut other, &mut one) };
        in_step(writer, |step| {
            add::<T>(step);
            step.save(x(round), &prepared(b"shared"))
        });
        in_step(reader, |step| {
            assert_eq!(number::<T>(step), u64::try_from(round).expect("a small number") + 1);
            assert_eq!(step.load(x(round))?, Some(prepared(b"shared")));
            step.save(x(round), &committed(1))
        });
        in_step(writer, |step| {
            assert_eq!(step.prepared(None, 10)?, [], "another store's step was not seen");
            Ok(())
        });
    }
}

/// Two steps that overlapped would read the same number and lose a change.
fn steps_take_turns<T: Subject>(subject: &T) {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 25;
    // The states exist before the race, as opening is tested on its own.
    drop(subject.open());
    let ids = thread::scope(|scope| {
        let racers = (0..THREADS).map(|_| {
            scope.spawn(|| {
                let mut store = subject.open();
                for _ in 0..ROUNDS {
                    in_step(&mut store, |step| {
                        let counted = step.load(x(1))?.map_or(0, |branch| branch.at_unix_ms);
                        thread::yield_now();
                        add::<T>(step);
                        let branch = Branch { at_unix_ms: counted + 1, ..prepared(b"") };
                        step.save(x(1), &branch)
                    });
                }
                store.state_id()
            })
        });
        let racers: Vec<_> = racers.collect();
        let join = |racer: thread::ScopedJoinHandle<'_, StateId>| racer.join().expect("no panic");
        racers.into_iter().map(join).collect::<BTreeSet<_>>()
    });
    assert_eq!(ids.len(), 1);
    step(subject, |step| {
        let counted = step.load(x(1))?.map(|branch| branch.at_unix_ms);
        assert_eq!(counted, Some(THREADS * ROUNDS), "two steps overlapped");
        assert_eq!(number::<T>(step), THREADS * ROUNDS, "two steps overlapped");
        Ok(())
    });
}

/// A committed step of a store that is opened for it.
fn step<T: Subject, R>(
    subject: &T,
    body: impl FnOnce(&mut <Store<T> as ServiceStore>::Step<'_>) -> Result<R, ErrorOf<Store<T>>>,
) -> R {
    in_step(&mut subject.open(), body)
}

/// A committed step.
fn in_step<S: ServiceStore, R>(
    store: &mut S,
    body: impl FnOnce(&mut S::Step<'_>) -> Result<R, S::Error>,
) -> R {
    let mut step = store.open_step().expect("a step");
    let result = body(&mut step).expect("a store without faults");
    let _proof = step.commit().expect("a commit");
    result
}

type ErrorOf<S> = <S as ServiceStore>::Error;

fn add<T: Subject>(step: &mut impl StoreStep<Db = Db<T>, Error = ErrorOf<Store<T>>>) {
    let added = step.attempt(|db| {
        T::add(db);
        Ok::<_, No>(())
    });
    added.expect("a store without faults").expect("it does not fail");
}

fn number<T: Subject>(step: &mut impl StoreStep<Db = Db<T>, Error = ErrorOf<Store<T>>>) -> u64 {
    let read = step.attempt(|db| Ok::<_, No>(T::number(db))).expect("a store without faults");
    read.expect("it does not fail")
}

fn prepared(work: &[u8]) -> Branch {
    let recorded = Recorded::Prepared { work: work.to_vec() };
    Branch { recorded, began: Some(began(1, 2, 3)), at_unix_ms: 1_700_000_000_000 }
}

fn committed(at_unix_ms: u64) -> Branch {
    Branch { recorded: Recorded::Committed, began: None, at_unix_ms }
}

fn aborted(at_unix_ms: u64, no: Option<No>) -> Branch {
    Branch { recorded: Recorded::Aborted { no }, began: None, at_unix_ms }
}

fn began(store: u128, epoch: u32, lsn: u64) -> Began {
    Began { store: StoreId(store), epoch, lsn: Lsn(lsn) }
}

fn outcome(at_unix_ms: u64, id: u128) -> Outcome {
    Outcome { key: key(at_unix_ms, id), began: None }
}

/// Some have a place, some have none.
fn place(key: OutcomeKey) -> Option<Began> {
    key.id.0.is_multiple_of(2).then(|| began(1, 1, key.at_unix_ms))
}

fn key(at_unix_ms: u64, id: u128) -> OutcomeKey {
    OutcomeKey { at_unix_ms, id: x(id) }
}

fn x(id: u128) -> TransactionId {
    TransactionId(id)
}
