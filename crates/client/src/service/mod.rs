//! The service's side of a distributed transaction.
//!
//! A service implements [`Handler`], gives it to a [`Driver`] together with a [`ServiceStore`],
//! hands the driver what the coordinator says and sends what the driver answers. The handler's
//! changes and the state of the branch are written in one durable step of the service's own
//! database, so each branch takes effect exactly once, whatever is lost, repeated or crashes.
//!
//! [`Service`] runs a driver over the network. Nothing else in here opens a connection, reads a
//! clock or starts a thread.

#[cfg(feature = "conformance")]
pub mod conformance;
mod driver;
mod handler;
mod report;
mod run;
mod schedule;
#[cfg(feature = "_databases")]
pub mod sql;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod step;
mod store;

/// The SQLite of [`SqliteStore`], so that handlers need not name a version of their own.
#[cfg(feature = "sqlite")]
pub use rusqlite;

pub use driver::Driver;
pub use handler::{Handler, HandlerError, No, Prepared};
pub use report::Report;
pub use run::{Service, ServiceError};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;
pub use store::{Branch, CommitError, Outcome, OutcomeKey, Recorded, ServiceStore, StoreStep};
