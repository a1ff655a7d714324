//! Transactions that have ended, as the server's log has them.

use std::time::SystemTime;

use handfast_core::view::TransactionView;
use handfast_wire::{Malformed, v1};

pub use handfast_wire::ended::Ending;

use crate::client::Handfast;
use crate::error::Error;

/// Some of the transactions that have ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndedTransactions {
    /// In the order of their ends.
    pub transactions: Vec<TransactionView>,
    /// Where to go on; none: these were the last.
    pub next: Option<u64>,
    /// What ended up to then may be gone from the log, and is not in the list; none: nothing is
    /// gone. An end is kept for an hour at least, and with an idempotency key as long as that.
    pub removed: Option<SystemTime>,
}

impl Handfast {
    /// Transactions that ended at a time or later, and in a certain way if one is named, in the order
    /// of their ends: at most `limit` and at most 1,000. `from` is where to go on, `next` of the
    /// answer before. One answer is of a bounded part of the log: it may be empty and not be the last.
    ///
    /// # Errors
    /// `damaged`: that part of the log cannot be read. A fault.
    pub async fn ended_transactions(
        &self,
        since: SystemTime,
        ending: Option<Ending>,
        from: Option<u64>,
        limit: u32,
    ) -> Result<EndedTransactions, Error> {
        let request = v1::ListEndedRequest {
            since_unix_ms: crate::time::unix_ms(since),
            ending: ending.map_or(v1::Ending::Unspecified, v1::Ending::from).into(),
            from: from.unwrap_or(0),
            limit,
        };
        let connection = self.connection();
        let call = || {
            let (mut stub, request) = (connection.transactions(), request);
            async move { stub.list_ended(request).await }
        };
        let reply = connection.repeat(call).await?;
        let views: Result<_, Malformed> =
            reply.transactions.into_iter().map(TransactionView::try_from).collect();
        Ok(EndedTransactions {
            transactions: views?,
            next: (reply.next != 0).then_some(reply.next),
            removed: (reply.removed_unix_ms != 0)
                .then(|| crate::time::from_unix_ms(reply.removed_unix_ms)),
        })
    }
}
