//! A local transaction: one database, and events and acknowledgements that take effect if and only
//! if it commits. Rows L1 to L9 of the protocol, from the application's side.
//!
//! The events are with the server, durable and not visible, before the database commits; the
//! marker in the database then says for ever whether it has. Whatever is lost after that, the
//! server finds out by the marker, and nobody guesses.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use handfast_core::ids::{Name, TransactionId};
use handfast_core::limits::KEY_BYTES;
use handfast_core::refusal::Code;
use handfast_database::{ApplicationError, BranchId, Home, Marker};
use handfast_wire::raw::transaction_request::Call;
use handfast_wire::v1::transaction_reply::Result as Answer;
use handfast_wire::{ids, raw, v1};
use sqlx::Pool;
use tokio::time::{Instant, timeout_at};

use super::home::{Issued, wrong_database};
use super::lease::Lease;
use super::pending::Pending;
use super::{Error, Failure, Participant, Step};
use crate::client::Handfast;
use crate::error::{Error as CallError, Fault, Refusal, TransactionError};
use crate::event::Event;
use crate::link::{CallOptions, Queued};
use crate::subscribe::Delivery;
use crate::transaction::{Committed, Contents, Wait, foreign, millis};

/// How to run a local transaction. See [`Handfast::local_with`].
#[derive(Clone, Debug)]
#[must_use]
pub struct LocalOptions {
    pub(super) key: Option<String>,
    pub(super) deadline: Option<Duration>,
    pub(super) wait: Wait,
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self { key: None, deadline: None, wait: Wait::Decided }
    }
}

impl LocalOptions {
    /// As [`Handfast::local`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Names it, in at most 128 bytes: it takes effect at most once, however often and by
    /// whomever it is run with this key. Kept for 24 h after its end.
    ///
    /// The closure runs each time; if an earlier run has committed, what it wrote this time is
    /// rolled back ([`Local::repeated`]). It has to publish the same events each time, with ids
    /// of its own ([`Event::with_id`]): with another content the key is refused (`key_conflict`).
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Until it fails if it is not decided, from now: 1 ms to one hour; default 30 s. What is left
    /// of it bounds each statement and each wait for a lock.
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// When to answer; default [`Wait::Decided`]: as soon as the database has committed. Its marker
    /// stands then, so nothing can make the transaction fail any more; the server is told without
    /// waiting, and makes the events visible a moment later. If this process dies in between, the
    /// server finds the marker. With [`Wait::Finished`] the events can be read when it returns.
    pub fn with_wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }
}

/// What a local transaction does besides its database's work, written down by the closure.
///
/// At most 1,000 events and acknowledgements, 8 MiB of events.
#[derive(Debug, Default)]
pub struct LocalTransaction {
    pub(super) contents: Contents,
}

impl LocalTransaction {
    /// An event is published if it commits.
    pub fn publish(&mut self, topic: impl Into<String>, event: Event) -> &mut Self {
        self.contents.publish(topic.into(), event);
        self
    }

    /// A delivery is acknowledged if it commits, and returns if it fails. From now on the delivery
    /// is not rejected when it is dropped: if the closure fails, it returns when its lease is
    /// over.
    pub fn acknowledge(&mut self, delivery: &Delivery) -> &mut Self {
        self.contents.acknowledge(delivery);
        self
    }

    pub(super) fn acknowledges(&self, delivery: &Delivery) -> bool {
        self.contents.acknowledgements.contains(&delivery.reference().into())
    }

    pub(super) fn is_empty(&self) -> bool {
        let Contents { branches, events, acknowledgements, refused } = &self.contents;
        branches.is_empty() && events.is_empty() && acknowledgements.is_empty() && refused.is_none()
    }
}

/// A local transaction committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Local<T> {
    /// What the closure returned.
    pub value: T,
    /// The transaction; none: nothing was published or acknowledged, so handfast was not needed.
    pub committed: Option<Committed>,
    /// An earlier run with the same key had committed: its work stands, and what the closure did
    /// this time was rolled back.
    pub repeated: bool,
}

