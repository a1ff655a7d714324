//! What every implementation of [`Database`] has to do, as one suite over a real server.
//!
//! The implementation brings a [`Fixture`]: a database and the application's side of it, in terms
//! that both databases share. The suite panics at the first thing that is not as the seam says.

use std::time::Duration;

use async_trait::async_trait;
use handfast_core::ids::{Lsn, Name, OpeningId, StoreId, TransactionId};
use handfast_core::input::Resolution;

use crate::{BranchId, Database, End, Finished, Holder, Outcome, Owner};

/// A database to try, with an application beside it.
#[async_trait]
pub trait Fixture: Sync {
    /// The server's side.
    fn database(&self) -> &dyn Database;

    /// Does some work in the application's connection, prepares the branch and closes the
    /// connection, or leaves it open and says which it is.
    async fn prepare(&self, branch: &BranchId) -> Option<Holder>;

    /// Does some work in a local transaction and commits it with its marker.
    async fn commit_local(&self, branch: &BranchId);

    /// Does some work in a local transaction, and its marker, and leaves it open until what is
    /// returned is dropped; then it is rolled back.
    async fn leave_open(&self, branch: &BranchId) -> Box<dyn Send>;

    /// Prepares something with a name that is not one of ours; returns the name.
    async fn prepare_foreign(&self) -> String;

    /// Whether the work that [`Fixture::prepare`] or [`Fixture::commit_local`] did is visible.
    async fn work_is_visible(&self, branch: &BranchId) -> bool;

    /// Ends a prepared branch behind the server's back.
    async fn end_behind_the_back(&self, branch: &BranchId, end: End, holder: Option<Holder>);
}

/// A store of the suite's own; several suites may share a database.
fn store(seed: u64) -> StoreId {
    StoreId(u128::from(seed) << 64 | 0xc0f0)
}

/// A branch that no other test uses.
fn branch(seed: u64, number: u64) -> BranchId {
    let name = Name::new("conformance").expect("a name");
    let transaction = TransactionId(u128::from(seed) << 64 | u128::from(number));
    BranchId::new(transaction, store(seed), &name)
}

/// Runs all of it. `seed` has to be one that was not used in this database before.
pub async fn run(fixture: &dyn Fixture, seed: u64) {
    a_prepared_branch_is_listed_until_it_is_finished(fixture, seed).await;
    finishing_twice_is_finishing_once(fixture, seed).await;
    an_end_against_the_decision_is_a_heuristic(fixture, seed).await;
    a_tombstone_is_an_outcome(fixture, seed).await;
    a_local_commit_is_found_by_its_marker(fixture, seed).await;
    an_open_local_transaction_is_unknown(fixture, seed).await;
    many_branches_are_looked_up_at_once(fixture, seed).await;
    a_call_may_be_dropped_at_any_time(fixture, seed).await;
    a_foreign_one_is_reported_and_left_alone(fixture).await;
    the_owner_row_is_compared_before_it_is_set(fixture, seed).await;
    the_identity_stays_while_the_server_does(fixture).await;
}

async fn a_prepared_branch_is_listed_until_it_is_finished(fixture: &dyn Fixture, seed: u64) {
    let database = fixture.database();
    for (number, end) in [(1, End::Commit), (2, End::Abort)] {
        let id = branch(seed, number);
        let holder = fixture.prepare(&id).await;
        let list = database.list().await.expect("a list");
        assert!(list.iter().any(|p| p.branch == Some(id) && p.foreign.is_none()), "{end:?}");
        assert_eq!(database.prepared(&[id]).await, Ok(vec![true]), "{end:?}");
        assert_eq!(database.outcomes(&[id]).await, Ok(vec![None]), "{end:?}");
        assert_eq!(database.finish(&id, end, holder).await, Finished::Done, "{end:?}");
        assert_eq!(database.prepared(&[id]).await, Ok(vec![false]), "{end:?}");
        let marker = (end == End::Commit).then_some(Outcome::Committed);
        assert_eq!(database.outcomes(&[id]).await, Ok(vec![marker]), "{end:?}");
        assert_eq!(fixture.work_is_visible(&id).await, end == End::Commit, "{end:?}");
    }
}

