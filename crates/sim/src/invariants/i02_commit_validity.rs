//! I2 commit validity: COMMIT only if every updater had durably prepared before it was appended
//! (a local transaction: its marker is durable), and only of everything that its caller counted.
//!
//! Violated by: a COMMIT that names an updater whose store does not hold the branch as prepared; a
//! branch that is in neither list; other counts than the ones the commit was asked with; a local
//! COMMIT without a visible marker.

use handfast_core::participant::BranchState;
use handfast_core::record::{Commit, ParticipantKind, Record};

use super::{Facts, Invariant, Seen, ensure};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct CommitValidity;

impl Invariant for CommitValidity {
    fn name(&self) -> &'static str {
        "I2"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen<'_>) -> Result<(), String> {
        let Seen::Appended(_, Record::Commit(commit)) = seen else { return Ok(()) };
        if facts.chains.get(&commit.id).is_some_and(|chain| chain.local) {
            let marker = facts.rows.iter().any(|((_, id), marker)| *id == commit.id && *marker);
            return ensure(marker, || format!("local {} commits without a marker", commit.id));
        }
        updaters(facts, commit)?;
        let Some(intent) = facts.intents.get(&commit.id) else {
            return Err(format!("{} commits after a restart", commit.id));
        };
        let branches = commit.updaters.len() + commit.read_only.len();
        let items = commit.events.len() + commit.acknowledged.len();
        ensure((branches, items) == (intent.branches, intent.items), || {
            format!(
                "{} commits {branches} branches and {items} items of {} and {}",
                commit.id, intent.branches, intent.items
            )
        })?;
        ensure(intent.commits.contains(&(branches, items)), || {
            format!(
                "{} commits {branches} branches and {items} items, asked was {:?}",
                commit.id, intent.commits
            )
        })
    }
}

fn updaters(facts: &Facts, commit: &Commit) -> Result<(), String> {
    let id = commit.id;
    if facts.disasters.contains(&id) {
        return Ok(());
    }
    for updater in &commit.updaters {
        let name = &updater.participant.name;
        let prepared = match updater.participant.kind {
            ParticipantKind::Service => {
                let place = (name.clone(), updater.state_id);
                let state = facts.branches.get(&(place, id));
                state == Some(&BranchState::Prepared)
            }
            ParticipantKind::Database => facts.prepared.contains(&(name.clone(), id)),
        };
        ensure(prepared, || format!("{id} commits, but {name} has not prepared it"))?;
    }
    Ok(())
}
