//! I16 recovery: recover(log) is deterministic and idempotent, right for every crash image.
//!
//! Violated by: two recoveries of the same log whose checkpoints differ, or a recovery from the
//! newest checkpoint that differs from one of the whole log.

use super::{Facts, Invariant, Seen, ensure};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct RecoveryIsAFold;

impl Invariant for RecoveryIsAFold {
    fn name(&self) -> &'static str {
        "I16"
    }

    fn see(&mut self, _: &Facts, seen: &Seen<'_>) -> Result<(), String> {
        let Seen::Recovered(difference) = seen else { return Ok(()) };
        ensure(difference.is_none(), || difference.unwrap_or_default().to_string())
    }
}
