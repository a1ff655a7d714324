//! I3 non-triviality: a transaction fails only for a reason. All YES, commit asked, no fault, no
//! deadline, no abort: then COMMIT.
//!
//! Violated by: an ABORT whose reason the world cannot confirm: no participant has said NO, nobody
//! has asked to abort, the deadline has not come, the counts agree, the client's stream lives, the
//! server has not started again.

use handfast_core::record::{Abort, ReasonCode, Record};

use super::{Facts, Invariant, Seen, ensure};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct NonTriviality;

impl Invariant for NonTriviality {
    fn name(&self) -> &'static str {
        "I3"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen<'_>) -> Result<(), String> {
        let Seen::Appended(_, Record::Abort(abort)) = seen else { return Ok(()) };
        if facts.disasters.contains(&abort.id) {
            return Ok(());
        }
        ensure(has_cause(facts, abort), || {
            format!("{} fails without cause: {:?}", abort.id, abort.reason)
        })
    }
}

fn has_cause(facts: &Facts, abort: &Abort) -> bool {
    let id = abort.id;
    let intent = facts.intents.get(&id);
    match abort.reason.code {
        ReasonCode::VotedNo => {
            let refused = |name| facts.refusals.contains(&(name, id));
            abort.reason.participant.clone().is_some_and(refused)
        }
        ReasonCode::Aborted => {
            intent.is_some_and(|i| i.abort_asked) || facts.restarted.contains(&id)
        }
        ReasonCode::Operator => {
            intent.is_some_and(|i| i.operator_asked) || facts.restarted.contains(&id)
        }
        ReasonCode::DeadlinePassed => intent.is_none_or(|i| i.deadline_ms <= facts.now.mono_ms),
        ReasonCode::Incomplete => intent.is_some_and(|i| {
            let counted = (i.branches, i.items);
            i.commits.iter().any(|commit| *commit != counted)
        }),
        ReasonCode::ClientGone => intent.is_some_and(|i| i.owner_gone),
        ReasonCode::CoordinatorRestarted => facts.restarted.contains(&id),
        // I1 asks for the tombstone.
        ReasonCode::NotCommittedLocally => true,
        _ => false,
    }
}
