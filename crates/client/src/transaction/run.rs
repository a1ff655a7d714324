//! A transaction in one call.

use handfast_core::limits::KEY_BYTES;
use handfast_core::refusal::Code;
use handfast_wire::raw;
use handfast_wire::raw::transaction_request::Call;
use handfast_wire::v1;

use super::outcome::outcome;
use super::{Absence, Committed, Transaction};
use crate::client::Handfast;
use crate::error::{Error, Fault, Refusal, TransactionError};
use crate::link::Transactions;
use crate::link::{CallOptions, Queued};

/// A transaction on its way.
struct Asking {
    key: String,
    wait: v1::Wait,
    terms: CallOptions,
    queued: Box<Queued<Transactions>>,
}

impl Handfast {
    /// Runs a transaction that the closure writes down, in one call to the server.
    ///
    /// ```no_run
    /// # async fn transfer(hf: handfast::Handfast) -> Result<(), handfast::TransactionError> {
    /// let committed = hf
    ///     .transaction(|tx| {
    ///         tx.call("payments", "take 100 from account 7");
    ///         tx.publish("transfers", handfast::Event::new("transfer.made", "/bank"));
    ///     })
    ///     .await?;
    /// println!("{} committed", committed.id);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Cancel safety and errors: as [`Handfast::run`].
    ///
    /// # Errors
    /// As [`Handfast::run`].
    pub async fn transaction(
        &self,
        write: impl FnOnce(&mut Transaction),
    ) -> Result<Committed, TransactionError> {
        let mut transaction = Transaction::new();
        write(&mut transaction);
        self.run_asked(self.asking(transaction)).await
    }

    /// Runs a transaction in one call and answers when every participant has finished, but 5 s
    /// after the decision at the latest (or at the decision, with
    /// [`Wait::Decided`](super::Wait::Decided)).
    ///
    /// Always sent with an idempotency key, so when a connection breaks the same call is made
    /// again on the next one and answered with the outcome of the first. A server with too much to
    /// do is asked again after the pause that it names
    /// ([`Builder::with_retry_when_busy`](crate::Builder::with_retry_when_busy)). It is given up
    /// when the time limit is over that starts at the transaction's deadline.
    ///
    /// Cancel safety: dropped before it was sent it does nothing; later it may commit.
    ///
    /// # Errors
    /// [`TransactionError::Failed`]: nothing happened. [`TransactionError::Refused`]: neither.
    /// [`TransactionError::Fault`]: it was never sent. [`TransactionError::Unknown`]: ask again by
    /// running the same with the same key.
    pub async fn run(
        &self,
        transaction: impl Into<Transaction>,
    ) -> Result<Committed, TransactionError> {
        self.run_asked(self.asking(transaction.into())).await
    }

    /// What is asked, once: a future that holds the whole transaction as well is a large one.
    fn asking(&self, transaction: Transaction) -> Result<Asking, Refusal> {
        let bytes = transaction.contents.check()?;
        let Transaction { key, deadline, wait, contents } = transaction;
        if key.as_ref().is_some_and(String::is_empty) {
            return Err(Refusal::local(Code::InvalidArgument, "the key is empty"));
        }
        let is_new = key.is_none();
        let key = key.unwrap_or_else(|| self.next_key());
        if key.len() > KEY_BYTES {
            let detail = format!("a key has at most {KEY_BYTES} bytes, this has {}", key.len());
            return Err(Refusal::local(Code::InvalidArgument, detail));
        }
        let connection = self.connection();
        let limit = connection.limit + deadline.unwrap_or_else(|| connection.default_deadline());
        let terms = CallOptions::within(limit).resent().new_if(is_new);
        let wait = v1::Wait::from(wait);
        let request = raw::RunRequest {
            idempotency_key: key.clone(),
            deadline_ms: deadline.map_or(0, super::open::millis),
            detached: false,
            branches: contents.branches,
            events: contents.events,
            acknowledgements: contents.acknowledgements,
            wait: wait.into(),
        };
        Ok(Asking { key, wait, terms, queued: Queued::new(Call::Run(request), bytes, terms) })
    }

    async fn run_asked(
        &self,
        asking: Result<Asking, Refusal>,
    ) -> Result<Committed, TransactionError> {
        let Asking { key, wait, terms, queued } = asking?;
        let unknown = |cause: Error| TransactionError::Unknown {
            id: None,
            key: Some(key),
            cause: Box::new(cause),
        };
        match self.inner.transactions.call_when_busy(queued).await {
            Ok(answered) => {
                let outcome = outcome(answered.answer).map_err(unknown)?;
                self.settle(outcome, wait, terms, Absence::Failed).await
            }
            Err(unanswered) => Err(match unanswered.error {
                // Also when a repeat is refused: the first may have taken effect all the same.
                error if unanswered.sent => unknown(error),
                Error::Fault(Fault::Lost { problem }) => {
                    Fault::Unreachable { url: self.connection().url.clone(), problem }.into()
                }
                error => error.into(),
            }),
        }
    }
}