async fn finishing_twice_is_finishing_once(fixture: &dyn Fixture, seed: u64) {
    let database = fixture.database();
    for (number, end) in [(11, End::Commit), (12, End::Abort)] {
        let id = branch(seed, number);
        let holder = fixture.prepare(&id).await;
        for _ in 0..3 {
            assert_eq!(database.finish(&id, end, holder).await, Finished::Done, "{end:?}");
        }
        fixture.prepare(&branch(seed, number + 4)).await;
    }
    // Both at once: each says that it is done or that somebody should try again.
    for (number, end) in [(15, End::Commit), (16, End::Abort)] {
        let id = branch(seed, number);
        // Both futures run on this task, one statement of each at a time.
        let (one, two) =
            tokio::join!(database.finish(&id, end, None), database.finish(&id, end, None));
        for finished in [one, two] {
            assert!(matches!(finished, Finished::Done | Finished::Unknown(_)), "{finished:?}");
        }
        until_done(database, &id, end).await;
        assert_eq!(fixture.work_is_visible(&id).await, end == End::Commit, "{end:?}");
    }
}

/// Asks again while the answer is "unknown", at most a hundred times.
async fn until_done(database: &dyn Database, id: &BranchId, end: End) {
    for _ in 0..100 {
        match database.finish(id, end, None).await {
            Finished::Unknown(_) => {}
            finished => return assert_eq!(finished, Finished::Done),
        }
    }
    panic!("{id} is not finished after a hundred attempts");
}

async fn an_end_against_the_decision_is_a_heuristic(fixture: &dyn Fixture, seed: u64) {
    let database = fixture.database();
    for (number, other, decided) in [(21, End::Abort, End::Commit), (22, End::Commit, End::Abort)] {
        let id = branch(seed, number);
        let holder = fixture.prepare(&id).await;
        fixture.end_behind_the_back(&id, other, holder).await;
        for _ in 0..2 {
            let finished = database.finish(&id, decided, holder).await;
            assert!(matches!(finished, Finished::Heuristic(_)), "{decided:?}: {finished:?}");
        }
    }
    // And one that ended as decided is no heuristic, whoever did it.
    for (number, end) in [(23, End::Abort), (24, End::Commit)] {
        let id = branch(seed, number);
        let holder = fixture.prepare(&id).await;
        fixture.end_behind_the_back(&id, end, holder).await;
        assert_eq!(database.finish(&id, end, holder).await, Finished::Done, "{end:?}");
    }
    let never = branch(seed, 25);
    assert_eq!(database.finish(&never, End::Abort, None).await, Finished::Done);
    assert!(matches!(database.finish(&never, End::Commit, None).await, Finished::Heuristic(_)));
}

async fn a_tombstone_is_an_outcome(fixture: &dyn Fixture, seed: u64) {
    let database = fixture.database();
    let id = branch(seed, 31);
    assert_eq!(database.resolve(&id).await, Resolution::Tombstone);
    assert_eq!(database.resolve(&id).await, Resolution::Aborted);
    assert_eq!(database.outcomes(&[id]).await, Ok(vec![Some(Outcome::Aborted)]));
    assert!(matches!(database.finish(&id, End::Commit, None).await, Finished::Heuristic(_)));
    assert_eq!(database.finish(&id, End::Abort, None).await, Finished::Done);
}

