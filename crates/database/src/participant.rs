//! What the seam says about branches: plain data.

use std::time::Duration;

use handfast_core::input::BranchReport;

use crate::{BranchId, Home};

/// How a branch is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Its transaction was decided to commit.
    Commit,
    /// Its transaction was decided to abort.
    Abort,
}

/// What a marker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The branch's work and its marker were committed together.
    Committed,
    /// A tombstone: the branch can never commit.
    Aborted,
}

impl Outcome {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "committed" => Some(Self::Committed),
            "aborted" => Some(Self::Aborted),
            _ => None,
        }
    }
}

/// How finishing a branch went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finished {
    /// It ended as asked, now or before.
    Done,
    /// Nobody knows yet: try again. The text says what stood in the way.
    Unknown(String),
    /// MariaDB answered OK without doing it and keeps its locks until it restarts (MY4): not
    /// done, and not a heuristic. Needs attention and a retry after the restart.
    Held(String),
    /// Somebody ended it against the decision.
    Heuristic(String),
}

impl From<Finished> for BranchReport {
    fn from(finished: Finished) -> Self {
        match finished {
            Finished::Done => Self::Done,
            Finished::Unknown(_) => Self::Unknown,
            Finished::Held(what) => Self::Held(what),
            Finished::Heuristic(what) => Self::Heuristic(what),
        }
    }
}

/// One prepared transaction that a database lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The branch, if the name is one of ours.
    pub branch: Option<BranchId>,
    /// The name, if it is not: to be reported and never touched.
    pub foreign: Option<String>,
    /// Since when, where the database knows it (PostgreSQL).
    pub age: Option<Duration>,
    /// Who prepared it, where the database knows it (PostgreSQL).
    pub user: Option<String>,
    /// How many sessions wait for it at this moment, where the database knows it (PostgreSQL).
    pub waiting: Option<u64>,
    /// Whose it is, where a foreign name says that and its owner alone may end it: a logical
    /// subscription (PostgreSQL).
    pub belongs_to: Option<String>,
}

/// Which server answers, which of its lives it is in, and which of its databases it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// PostgreSQL's system identifier; MariaDB's `server_id` with its host name and port.
    pub server: String,
    /// PostgreSQL's timeline; when the MariaDB server started, in Unix seconds.
    pub incarnation: u64,
    /// The database itself, by whatever address it was reached (MY9). It changes when its server is
    /// started again, because nothing else tells a server from a running copy of its files.
    pub database: String,
    /// The same, as those have to see it who write a marker there.
    pub home: Home,
}

impl Identity {
    /// Another server than before, or another life of it: every open branch has to be looked up
    /// again (PG10). A restart is another life.
    #[must_use]
    pub fn is_other_than(&self, before: &Self) -> bool {
        // A copy of its files has the same name and the same timeline, but was started by itself.
        (&self.server, self.incarnation, &self.database)
            != (&before.server, before.incarnation, &before.database)
    }
}
