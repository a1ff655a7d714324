//! What differs between the databases, statement by statement. It knows no server and no
//! transaction but the one that is open in a connection.

use std::future::Future;
use std::time::Duration;

use handfast_database::{ApplicationError, BranchId, Holder};

use super::join::Place;
use super::lease::Lease;

type Answer<T, E> = Result<T, E>;

/// One kind of database.
///
/// After an error the connection is in a state that nobody knows, unless the error says otherwise
/// ([`ApplicationError::discards_connection`]).
pub trait Engine: sqlx::Database {
    /// Opens a local transaction, bounded by what is left of its deadline.
    fn begin_local(
        connection: &mut Self::Connection,
        remaining: Duration,
    ) -> impl Future<Output = Answer<(), sqlx::Error>> + Send;

    /// The guarded marker and COMMIT of a local transaction.
    fn commit_local(
        connection: &mut Self::Connection,
        branch: &BranchId,
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
        branch: &BranchId,
    ) -> impl Future<Output = Answer<(), ApplicationError>> + Send;

    /// Rolls a branch back that was not prepared.
    fn roll_back_branch(
        connection: &mut Self::Connection,
        branch: &BranchId,
    ) -> impl Future<Output = Answer<(), sqlx::Error>> + Send;

    /// What becomes of a connection on which a branch was prepared.
    fn prepared(lease: Lease<Self>, place: Place)
    where
        Self: Sized;

    /// SQLSTATE or error number, empty if the database said nothing, and its words.
    fn words(error: &sqlx::Error) -> (String, String);

    /// Whether this code says that a row with the same key stands.
    fn is_duplicate(code: &str) -> bool;
}
