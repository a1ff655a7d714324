//! What a service does in a transaction: the trait that its author implements.
//!
//! A handler writes through the database it is given and through nothing else: what it does
//! elsewhere is neither undone by a NO nor protected against being done twice.

use std::error::Error;

use handfast_core::ids::TransactionId;

/// The service's own code, called inside a durable step of its store.
///
/// `db` is the service's database with a transaction already open. A handler must not begin,
/// commit or roll back that transaction; a step that finds it ended fails as a whole.
///
/// The methods take `&self` because what a handler remembers in memory is not undone when the
/// step is: state belongs into the database.
pub trait Handler<Db: ?Sized> {
    /// Does the work so far that it can be made effective and can be undone, whatever happens in
    /// between: reserve, hold, check. Called again with the same id only if nothing of the
    /// earlier call was kept. On [`Prepared::ReadOnly`], [`No`] or a panic all its changes are
    /// rolled back.
    ///
    /// # Errors
    /// [`No`] when the work cannot be done.
    fn prepare(&self, db: &Db, id: TransactionId, work: &[u8]) -> Result<Prepared, No>;

    /// Makes effective what was prepared. Kept exactly once for each YES that is committed; if
    /// it fails or panics its changes are rolled back and it is called again later, so it must
    /// not fail for a reason that stays.
    ///
    /// # Errors
    /// Anything that may pass. It is reported, and the coordinator waits.
    fn commit(&self, db: &Db, id: TransactionId, work: &[u8]) -> Result<(), HandlerError>;

    /// Undoes what was prepared, under the same rules as [`Handler::commit`].
    ///
    /// # Errors
    /// Anything that may pass.
    fn abort(&self, db: &Db, id: TransactionId, work: &[u8]) -> Result<(), HandlerError>;
}

/// Why a branch could not be finished yet.
pub type HandlerError = Box<dyn Error + Send + Sync>;

/// What became of the work of a prepare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// Done, and both ways are open: the vote is YES.
    Yes,
    /// There was nothing to change: the vote is READ-ONLY, and the decision is of no interest.
    ReadOnly,
}

/// The work cannot be done: the vote is NO and the transaction fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct No {
    /// For people; cut off at [`handfast_core::limits::REASON_BYTES`].
    pub reason: String,
    /// The same work may succeed later.
    pub retryable: bool,
}

impl No {
    /// For good: the same work will not succeed later either.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), retryable: false }
    }

    /// For now: the same work may succeed later.
    #[must_use]
    pub fn retryable(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), retryable: true }
    }
}

/// So that `?` works on what the database says. Whether it would succeed later is not known, so
/// nobody is told to try again.
impl<E: Error> From<E> for No {
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}
