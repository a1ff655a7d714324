//! A local transaction between its BEGIN and its end: what the server is told, and how the outcome
//! is found out. Rows L3, L4, L8 and L9 of the protocol. It never says more than is known.

use std::time::{Duration, SystemTime};

use handfast_core::ids::TransactionId;
use handfast_database::ApplicationError;
use handfast_wire::raw::transaction_request::Call;
use handfast_wire::{ids, v1};

use super::{Error, Failure, Participant, Step};
use crate::client::Handfast;
use crate::error::{Error as CallError, Fault, TransactionError};
use crate::link::{CallOptions, Queued, Unanswered};
use crate::transaction::{Absence, Committed, Wait, read_outcome};

/// A local transaction between its BEGIN and its end. Dropped, it is not forgotten: the server is
/// told what is known, and finds out the rest by the marker.
pub(super) struct Pending {
    handfast: Handfast,
    id: TransactionId,
    wait: Wait,
    terms: CallOptions,
    state: Known,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Whether the database has committed.
    Nothing,
    /// It has.
    Committed,
    /// The server has been told.
    Told,
}

impl Pending {
    pub(super) fn new(
        handfast: &Handfast,
        id: TransactionId,
        remaining: Duration,
        wait: Wait,
    ) -> Self {
        let terms = CallOptions::within(handfast.connection().limit + remaining).resent();
        Self { handfast: handfast.clone(), id, wait, terms, state: Known::Nothing }
    }

    /// L3: the database has committed, which is the outcome whatever happens: the server is told
    /// when `self` is dropped here, and its answer is not waited for.
    pub(super) fn committed(mut self, keys_since: SystemTime) -> Committed {
        self.state = Known::Committed;
        Committed { id: self.id, finished: false, heuristic: false, keys_since }
    }

    /// L3: the database has committed; waits until the server has made the events visible.
    pub(super) async fn commit(mut self) -> Result<Committed, TransactionError> {
        self.state = Known::Committed;
        let settled = self.tell(self.commit_call()).await;
        settled.map_err(|error| self.contradicted(error))
    }

    /// L4: whether the database has committed is not known, or it has not. The server finds out,
    /// in a way that makes the answer final.
    pub(super) async fn look_up(mut self) -> Result<Committed, TransactionError> {
        self.tell(self.abort_call()).await
    }

    /// Tells the server, and waits until it is known how the transaction ended.
    async fn tell(&mut self, call: Call) -> Result<Committed, TransactionError> {
        let Self { handfast, id, terms, .. } = self;
        let (id, wait, terms) = (*id, self.wait.into(), *terms);
        let waiting = handfast.inner.transactions.enqueue(Queued::new(call, 128, terms)).await;
        if waiting.is_ok() {
            self.state = Known::Told;
        }
        let answered = match waiting {
            Ok(waiting) => waiting.answer().await,
            Err(unanswered) => Err(unanswered),
        };
        let outcome = answered
            .map_err(|Unanswered { error, .. }| error)
            .and_then(|answered| read_outcome(answered.answer));
        match outcome {
            Ok(outcome) => handfast.settle(outcome, wait, terms, Absence::Unknown).await,
            Err(_) => handfast.find_out(id, wait, terms, Absence::Unknown).await,
        }
    }

    /// The database did not say yes.
    pub(super) async fn not_committed<D: Participant, E>(
        self,
        database: &str,
        error: ApplicationError,
        repeated: bool,
    ) -> Result<(Option<Committed>, bool), Error<E>> {
        let failure = Failure::of(database, Step::Commit, error.clone());
        if !error.is_no() {
            return Ok((Some(self.look_up().await?), repeated));
        }
        // A marker that stands is an earlier run's, or the tombstone of one that was given up.
        if repeated || D::is_duplicate(&failure.code) {
            return match self.look_up().await {
                Ok(committed) => Ok((Some(committed), true)),
                // It was this very question that ended it: the database's words say more.
                Err(TransactionError::Failed { reason, .. }) if reason.code == "aborted" => {
                    Err(Error::Database(failure))
                }
                Err(error) => Err(error.into()),
            };
        }
        // The server is told when `self` is dropped here; nothing depends on its answer.
        Err(Error::Database(failure))
    }

    /// The database has committed: whoever says that it failed cannot be believed.
    fn contradicted(&self, error: TransactionError) -> TransactionError {
        match error {
            TransactionError::Failed { id, reason, .. } => TransactionError::Unknown {
                id: Some(id),
                key: None,
                cause: Box::new(CallError::Fault(Fault::Failed(format!(
                    "the database has committed, and the server says that it failed: {reason}"
                )))),
            },
            other => other,
        }
    }

    fn commit_call(&self) -> Call {
        Call::Commit(v1::CommitRequest {
            transaction_id: ids::transaction_bytes(self.id),
            wait: v1::Wait::from(self.wait).into(),
            vouched: true,
            ..v1::CommitRequest::default()
        })
    }

    fn abort_call(&self) -> Call {
        Call::Abort(v1::AbortRequest {
            transaction_id: ids::transaction_bytes(self.id),
            detail: "the database did not say that it committed".to_owned(),
        })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let call = match self.state {
            Known::Nothing => self.abort_call(),
            Known::Committed => self.commit_call(),
            Known::Told => return,
        };
        self.handfast.inner.transactions.post(Queued::new(call, 0, self.terms));
    }
}
