//! A transaction step by step.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use handfast_core::ids::TransactionId;
use handfast_wire::raw::transaction_request::Call;
use handfast_wire::v1::transaction_reply::Result as Answer;
use handfast_wire::{ids, raw, v1};
use tokio::time::Instant;

use super::outcome::{foreign, outcome};
use super::votes::Votes;
use super::{Absence, Committed, Contents, Outcome, Wait};
use crate::client::Handfast;
use crate::error::{Error, Fault, Reason, TransactionError};
use crate::event::Event;
use crate::link::{Answered, CallOptions, Queued, Unanswered};
use crate::subscribe::Delivery;

/// How to begin a transaction step by step.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct BeginOptions {
    key: Option<String>,
    deadline: Option<Duration>,
    detached: bool,
}

impl BeginOptions {
    /// As [`Handfast::begin`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Names it, in at most 128 bytes: beginning again with the same key gives the same
    /// transaction, even from another process.
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Until it fails if it is not decided: 1 ms to one hour; default 30 s.
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// It outlives the connection, until its deadline. Without this it fails (`client_gone`) as
    /// soon as the connection that began it is lost.
    pub fn detached(mut self) -> Self {
        self.detached = true;
        self
    }
}

impl Handfast {
    /// Begins a transaction whose contents are added one by one.
    ///
    /// It lives on the stream that began it: when that is lost before commit was asked, it has
    /// failed. Its deadline is 30 s. A server with too much to do is asked again, as by
    /// [`Handfast::run`].
    ///
    /// # Errors
    /// Refused, or a fault: then no transaction is left behind that would hold anything beyond
    /// its deadline.
    pub async fn begin(&self) -> Result<OpenTransaction, TransactionError> {
        self.begin_with(BeginOptions::new()).await
    }

    /// As [`Handfast::begin`], with options.
    ///
    /// # Errors
    /// As [`Handfast::begin`].
    pub async fn begin_with(
        &self,
        options: BeginOptions,
    ) -> Result<OpenTransaction, TransactionError> {
        Ok(self.begin_among(options, Vec::new()).await?.0)
    }

    /// Begins with these branches in it, and says what the server calls those of databases.
    pub(crate) async fn begin_among(
        &self,
        options: BeginOptions,
        branches: Vec<v1::Branch>,
    ) -> Result<(OpenTransaction, Vec<v1::BranchId>), TransactionError> {
        let BeginOptions { key, deadline, detached } = options;
        let (is_new, enlisted) = (key.is_none(), count(branches.len()));
        let call = Call::Begin(raw::BeginRequest {
            idempotency_key: key.unwrap_or_default(),
            deadline_ms: deadline.map_or(0, millis),
            detached,
            branches,
            ..raw::BeginRequest::default()
        });
        // Sent again without a key as well: what a lost answer leaves behind is an empty
        // transaction that ends by its stream or its deadline.
        let terms = CallOptions::within(self.connection().limit).resent().new_if(is_new);
        let answered = self.inner.transactions.call_when_busy(Queued::new(call, 256, terms)).await;
        let Answered { answer, stream } =
            answered.map_err(|unanswered| TransactionError::from(unanswered.error))?;
        let Answer::Begun(begun) = answer else { return Err(foreign().into()) };
        let id = ids::transaction_id("transaction_id", &begun.transaction_id)
            .map_err(|malformed| TransactionError::from(Error::from(malformed)))?;
        let transaction = OpenTransaction {
            handfast: self.clone(),
            id,
            stream: (!detached).then_some(stream),
            remaining: Duration::from_millis(begun.remaining_ms),
            deadline: Instant::now() + Duration::from_millis(begun.remaining_ms),
            votes: Arc::default(),
            repeated: begun.repeated,
            branches: enlisted,
            items: 0,
            undecided: true,
            torn: false,
        };
        Ok((transaction, begun.branch_ids))
    }
}