impl Handfast {
    /// Runs a transaction in one database, and publishes and acknowledges if and only if it
    /// commits.
    ///
    /// ```no_run
    /// # #[cfg(feature = "postgres")]
    /// # async fn order(
    /// #     hf: handfast::Handfast,
    /// #     pool: sqlx::PgPool,
    /// # ) -> Result<(), handfast::database::Error<sqlx::Error>> {
    /// hf.local("orders", &pool, async |db, tx| {
    ///     sqlx::query("INSERT INTO orders (id) VALUES ($1)").bind(7_i64).execute(db).await?;
    ///     tx.publish("orders", handfast::Event::new("order.placed", "/shop").with_key("7"));
    ///     Ok(())
    /// })
    /// .await
    /// # }
    /// ```
    ///
    /// The closure gets a connection with the transaction open. Any error of it rolls back. With
    /// nothing published and nothing acknowledged it is a plain transaction of the database, and
    /// the server is not asked.
    ///
    /// Cancel safety: dropped before the closure has ended, nothing happens; later it may commit,
    /// and its events with it. A connection that was in use is then closed.
    ///
    /// # Errors
    /// [`Error`], which says whether anything may have happened. `wrong_database`: the pool leads to
    /// another database than the registered one, and nothing happened.
    pub async fn local<D, T, E, W>(
        &self,
        database: impl Into<String>,
        pool: &Pool<D>,
        work: W,
    ) -> Result<T, Error<E>>
    where
        D: Participant,
        W: AsyncFnOnce(&mut D::Connection, &mut LocalTransaction) -> Result<T, E>,
    {
        let local = self.local_with(database, pool, LocalOptions::new(), work).await?;
        Ok(local.value)
    }

    /// As [`Handfast::local`], with options.
    ///
    /// # Errors
    /// As [`Handfast::local`].
    pub async fn local_with<D, T, E, W>(
        &self,
        database: impl Into<String>,
        pool: &Pool<D>,
        options: LocalOptions,
        work: W,
    ) -> Result<Local<T>, Error<E>>
    where
        D: Participant,
        W: AsyncFnOnce(&mut D::Connection, &mut LocalTransaction) -> Result<T, E>,
    {
        let local = LocalRun::new(self, database.into(), options)?;
        let mut lease = local.begin(pool).await?;
        let mut tx = LocalTransaction::default();
        let value = match timeout_at(local.give_up, work(&mut lease, &mut tx)).await {
            Ok(Ok(value)) => value,
            Ok(Err(error)) => {
                lease.undo().await;
                return Err(Error::Work(error));
            }
            Err(_) => return Err(local.too_late()),
        };
        let (committed, repeated) = local.end(lease, tx).await?;
        Ok(Local { value, committed, repeated })
    }
}

/// One run of a local transaction.
pub(super) struct LocalRun {
    handfast: Handfast,
    database: String,
    options: LocalOptions,
    deadline: Duration,
    pub(super) give_up: Instant,
}

/// What BEGIN answered.
struct Begun {
    repeated: bool,
    /// None: an earlier run has ended, and its branch is of no use any more.
    branch: Option<Issued>,
    remaining: Duration,
    keys_since: SystemTime,
}

impl LocalRun {
    pub(super) fn new<E>(
        handfast: &Handfast,
        database: String,
        options: LocalOptions,
    ) -> Result<Self, Error<E>> {
        check_name(&database)?;
        if let Some(key) = &options.key
            && (key.is_empty() || key.len() > KEY_BYTES)
        {
            let detail = format!("a key has 1 to {KEY_BYTES} bytes, this has {}", key.len());
            let refusal = Refusal::local(Code::InvalidArgument, detail);
            return Err(Error::Transaction(refusal.into()));
        }
        let handfast = handfast.clone();
        let default = handfast.connection().default_deadline();
        let deadline = options.deadline.unwrap_or(default);
        let give_up = Instant::now() + deadline;
        Ok(Self { handfast, database, options, deadline, give_up })
    }

