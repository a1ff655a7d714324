//! Repeats, strange orders and two processes: each branch takes effect once.

use handfast::service::{Branch, Recorded, Report, ServiceStore, StoreStep};
use handfast_core::command::{Command, Vote};
use handfast_core::ids::{Began, Lsn, StoreId};
use handfast_core::output::ToService;

use crate::bookkeeper::{
    Bookkeeper, Books, abort, at, begun, books, commit, finished, no, open, prepare, prepare_in,
    prepare_without_work, x, yes,
};
use crate::conformance::SqliteFile;

#[test]
fn repeats_of_every_message_have_one_effect() {
    let file = SqliteFile::new();
    let keeper = Bookkeeper::default();
    let mut driver = keeper.driver(open(&file.path()));
    for _ in 0..3 {
        // Within one batch, and over several.
        let batch = [prepare(x(1), "yes"), prepare(x(2), "yes"), prepare(x(1), "yes")];
        let answers = driver.process(at(0), &batch).expect("processed");
        assert_eq!(answers, [yes(x(1)), yes(x(2)), yes(x(1))]);
    }
    for _ in 0..3 {
        let batch = [commit(x(1)), abort(x(2)), commit(x(1)), abort(x(2))];
        let answers = driver.process(at(0), &batch).expect("processed");
        let ends = [finished(x(1), true), finished(x(2), false)];
        assert_eq!(answers, [&ends[..], &ends[..]].concat());
    }
    let late = [prepare(x(1), "yes"), prepare(x(2), "yes")];
    let answers = driver.process(at(0), &late).expect("processed");
    assert_eq!(answers, [yes(x(1)), no(x(2), "the branch was aborted before", true)]);
    assert_eq!(keeper.orders().calls, 4, "two prepares, a commit and an abort");
    drop(driver);
    assert_eq!(books(&mut open(&file.path())), Books::from([(x(1), (0, 1))]));
    assert_eq!(keeper.orders().reports, []);
}

#[test]
fn a_whole_transaction_fits_into_one_batch() {
    let file = SqliteFile::new();
    let mut driver = Bookkeeper::default().driver(open(&file.path()));
    let batch = [prepare(x(1), "yes"), commit(x(1)), ToService::Forget { ids: vec![x(1)] }];
    let answers = driver.process(at(0), &batch).expect("processed");
    assert_eq!(answers, [yes(x(1)), finished(x(1), true)]);
    drop(driver);
    assert_eq!(books(&mut open(&file.path())), Books::from([(x(1), (0, 1))]));
}

#[test]
fn abort_before_prepare_leaves_a_tombstone() {
    let file = SqliteFile::new();
    let keeper = Bookkeeper::default();
    let mut driver = keeper.driver(open(&file.path()));
    assert_eq!(driver.process(at(0), &[abort(x(1))]).expect("processed"), [finished(x(1), false)]);
    drop(driver);
    let mut driver = keeper.driver(open(&file.path()));
    let answers = driver.process(at(0), &[prepare(x(1), "yes"), abort(x(1))]).expect("processed");
    let refused = no(x(1), "the branch was aborted before", true);
    assert_eq!(answers, [refused, finished(x(1), false)]);
    assert_eq!(keeper.orders().calls, 0);
}

#[test]
fn prepare_without_work_leaves_a_tombstone() {
    let file = SqliteFile::new();
    let keeper = Bookkeeper::default();
    let mut driver = keeper.driver(open(&file.path()));
    let answers = driver.process(at(0), &[prepare_without_work(x(1))]).expect("processed");
    assert_eq!(answers, [no(x(1), "no work is known here", true)]);
    let answers = driver.process(at(0), &[prepare(x(1), "yes")]).expect("processed");
    assert_eq!(answers, [no(x(1), "the branch was aborted before", true)]);
    assert_eq!(keeper.orders().calls, 0);
}

/// A service that was asked by other means has voted before the coordinator asks for it.
#[test]
fn prepare_without_work_repeats_the_vote_of_a_branch_that_is_known() {
    let file = SqliteFile::new();
    let mut driver = Bookkeeper::default().driver(open(&file.path()));
    assert_eq!(driver.process(at(0), &[prepare(x(1), "yes")]).expect("processed"), [yes(x(1))]);
    let answers = driver.process(at(0), &[prepare_without_work(x(1))]).expect("processed");
    assert_eq!(answers, [yes(x(1))]);
}