/// A transaction that was begun and whose contents are added one by one.
///
/// Dropped before [`OpenTransaction::commit`] or [`OpenTransaction::abort`], it is aborted, as
/// far as the connection allows; what that does not reach ends at the deadline.
///
/// Each step waits for the server: what it says yes to can be committed, and nothing is refused
/// later. A step that is refused changes nothing, and the transaction goes on without it. A step
/// that is dropped before it was answered may or may not have taken effect; the transaction can
/// then only be aborted, and `commit` does that.
#[derive(Debug)]
#[must_use = "a transaction that is dropped is aborted"]
pub struct OpenTransaction {
    pub(crate) handfast: Handfast,
    pub(crate) id: TransactionId,
    /// The stream that it lives on; none: it is detached.
    pub(crate) stream: Option<u64>,
    pub(crate) deadline: Instant,
    pub(crate) votes: Arc<Votes>,
    remaining: Duration,
    repeated: bool,
    branches: u32,
    items: u32,
    /// Neither commit nor abort was asked.
    undecided: bool,
    /// Whether a step took effect is not known.
    torn: bool,
}

impl OpenTransaction {
    /// The transaction's id.
    #[must_use]
    pub fn id(&self) -> TransactionId {
        self.id
    }

    /// The key had begun it before. What it has got then is not known here: a commit that counts
    /// otherwise fails (`incomplete`).
    #[must_use]
    pub fn is_repeated(&self) -> bool {
        self.repeated
    }

    /// A service takes part: it gets this work, at most 1 MiB, in its prepare, at once.
    ///
    /// # Errors
    /// Refused, without effect; [`TransactionError::Failed`] when the stream is lost.
    pub async fn call(
        &mut self,
        service: impl Into<String>,
        work: impl Into<Bytes>,
    ) -> Result<(), TransactionError> {
        let mut contents = Contents::default();
        contents.call(service.into(), Some(work.into()));
        self.add(contents).await
    }

    /// A service takes part that was asked by other means, and votes by itself.
    ///
    /// # Errors
    /// As [`OpenTransaction::call`].
    pub async fn expect(&mut self, service: impl Into<String>) -> Result<(), TransactionError> {
        let mut contents = Contents::default();
        contents.call(service.into(), None);
        self.add(contents).await
    }

    /// An event is published if it commits.
    ///
    /// # Errors
    /// As [`OpenTransaction::call`].
    pub async fn publish(
        &mut self,
        topic: impl Into<String>,
        event: Event,
    ) -> Result<(), TransactionError> {
        let mut contents = Contents::default();
        contents.publish(topic.into(), event);
        self.add(contents).await
    }

    /// A delivery is acknowledged if it commits; it is not delivered again before that, and
    /// returns if the transaction fails.
    ///
    /// # Errors
    /// As [`OpenTransaction::call`]; `delivery_expired`.
    pub async fn acknowledge(&mut self, delivery: &Delivery) -> Result<(), TransactionError> {
        let mut contents = Contents::default();
        contents.acknowledge(delivery);
        self.add(contents).await
    }

    /// A new deadline, counted from now: 1 ms to one hour.
    ///
    /// # Errors
    /// As [`OpenTransaction::call`].
    pub async fn extend(&mut self, deadline: Duration) -> Result<(), TransactionError> {
        let call = Call::Extend(v1::ExtendRequest {
            transaction_id: ids::transaction_bytes(self.id),
            deadline_ms: millis(deadline),
        });
        match self.ask(call, 64).await? {
            Answer::Remaining(remaining) => {
                self.remaining = Duration::from_millis(remaining.remaining_ms);
                self.deadline = Instant::now() + self.remaining;
                self.handfast.extended(self.id, self.deadline);
                Ok(())
            }
            _ => Err(foreign().into()),
        }
    }

