//! One durable step: one transaction of the database.

use std::collections::BTreeMap;
use std::fmt;

use handfast_core::ids::{Began, StoreId, TransactionId};
use handfast_core::participant::Synced;

use super::Keeper;
use super::connection::{SqlConnection, TURN};
use super::error::Error;
use super::text::{self, Key};
use crate::service::store::{Branch, CommitError, Outcome, OutcomeKey, Recorded, StoreStep};

const SAVE: &str = "SAVEPOINT handfast_attempt";
const UNDO: &str = "ROLLBACK TO SAVEPOINT handfast_attempt";
const KEEP: &str = "RELEASE SAVEPOINT handfast_attempt";
/// What waits to be written is written when it is more than this, in bytes: a message of twice as
/// much, because it goes in hexadecimal, fits into every server's default limit.
const PENDING: usize = 2 << 20;

/// One transaction, in its turn.
pub struct SqlStep<'a, D: Keeper> {
    connection: &'a mut SqlConnection<D>,
    key: &'a Key,
    /// What is recorded with the next message that writes; none: removed.
    pending: BTreeMap<TransactionId, Option<Branch>>,
    pending_bytes: usize,
    /// The savepoint is older than what the step itself has written.
    moved_on: bool,
    /// Why the whole step is refused, whatever else it does.
    refused: Option<sqlx::Error>,
    committed: bool,
}

impl<'a, D: Keeper> SqlStep<'a, D> {
    pub(super) fn open(connection: &'a mut SqlConnection<D>, key: &'a Key) -> Result<Self, Error> {
        let is_old = connection.is_there();
        match Self::begin(connection, key) {
            // Between two steps a connection may be ended by its server; nothing is lost by that.
            Err(Error::Database(_)) if is_old => Self::begin(connection, key)?,
            begun => begun?,
        }
        Ok(Self {
            connection,
            key,
            pending: BTreeMap::new(),
            pending_bytes: 0,
            moved_on: false,
            refused: None,
            committed: false,
        })
    }

    fn begin(connection: &mut SqlConnection<D>, key: &Key) -> Result<(), Error> {
        connection.call(async |connection| {
            // The savepoint is there from the start: that it still is proves at the end that this
            // is the same transaction.
            let sql = format!("{}; {}; {SAVE}", D::begin(TURN), key.turn::<D>());
            match D::run(connection, sql).await {
                Ok(1) => Ok(()),
                Ok(_) => Err(Error::Gone(key.state)),
                Err(error) if D::is_busy(&error) => Err(Error::Busy { waited: TURN }),
                Err(error) => Err(error.into()),
            }
        })
    }

    fn run(&mut self, sql: String) -> Result<(), Error> {
        self.moved_on = true;
        self.connection.go_on(async |connection| {
            D::run(connection, sql).await.map_err(ended::<D>)?;
            Ok(())
        })
    }

    /// Moves the savepoint to here. Fails if a handler has ended the transaction, also if it has
    /// begun another. The inner error: a statement failed in it and nobody minded.
    fn keep(&mut self) -> Result<Result<(), sqlx::Error>, Error> {
        let kept = self.connection.go_on(async |connection| {
            match D::run(connection, format!("{KEEP}; {SAVE}")).await {
                Ok(_) => Ok(Ok(())),
                Err(error) if D::has_failed(&error) => Ok(Err(error)),
                Err(error) => Err(ended::<D>(error)),
            }
        })?;
        self.moved_on = false;
        Ok(kept)
    }

    /// Goes back to the savepoint.
    fn undo(&mut self) -> Result<(), Error> {
        self.run(UNDO.to_owned())?;
        self.moved_on = false;
        Ok(())
    }

    fn rows(&mut self, sql: String) -> Result<Vec<D::Row>, Error> {
        self.connection.go_on(async |connection| Ok(D::rows(connection, sql).await?))
    }

    fn note(&mut self, id: TransactionId, branch: Option<Branch>) -> Result<(), Error> {
        self.pending_bytes += match branch.as_ref().map(|branch| &branch.recorded) {
            Some(Recorded::Prepared { work }) => work.len(),
            _ => 0,
        };
        self.pending.insert(id, branch);
        if self.pending_bytes > PENDING { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Error> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let sql = self.key.write::<D>(self.pending.iter()).join("; ");
        self.run(sql)?;
        self.pending.clear();
        self.pending_bytes = 0;
        Ok(())
    }
}

/// An error about the step's own savepoint: gone, if the transaction is.
fn ended<D: Keeper>(error: sqlx::Error) -> Error {
    if D::has_ended(&error) { Error::StepEnded(error.to_string()) } else { error.into() }
}

impl<D: Keeper> StoreStep for SqlStep<'_, D> {
    type Db = SqlConnection<D>;
    type Error = Error;