    /// A connection with the transaction open.
    pub(super) async fn begin<D: Participant, E>(
        &self,
        pool: &Pool<D>,
    ) -> Result<Lease<D>, Error<E>> {
        let failed = |step, error: sqlx::Error| {
            Error::Database(Failure::early::<D>(&self.database, step, &error))
        };
        let begin = async {
            let mut lease = Lease::new(pool).await.map_err(|error| failed(Step::Connect, error))?;
            let remaining = self.remaining();
            let begun = D::begin_local(&mut lease, remaining).await;
            begun.map_err(|error| failed(Step::Begin, error))?;
            Ok(lease)
        };
        timeout_at(self.give_up, begin).await.unwrap_or_else(|_| Err(self.too_late()))
    }

    /// Commits what the closure did, with everything that belongs to it. Says what was committed
    /// and whether by an earlier run.
    pub(super) async fn end<D: Participant, E>(
        self,
        mut lease: Lease<D>,
        tx: LocalTransaction,
    ) -> Result<(Option<Committed>, bool), Error<E>> {
        if tx.is_empty() && self.options.key.is_none() {
            return self.commit_alone(lease).await.map(|()| (None, false));
        }
        let (id, begun) = match self.begin_local(tx.contents).await {
            Ok(begun) => begun,
            Err(error) => {
                lease.undo().await;
                return Err(Error::Transaction(error));
            }
        };
        let pending = Pending::new(&self.handfast, id, begun.remaining, self.options.wait);
        let Some(issued) = begun.branch else {
            lease.undo().await;
            return Ok((Some(pending.look_up().await?), true));
        };
        let home = match issued.home::<D>(&self.database) {
            Ok(home) => home,
            Err(refusal) => {
                lease.undo().await;
                return Err(Error::Transaction(refusal.into()));
            }
        };
        let marker = Marker { branch: &issued.branch, home: home.as_ref() };
        let until = Instant::now() + begun.remaining;
        match timeout_at(until, D::commit_local(&mut lease, marker)).await {
            Ok(Ok(())) => {
                lease.give_back();
                let committed = match self.options.wait {
                    Wait::Decided => pending.committed(begun.keys_since),
                    Wait::Finished => pending.commit().await?,
                };
                Ok((Some(committed), false))
            }
            Ok(Err(error)) => {
                if error.discards_connection() {
                    drop(lease);
                } else {
                    lease.give_back();
                }
                match (error, &home) {
                    (ApplicationError::Elsewhere { here, .. }, Some(belongs)) => {
                        // The server is told when `pending` is dropped.
                        Err(self.elsewhere::<D, E>(&here, belongs).await)
                    }
                    (error, _) => {
                        let repeated = begun.repeated;
                        pending.not_committed::<D, E>(&self.database, error, repeated).await
                    }
                }
            }
            Err(_) => {
                drop(lease);
                Ok((Some(pending.look_up().await?), begun.repeated))
            }
        }
    }

    /// The database has refused the marker, and rolled back.
    async fn elsewhere<D: Participant, E>(&self, here: &Home, belongs: &Home) -> Error<E> {
        match wrong_database::<D>(&self.handfast, &self.database, here, belongs).await {
            Some(refusal) => Error::Transaction(refusal.into()),
            None => Error::Database(Failure::restarted(&self.database, Step::Commit)),
        }
    }

