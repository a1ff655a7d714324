//! What the processes of `bench tx` are told, and what a transaction looks like.

use serde::{Deserialize, Serialize};

use super::args::WaitFor;

/// The work of a branch that is to be refused, and of one that is not.
pub(super) const REFUSE: &[u8] = b"refuse";
pub(super) const WORK: &[u8] = b"work";

/// What a client does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ClientPlan {
    pub(super) server: String,
    pub(super) load: Load,
    pub(super) threads: u8,
}

/// What a participant does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ParticipantPlan {
    pub(super) server: String,
    pub(super) name: String,
    /// The file of its SQLite store; none: in memory.
    pub(super) store: Option<String>,
    pub(super) threads: u8,
}

/// What the one process of an embedded run does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct EmbeddedPlan {
    /// Where the store is made.
    pub(super) store: String,
    pub(super) load: Load,
    pub(super) threads: u8,
}

/// The transactions of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::bench) struct Load {
    pub(in crate::bench) topic: String,
    pub(in crate::bench) participants: Vec<String>,
    pub(in crate::bench) concurrency: u32,
    pub(in crate::bench) seconds: u32,
    pub(in crate::bench) rate: Option<u32>,
    pub(in crate::bench) abort_percent: u8,
    pub(in crate::bench) events: u16,
    pub(in crate::bench) event_bytes: u32,
    pub(in crate::bench) wait: WaitFor,
    /// Whoever is refused comes again when he was told to, and is not counted as refused.
    pub(in crate::bench) comes_again: bool,
    /// Transactions that are open meanwhile and have nothing to do with it.
    pub(in crate::bench) others: u32,
}

impl Load {
    /// Whether a transaction is to fail: as many of any hundred in a row as were asked for, evenly
    /// spread.
    pub(super) fn is_to_fail(&self, number: u64) -> bool {
        let until = |n: u64| n * u64::from(self.abort_percent) / 100;
        !self.participants.is_empty() && until(number + 1) > until(number)
    }

    /// What a participant is told: only the first refuses.
    pub(super) fn work(&self, number: u64, participant: usize) -> &'static [u8] {
        if participant == 0 && self.is_to_fail(number) { REFUSE } else { WORK }
    }

    /// The data of an event, which says of which transaction it is and which of its events.
    pub(super) fn data(&self, number: u64, event: u16) -> Vec<u8> {
        let mut data = vec![b'.'; self.event_bytes as usize];
        data[..8].copy_from_slice(&number.to_be_bytes());
        data[8..10].copy_from_slice(&event.to_be_bytes());
        data
    }
}

/// Transaction and number of an event, out of its data.
pub(super) fn event_of(data: &[u8]) -> Option<(u64, u16)> {
    let number = data.first_chunk::<8>()?;
    let event = data.get(8..)?.first_chunk::<2>()?;
    Some((u64::from_be_bytes(*number), u16::from_be_bytes(*event)))
}

/// What a participant has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Done {
    /// Votes of YES.
    pub(super) prepared: u64,
    /// Votes of NO.
    pub(super) refused: u64,
    pub(super) committed: u64,
    pub(super) aborted: u64,
}
