//! Transactions of others: what is known about them, and what an operator can do.

use handfast_core::ids::TransactionId;
use handfast_wire::raw::transaction_request::Call;
use handfast_wire::v1::transaction_reply::Result as Answer;
use handfast_wire::{ids, v1};

use super::{TransactionView, read_all};
use crate::client::Handfast;
use crate::error::Error;
use crate::link::{CallOptions, Queued};
use crate::transaction::{Outcome, foreign, read_outcome};

/// What an operator can do about a transaction. Committing is not among it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolve {
    /// Fail it, if it is undecided.
    Abort,
    /// Wait no longer for a participant that is gone for good. Nobody knows how its branch ended,
    /// and the transaction says so for ever.
    Release(String),
    /// What needed attention was seen.
    Note,
}

impl Handfast {
    /// Everything that is known about a transaction, branch by branch.
    ///
    /// # Errors
    /// `unknown_transaction` says that nothing is known, not that it failed.
    pub async fn show(&self, id: TransactionId) -> Result<TransactionView, Error> {
        let call = Call::Show(v1::ShowRequest { transaction_id: ids::transaction_bytes(id) });
        match self.ask(call).await? {
            Answer::Transaction(message) => Ok(message.try_into()?),
            _ => Err(foreign()),
        }
    }

    /// Open transactions after `after`, ascending by id, at most `limit` and at most 1,000. Fewer:
    /// these were the last.
    ///
    /// # Errors
    /// A fault.
    pub async fn transactions(
        &self,
        after: Option<TransactionId>,
        limit: u32,
    ) -> Result<Vec<TransactionView>, Error> {
        self.list_transactions(after, limit, false).await
    }

    /// The same of transactions that a person should look at: open ones, and ones that have ended
    /// otherwise than was decided until somebody takes note. [`Handfast::show`] knows more of these.
    ///
    /// # Errors
    /// A fault.
    pub async fn transactions_in_attention(
        &self,
        after: Option<TransactionId>,
        limit: u32,
    ) -> Result<Vec<TransactionView>, Error> {
        self.list_transactions(after, limit, true).await
    }

    async fn list_transactions(
        &self,
        after: Option<TransactionId>,
        limit: u32,
        attention: bool,
    ) -> Result<Vec<TransactionView>, Error> {
        let after = ids::transaction_bytes_or_none(after);
        let list = v1::ListTransactionsRequest { after, limit, attention };
        match self.ask(Call::List(list)).await? {
            Answer::Transactions(list) => read_all(list.transactions),
            _ => Err(foreign()),
        }
    }

    /// Aborts a transaction that somebody else began, if it is not decided, and says what stands.
    ///
    /// # Errors
    /// `unknown_transaction`, or a fault.
    pub async fn abort(&self, id: TransactionId, why: impl Into<String>) -> Result<Outcome, Error> {
        let call = Call::Abort(v1::AbortRequest {
            transaction_id: ids::transaction_bytes(id),
            detail: why.into(),
        });
        read_outcome(self.ask(call).await?)
    }

    /// Steps in about a transaction, and says what stands then. `detail` is for people: who and
    /// why, at most 512 bytes.
    ///
    /// # Errors
    /// `unknown_transaction`; `closed`: it is decided; `pending`: it is not, or is being looked
    /// up; `not_a_participant`; a fault: it may have been done.
    pub async fn resolve(
        &self,
        id: TransactionId,
        what: Resolve,
        detail: impl Into<String>,
    ) -> Result<Outcome, Error> {
        use v1::resolve_request::Act;
        let act = match what {
            Resolve::Abort => Act::Abort(true),
            Resolve::Release(name) => Act::Release(name),
            Resolve::Note => Act::Note(true),
        };
        let transaction_id = ids::transaction_bytes(id);
        let request = v1::ResolveRequest { transaction_id, act: Some(act), detail: detail.into() };
        let mut stub = self.connection().transactions();
        Ok(Outcome::read(self.connection().once(stub.resolve(request)).await?)?)
    }

    async fn ask(&self, call: Call) -> Result<Answer, Error> {
        let terms = CallOptions::within(self.connection().limit).resent();
        let answered = self.inner.transactions.call(Queued::new(call, 1_024, terms)).await;
        Ok(answered.map_err(|unanswered| unanswered.error)?.answer)
    }
}
