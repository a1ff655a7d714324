//! I1 agreement: at most one decision per transaction; every branch's end equals it.
//!
//! Violated by: a second, different decision in the log; a branch that commits without COMMIT or
//! where it is no updater; an updater that aborts after COMMIT; a service that has prepared and
//! aborts while nothing is decided; an abort sent to an updater of a committed transaction, or a
//! commit to anybody else; a database that rolls a branch back after COMMIT, whoever told it to; work
//! that becomes visible in the database of a failed transaction, or an ABORT of a local one that its
//! database has committed.

use handfast_core::ids::TransactionId;
use handfast_core::output::{Output, ToService};
use handfast_core::participant::BranchState;
use handfast_core::record::Record;

use super::facts::Place;
use super::{Facts, Invariant, Seen, ensure};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Agreement;

impl Invariant for Agreement {
    fn name(&self) -> &'static str {
        "I1"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Appended(_, Record::Commit(commit)) => {
                ensure(facts.decision(commit.id) == Some(true), || {
                    format!("{} has ABORT and now COMMIT", commit.id)
                })
            }
            Seen::Appended(_, Record::Abort(abort)) => {
                ensure(facts.decision(abort.id) == Some(false), || {
                    format!("{} has COMMIT and now ABORT", abort.id)
                })?;
                let rows = facts.rows.iter().find(|((_, id), _)| *id == abort.id);
                let local = facts.chains.get(&abort.id).is_some_and(|c| c.local);
                ensure(!local || rows.is_some_and(|(_, marker)| !marker), || {
                    format!("ABORT of local {} without a tombstone: {rows:?}", abort.id)
                })
            }
            Seen::Branch(place, id, from, to) => branch(facts, place, *id, *from, *to),
            Seen::Visible(database, id) => {
                let chain = facts.chains.get(id);
                let local = chain.is_some_and(|c| c.local);
                let decision = facts.decision(*id).or(facts.decided_by_copies.get(id).copied());
                ensure(decision != Some(false) && (local || decision == Some(true)), || {
                    format!("{id} became visible in {database}, decision {decision:?}")
                })
            }
            Seen::RolledBack(database, id) => {
                let committed = facts.is_database_updater(*id, database)
                    || facts.decided_by_copies.get(id) == Some(&true);
                ensure(!committed, || {
                    format!("{id} was rolled back in {database}, an updater of COMMIT")
                })
            }
            Seen::Output(Output::ToService { session, message: ToService::Abort { id } }, _) => {
                let Some(place) = facts.attached.get(session) else { return Ok(()) };
                ensure(!facts.is_updater(*id, place), || {
                    format!("abort of {id} sent to {}, an updater of COMMIT", place.0)
                })
            }
            Seen::Output(
                Output::ToService { session, message: ToService::Commit { id, .. } },
                _,
            ) => {
                let Some(place) = facts.attached.get(session) else { return Ok(()) };
                ensure(facts.is_updater(*id, place), || {
                    format!("commit of {id} sent to {} {}, no updater of it", place.0, place.1)
                })
            }
            _ => Ok(()),
        }
    }
}

fn branch(
    facts: &Facts,
    place: &Place,
    id: TransactionId,
    from: BranchState,
    to: BranchState,
) -> Result<(), String> {
    if facts.disasters.contains(&id) {
        return Ok(());
    }
    match to {
        BranchState::Committed => ensure(facts.is_updater(id, place), || {
            format!("{} committed {id}, of which it is no updater", place.0)
        }),
        BranchState::Aborted => {
            ensure(!facts.is_updater(id, place), || {
                format!("{} aborted {id} after {from:?}, but COMMIT stands", place.0)
            })?;
            // Of what the log does not know, or no longer, nothing will be decided.
            let undecided = facts.chains.get(&id).is_some_and(|chain| chain.decision.is_none());
            ensure(from != BranchState::Prepared || !undecided, || {
                format!("{} had prepared {id} and aborted it before anything was decided", place.0)
            })
        }
        BranchState::None | BranchState::Working | BranchState::Prepared => {
            ensure(!matches!(from, BranchState::Committed) || to == BranchState::None, || {
                format!("{} went back from {from:?} to {to:?} in {id}", place.0)
            })
        }
    }
}
