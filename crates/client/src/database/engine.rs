//! What differs between the databases, statement by statement. It knows no server and no
//! transaction but the one that is open in a connection.

use std::future::Future;
use std::time::Duration;

use handfast_database::{ApplicationError, BranchId, Holder, Home, Kind, Marker};
use tokio::time::timeout;

use super::handle::BranchHandle;
use super::lease::Lease;

/// Rolling back may take this long; then the connection is closed.
pub(super) const UNDO: Duration = Duration::from_secs(5);

type Answer<T, E> = Result<T, E>;

/// One kind of database.
///
/// After an error the connection is in a state that nobody knows, unless the error says otherwise
/// ([`ApplicationError::discards_connection`]).
pub trait Engine: sqlx::Database {
    /// Which it is.
    const KIND: Kind;
    /// The inbox's table.
    const INBOX: &'static str;
    /// Creates it if it is not there.
    const CREATE_INBOX: &'static str;

    /// Where a connection leads.
    fn home(
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Answer<Home, sqlx::Error>> + Send;

    /// Whether a marker that belongs to one handle may be written from a connection that leads to
    /// another.
    fn is_at_home(here: &Home, belongs: &Home) -> bool;

    /// Opens a local transaction, bounded by what is left of its deadline.
    fn begin_local(
        connection: &mut Self::Connection,
        remaining: Duration,
    ) -> impl Future<Output = Answer<(), sqlx::Error>> + Send;

    /// The guarded marker and COMMIT of a local transaction.
    fn commit_local(
        connection: &mut Self::Connection,
        marker: Marker<'_>,
    ) -> impl Future<Output = Answer<(), ApplicationError>> + Send;

    /// The guarded COMMIT of a local transaction that handfast knows nothing of.
    fn commit_alone(
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Answer<(), ApplicationError>> + Send;

    /// Rolls a local transaction back.
    fn roll_back(
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Answer<(), sqlx::Error>> + Send;

    /// Opens a branch, bounded by what is left of its transaction's deadline. Says which session
    /// holds it, where that matters.
    fn start(
        connection: &mut Self::Connection,
        branch: &BranchId,
        remaining: Duration,
    ) -> impl Future<Output = Answer<Option<Holder>, sqlx::Error>> + Send;

    /// The guarded prepare.
    fn prepare(
        connection: &mut Self::Connection,
        marker: Marker<'_>,
    ) -> impl Future<Output = Answer<(), ApplicationError>> + Send;

    /// Rolls a branch back that was not prepared.
    fn roll_back_branch(
        connection: &mut Self::Connection,
        branch: &BranchId,
    ) -> impl Future<Output = Answer<(), sqlx::Error>> + Send;

    /// What becomes of a connection on which a branch was prepared that is voted for.
    fn prepared(lease: Lease<Self>, handle: BranchHandle)
    where
        Self: Sized;

    /// The same, when it is not and never will be voted for: it may be rolled back.
    fn abandoned(lease: Lease<Self>, handle: BranchHandle)
    where
        Self: Sized;

    /// Runs a statement whose text nobody else has written. Says how many rows it touched.
    fn execute(
        connection: &mut Self::Connection,
        sql: String,
    ) -> impl Future<Output = Answer<u64, sqlx::Error>> + Send;

    /// The number that such a statement gives; none: NULL.
    fn number(
        connection: &mut Self::Connection,
        sql: String,
    ) -> impl Future<Output = Answer<Option<i64>, sqlx::Error>> + Send;

    /// The condition that a row's column `at` is longer ago than this.
    fn older_than(age: Duration) -> String;

    /// SQLSTATE or error number, empty if the database said nothing, and its words.
    fn words(error: &sqlx::Error) -> (String, String);

    /// Whether this code says that a row with the same key stands.
    fn is_duplicate(code: &str) -> bool;
}

impl<D: Engine> Lease<D> {
    /// Rolls a local transaction back and gives the connection back, or closes it. True if the
    /// database has answered.
    pub(super) async fn undo(mut self) -> bool {
        let has_answered = matches!(timeout(UNDO, D::roll_back(&mut self)).await, Ok(Ok(())));
        if has_answered {
            self.give_back();
        }
        has_answered
    }
}
