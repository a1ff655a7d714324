//! Pauses between attempts.

use crate::ids::TransactionId;

/// The pause before attempt `attempts` + 1: doubling from `first` to `longest`, jittered by up to a
/// quarter. The jitter comes from the id, so that it needs no randomness and yet spreads.
pub(super) fn pause_ms(first: u64, longest: u64, attempts: u32, id: TransactionId) -> u64 {
    let doubled = first.saturating_mul(1 << attempts.saturating_sub(1).min(20)).min(longest);
    let mix = (id.0 as u64 ^ u64::from(attempts)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56;
    doubled + doubled * mix / 1_024
}
