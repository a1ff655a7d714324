//! A database in a distributed transaction: its branch is opened, worked in and prepared in the
//! application's connection. Its YES travels in the commit; that of MariaDB also before, because
//! the server has to know which session holds a branch in case both ends of it are lost at once.

use std::sync::Arc;

use handfast_core::refusal::Code;
use handfast_database::{ApplicationError, BranchId, Holder, Home, Marker};
use handfast_wire::raw::transaction_request::Call;
use handfast_wire::{ids, v1};
use sqlx::Pool;
use tokio::time::{Instant, timeout, timeout_at};

use super::engine::UNDO;
use super::handle::BranchHandle;
use super::home::{Issued, wrong_database};
use super::lease::Lease;
use super::local::{branch_id, check_name};
use super::{Error, Failure, Participant, Step};
use crate::client::Handfast;
use crate::error::{Reason, Refusal, TransactionError};
use crate::link::{CallOptions, Queued};
use crate::transaction::{BeginOptions, OpenTransaction, Votes, database_branches};

/// One database's share of a transaction. See [`OpenTransaction::enlist`].
///
/// A transaction with a branch that was not run cannot be committed.
#[derive(Debug)]
#[must_use = "without its work the transaction cannot be committed"]
pub struct Branch {
    handle: BranchHandle,
    issued: Issued,
    votes: Arc<Votes>,
}

impl Handfast {
    /// Begins a transaction with databases in it: as [`Handfast::begin_with`] and
    /// [`OpenTransaction::enlist`], in one message.
    ///
    /// ```no_run
    /// # #[cfg(feature = "postgres")]
    /// # async fn transfer(
    /// #     hf: handfast::Handfast,
    /// #     (one, two): (sqlx::PgPool, sqlx::PgPool),
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let options = handfast::BeginOptions::new();
    /// let (tx, [north, south]) = hf.begin_across(["north", "south"], options).await?;
    /// tokio::try_join!(
    ///     north.run(&one, async |db| sqlx::query("UPDATE a SET n = n - 1").execute(db).await),
    ///     south.run(&two, async |db| sqlx::query("UPDATE a SET n = n + 1").execute(db).await),
    /// )?;
    /// tx.commit().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As those two; `closed` if an earlier transaction with the same key has ended.
    pub async fn begin_across<const N: usize>(
        &self,
        databases: [impl Into<String>; N],
        options: BeginOptions,
    ) -> Result<(OpenTransaction, [Branch; N]), TransactionError> {
        let names = databases.map(Into::into);
        for name in &names {
            check_name(name)?;
        }
        let (tx, issued) = self.begin_among(options, database_branches(&names)).await?;
        if tx.is_repeated() && issued.is_empty() {
            let detail = format!("the transaction of this key, {}, has ended", tx.id());
            return Err(Refusal::local(Code::Closed, detail).into());
        }
        let branches = tx.branches(names, &issued)?;
        Ok((tx, branches))
    }
}

impl OpenTransaction {
    /// A database takes part: the closure does its work, in a connection with the branch open,
    /// and what it did is prepared.
    ///
    /// ```no_run
    /// # #[cfg(feature = "postgres")]
    /// # async fn transfer(
    /// #     hf: handfast::Handfast,
    /// #     pool: sqlx::PgPool,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut tx = hf.begin().await?;
    /// tx.join("ledger", &pool, async |db| {
    ///     sqlx::query("UPDATE accounts SET cents = cents - 100 WHERE id = 7").execute(db).await
    /// })
    /// .await?;
    /// tx.call("payments", "pay out 100").await?;
    /// tx.commit().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A PostgreSQL connection is back in its pool when this returns. One of MariaDB stays with
    /// its branch until the transaction has ended, so the pool's size bounds how many transactions
    /// are open at once; it comes back when the branch was finished on it, and is closed if the
    /// connection to the server is lost.
    ///
    /// Cancel safety: dropped before it returns, the transaction cannot be committed any more.
    ///
    /// # Errors
    /// Refused (`unknown_database`, `already_enlisted`): it changes nothing. Any other error, also
    /// `wrong_database` (the pool leads to another database than the registered one), is the
    /// transaction's end: the database has rolled back, abort was asked, and `commit` says why.
    pub async fn join<D, T, E, W>(
        &mut self,
        database: impl Into<String>,
        pool: &Pool<D>,
        work: W,
    ) -> Result<T, Error<E>>
    where
        D: Participant,
        W: AsyncFnOnce(&mut D::Connection) -> Result<T, E>,
    {
        let [branch] = self.enlist([database]).await?;
        branch.run(pool, work).await
    }