    /// Commits, and answers when every participant has finished, but 5 s after the decision at
    /// the latest.
    ///
    /// When the answer is lost the outcome is looked up, until the time limit that starts at
    /// the transaction's deadline.
    ///
    /// Cancel safety: dropped before it was sent, the transaction does not commit and ends by its
    /// deadline at the latest; dropped later, it may commit.
    ///
    /// # Errors
    /// [`TransactionError::Failed`], or [`TransactionError::Unknown`].
    pub async fn commit(self) -> Result<Committed, TransactionError> {
        self.commit_with(Wait::Finished).await
    }

    /// As [`OpenTransaction::commit`], answered when it is asked to.
    ///
    /// # Errors
    /// As [`OpenTransaction::commit`].
    pub async fn commit_with(mut self, wait: Wait) -> Result<Committed, TransactionError> {
        if self.torn {
            let detail = "a step was dropped before its answer, so what it has got is not known";
            let reason = reason("incomplete", detail);
            return Err(TransactionError::Failed { id: self.id, reason, retryable: true });
        }
        let votes = self.votes.take(self.id)?;
        let wait = v1::Wait::from(wait);
        let bytes = 64 + 96 * votes.len();
        let call = Call::Commit(v1::CommitRequest {
            transaction_id: ids::transaction_bytes(self.id),
            branches: self.branches,
            items: self.items,
            votes,
            vouched: false,
            wait: wait.into(),
        });
        let limit = self.handfast.connection().limit + self.remaining;
        // Commit may be asked any number of times, but a transaction that lives on a stream has
        // failed with it, unless commit had arrived: that is looked up.
        let mut terms = CallOptions::within(limit).only_on(self.stream);
        terms.resend = self.stream.is_none();
        let session = &self.handfast.inner.transactions;
        let waiting = session.enqueue(Queued::new(call, bytes, terms)).await;
        self.undecided = waiting.is_err();
        let answered = match waiting {
            Ok(waiting) => waiting.answer().await,
            Err(unanswered) => Err(unanswered),
        };
        let committed = match answered {
            Ok(answered) => match outcome(answered.answer) {
                Ok(outcome) => self.handfast.settle(outcome, wait, terms, Absence::Failed).await,
                Err(_) => self.handfast.find_out(self.id, wait, terms, Absence::Failed).await,
            },
            Err(Unanswered { sent: true, .. }) => {
                self.handfast.find_out(self.id, wait, terms, Absence::Failed).await
            }
            Err(Unanswered { error: Error::Refused(refusal), .. }) => {
                self.refused();
                Err(refusal.into())
            }
            Err(Unanswered { sent: false, error }) => {
                // It did not leave, but it was queued: nobody will send it any more.
                self.undecided = true;
                Err(self.lost(&error))
            }
        };
        if let Err(TransactionError::Failed { id, .. }) = &committed
            && !self.undecided
        {
            self.handfast.failed(*id);
        }
        committed
    }

    /// Aborts, and says what stands: it may have ended before.
    ///
    /// # Errors
    /// A fault when the server cannot be asked. The transaction is not committed then, as nobody
    /// has asked for that; it ends at its deadline.
    pub async fn abort(mut self, why: impl Into<String>) -> Result<Outcome, TransactionError> {
        self.votes.abort(&self.handfast, self.id);
        let call = self.abort_call(why.into());
        let terms = CallOptions::within(self.handfast.connection().limit).resent();
        let waiting = self.handfast.inner.transactions.enqueue(Queued::new(call, 640, terms)).await;
        self.undecided = waiting.is_err();
        let waiting = waiting.map_err(|unanswered| unanswered.error)?;
        let answered = waiting.answer().await.map_err(|unanswered| unanswered.error)?;
        let outcome = outcome(answered.answer)?;
        if outcome.state == super::State::Failed {
            self.handfast.failed(self.id);
        }
        Ok(outcome)
    }

    /// Enlists databases; says the ids of all that are in it.
    #[cfg(feature = "_databases")]
    pub(crate) async fn enlist_databases(
        &mut self,
        names: &[String],
    ) -> Result<Vec<v1::BranchId>, TransactionError> {
        let branches = database_branches(names);
        Ok(self.added(Contents { branches, ..Contents::default() }).await?.branch_ids)
    }

