//! Databases as participants of handfast transactions.
//!
//! The server's side is the trait [`Database`], with one implementation for PostgreSQL and one for
//! MariaDB, which [`connect`] picks by the URL. The application's side, the statements that its
//! own connection runs, is in [`postgres::application`] and [`mariadb::application`].
//!
//! This crate decides nothing about a transaction and knows no coordinator, journal or
//! configuration file. It never takes silence, an error or an absence for an outcome: whether a
//! branch committed is read from its marker. It never touches what is not named by one of our
//! own [`BranchId`]s.

mod application;
#[cfg(feature = "conformance")]
pub mod conformance;
mod connect;
pub mod doctor;
pub mod errors;
mod fault;
mod home;
mod kind;
pub mod mariadb;
mod options;
mod owner;
mod participant;
mod pool;
pub mod postgres;
#[cfg(feature = "private")]
pub mod private;
mod url;
mod verdict;

use async_trait::async_trait;
use handfast_core::ids::StoreId;
use handfast_core::input::Resolution;

pub use application::ApplicationError;
pub use connect::connect;
pub use fault::Fault;
pub use handfast_core::branch::{self, BranchId};
pub use handfast_core::ids::Holder;
pub use handfast_core::owner::{Contradiction, Owner};
pub use home::{Home, Marker};
pub use kind::Kind;
pub use options::Options;
pub use owner::OwnerRow;
pub use participant::{End, Finished, Identity, Outcome, Prepared};
pub use url::ConnectError;

/// Most sessions that are named as possible holders of a marker.
pub const HOLDERS: u32 = 3;

/// Most markers that one look for old ones gives.
pub const OLD_MARKERS: usize = 1_000;
/// Most markers that one look for new ones gives.
pub const NEW_MARKERS: usize = 256;

/// The bounds of a look for markers by time: ids begin with the time at which their transaction
/// began, so the oldest are the first, and end with what names the store and the database.
fn markers_of(of: &BranchId, unix_ms: u64) -> (String, String) {
    let bound = handfast_core::ids::TransactionId(u128::from(unix_ms) << 80);
    let bound = BranchId { transaction: bound, store: 0, branch: 0 }.to_string();
    (bound, format!("{}.{:016x}.{:08x}", "_".repeat(32), of.store, of.branch))
}

/// One registered database, from the server's side.
///
/// Every call is bounded by [`Options::call_timeout`], idempotent, and may be dropped at any time:
/// what it asked for may then have happened or not, and asking again says which. A connection
/// whose call did not finish is closed, not used again.
#[async_trait]
pub trait Database: Send + Sync {
    /// Which database it is.
    fn kind(&self) -> Kind;

    /// All prepared transactions: of this database in PostgreSQL, of the whole server in MariaDB,
    /// which does not say to which database a transaction belongs.
    ///
    /// # Errors
    /// [`Fault`]; a replica is one, because its list is not the truth.
    async fn list(&self) -> Result<Vec<Prepared>, Fault>;

    /// Ends a prepared branch as decided, or finds out that it has ended.
    ///
    /// `holder` is the session that prepared a MariaDB branch. While the branch is listed the session is
    /// killed if it is still there, and the branch is touched only after it is gone (MY3).
    async fn finish(&self, branch: &BranchId, end: End, holder: Option<Holder>) -> Finished;

    /// What the markers say, in the order asked, read in a new statement on the primary. A marker
    /// that says committed is durable when this returns.
    ///
    /// # Errors
    /// [`Fault`]; nothing is known then, about any of them.
    async fn outcomes(&self, branches: &[BranchId]) -> Result<Vec<Option<Outcome>>, Fault>;

    /// Which of these branches are prepared in this database, in the order asked: one look for all of
    /// them. MariaDB's list is the whole server's, so there their markers are looked for as well.
    ///
    /// # Errors
    /// [`Fault`]; nothing is known then, about any of them.
    async fn prepared(&self, branches: &[BranchId]) -> Result<Vec<bool>, Fault>;

    /// Settles a local transaction whose outcome nobody knows, by the tombstone (L4 to L7). At
    /// most one call per branch at once. `Committed` is durable when this returns.
    async fn resolve(&self, branch: &BranchId) -> Resolution;

    /// Sessions that may hold a marker which nobody has committed yet, the oldest first, for people:
    /// at most [`HOLDERS`]. A resolution that stays unknown waits for one of them.
    ///
    /// # Errors
    /// [`Fault`].
    async fn holders(&self) -> Result<Vec<String>, Fault>;

    /// Markers and tombstones of the same store and registered database as `of`, whose
    /// transactions began before a Unix time in milliseconds: the oldest of them, at most
    /// [`OLD_MARKERS`].
    ///
    /// # Errors
    /// [`Fault`].
    async fn old_markers(
        &self,
        of: &BranchId,
        began_before_ms: u64,
    ) -> Result<Vec<(BranchId, Outcome)>, Fault>;

    /// Committed markers of the same store and registered database as `of`, whose transactions
    /// began after a Unix time in milliseconds: the newest of them, at most [`NEW_MARKERS`].
    ///
    /// # Errors
    /// [`Fault`]; nothing is known then.
    async fn new_markers(&self, of: &BranchId, began_after_ms: u64)
    -> Result<Vec<BranchId>, Fault>;

    /// Deletes markers, by id and never otherwise. Returns how many there were.
    ///
    /// # Errors
    /// [`Fault`]; some may be deleted.
    async fn forget(&self, branches: &[BranchId]) -> Result<u64, Fault>;

    /// What `handfast_owner` says about a shard of a store; none: nothing.
    ///
    /// # Errors
    /// [`Fault`]; nothing is known then.
    async fn owner(&self, store: StoreId, shard: u32) -> Result<Option<OwnerRow>, Fault>;

    /// Compare-and-set: the row says what `ours` says if it still says what `before` does; none: if
    /// there is none. False: it says something else by now, and was left as it is. What is true
    /// when this returns is durable.
    ///
    /// # Errors
    /// [`Fault`]; the row may say either.
    async fn claim(&self, ours: &Owner, before: Option<&Owner>) -> Result<bool, Fault>;

    /// Whether handfast's two tables can be read and there is an owner row, of whichever store: one
    /// cheap look, because tables go while a server runs.
    ///
    /// # Errors
    /// [`Fault`]; also if a table is gone.
    async fn stands(&self) -> Result<bool, Fault>;

    /// Makes the row ours whatever stands there: an operator's decision.
    ///
    /// # Errors
    /// [`Fault`]; it may have been done.
    async fn adopt(&self, ours: &Owner) -> Result<(), Fault>;

    /// Whether this database may be trusted, and with what. A database that does not answer is a
    /// finding, not an error.
    async fn check(&self) -> doctor::Report;

    /// Creates what is missing and lets an application's role insert markers and nothing else.
    /// Returns one sentence for each thing done.
    ///
    /// # Errors
    /// [`Fault`]; some of it may be done, and doing it again is harmless.
    async fn install(&self, application_role: Option<&str>) -> Result<Vec<String>, Fault>;

    /// Which server answers, and which of its lives it is in.
    ///
    /// # Errors
    /// [`Fault`].
    async fn identity(&self) -> Result<Identity, Fault>;
}