async fn a_local_commit_is_found_by_its_marker(fixture: &dyn Fixture, seed: u64) {
    let database = fixture.database();
    // Markers are looked for by the time in their ids, so this one's is not zero.
    let seed = seed + (1 << 16);
    let id = branch(seed, 41);
    fixture.commit_local(&id).await;
    assert_eq!(database.resolve(&id).await, Resolution::Committed);
    assert_eq!(database.resolve(&id).await, Resolution::Committed);
    assert_eq!(database.outcomes(&[id]).await, Ok(vec![Some(Outcome::Committed)]));
    assert!(fixture.work_is_visible(&id).await);
    let began = id.transaction.unix_ms();
    let old = async |of: &BranchId, before| database.old_markers(of, before).await;
    let found = old(&id, began + 1).await.expect("a list");
    assert!(found.contains(&(id, Outcome::Committed)), "{found:?}");
    assert!(!old(&id, began).await.expect("a list").iter().any(|(found, _)| *found == id));
    let elsewhere = BranchId { store: id.store ^ 1, ..id };
    assert_eq!(old(&elsewhere, began + 1).await, Ok(vec![]));
    let new = async |of: &BranchId, after| database.new_markers(of, after).await;
    assert!(new(&id, began - 1).await.expect("a list").contains(&id));
    assert!(!new(&id, began).await.expect("a list").contains(&id));
    assert_eq!(new(&elsewhere, began - 1).await, Ok(vec![]));
    let given_up = branch(seed, 43);
    assert_eq!(database.resolve(&given_up).await, Resolution::Tombstone);
    assert!(!new(&id, began - 1).await.expect("a list").contains(&given_up));
    assert_eq!(database.forget(&[id, branch(seed, 42)]).await, Ok(1));
    assert_eq!(database.forget(&[id]).await, Ok(0));
    assert_eq!(database.outcomes(&[id]).await, Ok(vec![None]));
    assert!(fixture.work_is_visible(&id).await);
}

async fn an_open_local_transaction_is_unknown(fixture: &dyn Fixture, seed: u64) {
    let database = fixture.database();
    let id = branch(seed, 51);
    let open = fixture.leave_open(&id).await;
    assert_eq!(database.resolve(&id).await, Resolution::Unknown);
    drop(open);
    let mut resolution = database.resolve(&id).await;
    for _ in 0..30 {
        if resolution != Resolution::Unknown {
            break;
        }
        resolution = database.resolve(&id).await;
    }
    assert_eq!(resolution, Resolution::Tombstone);
    assert!(!fixture.work_is_visible(&id).await);
}

async fn many_branches_are_looked_up_at_once(fixture: &dyn Fixture, seed: u64) {
    let database = fixture.database();
    let ids: Vec<BranchId> = (1_000..3_500).map(|n| branch(seed, n)).collect();
    let (prepared, committed, aborted) = (ids[7], ids[1_500], ids[2_400]);
    let holder = fixture.prepare(&prepared).await;
    fixture.commit_local(&committed).await;
    assert_eq!(database.resolve(&aborted).await, Resolution::Tombstone);

    let listed = database.prepared(&ids).await.expect("a list");
    let expected: Vec<bool> = ids.iter().map(|id| *id == prepared).collect();
    assert_eq!(listed, expected);
    let outcomes = database.outcomes(&ids).await.expect("outcomes");
    for (id, outcome) in ids.iter().zip(outcomes) {
        let expected = match *id {
            id if id == committed => Some(Outcome::Committed),
            id if id == aborted => Some(Outcome::Aborted),
            _ => None,
        };
        assert_eq!(outcome, expected, "{id}");
    }
    assert_eq!(database.outcomes(&[]).await, Ok(vec![]));
    assert_eq!(database.prepared(&[]).await, Ok(vec![]));
    assert_eq!(database.forget(&[]).await, Ok(0));
    assert_eq!(database.finish(&prepared, End::Abort, holder).await, Finished::Done);
    assert_eq!(database.forget(&ids).await, Ok(2));
}

