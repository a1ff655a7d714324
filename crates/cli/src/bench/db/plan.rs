//! What the application of `bench db` is told, the ways in which it does the same, and what it
//! found.

use serde::{Deserialize, Serialize};

/// What the application does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) server: String,
    pub(super) postgres: String,
    pub(super) mariadb: String,
    pub(super) concurrency: Vec<u16>,
    /// Slices of a second for each way.
    pub(super) slices: u16,
}

/// A way of doing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Way {
    /// A transfer; MariaDB's branch is finished on the session that prepared it.
    Transfer,
    /// A transfer; the server finishes both.
    TransferServer,
    /// The same SQL with a decision row in PostgreSQL between the phases.
    TransferByHand,
    /// A local transaction on PostgreSQL with an event.
    Local,
    /// The same with an outbox row instead of the event.
    LocalOutbox,
    /// The same with neither.
    LocalPlain,
}

impl Way {
    /// Those of a transfer, and those of a local transaction: what is compared with each other.
    pub(super) const GROUPS: [[Self; 3]; 2] = [
        [Self::Transfer, Self::TransferByHand, Self::TransferServer],
        [Self::Local, Self::LocalOutbox, Self::LocalPlain],
    ];

    /// For people.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Transfer => "transfer, handfast",
            Self::TransferServer => "transfer, handfast, finished by the server",
            Self::TransferByHand => "transfer by hand, decision row in PostgreSQL",
            Self::Local => "local, handfast, with an event",
            Self::LocalOutbox => "local, plain, with an outbox row",
            Self::LocalPlain => "local, plain",
        }
    }

    /// It changes both databases.
    pub(super) fn is_transfer(self) -> bool {
        matches!(self, Self::Transfer | Self::TransferServer | Self::TransferByHand)
    }

    /// As a number in a row.
    pub(super) fn number(self) -> i16 {
        self as i16
    }
}

/// What one way did at one concurrency, over all its slices.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ran {
    pub(super) way: Way,
    pub(super) concurrency: u16,
    pub(super) committed: u64,
    pub(super) seconds: f64,
    pub(super) latencies: Vec<(u64, u64)>,
}

/// What the application found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Found {
    pub(super) ran: Vec<Ran>,
    /// Over the whole run, also what does not count.
    pub(super) committed: Vec<(Way, u64)>,
    pub(super) problems: Vec<String>,
}
