//! I14 independence: nobody's death delays an undecided transaction beyond its deadline.
//!
//! Violated by: a distributed transaction that is undecided after a tick later than its deadline.

use handfast_core::input::Input;
use handfast_core::limits::WAITING_MS;

use super::{Facts, Invariant, Seen, ensure};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Independence {
    ticked: bool,
}

impl Invariant for Independence {
    fn name(&self) -> &'static str {
        "I14"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Input(input) => self.ticked = matches!(input, Input::Tick),
            Seen::Handled if self.ticked => {
                let now = facts.now.mono_ms;
                // A begin may have waited for a place before its time began (C21).
                let over = |at_ms: u64| at_ms.saturating_add(WAITING_MS) < now;
                for (id, intent) in facts.intents.iter().filter(|(_, i)| over(i.deadline_ms)) {
                    let Some(chain) = facts.chains.get(id) else { continue };
                    let accepted = chain.begin.is_some_and(|lsn| lsn.0 <= facts.accepted);
                    let open = !chain.local && accepted && chain.decision.is_none();
                    ensure(!open, || {
                        format!("{id} is undecided {} ms late", now - intent.deadline_ms)
                    })?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}
