//! What stands about a transaction, and finding it out when the answer was lost: by evidence,
//! never by a guess.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use handfast_core::ids::TransactionId;
use handfast_core::refusal::Code;
use handfast_wire::raw::transaction_request::Call;
use handfast_wire::v1::transaction_reply::Result as Answer;
use handfast_wire::{Malformed, ids, v1, views};
use tokio::time::{Instant, sleep};

use crate::backoff::Backoff;
use crate::client::Handfast;
use crate::error::{Error, Fault, Reason, TransactionError};
use crate::link::{CallOptions, Queued};

pub use handfast_core::output::PublicState as State;

/// For so long after commit was asked does "unknown to the log" prove that it was never decided
/// to commit: half of the hour for which outcomes are kept.
const PROOF: Duration = Duration::from_secs(1_800);

/// What it proves that nothing is known of a transaction whose commit was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absence {
    /// It was never decided to commit.
    Failed,
    /// Nothing: its database may have committed, whatever the log says.
    #[cfg(feature = "_databases")]
    Unknown,
}

/// A transaction committed: everything of it happens, whatever crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Committed {
    /// The transaction.
    pub id: TransactionId,
    /// Every participant has finished, so what it did can be read everywhere. False: it is
    /// decided, and some are still being told.
    pub finished: bool,
    /// Somebody else ended one of its branches against the decision.
    pub heuristic: bool,
    /// As [`Outcome::keys_since`].
    pub keys_since: SystemTime,
}

/// What stands about a transaction. See [`Handfast::status`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// The transaction.
    pub id: TransactionId,
    /// Its state.
    pub state: State,
    /// Why it failed.
    pub reason: Option<Reason>,
    /// It failed, and the same transaction, begun again, may succeed.
    pub retryable: bool,
    /// It committed, and every participant has finished.
    pub finished: bool,
    /// Somebody else ended one of its branches against the decision.
    pub heuristic: bool,
    /// How far back idempotency keys reach: a key whose transaction ended before this may be
    /// forgotten, so that using it again would begin another transaction.
    pub keys_since: SystemTime,
}

impl Outcome {
    pub(crate) fn read(message: v1::Outcome) -> Result<Self, Malformed> {
        let retryable = message.reason.as_ref().is_some_and(|reason| reason.retryable);
        let state = views::public_state("state", message.state)?;
        Ok(Self {
            id: ids::transaction_id("transaction_id", &message.transaction_id)?,
            state,
            reason: message.reason.map(|reason| Reason {
                code: reason.code,
                participant: reason.participant,
                detail: reason.detail,
            }),
            retryable,
            // A server one version older says it by the state alone.
            finished: message.finished || state == State::Committed,
            heuristic: message.heuristic,
            keys_since: UNIX_EPOCH + Duration::from_millis(message.keys_since_unix_ms),
        })
    }

    /// None: not decided yet.
    fn decided(self) -> Option<Result<Committed, TransactionError>> {
        let Self { id, state, reason, retryable, finished, heuristic, keys_since } = self;
        match state {
            State::Preparing => None,
            State::Committing | State::Committed => {
                Some(Ok(Committed { id, finished, heuristic, keys_since }))
            }
            State::Failed => {
                let reason = reason.unwrap_or_else(|| Reason {
                    code: "aborted".to_owned(),
                    participant: String::new(),
                    detail: "the server gave no reason".to_owned(),
                });
                Some(Err(TransactionError::Failed { id, reason, retryable }))
            }
        }
    }
}

/// Reads an answer that has to be an outcome.
pub(crate) fn outcome(answer: Answer) -> Result<Outcome, Error> {
    match answer {
        Answer::Outcome(message) => Ok(Outcome::read(message)?),
        _ => Err(foreign()),
    }
}

pub(crate) fn foreign() -> Error {
    Fault::Failed("the answer is not one to what was asked".to_owned()).into()
}

impl Handfast {
    /// What stands about a transaction, now.
    ///
    /// # Errors
    /// `unknown_transaction` says that nothing is known, not that it failed.
    pub async fn status(&self, id: TransactionId) -> Result<Outcome, Error> {
        let terms = CallOptions::within(self.connection().limit).resent();
        self.get(id, v1::Wait::Unspecified, terms).await
    }

    async fn get(
        &self,
        id: TransactionId,
        wait: v1::Wait,
        terms: CallOptions,
    ) -> Result<Outcome, Error> {
        let call = Call::Get(v1::GetRequest {
            transaction_id: ids::transaction_bytes(id),
            wait: wait.into(),
        });
        let answered = self.inner.transactions.call(Queued::new(call, 32, terms)).await;
        outcome(answered.map_err(|unanswered| unanswered.error)?.answer)
    }

    /// An outcome, once it is one.
    pub(crate) fn settle(
        &self,
        outcome: Outcome,
        wait: v1::Wait,
        terms: CallOptions,
        absence: Absence,
    ) -> impl Future<Output = Result<Committed, TransactionError>> + Send + '_ {
        let id = outcome.id;
        let decided = outcome.decided();
        async move {
            match decided {
                Some(decided) => decided,
                // Seldom, and no reason for every call to have room for it.
                None => Box::pin(self.find_out(id, wait, terms, absence)).await,
            }
        }
    }

    /// Asks until it is known how a transaction ended whose commit was asked.
    pub(crate) async fn find_out(
        &self,
        id: TransactionId,
        wait: v1::Wait,
        terms: CallOptions,
        absence: Absence,
    ) -> Result<Committed, TransactionError> {
        // The terms are those of the commit.
        let asked = terms.give_up - terms.limit;
        let mut backoff = Backoff::default();
        let terms = CallOptions { resend: true, only_on: None, ..terms };
        let unknown = |cause: Error| TransactionError::Unknown {
            id: Some(id),
            key: None,
            cause: Box::new(cause),
        };
        loop {
            let cause = match self.get(id, wait, terms).await {
                Ok(outcome) => match outcome.decided() {
                    Some(decided) => return decided,
                    None => Fault::TimedOut { after: terms.limit, sent: true }.into(),
                },
                Err(Error::Refused(refusal)) if refusal.is(Code::UnknownTransaction) => {
                    if absence != Absence::Failed || asked.elapsed() > PROOF {
                        return Err(unknown(refusal.into()));
                    }
                    let reason = Reason {
                        code: refusal.code,
                        participant: String::new(),
                        detail: refusal.detail,
                    };
                    return Err(TransactionError::Failed {
                        id,
                        reason,
                        retryable: refusal.retryable,
                    });
                }
                Err(Error::Refused(refusal)) if refusal.retryable => refusal.into(),
                Err(error) => return Err(unknown(error)),
            };
            let pause = backoff.next();
            if Instant::now() + pause >= terms.give_up {
                return Err(unknown(cause));
            }
            sleep(pause).await;
        }
    }
}