    async fn commit_alone<D: Participant, E>(&self, mut lease: Lease<D>) -> Result<(), Error<E>> {
        let committed = timeout_at(self.give_up, D::commit_alone(&mut lease)).await;
        match committed {
            Ok(Ok(())) => {
                lease.give_back();
                Ok(())
            }
            Ok(Err(error)) => {
                let (no, discards) = (error.is_no(), error.discards_connection());
                if !discards {
                    lease.give_back();
                }
                let failure = Failure::of(&self.database, Step::Commit, error);
                Err(if no { Error::Database(failure) } else { Error::Unknown(failure) })
            }
            Err(_) => Err(Error::Unknown(Failure {
                database: self.database.clone(),
                step: Step::Commit,
                code: String::new(),
                message: format!("no answer within {:?}", self.deadline),
                retryable: false,
            })),
        }
    }

    /// L1, L2.
    async fn begin_local(
        &self,
        contents: Contents,
    ) -> Result<(TransactionId, Begun), TransactionError> {
        let bytes = contents.check()?;
        let remaining = self.remaining();
        let limit = self.handfast.connection().limit.min(remaining);
        let mut terms = CallOptions::within(limit);
        // Sent again without a key as well: what a lost answer leaves behind has no marker, and
        // ends with its stream. Deliveries that it holds could not be staged a second time.
        terms.resend = self.options.key.is_some() || contents.acknowledgements.is_empty();
        let call = Call::BeginLocal(raw::BeginLocalRequest {
            idempotency_key: self.options.key.clone().unwrap_or_default(),
            deadline_ms: millis(remaining),
            detached: false,
            database: self.database.clone(),
            events: contents.events,
            acknowledgements: contents.acknowledgements,
        });
        let queued = Queued::new(call, bytes, terms);
        let answered = self.handfast.inner.transactions.call(queued).await;
        let answered = answered.map_err(|unanswered| TransactionError::from(unanswered.error))?;
        let Answer::Begun(begun) = answered.answer else { return Err(foreign().into()) };
        let id = transaction_id(&begun.transaction_id)?;
        let branch = branch_id(&begun.branch_ids, &self.database, id)?;
        if branch.is_none() && !begun.repeated {
            return Err(foreign().into());
        }
        let remaining = Duration::from_millis(begun.remaining_ms);
        let keys_since = UNIX_EPOCH + Duration::from_millis(begun.keys_since_unix_ms);
        Ok((id, Begun { repeated: begun.repeated, branch, remaining, keys_since }))
    }

    fn remaining(&self) -> Duration {
        self.give_up.saturating_duration_since(Instant::now())
    }

    /// The deadline passed before anything was asked that could take effect.
    pub(super) fn too_late<E>(&self) -> Error<E> {
        let fault = Fault::TimedOut { after: self.deadline, sent: false };
        Error::Transaction(fault.into())
    }
}

/// Refuses what cannot be a registered database's name.
pub(super) fn check_name(database: &str) -> Result<(), TransactionError> {
    match Name::new(database) {
        Ok(_) => Ok(()),
        Err(error) => {
            let detail = format!("`database`: {error}");
            Err(Refusal::local(Code::InvalidArgument, detail).into())
        }
    }
}

pub(super) fn transaction_id(bytes: &[u8]) -> Result<TransactionId, TransactionError> {
    ids::transaction_id("transaction_id", bytes).map_err(|error| CallError::from(error).into())
}

/// The id that the server issued for a database; it has to be of this transaction, because it
/// becomes part of statements and vouches for it.
pub(super) fn branch_id(
    issued: &[v1::BranchId],
    database: &str,
    id: TransactionId,
) -> Result<Option<Issued>, TransactionError> {
    let Some(issued) = issued.iter().find(|issued| issued.database == database) else {
        return Ok(None);
    };
    match issued.branch_id.parse::<BranchId>() {
        Ok(branch) if branch.transaction == id => {
            let v1::BranchId { table, identity, .. } = issued;
            let known = !table.is_empty() || !identity.is_empty();
            let located = || v1::Located { table: table.clone(), identity: identity.clone() };
            Ok(Some(Issued { branch, home: known.then(located) }))
        }
        _ => {
            let problem = format!("{:?} is no branch of {id}", issued.branch_id);
            Err(TransactionError::Fault(Fault::Failed(problem)))
        }
    }
}
