//! I13 liveness: when all is up every transaction ends, nothing stays prepared, every command is
//! answered once, in bounded time.
//!
//! Violated by: anything that is left undone when the healed world has had its time; an answer to a
//! command that nobody waits for, though its stream is open.

use handfast_core::output::Output;

use super::{Facts, Invariant, Seen, ensure};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Liveness;

impl Invariant for Liveness {
    fn name(&self) -> &'static str {
        "I13"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::End(left) => {
                ensure(left.is_none(), || format!("left undone: {}", left.unwrap_or_default()))?;
                ensure(facts.asked.is_empty(), || {
                    format!("{} commands without an answer: {:?}", facts.asked.len(), facts.asked)
                })
            }
            Seen::Output(Output::Reply { to, reply }, None) => {
                ensure(!facts.sessions.contains(&to.session), || {
                    format!("{to:?} was answered before, and now with {reply:?}")
                })
            }
            _ => Ok(()),
        }
    }
}
