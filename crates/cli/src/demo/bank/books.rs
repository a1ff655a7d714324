//! Where a service keeps its accounts, and what stands there.

use std::path::{Path, PathBuf};

use super::{mariadb, postgres, sqlite};
use crate::demo::plan::{Plan, Side};
use crate::harness::{Problem, Urls};

/// Where one service keeps its accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// A SQLite file.
    File(PathBuf),
    /// A PostgreSQL, by its URL.
    Postgres(String),
    /// A MariaDB, by its URL.
    MariaDb(String),
}

/// Money that was booked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Effect {
    pub(crate) transaction: String,
    pub(crate) account: String,
    pub(crate) cents: i64,
}

/// What a service has written down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Books {
    /// Balances by account.
    pub(crate) accounts: Vec<(String, i64)>,
    /// Reservations that nobody has released.
    pub(crate) holds: u64,
    /// What was booked, with the transfer.
    pub(crate) effects: Vec<(u32, Effect)>,
}

impl Home {
    /// Where this service's accounts are: in a file of this directory, or, if there are databases,
    /// in PostgreSQL in the east and in MariaDB in the west.
    pub(crate) fn new(dir: &Path, side: Side, urls: Option<&Urls>) -> Self {
        match (urls, side) {
            (None, side) => Self::File(sqlite::path(dir, side)),
            (Some(urls), Side::East) => Self::Postgres(urls.postgres.clone()),
            (Some(urls), Side::West) => Self::MariaDb(urls.mariadb.clone()),
        }
    }

    /// The home that a URL names.
    pub(crate) fn of(url: &str) -> Self {
        if url.starts_with("postgres") {
            Self::Postgres(url.to_owned())
        } else {
            Self::MariaDb(url.to_owned())
        }
    }

    /// The URL, if it is a database.
    pub(crate) fn url(&self) -> Option<&str> {
        match self {
            Self::File(_) => None,
            Self::Postgres(url) | Self::MariaDb(url) => Some(url),
        }
    }

    /// Makes the tables anew, with the accounts of this side.
    pub(crate) async fn create(&self, side: Side, plan: &Plan) -> Result<(), Problem> {
        match self {
            Self::File(path) => sqlite::create(path, side, plan)?,
            Self::Postgres(url) => postgres::create(url, side, plan).await?,
            Self::MariaDb(url) => mariadb::create(url, side, plan).await?,
        }
        Ok(())
    }

    /// Everything that is written down there.
    pub(crate) async fn read(&self) -> Result<Books, Problem> {
        Ok(match self {
            Self::File(path) => sqlite::read(path)?,
            Self::Postgres(url) => postgres::read(url).await?,
            Self::MariaDb(url) => mariadb::read(url).await?,
        })
    }

    /// Branches that have voted YES and are not finished.
    pub(crate) async fn prepared(&self) -> Result<u64, Problem> {
        let prepared = match self {
            Self::File(path) => sqlite::prepared(path)?,
            Self::Postgres(url) => postgres::prepared(url).await?,
            Self::MariaDb(url) => mariadb::prepared(url).await?,
        };
        Ok(prepared.unsigned_abs())
    }
}

/// The name of a side's state in a database: a person's own service may be called `east`.
pub(crate) fn state_name(side: Side) -> String {
    format!("demo-{side}")
}

/// The rows of a new table of accounts, as (name, cents).
pub(super) fn accounts(side: Side, plan: &Plan) -> impl Iterator<Item = (&str, i64)> {
    let here = plan.accounts.iter().filter(move |(_, account)| account.side == side);
    here.map(|(name, account)| (name.as_str(), account.start))
}

/// A row of the table of effects, as databases give it.
pub(super) type EffectRow = (i64, String, String, i64);

pub(super) fn effects(rows: Vec<EffectRow>) -> Vec<(u32, Effect)> {
    let row = |(transfer, transaction, account, cents): EffectRow| {
        // A transfer that no plan has is one that should not be there.
        let transfer = u32::try_from(transfer).unwrap_or(u32::MAX);
        (transfer, Effect { transaction, account, cents })
    };
    rows.into_iter().map(row).collect()
}
