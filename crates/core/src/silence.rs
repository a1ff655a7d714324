//! What it is worth that a log has never heard of a transaction (I1, I5).
//!
//! A server that finds a prepared branch of a transaction that its log does not know may roll it
//! back only if nobody can have decided it. Its log is a proof of that as far as it is whole, and a
//! copy's is not: another life of the store may have decided the transaction. The id says which life
//! made it. No clock is asked but log time, and that only within one life.

use core::fmt;

use crate::ids::TransactionId;
use crate::openings::Openings;

/// The begins of a life are in its log within milliseconds: one that began so much later than its
/// last record was begun after the log was copied.
pub const AFTER_THE_END_MS: u64 = 2_000;

/// An operator made a database this store's, in this epoch, before this id was given to anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// The epoch.
    pub epoch: u32,
    /// An id of that opening. Those of one opening rise.
    pub before: TransactionId,
}

/// Why the silence of a log proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unproven {
    /// The log does not contain the opening that made the id, or no longer.
    AnotherLife,
    /// The present opening made it, and knows what it has begun.
    ThisLife,
    /// It began after the end of what this log has of its opening.
    AfterTheEnd,
    /// It began before the database was adopted.
    BeforeAdoption,
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AnotherLife => {
                "it was begun by an opening that this store's log does not contain: another life of \
                 the store may have decided it"
            }
            Self::ThisLife => {
                "it began in this life of the store, and not here: another copy of it is at work"
            }
            Self::AfterTheEnd => {
                "it began after the end of this log: another life of the store may have decided it"
            }
            Self::BeforeAdoption => "it began before the database was adopted",
        })
    }
}

/// Whether it proves that nobody has decided a transaction that the log of these openings does not
/// know it. None: it does, as far as the log is concerned.
#[must_use]
pub fn unproven(
    openings: &Openings,
    adopted: Option<Adopted>,
    id: TransactionId,
) -> Option<Unproven> {
    let Some(life) = openings.of(id) else { return Some(Unproven::AnotherLife) };
    let Some(end) = life.end else { return Some(Unproven::ThisLife) };
    if id.unix_ms() > end.newest_ms.saturating_add(AFTER_THE_END_MS) {
        return Some(Unproven::AfterTheEnd);
    }
    let before = |adopted: Adopted| (life.epoch, id) <= (adopted.epoch, adopted.before);
    adopted.is_some_and(before).then_some(Unproven::BeforeAdoption)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Lsn, OpeningId, StoreId, Tick};
    use crate::record::Opened;

    const T_MS: u64 = 1_700_000_000_000;

    /// The clock of each id's life is of no account: the second life ran an hour behind the first.
    fn id(epoch: u32, opening: u128, after_ms: u64) -> TransactionId {
        TransactionId::new(Tick::first_of(T_MS + after_ms), 0, epoch, OpeningId(opening))
    }

    fn openings() -> Openings {
        let mut openings = Openings::default();
        for (epoch, lsn, newest_ms) in [(1, 3, 0), (2, 10, T_MS + 1_000), (3, 20, T_MS + 9_000)] {
            let (store, opening) = (StoreId(7), OpeningId(u128::from(epoch)));
            let opened = Opened { store, epoch, opening, wall_ms: newest_ms, newest_ms };
            openings.opened(Lsn(lsn), &opened);
        }
        openings
    }

    /// A copy compared the times in ids with the newest time in its own log. As soon as it had gone
    /// on itself that was later than all that the right store had begun meanwhile, and the silence of
    /// the copy's log about that was taken for a proof.
    #[test]
    fn only_a_life_that_the_log_has_to_its_end_is_known_by_its_silence() {
        use Unproven::{AfterTheEnd, AnotherLife, BeforeAdoption, ThisLife};
        let adopted = Adopted { epoch: 2, before: id(2, 2, 5_000) };
        let cases = [
            (id(1, 1, 900), None, None),
            (id(1, 1, 3_000), None, None),
            (id(2, 2, 8_000), None, None),
            // Where the first life ended counts for it, not where the whole log did.
            (id(1, 1, 3_001), None, Some(AfterTheEnd)),
            (id(2, 2, 11_001), None, Some(AfterTheEnd)),
            // Within the times of the log, and made by an opening that is not in it.
            (id(2, 9, 2_000), None, Some(AnotherLife)),
            (id(9, 2, 2_000), None, Some(AnotherLife)),
            (id(3, 3, 9_100), None, Some(ThisLife)),
            (id(2, 2, 5_001), Some(adopted), None),
            (id(2, 2, 5_000), Some(adopted), Some(BeforeAdoption)),
            (id(1, 1, 900), Some(adopted), Some(BeforeAdoption)),
        ];
        for (id, adopted, why) in cases {
            assert_eq!(unproven(&openings(), adopted, id), why, "{id} {adopted:?}");
        }
    }
}
