//! What it is worth that a log has never heard of a transaction (I1, I5).
//!
//! A server that finds a prepared branch of a transaction that its log does not know may roll it
//! back only if nobody can have decided it. Its log is a proof of that as far as it is whole, and a
//! copy's is not: another life of the store may have decided the transaction. The id says which life
//! made it. No clock is asked but log time, and that only within one life.

use core::fmt;

use crate::ids::{OpeningId, TransactionId};
use crate::openings::{Life, Openings};

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
    /// Markers of transactions that began up to then, Unix time in milliseconds, were there already,
    /// whoever committed them.
    pub markers_to_ms: u64,
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

/// Whether this log proves that it has never begun a transaction, also when what it had of that time
/// is long removed. Whoever has committed it was another life of the store.
#[must_use]
pub fn is_begun_elsewhere(openings: &Openings, id: TransactionId) -> bool {
    match openings.of(id) {
        None => openings.reach_back_to(id.unix_ms()),
        // Its BEGIN would be a record of that life, with this time in it.
        Some(Life { end: Some(end), .. }) => id.unix_ms() > end.newest_ms,
        Some(Life { end: None, .. }) => false,
    }
}

/// Committed markers of transactions that began later than this, Unix time in milliseconds, may tell
/// that another life of the store was at work in a database whose owner row one of these openings
/// has written; without a row, any may. What this log has begun is later only if it is of an opening
/// after that one, and each of those writes the row before anything can commit there.
#[must_use]
pub fn markers_after(openings: &Openings, row: Option<OpeningId>, adopted: Option<Adopted>) -> u64 {
    let written = row.and_then(|opening| openings.find(opening));
    let after_ms = match written {
        None => 0,
        // Begun within its last milliseconds, a transaction may be missing before its end too.
        Some(Life { end: Some(end), .. }) => end.newest_ms.saturating_sub(AFTER_THE_END_MS),
        Some(Life { end: None, .. }) => openings.current().map_or(0, |current| current.newest_ms),
    };
    adopted.map_or(after_ms, |adopted| after_ms.max(adopted.markers_to_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Lsn, StoreId, Tick};
    use crate::limits::OPENINGS;
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
        let adopted = Adopted { epoch: 2, before: id(2, 2, 5_000), markers_to_ms: T_MS + 5_000 };
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

    /// A copy looked for markers that were newer than its log, which soon had newer records than the
    /// marker that told it: after a restart it took itself for the right store.
    #[test]
    fn what_was_begun_elsewhere_is_told_however_far_the_log_has_come_since() {
        let cases = [
            (id(1, 1, 1_000), false),
            (id(1, 1, 1_001), true),
            (id(2, 2, 9_000), false),
            (id(2, 2, 9_001), true),
            (id(3, 3, 900_000), false),
            (id(2, 9, 2_000), true),
            (id(9, 2, 2_000), true),
        ];
        for (id, elsewhere) in cases {
            assert_eq!(is_begun_elsewhere(&openings(), id), elsewhere, "{id}");
        }
        let mut full = openings();
        for number in 4..=OPENINGS as u32 + 2 {
            let opening = OpeningId(u128::from(number));
            let newest_ms = T_MS + 10_000;
            let opened =
                Opened { store: StoreId(7), epoch: number, opening, wall_ms: 0, newest_ms };
            full.opened(Lsn(u64::from(number) * 10), &opened);
        }
        // The first two are forgotten; the oldest that is left began at the time 9,000.
        assert!(!is_begun_elsewhere(&full, id(1, 1, 1_001)));
        assert!(!is_begun_elsewhere(&full, id(2, 9, 9_000)));
        assert!(is_begun_elsewhere(&full, id(2, 9, 9_001)));
    }

    #[test]
    fn markers_are_looked_at_from_the_end_of_the_life_that_wrote_the_row() {
        let adopted = |markers_to_ms| Adopted { epoch: 2, before: id(2, 2, 0), markers_to_ms };
        let after = |row, adopted| markers_after(&openings(), row, adopted);
        let opening = |number| Some(OpeningId(number));
        assert_eq!(after(opening(1), None), T_MS + 1_000 - AFTER_THE_END_MS);
        assert_eq!(after(opening(2), None), T_MS + 9_000 - AFTER_THE_END_MS);
        assert_eq!(after(opening(3), None), T_MS + 9_000, "this life, which knows its own");
        assert_eq!(after(None, None), 0);
        assert_eq!(after(opening(1), Some(adopted(T_MS + 3_000))), T_MS + 3_000);
        assert_eq!(after(opening(2), Some(adopted(T_MS + 3_000))), T_MS + 7_000);
    }
}
