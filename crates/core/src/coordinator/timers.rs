//! When which transaction has to be looked at: one entry each, in one ordered set.

use alloc::collections::BTreeSet;

use crate::ids::TransactionId;

/// The timers of all transactions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers(BTreeSet<(u64, TransactionId)>);

impl Timers {
    /// Moves a transaction's timer from where it is (`current`) to where it has to be.
    ///
    /// One that is early enough stays: when it fires the transaction is looked at and gets the
    /// next one. That saves most moves, because deadlines are rarely reached.
    pub(crate) fn arm(&mut self, id: TransactionId, current: &mut Option<u64>, at: Option<u64>) {
        match (*current, at) {
            (Some(old), Some(new)) if old <= new => return,
            (Some(old), Some(_)) => {
                self.0.remove(&(old, id));
            }
            // Nothing to wait for: the entry may fire in vain once.
            (_, None) => return,
            (None, Some(_)) => {}
        }
        if let Some(new) = at {
            self.0.insert((new, id));
            *current = Some(new);
        }
    }

    /// The transaction is gone.
    pub(crate) fn disarm(&mut self, id: TransactionId, current: &mut Option<u64>) {
        if let Some(old) = current.take() {
            self.0.remove(&(old, id));
        }
    }

    /// The earliest time.
    pub(crate) fn next(&self) -> Option<u64> {
        self.0.first().map(|(at, _)| *at)
    }

    /// A transaction whose time has come.
    pub(crate) fn pop(&mut self, now_ms: u64) -> Option<TransactionId> {
        let (at, id) = *self.0.first()?;
        if at > now_ms {
            return None;
        }
        self.0.remove(&(at, id));
        Some(id)
    }
}
