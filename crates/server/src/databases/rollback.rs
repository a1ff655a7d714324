//! What has to be certain before a branch of an earlier life of the store is rolled back (I1, I5).
//!
//! The log says that it was never decided. That is worth as much as the log is whole, and a copy's
//! is not: another life may have decided it. So everything is asked that could know better, and
//! while something cannot be asked, the branch stays.

use std::time::Duration;

use handfast_core::branch::BranchId;
use handfast_core::command::Command;
use handfast_core::ids::{Name, TransactionId};
use handfast_core::output::Reply;
use handfast_database::Outcome;

use super::{Condition, Shared};

/// A transaction that began so long after the last record of the log before this opening, or later,
/// was begun by somebody else: the begins of our own lives are in the log within milliseconds.
const AFTER_THE_END: Duration = Duration::from_secs(2);

/// It began in an earlier life than this one.
pub(super) fn is_of_earlier_life(shared: &Shared, id: TransactionId) -> bool {
    id.unix_ms() < shared.node.info().opened_ms
}

/// Why the log's silence about a transaction proves nothing; none: as far as the log and the times
/// go, it proves that nobody has decided it.
pub(super) fn unproven(shared: &Shared, id: TransactionId) -> Option<String> {
    let info = shared.node.info();
    let begun = id.unix_ms();
    let after = u64::try_from(AFTER_THE_END.as_millis()).unwrap_or(u64::MAX);
    let why = if begun < info.store.unix_ms() {
        "it is older than this store"
    } else if begun < shared.adoption.unsure_before_ms(&shared.name) {
        "it began before the store was restored, copied or adopted here"
    } else if begun >= info.opened_ms {
        "it began in this life of the store, and not here: another copy of it is at work"
    } else if begun > info.newest_ms.saturating_add(after) {
        "it began after the end of this log: another life of the store may have decided it"
    } else {
        return None;
    };
    Some(why.to_owned())
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
