//! How old things are.
//!
//! Ages are differences of log time, which never falls. While the server runs it follows a clock
//! that cannot leap; but between the last record of one life and the opening of the next nothing
//! says how long it was, except a clock that may have been set since. So that time is not believed
//! at once: it counts for ages only as fast as the server runs after the opening. One wrong reading
//! makes nothing old, and a server that was away for a week has caught up a week later.

use alloc::vec::Vec;

use crate::ids::Now;
use crate::record::{Away, CheckpointStart, Opened};

/// Shorter absences count at once.
const NOTED_MS: u64 = 60_000;
/// Absences that are kept apart; of more the two oldest become one.
const KEPT: usize = 16;
/// The longest of them, over 8,000 years, so that their sum is a number.
const MOST_MS: u64 = 1 << 48;

/// What ages leave out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ages {
    /// Absences whose time has not counted yet, oldest first.
    away: Vec<Away>,
    /// The sum of them.
    uncounted_ms: u64,
    /// When this life began, on the monotonic clock.
    since_ms: u64,
}

impl Ages {
    /// The fold, of a checkpoint.
    pub(crate) fn apply_start(&mut self, start: &CheckpointStart) {
        self.away.clone_from(&start.away);
        self.sum();
    }

    /// The fold, of an opening.
    pub(crate) fn apply_opened(&mut self, opened: &Opened) {
        let away_ms = opened.wall_ms.saturating_sub(opened.newest_ms);
        if opened.newest_ms == 0 || away_ms < NOTED_MS {
            return;
        }
        let away_ms = away_ms.min(MOST_MS);
        self.away.push(Away { until_ms: opened.wall_ms, uncounted_ms: away_ms });
        if self.away.len() > KEPT {
            let oldest = self.away.remove(0);
            self.away[0].uncounted_ms =
                (self.away[0].uncounted_ms + oldest.uncounted_ms).min(MOST_MS);
        }
        self.sum();
    }

    /// Recovery is over: from now on what was left out is made good.
    pub(crate) fn start(&mut self, now: Now) {
        self.since_ms = now.mono_ms;
    }

    /// What happened before this Unix time is older than that, and nothing else is.
    pub(crate) fn before(&self, now: Now, age_ms: u64) -> u64 {
        let mut before_ms = now.wall_ms.saturating_sub(age_ms);
        if self.left_ms(now) == 0 {
            return before_ms;
        }
        let counted_ms = now.mono_ms.saturating_sub(self.since_ms);
        let mut older_ms = self.uncounted_ms;
        for away in self.away.iter().rev() {
            if before_ms >= away.until_ms {
                break;
            }
            older_ms -= away.uncounted_ms;
            // The oldest is made good first.
            let by_ms = counted_ms.saturating_sub(older_ms).min(away.uncounted_ms);
            before_ms = before_ms.saturating_sub(away.uncounted_ms - by_ms);
        }
        before_ms
    }

    /// How much time does not count yet.
    pub(crate) fn left_ms(&self, now: Now) -> u64 {
        self.uncounted_ms.saturating_sub(now.mono_ms.saturating_sub(self.since_ms))
    }

    /// The absences with what is left of them: the oldest is made good first.
    pub(crate) fn left(&self, now: Now) -> Vec<Away> {
        let mut counted_ms = now.mono_ms.saturating_sub(self.since_ms);
        let mut left = Vec::new();
        for away in &self.away {
            let by = counted_ms.min(away.uncounted_ms);
            counted_ms -= by;
            if by < away.uncounted_ms {
                left.push(Away { uncounted_ms: away.uncounted_ms - by, ..*away });
            }
        }
        left
    }

