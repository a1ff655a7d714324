//! I15 bounded: open transactions, staged bytes and keys stay within the limits; begins wait only
//! while there is no place, and what is refused never begins.
//!
//! Violated by: figures of the core above the limits of the simulated world after any input; a
//! begin that waits while a place is free; a begin of a transaction that was refused for want of
//! one; bytes that are still counted as staged when all is at rest.

use std::collections::BTreeSet;

use handfast_core::ids::TransactionId;
use handfast_core::output::{Output, Reply};
use handfast_core::record::Record;
use handfast_core::refusal::Code;

use super::facts::Asked;
use super::{Facts, Invariant, Seen, ensure};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Bounded {
    /// Transactions for which there was no place. Each begin of the world has an id of its own.
    refused: BTreeSet<TransactionId>,
}

impl Invariant for Bounded {
    fn name(&self) -> &'static str {
        "I15"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Handled => within_limits(facts),
            Seen::Output(
                Output::Reply { reply: Reply::Refused(refusal), .. },
                Some(Asked::Begin(id, ..)),
            ) if refusal.code == Code::TooManyTransactions => {
                self.refused.insert(*id);
                ensure(!facts.chains.contains_key(id), || format!("{id} had begun, and is refused"))
            }
            Seen::Appended(_, Record::Begin(begin)) => {
                ensure(!self.refused.contains(&begin.id), || {
                    format!("{} was refused, and begins", begin.id)
                })
            }
            Seen::End(None) => {
                let bytes = facts.stats.staged_bytes;
                ensure(bytes == 0, || format!("{bytes} bytes staged"))
            }
            _ => Ok(()),
        }
    }
}

fn within_limits(facts: &Facts) -> Result<(), String> {
    let (stats, limits) = (&facts.stats, &facts.limits);
    ensure(stats.open <= limits.open_transactions, || format!("{} open", stats.open))?;
    ensure(stats.waiting == 0 || stats.open == limits.open_transactions, || {
        format!("{} wait while {} are open", stats.waiting, stats.open)
    })?;
    ensure(stats.waiting <= limits.waiting, || format!("{} wait", stats.waiting))?;
    ensure(stats.staged_bytes <= limits.staged_bytes, || {
        format!("{} bytes staged", stats.staged_bytes)
    })?;
    let most = limits.keys + limits.open_transactions;
    ensure(stats.keys <= most, || format!("{} keys", stats.keys))
}