#[test]
fn commit_for_the_unknown_is_not_known() {
    let file = SqliteFile::new();
    let mut driver = Bookkeeper::default().driver(open(&file.path()));
    let answers = driver.process(at(0), &[commit(x(1)), commit(x(1))]).expect("processed");
    assert_eq!(answers, [Command::NotKnown { id: x(1) }, Command::NotKnown { id: x(1) }]);
    // It leaves nothing behind.
    assert_eq!(driver.process(at(0), &[prepare(x(1), "yes")]).expect("processed"), [yes(x(1))]);
}

#[test]
fn a_decision_against_the_outcome_changes_nothing_and_is_reported() {
    let file = SqliteFile::new();
    let keeper = Bookkeeper::default();
    let mut driver = keeper.driver(open(&file.path()));
    let ended = [prepare(x(1), "yes"), commit(x(1)), prepare(x(2), "yes"), abort(x(2))];
    driver.process(at(0), &ended).expect("processed");
    let answers = driver.process(at(0), &[abort(x(1)), commit(x(2))]).expect("processed");
    assert_eq!(answers, [finished(x(1), true), finished(x(2), false)]);
    let reason = "agreement violated";
    let expected = [x(1), x(2)].map(|id| Report::Attention { id, reason });
    assert_eq!(keeper.orders().reports, expected);
    drop(driver);
    assert_eq!(books(&mut open(&file.path())), Books::from([(x(1), (0, 1))]));
}

#[test]
fn two_processes_share_one_store() {
    let file = SqliteFile::new();
    let keeper = Bookkeeper::default();
    let mut one = keeper.driver(open(&file.path()));
    let mut other = keeper.driver(open(&file.path()));
    assert_eq!(one.state_id(), other.state_id());
    for id in (0..10).map(x) {
        assert_eq!(one.process(at(0), &[prepare(id, "yes")]).expect("processed"), [yes(id)]);
        assert_eq!(other.process(at(0), &[prepare(id, "yes")]).expect("processed"), [yes(id)]);
        let ended = [finished(id, true)];
        assert_eq!(other.process(at(0), &[commit(id)]).expect("processed"), ended);
        assert_eq!(one.process(at(0), &[commit(id)]).expect("processed"), ended);
        std::mem::swap(&mut one, &mut other);
    }
    assert_eq!(keeper.orders().calls, 20);
    drop((one, other));
    let expected: Books = (0..10).map(|id| (x(id), (0, 1))).collect();
    assert_eq!(books(&mut open(&file.path())), expected);
}

/// A prepare is repeated (C7), one copy is slow, the other is answered, committed, acknowledged
/// and forgotten. When the slow copy arrives, nothing is recorded about its transaction. Done
/// again it would vote YES, inquire, be told COMMIT and take effect twice.
#[test]
fn a_prepare_that_arrives_after_its_outcome_was_forgotten_is_not_done_again() {
    let file = SqliteFile::new();
    let keeper = Bookkeeper::default();
    let mut driver = keeper.driver(open(&file.path()));
    // The clock says the contrary of what the log says: it was set back between them.
    let (old, committed, new) = (begun(9_000, 4), begun(5_000, 5), begun(1_000, 6));
    let aborted = begun(5_000, 8);
    let ended =
        [prepare(committed, "yes"), commit(committed), prepare(aborted, "yes"), abort(aborted)];
    driver.process(at(0), &ended).expect("processed");
    let forget = ToService::Forget { ids: vec![aborted, committed, begun(9_000, 9)] };
    assert_eq!(driver.process(at(0), &[forget]).expect("processed"), []);
    drop(driver);
    let mut driver = keeper.driver(open(&file.path()));
    for id in [committed, old] {
        for copy in [prepare(id, "yes"), prepare_without_work(id), prepare(id, "yes")] {
            let answers = driver.process(at(0), &[copy]).expect("processed");
            let [Command::Vote { vote: Vote::No { retryable: true, .. }, .. }] = &answers[..]
            else {
                panic!("{answers:?}");
            };
        }
    }
    // No tombstone: what is committed must not look aborted.
    let not_known = [Command::NotKnown { id: committed }];
    assert_eq!(driver.process(at(0), &[commit(committed)]).expect("processed"), not_known);
    assert_eq!(keeper.orders().reports, []);
    // What is younger than every forgotten commit is not concerned.
    assert_eq!(driver.process(at(0), &[prepare(new, "yes")]).expect("processed"), [yes(new)]);
    drop(driver);
    assert_eq!(books(&mut open(&file.path())), Books::from([(committed, (0, 1)), (new, (1, 0))]));
}

