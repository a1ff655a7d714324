//! Inputs: everything that can happen to the core.

use alloc::string::String;
use alloc::vec::Vec;

use crate::command::{Caller, Command};
use crate::event::StoredEvent;
use crate::ids::{Lsn, Name, Offset, SessionId, TopicId, TransactionId};
use crate::record::Record;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Somebody asks for something.
    Command {
        /// Who.
        caller: Caller,
        /// What.
        command: Command,
    },
    /// A stream has ended: its transactions fail unless detached, its deliveries return, its
    /// instance of a service is gone.
    SessionEnded {
        /// The stream.
        session: SessionId,
    },
    /// A stream is far behind with reading its deliveries, or has caught up. It is given no more
    /// while it is behind; its credit stays its own. Saying the same twice changes nothing.
    Behind {
        /// The stream.
        session: SessionId,
        /// It is.
        behind: bool,
    },
    /// Every record up to this one is in the log, in order, and nobody else's is in between.
    Accepted {
        /// The last one.
        through: Lsn,
    },
    /// The append of this record found something else in its place: nothing was written.
    /// (Several machines only; the records before it are accepted, those after it are not.)
    Lost {
        /// The record.
        lsn: Lsn,
    },
    /// Nobody knows whether this record was written. (Several machines only.)
    Unknown {
        /// The record.
        lsn: Lsn,
    },
    /// Every record up to this one is on stable storage.
    Durable {
        /// The last one.
        through: Lsn,
    },
    /// What the log holds about a transaction; see [`crate::output::Output::ReadChain`].
    Chain {
        /// The transaction.
        id: TransactionId,
        /// What was found.
        chain: Chain,
    },
    /// Events that were read; see [`crate::output::Output::Fetch`].
    Fetched {
        /// The fetch's number.
        fetch: u64,
        /// The events, ascending.
        events: Vec<StoredEvent>,
        /// For a range: everything before this offset that still exists has been read.
        next: Offset,
    },
    /// The events that a fetch wanted next are in a damaged place of the log.
    Unreadable {
        /// The fetch's number.
        fetch: u64,
        /// Which events, and where they are.
        detail: String,
    },
    /// What the log holds about a transaction is in a damaged place of it.
    ChainUnreadable {
        /// The transaction.
        id: TransactionId,
        /// Where.
        detail: String,
    },
    /// Room in the log: bytes that can be appended without a new allocation, and whether the
    /// store is so full (90 %) that only what is under way may go on.
    Space {
        /// Bytes.
        free: u64,
        /// Refuse new work.
        low: bool,
    },
    /// Retention: events of a topic before an offset may go now; the core decides whether they do.
    Expire {
        /// The topic.
        topic: TopicId,
        /// The first offset to keep.
        to: Offset,
        /// Bytes of events before it.
        bytes: u64,
    },
    /// A database is registered or its state has changed.
    Database {
        /// Its name.
        name: Name,
        /// Whether it answers.
        up: bool,
    },
    /// A transaction had ended committed, and a database in which it had a branch, or was local, has
    /// no marker of it any more, sooner than markers are deleted: the database has lost it.
    CommitGone {
        /// The transaction.
        id: TransactionId,
        /// The database.
        database: Name,
    },
    /// A database has confirmed that it is this opening's: nothing else has claimed it since. Until
    /// it has, no COMMIT of a transaction is decided that has a branch there.
    Claimed {
        /// Its name.
        name: Name,
        /// The monotonic time at which it was asked, or before.
        asked_ms: u64,
    },
    /// This machine, or this process, stood still for a while, and somebody may have taken its
    /// place meanwhile: what databases confirmed before counts no more.
    Paused,
    /// What a registered database may not be used for, and why.
    DatabaseRefused {
        /// Its name.
        name: Name,
        /// Why it takes no local transactions.
        local: Option<String>,
        /// Why it takes no part in distributed ones.
        distributed: Option<String>,
    },
    /// A database is registered no longer.
    DatabaseGone {
        /// Its name.
        name: Name,
    },
    /// A branch in a database was finished, or could not be.
    BranchFinished {
        /// The transaction.
        id: TransactionId,
        /// The database.
        database: Name,
        /// How it went.
        report: BranchReport,
    },
    /// Whether a branch that a caller has voted for is prepared; of a local transaction: whether its
    /// marker is visible.
    Verified {
        /// The transaction.
        id: TransactionId,
        /// The database.
        database: Name,
        /// What it said.
        found: Found,
    },
    /// The tombstone's answer about a local transaction.
    Resolved {
        /// The transaction.
        id: TransactionId,
        /// What it said.
        resolution: Resolution,
    },
    /// Refuse what begins something new: the server is about to stop.
    Drain,
    /// Time has passed; sent when the core's next deadline is reached.
    Tick,
}

/// What the log holds about a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its records, oldest first; empty: none was found.
    pub records: Vec<(Lsn, Record)>,
    /// The part of the log that could hold it is there and whole, so that "none" means that there
    /// never was a decision to commit.
    pub whole: bool,
}

/// How finishing a branch in a database went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BranchReport {
    /// As decided.
    Done,
    /// Nobody knows; try again.
    Unknown,
    /// The database has it and does not let go of it: for a person, and tried again.
    Held(String),
    /// Somebody else ended it against the decision.
    Heuristic(String),
}

/// What a database said about something that was asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is there.
    Yes,
    /// It is not.
    No,
    /// The database does not say.
    Unknown,
}

/// What the database said about a local transaction (L5 to L7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The tombstone is in: it can never commit.
    Tombstone,
    /// The marker is there: it had committed.
    Committed,
    /// An earlier tombstone is there.
    Aborted,
    /// Anything else.
    Unknown,
}
