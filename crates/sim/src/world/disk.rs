//! The simulated log: records get their place, form groups, and become durable a group at a time,
//! the next group only after the one before. A crash keeps the groups that are durable and, by
//! chance, the one that was being written: whole, because a torn group is dropped as a whole.

use std::sync::Arc;

use handfast_core::ids::Lsn;
use handfast_core::record::{Record, SegmentDropped};

use crate::fault::Fault;
use crate::invariants::Facts;
use crate::rng::Rng;

/// Where the records of [`Facts::log`] are.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// The group that is being written ends here.
    group: Option<u64>,
    /// What the core was told to be accepted and durable.
    pub told: (u64, u64),
}

impl Disk {
    /// A record is handed over.
    pub(super) fn append(facts: &mut Facts, lsn: Lsn, record: &Arc<Record>) {
        assert_eq!(lsn.0, facts.log.len() as u64 + 1, "places are handed out in order");
        facts.append(record);
    }

    /// Gives some records their place. True if there were any.
    pub(super) fn accept(facts: &mut Facts, rng: &mut Rng) -> bool {
        let waiting = facts.log.len() as u64 - facts.accepted;
        facts.accepted += if rng.percent(70) { waiting } else { rng.below(waiting + 1) };
        waiting > 0
    }

    /// Begins to write a group of everything that is accepted.
    pub(super) fn write(&mut self, facts: &Facts) -> bool {
        if self.group.is_none() && facts.accepted > facts.durable {
            self.group = Some(facts.accepted);
            return true;
        }
        false
    }

    /// The group is on disk.
    pub(super) fn sync(&mut self, facts: &mut Facts) -> bool {
        let Some(end) = self.group.take() else { return false };
        facts.durable = end;
        true
    }

    /// How much of the log a crash leaves.
    #[must_use]
    pub(super) fn survivors(&self, facts: &Facts, rng: &mut Rng) -> u64 {
        match self.group {
            Some(end) if rng.percent(50) => end,
            Some(_) | None => facts.durable,
        }
    }

    /// Plants what a crash may not do.
    pub(super) fn spoil(facts: &mut Facts, fault: Option<Fault>) {
        let lost = |record: &Record| match fault {
            Some(Fault::CommitLostInCrash) => matches!(record, Record::Commit(_)),
            Some(Fault::AcknowledgementLostInCrash) => matches!(record, Record::Acknowledged(_)),
            _ => false,
        };
        if let Some(at) = facts.log.iter().rposition(|record| lost(record)) {
            facts.log[at] = Arc::new(Record::SegmentDropped(SegmentDropped { segment: 0 }));
            facts.rebuild();
        }
    }
}
