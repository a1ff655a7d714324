//! An account service: what it does in a transaction, and where it keeps its accounts.
//!
//! Nothing in the tables prevents a change from being made twice. That it is not is what the demo
//! proves, so it must be visible if it were.

mod books;
mod mariadb;
mod postgres;
mod sqlite;

use serde::{Deserialize, Serialize};

pub(crate) use books::{Books, Effect, Home, state_name};
#[cfg(test)]
pub(super) use sqlite::{open, path};

/// What a NO for lack of funds says.
pub(crate) const INSUFFICIENT: &str = "insufficient funds";

/// What a service is asked to do in one transfer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Work {
    pub(crate) transfer: u32,
    pub(crate) changes: Vec<Change>,
}

/// A change of one account's balance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) account: String,
    pub(crate) cents: i64,
}

/// The account service's code: reserve, then book or release. Once for each kind of database.
#[derive(Debug)]
pub(crate) struct Bank;