/// Places are of one store. A server that was made anew begins with the first epoch and the first
/// places again: its transactions were "too old" for ever for services that stayed. And the LSNs of
/// a torn tail are given again: an earlier epoch is earlier, whatever its LSN.
#[test]
fn what_was_forgotten_of_one_store_concerns_no_other_and_epochs_come_first() {
    let file = SqliteFile::new();
    let keeper = Bookkeeper::default();
    let mut driver = keeper.driver(open(&file.path()));
    let place = |store, epoch, lsn| Began { store: StoreId(store), epoch, lsn: Lsn(lsn) };
    let ended = [prepare_in(x(1), place(1, 5, 1_000), "yes"), commit(x(1))];
    driver.process(at(0), &ended).expect("processed");
    driver.process(at(0), &[ToService::Forget { ids: vec![x(1)] }]).expect("processed");
    let cases = [
        (x(2), place(1, 5, 1_000), false),
        (x(3), place(1, 4, 5_000), false),
        (x(4), place(1, 6, 3), true),
        (x(5), place(2, 1, 3), true),
        (x(6), place(1, 5, 1_001), true),
    ];
    for (id, began, taken) in cases {
        let answers = driver.process(at(0), &[prepare_in(id, began, "yes")]).expect("processed");
        assert_eq!(answers == [yes(id)], taken, "{began:?}: {answers:?}");
    }
}

/// A branch whose work was begun by other means is voted for before any prepare comes. When its
/// transaction began is then said by the commit alone, and a prepare that comes after the outcome was
/// forgotten must still be known as late.
#[test]
fn a_commit_says_when_its_transaction_began() {
    let file = SqliteFile::new();
    let keeper = Bookkeeper::default();
    let id = begun(1_000, 1);
    let mut store = open(&file.path());
    let mut step = store.open_step().expect("opened");
    let recorded = Recorded::Prepared { work: b"yes".to_vec() };
    step.save(id, &Branch { recorded, began: None, at_unix_ms: 1_000 }).expect("saved");
    step.commit().expect("committed");
    let mut driver = keeper.driver(store);
    let ended = [commit(id), ToService::Forget { ids: vec![id] }];
    assert_eq!(driver.process(at(0), &ended).expect("processed"), [finished(id, true)]);
    let too_old = no(id, "too old: its outcome may have been forgotten here", true);
    assert_eq!(driver.process(at(0), &[prepare(id, "yes")]).expect("processed"), [too_old]);
    assert_eq!(keeper.orders().calls, 1);
}

/// The same within one step, which has looked for what is forgotten once already.
#[test]
fn a_prepare_in_the_batch_that_forgot_its_outcome_is_not_done_again() {
    let file = SqliteFile::new();
    let keeper = Bookkeeper::default();
    let mut driver = keeper.driver(open(&file.path()));
    let (id, other) = (begun(1_000, 1), begun(1_000, 2));
    driver.process(at(0), &[prepare(id, "yes"), commit(id)]).expect("processed");
    let batch = [prepare(other, "yes"), ToService::Forget { ids: vec![id] }, prepare(id, "yes")];
    let answers = driver.process(at(0), &batch).expect("processed");
    let too_old = no(id, "too old: its outcome may have been forgotten here", true);
    assert_eq!(answers, [yes(other), too_old]);
    assert_eq!(keeper.orders().calls, 3);
}

#[test]
fn a_branch_in_doubt_is_not_forgotten() {
    let file = SqliteFile::new();
    let mut driver = Bookkeeper::default().driver(open(&file.path()));
    let batch = [prepare(x(1), "yes"), ToService::Forget { ids: vec![x(1)] }, commit(x(1))];
    let answers = driver.process(at(0), &batch).expect("processed");
    assert_eq!(answers, [yes(x(1)), finished(x(1), true)]);
    assert_ne!(driver.store().state_id().0, 0);
}
