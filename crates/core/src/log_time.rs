//! How log time follows the machine's clock.
//!
//! Log time is what the machine's clock says, as far as that can be followed: it never falls, it is
//! never before any time in the log, and while the server runs it goes at half to double speed,
//! whatever the clock does. A clock that lags behind is waited for at half speed, so that ages go
//! on; one that leaps ahead is approached at double speed, so that one wrong reading is nothing that
//! everything later has to live with. Between two openings there is no other clock to hold it
//! against: a new opening begins with what the clock says, or with the newest time in the log if
//! that is later.
//!
//! It reads no clock: both readings are given.

/// A clock that is off by more is said to be off; one that leaps ahead by less is followed at once.
pub const FAR_MS: u64 = 60_000;
/// How long a pace is reckoned from the same moment.
const STRETCH_MS: u64 = 1_000;

/// How the machine's clock stands to log time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// They agree, by [`FAR_MS`].
    With,
    /// The clock is behind.
    Behind,
    /// The clock is ahead.
    Ahead,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct LogTime {
    /// The moment from which it is reckoned, on the monotonic clock and in log time.
    from: (u64, u64),
    log_ms: u64,
    offset_ms: i64,
}

impl LogTime {
    /// It begins at this moment of the monotonic clock with this Unix time, in milliseconds.
    #[must_use]
    pub fn new(mono_ms: u64, log_ms: u64) -> Self {
        Self { from: (mono_ms, log_ms), log_ms, offset_ms: 0 }
    }

    /// Log time after a reading of both clocks.
    pub fn follow(&mut self, mono_ms: u64, wall_ms: u64) -> u64 {
        let (from_ms, log_ms) = self.from;
        let elapsed_ms = mono_ms.saturating_sub(from_ms);
        let (slow_ms, fast_ms) = (log_ms + elapsed_ms / 2, log_ms + 2 * elapsed_ms);
        if wall_ms < slow_ms {
            self.log_ms = self.log_ms.max(slow_ms);
        } else if wall_ms <= fast_ms + FAR_MS {
            self.log_ms = self.log_ms.max(wall_ms);
            self.from = (mono_ms, self.log_ms);
        } else {
            self.log_ms = self.log_ms.max(fast_ms);
            if elapsed_ms >= STRETCH_MS {
                self.from = (mono_ms, self.log_ms);
            }
        }
        let far_ms = i64::try_from(wall_ms.abs_diff(self.log_ms)).unwrap_or(i64::MAX);
        self.offset_ms = if wall_ms < self.log_ms { -far_ms } else { far_ms };
        self.log_ms
    }

    /// How far the machine's clock was from it at the last reading, in milliseconds: negative if it
    /// was behind.
    #[must_use]
    pub fn offset_ms(&self) -> i64 {
        self.offset_ms
    }

    /// The same in a word.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let is_far = self.offset_ms.unsigned_abs() > FAR_MS;
        match (is_far, self.offset_ms < 0) {
            (false, _) => Standing::With,
            (true, true) => Standing::Behind,
            (true, false) => Standing::Ahead,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;
    const YEAR_MS: u64 = 8_760 * HOUR_MS;
    const T_MS: u64 = 1_800_000_000_000;

    #[test]
    fn a_good_clock_is_followed_to_the_millisecond() {
        let mut time = LogTime::new(7, T_MS);
        for (mono_ms, wall_ms) in [(7, 0), (8, 1), (1_000, 990), (1_001, 1_100), (90_000, 120_000)]
        {
            assert_eq!(time.follow(mono_ms, T_MS + wall_ms), T_MS + wall_ms);
            assert_eq!((time.offset_ms(), time.standing()), (0, Standing::With));
        }
    }

    #[test]
    fn a_clock_that_lags_is_waited_for_at_half_speed() {
        for lag_ms in [HOUR_MS, YEAR_MS, T_MS] {
            let mut time = LogTime::new(0, T_MS);
            for mono_ms in 0..5_000 {
                let log_ms = time.follow(mono_ms, T_MS - lag_ms + mono_ms);
                assert_eq!(log_ms, T_MS + mono_ms / 2);
                assert_eq!(time.standing(), Standing::Behind);
            }
        }
        let mut time = LogTime::new(0, T_MS);
        assert_eq!(time.follow(2 * HOUR_MS, T_MS + HOUR_MS), T_MS + HOUR_MS);
        assert_eq!(time.standing(), Standing::With, "it has caught up");
    }

    /// A step back by less than anybody minds: time stands until the clock is there again.
    #[test]
    fn a_small_step_back_is_no_matter() {
        let mut time = LogTime::new(0, T_MS);
        assert_eq!(time.follow(100, T_MS + 100), T_MS + 100);
        assert_eq!(time.follow(101, T_MS + 50), T_MS + 100);
        assert_eq!((time.offset_ms(), time.standing()), (-50, Standing::With));
        assert_eq!(time.follow(300, T_MS + 249), T_MS + 249);
    }

    #[test]
    fn a_leap_is_followed_at_double_speed_and_nothing_is_left_of_it_when_it_is_taken_back() {
        for leap_ms in [HOUR_MS, YEAR_MS] {
            let mut time = LogTime::new(0, T_MS);
            let mut last = T_MS;
            for mono_ms in (0..600_000).step_by(7) {
                let log_ms = time.follow(mono_ms, T_MS + leap_ms + mono_ms);
                assert!(log_ms >= last && log_ms <= T_MS + 2 * mono_ms, "{log_ms} at {mono_ms}");
                assert_eq!(time.standing(), Standing::Ahead);
                last = log_ms;
            }
            // Set right after ten minutes: log time is ten minutes ahead, and with it 20 later.
            for mono_ms in (600_000..2_400_000).step_by(7) {
                let log_ms = time.follow(mono_ms, T_MS + mono_ms);
                assert!(log_ms >= last, "{log_ms} after {last}");
                last = log_ms;
            }
            assert_eq!(time.follow(2_400_000, T_MS + 2_400_000), T_MS + 2_400_000);
        }
        let mut time = LogTime::new(0, T_MS);
        let at = |ms: u64| T_MS + HOUR_MS + ms;
        assert_eq!(time.follow(HOUR_MS, at(HOUR_MS)), at(HOUR_MS), "it has caught up");
    }
}
