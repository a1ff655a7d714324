//! The registered databases, and what is prepared in them.

use std::time::{Duration, SystemTime};

use handfast_core::ids::TransactionId;
use handfast_wire::{ids, v1};

use crate::client::Handfast;
use crate::error::Error;

/// A database that the server's configuration registers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegisteredDatabase {
    /// The name by which transactions call it.
    pub name: String,
    /// `PostgreSQL` or `MariaDB`.
    pub kind: String,
    /// Where it is, without the password.
    pub url: String,
    /// `starting`, `up`, `down`, `refused` or `not_ours`.
    pub condition: String,
    /// Why it is not up.
    pub why: Option<String>,
    /// Since when it is so.
    pub since: SystemTime,
    /// What it calls itself; empty: not known yet.
    pub version: String,
    /// The worst grade of the last check; empty: not checked yet, or it does not answer.
    pub grade: String,
    /// What the last check found that is not good.
    pub findings: Vec<DatabaseFinding>,
    /// Prepared transactions of this store in it, at the last audit.
    pub in_doubt: Option<u64>,
    /// When it is tried again; none: it is up.
    pub next_try: Option<SystemTime>,
    /// Local transactions whose outcome waits for a session there, each with who that may be.
    pub waits: Vec<(TransactionId, String)>,
}

/// One thing that a check of a database found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatabaseFinding {
    /// A stable id, such as `fsync`.
    pub check: String,
    /// `warning`, `local transactions only` or `refused`.
    pub grade: String,
    /// What was found.
    pub what: String,
    /// What to do about it; empty: nothing.
    pub remedy: String,
}

/// What is prepared in the databases.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InDoubt {
    /// By database.
    pub prepared: Vec<PreparedTransaction>,
    /// When the oldest of the audits was; none: a database was not audited yet.
    pub audited: Option<SystemTime>,
}

/// A prepared transaction in a database.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PreparedTransaction {
    /// The database's name.
    pub database: String,
    /// `committing`, `aborting`, `undecided`, `unknown`, `elsewhere` or `foreign`.
    pub label: String,
    /// The transaction; none: foreign.
    pub transaction: Option<TransactionId>,
    /// Its name in the database.
    pub name: String,
    /// How long it has been prepared, or how long ago its transaction began.
    pub age: Option<Duration>,
    /// Who prepared it; empty: not known.
    pub user: String,
    /// How many sessions wait for it.
    pub waiting: Option<u64>,
    /// Who alone may end a foreign one, such as a logical subscription of PostgreSQL; empty: not
    /// known.
    pub belongs_to: String,
    /// Why the server does not roll an `unknown` or `aborting` one back; empty: nothing is in the
    /// way.
    pub why_left: String,
}

impl Handfast {
    /// The databases that the server's configuration registers, by name.
    ///
    /// # Errors
    /// A fault.
    pub async fn databases(&self) -> Result<Vec<RegisteredDatabase>, Error> {
        let connection = self.connection();
        let call = || {
            let mut stub = connection.databases();
            async move { stub.list(v1::ListDatabasesRequest {}).await }
        };
        let reply = connection.repeat(call).await?;
        Ok(reply.databases.into_iter().map(registered).collect())
    }

    /// What is prepared in the databases, ours and others': the list is the auditor's last one,
    /// the labels are those of now.
    ///
    /// # Errors
    /// A fault.
    pub async fn in_doubt(&self) -> Result<InDoubt, Error> {
        let connection = self.connection();
        let call = || {
            let mut stub = connection.databases();
            async move { stub.in_doubt(v1::InDoubtRequest {}).await }
        };
        let reply = connection.repeat(call).await?;
        let prepared: Result<Vec<PreparedTransaction>, Error> =
            reply.prepared.into_iter().map(prepared).collect();
        Ok(InDoubt {
            prepared: prepared?,
            audited: reply.audited_unix_ms.map(crate::time::from_unix_ms),
        })
    }

    /// Makes a database the server's own, whatever its owner row says: for an operator who knows
    /// that this is the only copy of the store.
    ///
    /// # Errors
    /// `unknown_database`; a fault.
    pub async fn adopt_database(&self, name: impl Into<String>) -> Result<(), Error> {
        let connection = self.connection();
        let database = name.into();
        let call = || {
            let (mut stub, database) = (connection.databases(), database.clone());
            async move { stub.adopt(v1::AdoptRequest { database }).await }
        };
        connection.repeat(call).await?;
        Ok(())
    }
}

fn registered(message: v1::RegisteredDatabase) -> RegisteredDatabase {
    let finding = |f: v1::DatabaseFinding| DatabaseFinding {
        check: f.check,
        grade: f.grade,
        what: f.what,
        remedy: f.remedy,
    };
    RegisteredDatabase {
        name: message.name,
        kind: message.kind,
        url: message.url,
        condition: message.condition,
        why: message.why,
        since: crate::time::from_unix_ms(message.since_unix_ms),
        version: message.version,
        grade: message.grade,
        findings: message.findings.into_iter().map(finding).collect(),
        in_doubt: message.in_doubt,
        next_try: message.next_try_unix_ms.map(crate::time::from_unix_ms),
        waits: message.waits.into_iter().filter_map(waiting).collect(),
    }
}

/// One that is not readable is one that this version does not know.
fn waiting(message: v1::WaitingTransaction) -> Option<(TransactionId, String)> {
    let id = ids::transaction_id("transaction_id", &message.transaction_id).ok()?;
    Some((id, message.holders))
}

fn prepared(message: v1::PreparedTransaction) -> Result<PreparedTransaction, Error> {
    Ok(PreparedTransaction {
        database: message.database,
        label: message.label,
        transaction: ids::transaction_id_or_none("transaction_id", &message.transaction_id)?,
        name: message.name,
        age: message.age_ms.map(Duration::from_millis),
        user: message.user,
        waiting: message.waiting,
        belongs_to: message.belongs_to,
        why_left: message.why_left,
    })
}
