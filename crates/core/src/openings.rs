//! The openings of a store: each life of a server that its log contains.
//!
//! A copy of a store that goes on writes openings that the original does not contain, and the other
//! way round. So what an opening has said elsewhere (the owner row of a database) can be compared
//! with this log: was it one of its own lives, and how far did that life come?

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::ids::{Lsn, OpeningId, TransactionId};
use crate::limits::OPENINGS;
use crate::record::{Opened, OpeningRestated};

/// The newest [`OPENINGS`] of them, the current one last. An opening that is older than these is
/// taken for one that the log does not contain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Openings(VecDeque<OpeningRestated>);

impl Openings {
    /// The store was opened.
    pub fn opened(&mut self, lsn: Lsn, opened: &Opened) {
        if self.0.len() == OPENINGS {
            self.0.pop_front();
        }
        let Opened { opening, epoch, newest_ms, .. } = *opened;
        self.0.push_back(OpeningRestated { opening, epoch, lsn, newest_ms });
    }

    /// As a checkpoint has them.
    #[must_use]
    pub fn restated(openings: &[OpeningRestated]) -> Self {
        Self(openings.iter().copied().collect())
    }

    /// For a checkpoint, oldest first.
    #[must_use]
    pub fn restate(&self) -> Vec<OpeningRestated> {
        self.0.iter().copied().collect()
    }

    /// The opening that the store is in.
    #[must_use]
    pub fn current(&self) -> Option<OpeningRestated> {
        self.0.back().copied()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// There is none: nothing was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One of them.
    #[must_use]
    pub fn find(&self, opening: OpeningId) -> Option<Life> {
        self.0.iter().rposition(|known| known.opening == opening).map(|at| self.life(at))
    }

    /// The one in which an id was made. None: this log does not contain it, so another life of the
    /// store made the id, or another store.
    #[must_use]
    pub fn of(&self, id: TransactionId) -> Option<Life> {
        let made = |known: &OpeningRestated| id.is_of(known.epoch, known.opening);
        self.0.iter().rposition(made).map(|at| self.life(at))
    }

    /// Whatever opening made an id at this time, Unix time in milliseconds, is among these if it is
    /// one of this log.
    #[must_use]
    pub fn reach_back_to(&self, unix_ms: u64) -> bool {
        // The ids of those that are forgotten are not newer than what the oldest of these found.
        self.0.len() < OPENINGS || self.0.front().is_some_and(|oldest| unix_ms > oldest.newest_ms)
    }

    fn life(&self, at: usize) -> Life {
        // The next opening is the first record that this one did not write.
        let next = self.0.get(at + 1);
        let end = next
            .map(|next| End { last: Lsn(next.lsn.0.saturating_sub(1)), newest_ms: next.newest_ms });
        Life { epoch: self.0[at].epoch, end }
    }
}

/// What the log says about one opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Its epoch.
    pub epoch: u32,
    /// Where it ended; none: it is the current one.
    pub end: Option<End>,
}

/// The end of an opening, as the log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Its last record.
    pub last: Lsn,
    /// The newest time in the log up to there, in records and ids: Unix time in milliseconds.
    pub newest_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{StoreId, Tick};

    fn open(openings: &mut Openings, number: u128, lsn: u64) {
        let (store, epoch, newest_ms) = (StoreId(1), number as u32, lsn * 10);
        let opening = OpeningId(number);
        let opened = Opened { store, epoch, opening, wall_ms: newest_ms, newest_ms };
        openings.opened(Lsn(lsn), &opened);
    }

    #[test]
    fn a_life_ends_where_the_next_one_begins() {
        let mut openings = Openings::default();
        assert!(openings.is_empty());
        for (number, lsn) in [(1, 3), (2, 10), (3, 11)] {
            open(&mut openings, number, lsn);
        }
        for openings in [Openings::restated(&openings.restate()), openings] {
            let life = |number| openings.find(OpeningId(number));
            let end = |lsn, newest_ms| Some(End { last: Lsn(lsn), newest_ms });
            assert_eq!(life(1), Some(Life { epoch: 1, end: end(9, 100) }));
            assert_eq!(life(2), Some(Life { epoch: 2, end: end(10, 110) }));
            assert_eq!(life(3), Some(Life { epoch: 3, end: None }));
            assert_eq!(life(4), None);
            let of = |epoch, random| {
                let id = TransactionId::new(Tick::first_of(50), 0, epoch, OpeningId(random));
                openings.of(id)
            };
            assert_eq!((of(2, 2), of(3, 3)), (life(2), life(3)));
            // Another life with the same epoch, and what an id has not room for.
            assert_eq!((of(2, 9), of(9, 2)), (None, None));
            assert_eq!(of(2, 1 << 64 | 2), life(2));
            assert_eq!(openings.current().map(|current| current.epoch), Some(3));
        }
    }

    #[test]
    fn only_the_newest_are_kept() {
        let mut openings = Openings::default();
        for number in 1..=OPENINGS as u128 + 1 {
            open(&mut openings, number, number as u64);
        }
        assert_eq!(openings.len(), OPENINGS);
        assert_eq!(openings.find(OpeningId(1)), None);
        assert!(openings.find(OpeningId(2)).is_some());
        // The second one found that the first had come to 20.
        assert!(openings.reach_back_to(21) && !openings.reach_back_to(20));
        assert!(Openings::default().reach_back_to(0), "none is forgotten");
    }
}
