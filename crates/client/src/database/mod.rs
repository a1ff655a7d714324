//! Databases as participants: the application does its SQL in its own connection, over its own
//! pool; this module opens and ends the transaction around it.
//!
//! - [`Handfast::local`](crate::Handfast::local): one database, and events that appear if and only
//!   if it commits.
//! - [`OpenTransaction::join`](crate::OpenTransaction::join): a database in a transaction with
//!   other databases and services.
//! - [`Subscription::process`](crate::Subscription::process): consume, write and publish, exactly
//!   once.
//!
//! The pools are [`sqlx::PgPool`] (feature `postgres`) and [`sqlx::MySqlPool`] (feature
//! `mariadb`). Each database has to be registered with the server under the name that is used
//! here, and to have handfast's tables (`handfast doctor --fix`).
//!
//! Nothing here decides how a transaction ends, and no answer of a database is taken for more than
//! it says: a COMMIT whose answer was lost is looked up by its marker, by the server.
//!
//! # What a closure may and may not do
//!
//! It gets the connection with the transaction open. It must not end the transaction (COMMIT,
//! ROLLBACK, in MariaDB any statement that commits by itself, such as CREATE TABLE): that is found
//! out at the end, and the transaction fails. Its statements are bounded by what is left of the
//! deadline. In a branch in MariaDB change what has to stay as it was read, because a lock does not
//! keep it: shared ones end at the prepare (MDEV-26682), those of FOR UPDATE when MariaDB restarts.

mod engine;
mod error;
#[cfg(feature = "mariadb")]
mod finisher;
mod handle;
mod home;
mod inbox;
mod join;
mod lease;
mod local;
#[cfg(feature = "mariadb")]
mod mariadb;
mod pending;
#[cfg(feature = "postgres")]
mod postgres;
mod process;

pub use error::{Error, Failure, Step};
pub use inbox::create_inbox;
pub use join::Branch;
pub use local::{Local, LocalOptions, LocalTransaction};
pub use process::{ProcessFailure, ProcessOptions};
pub use sqlx;

/// A kind of database that can take part: [`sqlx::Postgres`] and [`sqlx::MySql`]. Nobody else can
/// implement it.
pub trait Participant: engine::Engine {}

#[cfg(feature = "postgres")]
impl Participant for sqlx::Postgres {}

#[cfg(feature = "mariadb")]
impl Participant for sqlx::MySql {}
