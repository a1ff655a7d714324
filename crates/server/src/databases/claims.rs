//! Claims: how a store makes a database its own, and what stands against that (I1, I5, PG10).
//!
//! The row of `handfast_owner` is read, judged, and replaced by compare-and-set. What contradicts
//! it is remembered for the whole server: a database in which another life of the store has been at
//! work says something about the store, not only about itself.

use std::collections::{BTreeMap, VecDeque};
use std::future::ready;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use handfast_core::branch::BranchId;
use handfast_core::ids::{Lsn, Name, TransactionId};
use handfast_core::input::Input;
use handfast_core::owner::{Contradiction, Owner, SHARD};
use handfast_core::silence;
use handfast_database::{Fault, OwnerRow};
use jiff::Timestamp;
use tokio::time::timeout;

use super::auditor::{Label, label};
use super::{Condition, Shared};

/// How often a row is looked at again that somebody changes between the look and the write.
const ATTEMPTS: usize = 3;
/// How long another database may take to say what it knows.
const LOOK: Duration = Duration::from_secs(1);
/// Markers about which the log is asked at once.
const AT_ONCE: usize = 64;
/// So many claims of each database are remembered, the newest: five hours of them at the least. A
/// database that goes back in time, to a standby that lagged or a copy, has an older one in its row.
const REMEMBERED: usize = 10_000;

/// What this life has claimed, by the names of the databases. It outlives their registration: one that
/// is taken out of the configuration and comes back still has this life's row.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<BTreeMap<Name, Made>>);

#[derive(Debug, Default)]
struct Made {
    /// Claims that may stand in the row, the newest last. A twin of this life makes others.
    numbers: VecDeque<u64>,
    /// How far the log was durable in the last one that was confirmed; none: none was yet.
    durable: Option<Lsn>,
}

impl Claims {
    /// A name may lead to another database from now on.
    pub(super) fn registered(&self, name: &Name) {
        self.lock().entry(name.clone()).or_default().durable = None;
    }

    /// This life has claimed the database before.
    fn is_made(&self, name: &Name) -> bool {
        self.durable(name).is_some()
    }

    /// How far the log was durable in the last claim.
    fn durable(&self, name: &Name) -> Option<Lsn> {
        self.lock().get(name)?.durable
    }

    /// All that may stand in some row: a database may have had another name before.
    fn numbers(&self) -> Vec<u64> {
        self.lock().values().flat_map(|made| made.numbers.iter().copied()).collect()
    }

    /// About to be written: it may stand from now on.
    pub(super) fn written(&self, name: &Name, claim: u64) {
        let mut all = self.lock();
        let made = all.entry(name.clone()).or_default();
        if made.numbers.len() == REMEMBERED {
            made.numbers.pop_front();
        }
        made.numbers.push_back(claim);
    }

