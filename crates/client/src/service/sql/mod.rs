//! A service's durable state in its own PostgreSQL or MariaDB, beside the service's own tables.
//!
//! ```no_run
//! use handfast::database::sqlx::{self, PgPool, Postgres};
//! use handfast::service::sql::{PostgresStore, SqlConnection, create_tables};
//! use handfast::service::{Handler, HandlerError, No, Prepared};
//! use handfast::{Handfast, TransactionId};
//!
//! struct Stock;
//!
//! impl Handler<SqlConnection<Postgres>> for Stock {
//!     fn prepare(
//!         &self,
//!         db: &SqlConnection<Postgres>,
//!         id: TransactionId,
//!         work: &[u8],
//!     ) -> Result<Prepared, No> {
//!         db.run(async |connection| {
//!             sqlx::query("INSERT INTO reserved (transaction_id, item) VALUES ($1, $2)")
//!                 .bind(id.to_string())
//!                 .bind(work)
//!                 .execute(connection)
//!                 .await?;
//!             Ok(Prepared::Yes)
//!         })
//!     }
//! #    fn commit(&self, _: &SqlConnection<Postgres>, _: TransactionId, _: &[u8])
//! #    -> Result<(), HandlerError> { Ok(()) }
//! #    fn abort(&self, _: &SqlConnection<Postgres>, _: TransactionId, _: &[u8])
//! #    -> Result<(), HandlerError> { Ok(()) }
//! }
//!
//! # async fn example(hf: Handfast, stop: impl Future<Output = ()>)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! let url = "postgres://stock:secret@10.0.0.5/stock";
//! create_tables(&PgPool::connect(url).await?).await?;
//! let store = PostgresStore::open(url, "stock").await?;
//! hf.service("stock").store(store).handler(Stock).run(stop).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # One step is one local transaction
//!
//! All that a batch of messages changes, the handlers' work and the votes and outcomes that belong
//! to it, is one transaction of the database: one commit, one sync, whatever the number of
//! messages. The row of the service in `handfast_service_state` is updated first, so that steps of
//! several processes take turns. What is to be recorded is kept until the end of the step and
//! written with the commit in one message.
//!
//! # Why a handler is not async
//!
//! The seam to a store is synchronous, because a service works through its messages on a thread of
//! its own, one step after the other, and has nothing else to do there. These databases are spoken
//! to asynchronously, so the store brings a runtime of that one thread, with the one connection on
//! it: [`SqlConnection::run`] drives a handler's statements to their end. Nothing is handed from
//! thread to thread for an answer, and an application whose runtime is busy does not hold up its
//! votes. The price: the connection is the store's own and not one of the application's pool.
//!
//! # What a handler may not do
//!
//! End the transaction: COMMIT, ROLLBACK, in MariaDB any statement that commits by itself, such as
//! CREATE TABLE. The step then fails as a whole and nothing is answered; but in MariaDB what such a
//! statement has committed stays. A deadlock in MariaDB ends the transaction as well: the step
//! fails, its connection is closed, and the messages come again. No call of [`SqlConnection`]
//! belongs into an async function: as all blocking work it would stop the runtime it is called in.

mod connection;
mod dialect;
mod error;
#[cfg(feature = "mariadb")]
mod mariadb;
#[cfg(feature = "postgres")]
mod postgres;
mod step;
mod text;

use std::fmt;

use handfast_core::ids::{Name, StateId};
use sqlx::Pool;

use super::store::ServiceStore;
use crate::database::Participant;

pub use connection::SqlConnection;
use dialect::Dialect;
pub use error::Error;
pub use step::SqlStep;
use text::Key;

/// The layout of the tables. A state with another one is not opened.
const LAYOUT: i64 = 2;

/// A service's state in PostgreSQL.
#[cfg(feature = "postgres")]
pub type PostgresStore = SqlStore<sqlx::Postgres>;
/// A service's state in MariaDB.
#[cfg(feature = "mariadb")]
pub type MariaDbStore = SqlStore<sqlx::MySql>;

/// A kind of database that can keep a service's state: [`sqlx::Postgres`] and [`sqlx::MySql`].
/// Nobody else can implement it.
pub trait Keeper: Dialect {}

#[cfg(feature = "postgres")]
impl Keeper for sqlx::Postgres {}

#[cfg(feature = "mariadb")]
impl Keeper for sqlx::MySql {}

/// Creates the tables `handfast_service_state`, `handfast_service_horizon` and
/// `handfast_service_branch` if they are not there. The statements are shipped in `sql/` of this crate, for whoever runs migrations of their
/// own.
///
/// # Errors
/// The database's; doing it again is harmless.
pub async fn create_tables<D: Keeper + Participant>(pool: &Pool<D>) -> Result<(), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    D::execute(&mut connection, D::CREATE_STATE.to_owned()).await?;
    Ok(())
}

/// The durable state of one service in a database. See [`SqlStore::open`].
pub struct SqlStore<D: Keeper> {
    connection: SqlConnection<D>,
    key: Key,
}

impl<D: Keeper> SqlStore<D> {
    /// Opens the state of a service, making it if the database has none yet; the tables have to be
    /// there (see [`create_tables`]). Several services may keep their states in one database, each
    /// under its name, and several processes may share one.
    ///
    /// A step waits up to 10 s for its turn, and for each answer up to 30 s.
    ///
    /// # Errors
    /// [`Error`], when the database cannot be reached, may lose what it has committed, or has a
    /// state that this version does not understand.
    pub async fn open(url: &str, service: &str) -> Result<Self, Error> {
        let name = Name::new(service).map_err(|problem| Error::InvalidName {
            service: service.to_owned(),
            problem: problem.to_string(),
        })?;
        let url = url.to_owned();
        // The connection belongs to the store's own runtime, which no other may drive.
        let opening = tokio::task::spawn_blocking(move || {
            let mut connection = SqlConnection::new(&url)?;
            let key = connection.open(name)?;
            Ok(Self { connection, key })
        });
        opening.await.map_err(|error| Error::Runtime(error.to_string()))?
    }
}

impl<D: Keeper> ServiceStore for SqlStore<D> {
    type Db = SqlConnection<D>;
    type Error = Error;
    type Step<'a> = SqlStep<'a, D>;

    fn state_id(&self) -> StateId {
        self.key.state
    }

    fn open_step(&mut self) -> Result<SqlStep<'_, D>, Error> {
        SqlStep::open(&mut self.connection, &self.key)
    }
}

impl<D: Keeper> fmt::Debug for SqlStore<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlStore").field("key", &self.key).finish_non_exhaustive()
    }
}
