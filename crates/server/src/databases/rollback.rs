//! What has to be certain before a branch of an earlier life of the store is rolled back (I1, I5).
//!
//! The log says that it was never decided. That is worth as much as the log is whole, and a copy's
//! is not: another life may have decided it. So everything is asked that could know better, and
//! while something cannot be asked, the branch stays.

use handfast_core::branch::BranchId;
use handfast_core::command::Command;
use handfast_core::ids::{Name, TransactionId};
use handfast_core::output::Reply;
use handfast_core::silence;
use handfast_database::Outcome;

use super::{Condition, Shared};

/// It began in an earlier life than this one, or in a life that the log does not contain.
pub(super) fn is_of_earlier_life(shared: &Shared, id: TransactionId) -> bool {
    let life = shared.node.info().openings.of(id);
    life.is_none_or(|life| life.end.is_some())
}

/// Why the log's silence about a transaction proves nothing; none: as far as the log goes, it proves
/// that nobody has decided it.
pub(super) fn unproven(shared: &Shared, id: TransactionId) -> Option<String> {
    let Shared { adoption, name, .. } = shared;
    // Nothing is resolved in such a database, so nobody comes here with one.
    let why = adoption.why(name);
    why.or_else(|| {
        let openings = &shared.node.info().openings;
        silence::unproven(openings, adoption.adopted(name), id).map(|why| why.to_string())
    })
}

/// What speaks against rolling a branch of an earlier life back; none: nothing. A transaction that
/// the log knows is looked for in its own databases, one that it does not in all of them.
pub(super) async fn against(shared: &Shared, id: TransactionId, known: bool) -> Option<String> {
    if let Some(why) = shared.against.any() {
        return Some(why);
    }
    let members = if known { members(shared, id).await } else { None };
    for peer in shared.peers() {
        if members.as_ref().is_some_and(|members| !members.contains(&peer.name)) {
            continue;
        }
        if let Some(why) = said_by(&peer, id).await {
            if let Said::Committed(why) = &why {
                shared.against.found(&peer.name, why.clone());
            }
            let (Said::Committed(why) | Said::Nothing(why)) = why;
            return Some(why);
        }
    }
    None
}

enum Said {
    /// It has committed there.
    Committed(String),
    /// It could not be asked.
    Nothing(String),
}

/// What another database says against rolling it back.
async fn said_by(peer: &Shared, id: TransactionId) -> Option<Said> {
    let name = &peer.name;
    let condition = peer.status().condition.clone();
    if let Condition::Starting | Condition::Down(_) = condition {
        return Some(Said::Nothing(format!("database {name} cannot be asked about it")));
    }
    let branch = BranchId::new(id, peer.node.info().store, name);
    match peer.database.outcomes(&[branch]).await.as_deref() {
        Ok([Some(Outcome::Committed)]) => {
            Some(Said::Committed(format!("{id} committed in it, which this log does not know")))
        }
        Ok(_) => None,
        Err(fault) => Some(Said::Nothing(format!("database {name} cannot be asked: {fault}"))),
    }
}

/// The databases of a transaction, as the log has it; none: it does not say.
async fn members(shared: &Shared, id: TransactionId) -> Option<Vec<Name>> {
    match shared.node.call(Command::Show { id }).await {
        Ok(Reply::Transaction(view)) if !view.branches.is_empty() => {
            Some(view.branches.into_iter().map(|branch| branch.participant).collect())
        }
        Ok(_) | Err(_) => None,
    }
}