    /// It stood. Answers overtake each other, and those after it may stand by now.
    pub(super) fn stands(&self, name: &Name, ours: &Owner) {
        let mut all = self.lock();
        let made = all.entry(name.clone()).or_default();
        made.durable = made.durable.max(Some(ours.durable_lsn));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Made>> {
        // Nothing in here can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What databases say against the store, by their names.
#[derive(Debug, Default)]
pub(super) struct Against(Mutex<BTreeMap<Name, String>>);

impl Against {
    pub(super) fn found(&self, database: &Name, why: String) {
        self.lock().insert(database.clone(), why);
    }

    /// A database says nothing against it any more.
    pub(super) fn settled(&self, database: &Name) {
        self.lock().remove(database);
    }

    /// The first one that says something.
    pub(super) fn any(&self) -> Option<String> {
        self.lock().iter().next().map(|(name, why)| format!("database {name} says: {why}"))
    }

    /// The same, but for one of them.
    fn elsewhere(&self, but: &Name) -> Option<String> {
        let against = self.lock();
        let other = against.iter().find(|(name, _)| *name != but);
        other.map(|(name, why)| format!("database {name} says: {why}"))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, String>> {
        // Nothing in here can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the database this life's if nothing speaks against it; up or not ours.
pub(super) async fn claim(shared: &Shared) -> Result<Condition, Fault> {
    let name = &shared.name;
    if let Some(why) = shared.adoption.why(name) {
        return Ok(Condition::NotOurs(why));
    }
    let first = !shared.claims.is_made(name);
    if first && let Some(why) = said_elsewhere(shared).await {
        return Ok(Condition::NotOurs(format!(
            "another life of the store has been at work: {why}; `handfast database adopt {name}` \
             makes this one its own all the same"
        )));
    }
    for _ in 0..ATTEMPTS {
        let asked_ms = shared.node.mono_ms();
        let row = shared.database.owner(shared.node.info().store, SHARD).await?;
        let ours = shared.owner();
        if let Some(why) = against(shared, row.as_ref(), &ours, first).await? {
            shared.against.found(name, why.clone());
            return Ok(Condition::NotOurs(format!(
                "{why}; if no other copy of the store is in use, `handfast database adopt {name}`"
            )));
        }
        if first && row.is_none() {
            tracing::info!(database = %name, "it is new to this store: it has no owner row");
            shared.note_new().await;
        }
        shared.claims.written(name, ours.claim);
        if shared.database.claim(&ours, row.as_ref().map(|row| &row.owner)).await? {
            shared.claims.stands(name, &ours);
            shared.against.settled(name);
            let claimed = Input::Claimed { name: name.clone(), asked_ms };
            // The node has stopped: so will this.
            let _ = shared.node.databases_said(vec![claimed]);
            return Ok(Condition::Up);
        }
    }
    Err(Fault::Unexpected("its owner row changes all the time".to_owned()))
}

/// What another database says against the store. All that answer are asked before the first one is
/// claimed: a claim by a copy would stand against the right store.
async fn said_elsewhere(shared: &Shared) -> Option<String> {
    if let Some(why) = shared.against.elsewhere(&shared.name) {
        return Some(why);
    }
    for peer in shared.peers() {
        if peer.claims.is_made(&peer.name) || matches!(peer.status().condition, Condition::Down(_))
        {
            continue;
        }
        let look = async {
            let row = peer.database.owner(peer.node.info().store, SHARD).await?;
            against(&peer, row.as_ref(), &peer.owner(), true).await
        };
        // One that does not answer says nothing, and says it later if it has something to say.
        if let Ok(Ok(Some(why))) = timeout(LOOK, look).await {
            shared.against.found(&peer.name, why);
            return shared.against.elsewhere(&shared.name);
        }
    }
    None
}

/// What a database says against the store: by its row, and before the first claim by its markers.
async fn against(
    shared: &Shared,
    row: Option<&OwnerRow>,
    ours: &Owner,
    first: bool,
) -> Result<Option<String>, Fault> {
    if let Some(row) = row {
        let openings = &shared.node.info().openings;
        let why = row.owner.contradictions(ours, openings, &shared.claims.numbers());
        if !why.is_empty() {
            return Ok(Some(contradicted(row, ours, &why)));
        }
    }
    let unknown = if first { unknown_marker(shared, row).await? } else { None };
    Ok(unknown.map(|id| format!("{id} committed in it, and this store's log has never begun it")))
}

/// The row says how far the log has come, so that a copy of it that was made before is recognised.
pub(super) async fn raise(shared: &Shared) -> Result<(), String> {
    if shared
        .claims
        .durable(&shared.name)
        .is_some_and(|claimed| claimed >= shared.owner().durable_lsn)
    {
        return Ok(());
    }
    match claim(shared).await {
        Ok(Condition::Up) => Ok(()),
        Ok(other) => Err(other.why().unwrap_or_default().to_owned()),
        Err(fault) => Err(fault.to_string()),
    }
}

fn contradicted(row: &OwnerRow, ours: &Owner, why: &[Contradiction]) -> String {
    let why: Vec<String> = why.iter().map(ToString::to_string).collect();
    let at = Timestamp::try_from(row.at()).map_or_else(|_| "?".to_owned(), |at| format!("{at:.0}"));
    let current = OwnerRow { owner: ours.clone(), at_unix_ms: 0 };
    format!(
        "its owner row ({row}, written {at}) is not this store's ({current}): {}",
        why.join(", ")
    )
}

/// A committed transaction that this log has never begun: another life has decided it.
async fn unknown_marker(
    shared: &Shared,
    row: Option<&OwnerRow>,
) -> Result<Option<TransactionId>, Fault> {
    let openings = &shared.node.info().openings;
    let any = shared.any_branch();
    let row = row.map(|row| row.owner.opening);
    let after_ms = silence::markers_after(openings, row, shared.adoption.adopted(&shared.name));
    let markers = shared.database.new_markers(&any, after_ms).await?;
    let elsewhere = |marker: &&BranchId| silence::is_begun_elsewhere(openings, marker.transaction);
    if let Some(marker) = markers.iter().find(elsewhere) {
        return Ok(Some(marker.transaction));
    }
    // Those that it may have begun, or be without, are few: it is asked.
    let asked = stream::iter(markers).map(|marker| unless_known(shared, marker));
    let mut unknown = pin!(asked.buffered(AT_ONCE).filter_map(ready));
    Ok(unknown.next().await)
}

/// The transaction of a branch of which the log, as far as that is whole, has nothing.
async fn unless_known(shared: &Shared, branch: BranchId) -> Option<TransactionId> {
    let label = label(shared, &branch).await;
    matches!(label, Ok(Label::Unknown)).then_some(branch.transaction)
}

#[cfg(test)]
mod tests {
    use super::*;
    use handfast_core::ids::{OpeningId, StoreId};

    #[test]
    fn a_claim_without_an_answer_may_stand() {
        let name = Name::new("one").expect("it is one");
        let claims = Claims::default();
        let most = REMEMBERED as u64;
        for number in 1..=most + 1 {
            claims.written(&name, number);
        }
        assert_eq!(claims.numbers().len(), REMEMBERED);
        assert!(claims.numbers().contains(&2) && claims.numbers().contains(&(most + 1)));
        assert!(!claims.is_made(&name));
        claims.registered(&name);
        assert!(claims.numbers().contains(&2), "it has this life's row all the same");
    }

    /// Two claims of one life overtook each other: the row was the later one's, and the earlier one
    /// was remembered. Then the store took itself for its own twin.
    #[test]
    fn an_answer_that_is_overtaken_changes_nothing() {
        let name = Name::new("one").expect("it is one");
        let owner = |claim, lsn| Owner {
            store: StoreId(1),
            shard: SHARD,
            epoch: 1,
            node: String::new(),
            opening: OpeningId(1),
            durable_lsn: Lsn(lsn),
            claim,
        };
        let claims = Claims::default();
        claims.written(&name, 1);
        claims.written(&name, 2);
        claims.stands(&name, &owner(2, 20));
        claims.stands(&name, &owner(1, 10));
        assert_eq!((claims.numbers(), claims.durable(&name)), (vec![1, 2], Some(Lsn(20))));
        claims.written(&name, 3);
        claims.written(&name, 4);
        claims.stands(&name, &owner(3, 30));
        assert_eq!(claims.numbers(), [1, 2, 3, 4], "the fourth may stand by now");
    }

    #[test]
    fn what_one_says_is_held_against_all_but_itself() {
        let name = |text| Name::new(text).expect("it is one");
        let (one, two) = (name("one"), name("two"));
        let against = Against::default();
        assert_eq!((against.any(), against.elsewhere(&one)), (None, None));
        against.found(&one, "no".to_owned());
        assert!(against.any().is_some() && against.elsewhere(&two).is_some());
        assert_eq!(against.elsewhere(&one), None);
        against.settled(&one);
        assert_eq!(against.any(), None);
    }
}
