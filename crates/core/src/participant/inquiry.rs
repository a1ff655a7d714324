//! When a prepared branch asks for its decision: 5 s after YES, doubling to 30 s, ±20 %.
//!
//! The random part comes in as an argument.

/// Pause before the first inquiry, in milliseconds.
const FIRST_MS: u64 = 5_000;
/// Longest pause between two inquiries, in milliseconds.
const LONGEST_MS: u64 = 30_000;
/// Spread to either side, in thousandths of the pause.
const SPREAD: u64 = 200;

/// Milliseconds from YES (or from the last inquiry) to the next one, when `asked` have been made.
/// `random` is any number; pauses spread evenly over ±20 % if it is evenly spread.
#[must_use]
pub fn inquiry_pause_ms(asked: u32, random: u64) -> u64 {
    let pause = FIRST_MS.saturating_mul(1 << asked.min(16)).min(LONGEST_MS);
    let thousandths = 1_000 - SPREAD + random % (2 * SPREAD + 1);
    pause * thousandths / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_spread_by_a_fifth() {
        let middle = SPREAD;
        let expected = [5_000, 10_000, 20_000, 30_000, 30_000];
        for (asked, ms) in expected.into_iter().enumerate() {
            let asked = u32::try_from(asked).expect("a small index");
            assert_eq!(inquiry_pause_ms(asked, middle), ms);
            assert_eq!(inquiry_pause_ms(asked, 0), ms * 8 / 10);
            assert_eq!(inquiry_pause_ms(asked, 2 * SPREAD), ms * 12 / 10);
        }
        assert_eq!(inquiry_pause_ms(u32::MAX, u64::MAX / 401 * 401), 24_000);
    }

    #[test]
    fn any_random_number_stays_within_the_spread() {
        for random in (0..5_000).chain(u64::MAX - 5_000..=u64::MAX) {
            assert!((4_000..=6_000).contains(&inquiry_pause_ms(0, random)));
        }
    }
}
