//! The owner row of a database: what a store says about itself there, and what a row that it finds
//! there says against it (I1, I5).
//!
//! Epoch and place in the log rise on every copy of a store, so they alone tell nothing. The row
//! names the opening that wrote it: if this log does not contain that opening, another life of the
//! store has been at work, and this one may have missed what it decided.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::ids::{Lsn, OpeningId, StoreId};
use crate::openings::{Life, Openings};

/// The shard of a store that is not divided.
pub const SHARD: u32 = 0;

/// What one opening of a store says in each of its databases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The store.
    pub store: StoreId,
    /// Which part of the store; [`SHARD`] today.
    pub shard: u32,
    /// The opening's epoch.
    pub epoch: u64,
    /// The machine that it runs on, at most 255 bytes; what is longer is cut off.
    pub node: String,
    /// The opening.
    pub opening: OpeningId,
    /// The last record that was durable when this was said.
    pub durable_lsn: Lsn,
    /// A random number of each time that it is said, below 2^63: it tells two machines from each
    /// other that go on with one and the same opening.
    pub claim: u64,
}

/// One reason why a row cannot have been written by this store as its log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contradiction {
    /// Another machine wrote it.
    Node,
    /// An opening wrote it that the log does not contain.
    Opening,
    /// Its opening had more durable records than the log has of it.
    DurableLsn,
    /// This very opening is going on elsewhere too.
    Twin,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "another machine wrote it",
            Self::Opening => "it was written by an opening that this store's log does not contain",
            Self::DurableLsn => "its opening had durable records that this store does not have",
            Self::Twin => "this very opening of the store goes on elsewhere too",
        })
    }
}

impl Owner {
    /// What this row says against `ours`, whose log contains these openings. Empty: it may be
    /// replaced. `claims` are those that `ours` has made here and that may stand.
    #[must_use]
    pub fn contradictions(
        &self,
        ours: &Self,
        openings: &Openings,
        claims: &[u64],
    ) -> Vec<Contradiction> {
        let life = openings.find(self.opening).filter(|life| u64::from(life.epoch) == self.epoch);
        let mut why = Vec::new();
        if self.node != ours.node {
            why.push(Contradiction::Node);
        }
        match life {
            None => why.push(Contradiction::Opening),
            Some(Life { end, .. }) => {
                if self.durable_lsn > end.map_or(ours.durable_lsn, |end| end.last) {
                    why.push(Contradiction::DurableLsn);
                }
            }
        }
        if self.opening == ours.opening && !claims.contains(&self.claim) {
            why.push(Contradiction::Twin);
        }
        why
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Opened;

    const STORE: StoreId = StoreId(7);

    fn row(opening: u128, epoch: u64, lsn: u64) -> Owner {
        Owner {
            store: STORE,
            shard: SHARD,
            epoch,
            node: "here".into(),
            opening: OpeningId(opening),
            durable_lsn: Lsn(lsn),
            claim: 1,
        }
    }

    /// Three lives: records 3 to 9, 10 to 19, and from 20 on.
    fn openings() -> Openings {
        let mut openings = Openings::default();
        for (number, lsn) in [(1, 3), (2, 10), (3, 20)] {
            let opening = OpeningId(u128::from(number));
            let opened = Opened { store: STORE, epoch: number, opening, wall_ms: 0, newest_ms: 0 };
            openings.opened(Lsn(lsn), &opened);
        }
        openings
    }

    /// An older copy of the store had rolled back what the store had committed, because it found a
    /// row with a lower epoch and a lower place in the log than its own: both rise on any copy.
    #[test]
    fn only_a_row_of_ones_own_lives_may_be_replaced() {
        use Contradiction::{DurableLsn, Node, Opening, Twin};
        let ours = row(3, 3, 30);
        let elsewhere = Owner { node: "there".into(), ..row(2, 2, 12) };
        let twin = Owner { claim: 99, ..row(3, 3, 25) };
        let cases: &[(Owner, &[Contradiction])] = &[
            (row(1, 1, 9), &[]),
            (row(2, 2, 19), &[]),
            (row(3, 3, 30), &[]),
            // Lower in every number, and yet of a life that this log knows nothing of.
            (row(9, 2, 12), &[Opening]),
            (row(9, 1, 0), &[Opening]),
            (row(2, 3, 12), &[Opening]),
            // A life that came further than this log has of it.
            (row(1, 1, 10), &[DurableLsn]),
            (row(2, 2, 25), &[DurableLsn]),
            (row(3, 3, 31), &[DurableLsn]),
            (elsewhere, &[Node]),
            (twin, &[Twin]),
        ];
        for (row, why) in cases {
            assert_eq!(row.contradictions(&ours, &openings(), &[1]), *why, "{row:?}");
        }
    }
}
