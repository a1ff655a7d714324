//! Deletes markers that nobody can ask for any more: by id, a day after their transaction's END;
//! tombstones after a month. Never by age alone, and never another store's.

use std::time::Duration;

use handfast_core::command::Command;
use handfast_core::ids::TransactionId;
use handfast_core::limits::DEADLINE_MS;
use handfast_core::output::Reply;
use handfast_core::refusal::Code;
use handfast_database::{Fault, OLD_MARKERS, Outcome};

use super::Shared;

/// How long a marker is kept after END.
const MARKER: Duration = Duration::from_secs(24 * 3_600);
/// What ended so long ago has its marker still, also when a sweep began a while ago.
pub(super) const KEPT: Duration = Duration::from_secs(23 * 3_600);
/// How long a tombstone is kept.
const TOMBSTONE: Duration = Duration::from_secs(30 * 24 * 3_600);

/// One sweep; true: there may be more to do at once.
pub(super) async fn sweep(shared: &Shared) -> Result<bool, Fault> {
    let any = shared.any_branch();
    // As the ids and the log have it.
    let now = Duration::from_millis(shared.node.log_time_ms());
    let deadline = Duration::from_millis(DEADLINE_MS);
    let before = now.saturating_sub(MARKER + deadline);
    let old = shared.database.old_markers(&any, ms(before)).await?;
    let full = old.len() == OLD_MARKERS;
    let tombstones_before = ms(now.saturating_sub(TOMBSTONE));
    let mut over = Vec::new();
    for (branch, outcome) in old {
        let is_over = match outcome {
            Outcome::Committed => has_ended(shared, branch.transaction, ms(now)).await,
            Outcome::Aborted => branch.transaction.unix_ms() < tombstones_before,
        };
        if is_over {
            over.push(branch);
        }
    }
    let deleted = shared.database.forget(&over).await?;
    if deleted > 0 {
        tracing::info!(database = %shared.name, deleted, "old markers deleted");
    }
    // What stays would only be found again.
    Ok(full && !over.is_empty())
}

/// END is durable, and that for a day; or so long that the log has forgotten it.
async fn has_ended(shared: &Shared, id: TransactionId, now_ms: u64) -> bool {
    match shared.node.call(Command::Show { id }).await {
        Ok(Reply::Transaction(view)) => {
            view.ended_wall_ms.is_some_and(|ended| now_ms.saturating_sub(ended) >= ms(MARKER))
        }
        Ok(Reply::Refused(refusal)) => refusal.code == Code::UnknownTransaction,
        Ok(_) | Err(_) => false,
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
