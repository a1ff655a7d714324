//! I4 stability: public states only move Preparing -> Committing -> Committed or
//! Preparing -> Failed, for every observer, across restarts.
//!
//! Violated by: any answer that names an earlier state than one that was given before, or the other
//! outcome, whoever asked and whichever run of the server answered.

use std::collections::BTreeMap;

use handfast_core::ids::TransactionId;
use handfast_core::output::{Output, PublicState, Reply};

use super::{Facts, Invariant, Seen, ensure};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Stability {
    told: BTreeMap<TransactionId, PublicState>,
}

impl Invariant for Stability {
    fn name(&self) -> &'static str {
        "I4"
    }

    fn see(&mut self, _: &Facts, seen: &Seen<'_>) -> Result<(), String> {
        let Seen::Output(Output::Reply { reply, .. }, _) = seen else { return Ok(()) };
        match reply {
            Reply::Outcome(outcome) => self.tell(outcome.id, outcome.state),
            Reply::Transaction(view) => self.tell(view.id, view.state),
            Reply::Transactions(views) => {
                views.iter().try_for_each(|view| self.tell(view.id, view.state))
            }
            _ => Ok(()),
        }
    }
}

impl Stability {
    fn tell(&mut self, id: TransactionId, state: PublicState) -> Result<(), String> {
        let before = self.told.insert(id, state).unwrap_or(PublicState::Preparing);
        let forward = match (before, state) {
            (PublicState::Preparing, _) => true,
            (PublicState::Committing, to) => {
                matches!(to, PublicState::Committing | PublicState::Committed)
            }
            (PublicState::Committed, to) => to == PublicState::Committed,
            (PublicState::Failed, to) => to == PublicState::Failed,
        };
        ensure(forward, || format!("{id} was told as {before:?} and now as {state:?}"))
    }
}