    fn sum(&mut self) {
        self.uncounted_ms = self.away.iter().map(|away| away.uncounted_ms).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{OpeningId, StoreId};

    const HOUR_MS: u64 = 3_600_000;
    const YEAR_MS: u64 = 8_760 * HOUR_MS;
    const T_MS: u64 = 1_800_000_000_000;

    fn opened(newest_ms: u64, wall_ms: u64) -> Opened {
        Opened { store: StoreId(1), epoch: 1, opening: OpeningId(1), wall_ms, newest_ms }
    }

    fn now(mono_ms: u64, wall_ms: u64) -> Now {
        Now { mono_ms, wall_ms }
    }

    #[test]
    fn without_an_absence_an_age_is_a_difference() {
        let mut ages = Ages::default();
        ages.apply_opened(&opened(0, T_MS));
        ages.apply_opened(&opened(T_MS, T_MS + NOTED_MS - 1));
        assert_eq!(ages.before(now(5, T_MS), 1_000), T_MS - 1_000);
        assert_eq!(ages.before(now(5, 10), 1_000), 0);
    }

    /// The clock was a year ahead at one opening. Everything of before would have been a year old.
    #[test]
    fn an_absence_ages_what_was_before_it_only_as_fast_as_the_server_runs() {
        let mut ages = Ages::default();
        ages.apply_opened(&opened(T_MS, T_MS + YEAR_MS));
        ages.start(now(100, T_MS + YEAR_MS));
        let at = |ms: u64| now(100 + ms, T_MS + YEAR_MS + ms);
        // What ended just before it is not a day old, and is half a day later: its own age and
        // what is made good.
        assert_eq!(ages.before(at(0), 24 * HOUR_MS), T_MS - 24 * HOUR_MS);
        assert_eq!(ages.before(at(12 * HOUR_MS - 1), 24 * HOUR_MS), T_MS - 2);
        assert_eq!(ages.before(at(12 * HOUR_MS), 24 * HOUR_MS), T_MS);
        // What happens after it is as old as it is.
        assert_eq!(ages.before(at(25 * HOUR_MS), 24 * HOUR_MS), T_MS + YEAR_MS + HOUR_MS);
        // And in the end all of it has counted.
        assert_eq!(ages.before(at(YEAR_MS), YEAR_MS), T_MS + YEAR_MS);
        assert!(ages.left(at(YEAR_MS)).is_empty());
    }

    #[test]
    fn the_next_opening_and_a_checkpoint_forget_no_absence() {
        let mut ages = Ages::default();
        ages.apply_opened(&opened(T_MS, T_MS + YEAR_MS));
        ages.start(now(0, T_MS + YEAR_MS));
        let left = ages.left(now(HOUR_MS, T_MS + YEAR_MS + HOUR_MS));
        assert_eq!(left, [Away { until_ms: T_MS + YEAR_MS, uncounted_ms: YEAR_MS - HOUR_MS }]);
        let start = CheckpointStart { away: left, ..CheckpointStart::default() };
        let mut ages = Ages::default();
        ages.apply_start(&start);
        // The clock was set right: it is behind the log. Then the server is away for two hours.
        let late_ms = T_MS + YEAR_MS + HOUR_MS;
        ages.apply_opened(&opened(late_ms, late_ms));
        ages.apply_opened(&opened(late_ms, late_ms + 2 * HOUR_MS));
        ages.start(now(0, late_ms + 2 * HOUR_MS));
        let at = now(0, late_ms + 2 * HOUR_MS);
        assert_eq!(ages.before(at, 24 * HOUR_MS), T_MS + HOUR_MS - 23 * HOUR_MS);
        assert_eq!(ages.before(at, HOUR_MS), late_ms - HOUR_MS);
    }

    #[test]
    fn many_absences_are_kept_as_few_and_none_of_their_time_counts_early() {
        let mut ages = Ages::default();
        for n in 0..100 {
            let wall_ms = T_MS + n * 2 * HOUR_MS;
            ages.apply_opened(&opened(wall_ms, wall_ms + HOUR_MS));
        }
        let end = now(0, T_MS + 199 * HOUR_MS);
        ages.start(end);
        assert_eq!(ages.left(end).len(), KEPT);
        assert_eq!(ages.left_ms(end), 100 * HOUR_MS);
        // It has lived for 100 hours, and nothing is older.
        assert_eq!(ages.before(end, 101 * HOUR_MS), T_MS - 2 * HOUR_MS);
    }
}
