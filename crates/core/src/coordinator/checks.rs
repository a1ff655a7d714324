//! What is checked of a request before anything is done for it.

use alloc::format;

use crate::command::DatabaseVote;
use crate::limits::DEADLINE_MS;
use crate::refusal::{Code, Refusal};

use super::transaction::Branch;

/// Within what a transaction may take.
pub(super) fn checked_deadline(deadline_ms: u64) -> Result<u64, Refusal> {
    if deadline_ms == 0 || deadline_ms > DEADLINE_MS {
        let detail = format!("a deadline is 1 to {DEADLINE_MS} ms; this is {deadline_ms} ms");
        return Err(Refusal::new(Code::InvalidDeadline, detail));
    }
    Ok(deadline_ms)
}

/// A caller may vote for databases that are in the transaction, and for nothing else.
pub(super) fn check_votes(branches: &[Branch], votes: &[DatabaseVote]) -> Result<(), Refusal> {
    for vote in votes {
        let name = &vote.database;
        let branch = branches.iter().find(|b| b.participant.name == *name);
        if branch.is_none_or(Branch::is_service) {
            let detail = format!("the vote is for {name}, which is no database in it");
            return Err(Refusal::new(Code::NotAParticipant, detail));
        }
    }
    Ok(())
}