/// More calls are dropped than any pool has connections, at moments all over the call.
async fn a_call_may_be_dropped_at_any_time(fixture: &dyn Fixture, seed: u64) {
    let database = fixture.database();
    let id = branch(seed, 61);
    fixture.prepare(&id).await;
    let local = branch(seed, 62);
    for round in 0..60 {
        let moment = Duration::from_micros(round * 50);
        // What they answer in time, if they do, is tested elsewhere.
        let _ = tokio::time::timeout(moment, database.finish(&id, End::Commit, None)).await;
        let _ = tokio::time::timeout(moment, database.resolve(&local)).await;
        let _ = tokio::time::timeout(moment, database.list()).await;
    }
    until_done(database, &id, End::Commit).await;
    assert!(fixture.work_is_visible(&id).await);
    let resolution = database.resolve(&local).await;
    assert!(matches!(resolution, Resolution::Tombstone | Resolution::Aborted), "{resolution:?}");
}

async fn a_foreign_one_is_reported_and_left_alone(fixture: &dyn Fixture) {
    let name = fixture.prepare_foreign().await;
    for _ in 0..2 {
        let list = fixture.database().list().await.expect("a list");
        let found = list.iter().find(|p| p.foreign.as_deref() == Some(&name));
        assert!(found.is_some_and(|p| p.branch.is_none()), "{name} in {list:?}");
    }
}

async fn the_owner_row_is_compared_before_it_is_set(fixture: &dyn Fixture, seed: u64) {
    let database = fixture.database();
    let (store, shard) = (store(seed), handfast_core::owner::SHARD);
    let owner = |node: &str, opening, epoch, lsn, claim| Owner {
        store,
        shard,
        epoch,
        node: node.to_owned(),
        opening: OpeningId(opening),
        durable_lsn: Lsn(lsn),
        claim,
    };
    let stands = async || {
        let row = database.owner(store, shard).await.expect("an answer");
        row.map(|row| row.owner)
    };
    assert_eq!(stands().await, None);
    let first = owner("a", 1 << 100, 5, 100, 7);
    assert_eq!(database.claim(&first, Some(&first)).await, Ok(false), "there is no row");
    assert_eq!(database.claim(&first, None).await, Ok(true));
    assert_eq!(database.claim(&first, None).await, Ok(false), "there is one");
    assert_eq!(stands().await.as_ref(), Some(&first));
    // The same again, and what has changed in every field.
    assert_eq!(database.claim(&first, Some(&first)).await, Ok(true));
    let second = owner("b", 2, 6, 101, (1 << 63) - 1);
    assert_eq!(database.claim(&second, Some(&first)).await, Ok(true));
    assert_eq!(stands().await.as_ref(), Some(&second));
    let third = owner("c", 3, 7, 102, 9);
    for other in [
        first,
        Owner { node: "a".into(), ..second.clone() },
        Owner { opening: OpeningId(4), ..second.clone() },
        Owner { epoch: 5, ..second.clone() },
        Owner { durable_lsn: Lsn(100), ..second.clone() },
        Owner { claim: 8, ..second.clone() },
    ] {
        assert_eq!(database.claim(&third, Some(&other)).await, Ok(false), "{other:?}");
        assert_eq!(stands().await.as_ref(), Some(&second));
    }
    // Another shard, and a store of another id, have rows of their own.
    let shard = Owner { shard: 1, ..third.clone() };
    assert_eq!(database.claim(&shard, None).await, Ok(true));
    let another = Owner { store: StoreId(store.0 + 1), ..third.clone() };
    assert_eq!(database.claim(&another, None).await, Ok(true));
    assert_eq!(stands().await.as_ref(), Some(&second));
    // An operator says so.
    assert_eq!(database.adopt(&third).await, Ok(()));
    assert_eq!(stands().await, Some(third));
}

async fn the_identity_stays_while_the_server_does(fixture: &dyn Fixture) {
    let first = fixture.database().identity().await.expect("an identity");
    assert!(!first.server.is_empty() && first.incarnation > 0, "{first:?}");
    assert_eq!(fixture.database().identity().await, Ok(first));
}