    fn attempt<T, E>(
        &mut self,
        work: impl FnOnce(&SqlConnection<D>) -> Result<T, E>,
    ) -> Result<Result<T, E>, Error> {
        if self.moved_on {
            self.keep()??;
        }
        let result = work(self.connection);
        if result.is_err() {
            self.undo()?;
        } else if let Err(error) = self.keep()? {
            // PostgreSQL refuses everything after a statement that has failed, so the handler's
            // work is not what it takes it for. It is refused as if by a rule checked at commit.
            self.undo()?;
            self.refused.get_or_insert(error);
        }
        Ok(result)
    }

    fn load(&mut self, id: TransactionId) -> Result<Option<Branch>, Error> {
        if let Some(pending) = self.pending.get(&id) {
            return Ok(pending.clone());
        }
        let rows = self.rows(self.key.load::<D>(id))?;
        rows.first().map(text::branch::<D>).transpose()
    }

    fn save(&mut self, id: TransactionId, branch: &Branch) -> Result<(), Error> {
        self.note(id, Some(branch.clone()))
    }

    fn forget(&mut self, id: TransactionId) -> Result<(), Error> {
        self.note(id, None)
    }

    fn horizon(&mut self, store: StoreId) -> Result<Option<Began>, Error> {
        let rows = self.rows(self.key.horizon::<D>(store))?;
        rows.first().map_or(Ok(None), |row| text::began::<D>(row, 0))
    }

    fn raise_horizon(&mut self, began: Began) -> Result<(), Error> {
        self.run(self.key.raise_horizon::<D>(began))
    }

    fn prepared(
        &mut self,
        after: Option<TransactionId>,
        limit: u32,
    ) -> Result<Vec<TransactionId>, Error> {
        self.flush()?;
        let rows = self.rows(self.key.prepared::<D>(after, limit))?;
        rows.iter().map(|row| text::id::<D>(row, 0)).collect()
    }

    fn outcomes(
        &mut self,
        before_unix_ms: u64,
        after: Option<OutcomeKey>,
        limit: u32,
    ) -> Result<Vec<Outcome>, Error> {
        self.flush()?;
        let rows = self.rows(self.key.outcomes::<D>(before_unix_ms, after, limit))?;
        let outcome = |row: &D::Row| {
            let at_unix_ms = text::unix_ms(text::required(D::number(row, 0)?)?);
            let key = OutcomeKey { at_unix_ms, id: text::id::<D>(row, 1)? };
            Ok(Outcome { key, began: text::began::<D>(row, 2)? })
        };
        rows.iter().map(outcome).collect()
    }

    fn commit(mut self) -> Result<Synced, CommitError<Error>> {
        if let Some(error) = self.refused.take() {
            return Err(CommitError::Refused(error.into()));
        }
        // One message: what follows a statement that fails is not run. So nothing is committed
        // unless this is still the transaction in which the step began.
        let mut statements = vec![KEEP.to_owned()];
        statements.extend(self.key.write::<D>(self.pending.iter()));
        statements.push("COMMIT".to_owned());
        match self.run(statements.join("; ")) {
            Ok(()) => {
                self.committed = true;
                Ok(Synced::now())
            }
            Err(Error::Database(error)) if D::is_refused(&error) => {
                Err(CommitError::Refused(error.into()))
            }
            Err(error) => Err(CommitError::Fault(error)),
        }
    }
}

impl<D: Keeper> Drop for SqlStep<'_, D> {
    fn drop(&mut self) {
        if self.committed || !self.connection.is_there() {
            return;
        }
        let undone = self.connection.call(async |connection| {
            D::run(connection, "ROLLBACK".to_owned()).await?;
            Ok(())
        });
        if undone.is_err() {
            self.connection.discard();
        }
    }
}

impl<D: Keeper> fmt::Debug for SqlStep<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlStep").field("key", &self.key).finish_non_exhaustive()
    }
}