    /// Databases take part whose work is done by [`Branch::run`], in any order and at the same
    /// time.
    ///
    /// ```no_run
    /// # #[cfg(feature = "postgres")]
    /// # async fn transfer(
    /// #     hf: handfast::Handfast,
    /// #     (one, two): (sqlx::PgPool, sqlx::PgPool),
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut tx = hf.begin().await?;
    /// let [north, south] = tx.enlist(["north", "south"]).await?;
    /// tokio::try_join!(
    ///     north.run(&one, async |db| sqlx::query("UPDATE a SET n = n - 1").execute(db).await),
    ///     south.run(&two, async |db| sqlx::query("UPDATE a SET n = n + 1").execute(db).await),
    /// )?;
    /// tx.commit().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`OpenTransaction::call`]; `unknown_database`, `already_enlisted`.
    pub async fn enlist<const N: usize>(
        &mut self,
        databases: [impl Into<String>; N],
    ) -> Result<[Branch; N], TransactionError> {
        let names = databases.map(Into::into);
        for name in &names {
            check_name(name)?;
        }
        let issued = self.enlist_databases(&names).await?;
        self.branches(names, &issued)
    }

    /// What the server has taken, as branches to be run.
    fn branches<const N: usize>(
        &self,
        names: [String; N],
        issued: &[v1::BranchId],
    ) -> Result<[Branch; N], TransactionError> {
        self.votes.lock().enlisted.extend(names.iter().cloned());
        let mut ids = Vec::with_capacity(N);
        for name in &names {
            match branch_id(issued, name, self.id)? {
                Some(id) => ids.push(id),
                None => return Err(crate::transaction::foreign().into()),
            }
        }
        let mut ids = ids.into_iter();
        Ok(names.map(|database| {
            let issued: Issued = ids.next().expect("there is one for each name");
            Branch {
                handle: BranchHandle {
                    handfast: self.handfast.clone(),
                    id: self.id,
                    database,
                    branch: issued.branch,
                    stream: self.stream,
                    deadline: self.deadline,
                },
                issued,
                votes: Arc::clone(&self.votes),
            }
        }))
    }
}

impl Branch {
    /// The branch's id: the key of its marker.
    #[must_use]
    pub fn id(&self) -> BranchId {
        self.handle.branch
    }