    /// A commit that was refused had no effect, and nobody can ask again: abort is asked, so that
    /// what is prepared is rolled back now and not at the deadline.
    fn refused(&mut self) {
        self.undecided = !self.votes.is_empty();
    }

    async fn add(&mut self, contents: Contents) -> Result<(), TransactionError> {
        self.added(contents).await.map(drop)
    }

    async fn added(&mut self, contents: Contents) -> Result<v1::Counted, TransactionError> {
        let bytes = contents.check()?;
        let transaction_id = ids::transaction_bytes(self.id);
        let (branches, items) = (
            count(contents.branches.len()),
            count(contents.events.len() + contents.acknowledgements.len()),
        );
        let call = if branches > 0 {
            Call::Enlist(v1::EnlistRequest { transaction_id, branches: contents.branches })
        } else {
            let (events, acknowledgements) = (contents.events, contents.acknowledgements);
            Call::Stage(raw::StageRequest { transaction_id, events, acknowledgements })
        };
        match self.ask(call, bytes).await? {
            Answer::Counted(counted) => {
                self.branches += branches;
                self.items += items;
                Ok(counted)
            }
            _ => {
                self.torn = true;
                Err(foreign().into())
            }
        }
    }

    async fn ask(&mut self, call: Call, bytes: usize) -> Result<Answer, TransactionError> {
        let terms = CallOptions::within(self.handfast.connection().limit).only_on(self.stream);
        let session = &self.handfast.inner.transactions;
        let answered = match session.enqueue(Queued::new(call, bytes, terms)).await {
            Ok(waiting) => {
                let before = std::mem::replace(&mut self.torn, true);
                let answered = waiting.answer().await;
                let unclear = answered.as_ref().is_err_and(|unanswered| unanswered.sent);
                self.torn = before || unclear;
                answered
            }
            Err(unanswered) => Err(unanswered),
        };
        match answered {
            Ok(answered) => Ok(answered.answer),
            Err(Unanswered { error: Error::Refused(refusal), .. }) => Err(refusal.into()),
            Err(Unanswered { error, .. }) => Err(self.lost(&error)),
        }
    }

    /// What an error of the connection means before commit was asked.
    fn lost(&self, error: &Error) -> TransactionError {
        match error {
            Error::Fault(Fault::Lost { problem }) if self.stream.is_some() => {
                let detail = format!("the stream that began it ended ({problem})");
                let reason = reason("client_gone", &detail);
                TransactionError::Failed { id: self.id, reason, retryable: true }
            }
            other => other.clone().into(),
        }
    }

    fn abort_call(&self, detail: String) -> Call {
        let transaction_id = ids::transaction_bytes(self.id);
        Call::Abort(v1::AbortRequest { transaction_id, detail })
    }
}

impl Drop for OpenTransaction {
    fn drop(&mut self) {
        if self.undecided {
            if self.votes.abort(&self.handfast, self.id) {
                return;
            }
            let call = self.abort_call("the client dropped it".to_owned());
            let session = &Arc::clone(&self.handfast.inner).transactions;
            let terms = CallOptions::within(self.handfast.connection().limit).only_on(self.stream);
            session.post(Queued::new(call, 0, terms));
        }
    }
}

/// Databases as branches: their work is done by the application.
#[cfg(feature = "_databases")]
pub(crate) fn database_branches(names: &[String]) -> Vec<v1::Branch> {
    let kind = v1::ParticipantKind::Database.into();
    let branch = |name: &String| v1::Branch { participant: name.clone(), kind, work: None };
    names.iter().map(branch).collect()
}

fn reason(code: &str, detail: &str) -> Reason {
    Reason { code: code.to_owned(), participant: String::new(), detail: detail.to_owned() }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// At least 1, because zero would mean the default.
pub(crate) fn millis(duration: Duration) -> u64 {
    crate::time::millis(duration).max(1)
}
