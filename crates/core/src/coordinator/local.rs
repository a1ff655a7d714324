//! Local transactions: one database, whose own commit is the decision. Rows L4 to L8.
//!
//! No ABORT of a local transaction is ever appended except when the database holds a tombstone.

use crate::ids::TransactionId;
use crate::input::Resolution;
use crate::output::Output;
use crate::record::{Reason, ReasonCode};

use super::pause::pause_ms;
use super::transaction::{Phase, Resolving};
use super::{Context, Coordinator};

impl Coordinator {
    /// L4: nobody knows whether the local commit happened; the database is asked, in a way that
    /// makes the answer final.
    pub(super) fn start_resolving(
        &mut self,
        cx: &mut Context<'_>,
        id: TransactionId,
        reason: Reason,
    ) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        tx.phase = Phase::Resolving;
        // Who waited for the marker waits for what the tombstone says.
        let checking = core::mem::take(&mut tx.checking);
        tx.waiters.extend(checking);
        // Its database has to say how it ended, and it may be gone: whoever waits is answered in time
        // with what stands then.
        let until_ms = cx.now.mono_ms + cx.limits.finish_wait_ms;
        for waiter in &mut tx.waiters {
            waiter.until_ms.get_or_insert(until_ms);
        }
        tx.doomed = Some(reason);
        tx.resolving = Some(Resolving {
            since_ms: cx.now.mono_ms,
            attempts: 0,
            under_way: false,
            next_ms: cx.now.mono_ms,
        });
        self.resolve(cx, id);
        self.rearm(cx, id);
    }

    /// Asks the database if it is time to, and never twice at once (L8).
    pub(super) fn resolve(&mut self, cx: &mut Context<'_>, id: TransactionId) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        let Some(database) = tx.local_database().cloned() else { return };
        let Some(resolving) = &mut tx.resolving else { return };
        if resolving.under_way || resolving.next_ms > cx.now.mono_ms {
            return;
        }
        resolving.under_way = true;
        resolving.attempts += 1;
        let abandoned = tx.doomed.as_ref().is_some_and(is_abandoned);
        let late = cx.now.mono_ms >= resolving.since_ms + cx.limits.attention_ms;
        cx.effects.emit(Output::Resolve { id, database, abandoned });
        if late {
            self.late(cx, id);
        }
    }

    /// The database is back: no reason to wait any longer.
    pub(super) fn resolve_now(&mut self, cx: &mut Context<'_>, id: TransactionId) {
        if let Some(resolving) = self.transactions.get_mut(&id).and_then(|tx| tx.resolving.as_mut())
        {
            resolving.next_ms = cx.now.mono_ms;
        }
        self.resolve(cx, id);
    }

    /// L5, L6, L7.
    pub(crate) fn resolved(
        &mut self,
        cx: &mut Context<'_>,
        id: TransactionId,
        resolution: Resolution,
    ) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        if tx.phase != Phase::Resolving {
            return;
        }
        match resolution {
            Resolution::Committed => {
                let asked = tx.doomed.take();
                self.decide_commit(cx, id);
                if let Some(asked) = asked {
                    self.had_committed(cx, id, &asked);
                }
            }
            Resolution::Tombstone | Resolution::Aborted => {
                let asked = tx.doomed.take();
                self.counters.abandoned += u64::from(asked.as_ref().is_some_and(is_abandoned));
                let reason = asked.unwrap_or_else(|| Reason {
                    code: ReasonCode::NotCommittedLocally,
                    participant: tx.local_database().cloned(),
                    detail: "the database holds a tombstone".into(),
                    retryable: true,
                });
                self.decide_abort(cx, id, reason);
            }
            Resolution::Unknown => {
                let (first, longest) = cx.limits.retry_ms;
                if let Some(resolving) = &mut tx.resolving {
                    resolving.under_way = false;
                    let pause = pause_ms(first, longest, resolving.attempts, id);
                    resolving.next_ms = cx.now.mono_ms + pause;
                }
                self.rearm(cx, id);
            }
        }
    }
}

/// Whoever began it has not come back to say how it ended. If its database holds no marker, either it
/// was never committed, or it was committed in another database than the one registered.
fn is_abandoned(reason: &Reason) -> bool {
    match reason.code {
        ReasonCode::ClientGone | ReasonCode::DeadlinePassed => true,
        ReasonCode::VotedNo
        | ReasonCode::Aborted
        | ReasonCode::Incomplete
        | ReasonCode::CoordinatorRestarted
        | ReasonCode::Operator
        | ReasonCode::NotCommittedLocally => false,
    }
}
