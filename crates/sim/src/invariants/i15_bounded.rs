//! I15 bounded: open transactions, staged bytes and keys stay within the limits.
//!
//! Violated by: figures of the core above the limits of the simulated world after any input; bytes
//! that are still counted as staged when all is at rest.

use super::{Facts, Invariant, Seen, ensure};
use crate::world::limits;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Bounded;

impl Invariant for Bounded {
    fn name(&self) -> &'static str {
        "I15"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen<'_>) -> Result<(), String> {
        let stats = &facts.stats;
        match seen {
            Seen::Handled => {
                let limits = limits();
                ensure(stats.open <= limits.open_transactions, || format!("{} open", stats.open))?;
                ensure(stats.staged_bytes <= limits.staged_bytes, || {
                    format!("{} bytes staged", stats.staged_bytes)
                })?;
                ensure(stats.keys <= limits.keys + limits.open_transactions, || {
                    format!("{} keys", stats.keys)
                })
            }
            Seen::End(None) => {
                ensure(stats.staged_bytes == 0, || format!("{} bytes staged", stats.staged_bytes))
            }
            _ => Ok(()),
        }
    }
}