    /// Does the branch's work and prepares it; see [`OpenTransaction::join`].
    ///
    /// Cancel safety: as [`OpenTransaction::join`].
    ///
    /// # Errors
    /// [`Error`]; the database has rolled back, the transaction has failed, and abort was asked.
    pub async fn run<D, T, E, W>(self, pool: &Pool<D>, work: W) -> Result<T, Error<E>>
    where
        D: Participant,
        W: AsyncFnOnce(&mut D::Connection) -> Result<T, E>,
    {
        let BranchHandle { branch, deadline, .. } = self.handle;
        let home = match self.issued.home::<D>(&self.handle.database) {
            Ok(home) => home,
            Err(refusal) => return Err(self.refused(refusal)),
        };
        let begin = self.start(pool);
        let started = timeout_at(deadline, begin).await;
        let (mut lease, holder) = match started {
            Ok(Ok(started)) => started,
            Ok(Err(failure)) => return Err(self.database_failed(failure)),
            Err(_) => return Err(self.too_late()),
        };
        let value = match timeout_at(deadline, work(&mut lease)).await {
            Ok(Ok(value)) => value,
            Ok(Err(error)) => {
                let undone = timeout(UNDO, D::roll_back_branch(&mut lease, &branch)).await;
                if let Ok(Ok(())) = undone {
                    lease.give_back();
                }
                self.fail("its work failed".to_owned(), false);
                return Err(Error::Work(error));
            }
            Err(_) => return Err(self.too_late()),
        };
        match timeout_at(
            deadline,
            D::prepare(&mut lease, Marker { branch: &branch, home: home.as_ref() }),
        )
        .await
        {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                if !error.discards_connection() {
                    lease.give_back();
                }
                if let (ApplicationError::Elsewhere { here, .. }, Some(belongs)) = (&error, &home) {
                    return Err(self.elsewhere::<D, E>(here, belongs).await);
                }
                let failure = Failure::of(&self.handle.database, Step::Prepare, error);
                return Err(self.database_failed(failure));
            }
            // Without a vote it never commits, whatever became of the prepare (PG3).
            Err(_) => return Err(self.too_late()),
        }
        self.prepared(lease, holder)?;
        Ok(value)
    }

    async fn start<D: Participant>(
        &self,
        pool: &Pool<D>,
    ) -> Result<(Lease<D>, Option<Holder>), Failure> {
        let BranchHandle { database, branch, deadline, .. } = &self.handle;
        let failed = |step, error: &sqlx::Error| Failure::early::<D>(database, step, error);
        let mut lease = Lease::new(pool).await.map_err(|error| failed(Step::Connect, &error))?;
        let remaining = deadline.saturating_duration_since(Instant::now());
        let holder = D::start(&mut lease, branch, remaining).await;
        let holder = holder.map_err(|error| failed(Step::Begin, &error))?;
        Ok((lease, holder))
    }

    /// The guarded prepare has succeeded.
    fn prepared<D: Participant>(
        &self,
        lease: Lease<D>,
        holder: Option<Holder>,
    ) -> Result<(), TransactionError> {
        let BranchHandle { handfast, id, database, stream, .. } = &self.handle;
        let mut state = self.votes.lock();
        if state.closed {
            D::abandoned(lease, self.handle.clone());
            let (reason, retryable) = state.failed.clone().unwrap_or_else(|| {
                let detail = "commit or abort was asked before its work was done".to_owned();
                let participant = database.clone();
                (Reason { code: "incomplete".to_owned(), participant, detail }, true)
            });
            return Err(TransactionError::Failed { id: *id, reason, retryable });
        }
        // Before the vote leaves: the decision may follow at once.
        D::prepared(lease, self.handle.clone());
        let vote = v1::DatabaseVote {
            database: database.clone(),
            connection: holder.map_or(0, |holder| holder.connection),
            server_start_unix_s: holder.map_or(0, |holder| holder.server_start),
            // A detached transaction's session is closed by now, or will be in a moment; the
            // server makes sure that it is.
            finishes: holder.is_some() && stream.is_some(),
            vouched: true,
        };
        if holder.is_some() {
            let transaction_id = ids::transaction_bytes(*id);
            let call = Call::Vote(v1::VoteRequest { transaction_id, votes: vec![vote.clone()] });
            let terms = CallOptions::within(handfast.connection().limit).only_on(*stream);
            // The commit says it again, so its answer is of no interest.
            handfast.inner.transactions.post(Queued::new(call, 0, terms));
        }
        state.votes.push(vote);
        Ok(())
    }

    /// The database has refused the marker, and rolled back.
    async fn elsewhere<D: Participant, E>(&self, here: &Home, belongs: &Home) -> Error<E> {
        let BranchHandle { handfast, database, .. } = &self.handle;
        match wrong_database::<D>(handfast, database, here, belongs).await {
            Some(refusal) => self.refused(refusal),
            None => self.database_failed(Failure::restarted(database, Step::Prepare)),
        }
    }

    fn refused<E>(&self, refusal: Refusal) -> Error<E> {
        self.fail(refusal.detail.clone(), false);
        Error::Transaction(refusal.into())
    }

    fn database_failed<E>(&self, failure: Failure) -> Error<E> {
        self.fail(failure.to_string(), failure.retryable);
        Error::Database(failure)
    }

    fn too_late<E>(&self) -> Error<E> {
        let detail = "its work was not done by the deadline".to_owned();
        self.fail(detail.clone(), true);
        let BranchHandle { id, database, .. } = &self.handle;
        let code = "deadline_passed".to_owned();
        let reason = Reason { code, participant: database.clone(), detail };
        Error::Transaction(TransactionError::Failed { id: *id, reason, retryable: true })
    }

    /// The whole transaction fails with it.
    fn fail(&self, detail: String, retryable: bool) {
        let BranchHandle { handfast, id, database, stream, .. } = &self.handle;
        let text = format!("{database}: {detail}");
        {
            let mut state = self.votes.lock();
            state.closed = true;
            let participant = database.clone();
            let reason = Reason { code: "aborted".to_owned(), participant, detail };
            state.failed.get_or_insert((reason, retryable));
            if !state.votes.is_empty() {
                handfast.abort_asked(*id);
            }
        }
        let transaction_id = ids::transaction_bytes(*id);
        let call = Call::Abort(v1::AbortRequest { transaction_id, detail: text });
        let terms = CallOptions::within(handfast.connection().limit).only_on(*stream);
        handfast.inner.transactions.post(Queued::new(call, 0, terms));
    }
}
