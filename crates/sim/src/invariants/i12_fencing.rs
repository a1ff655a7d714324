//! I12 fencing: after a decision nothing changes it; after END nothing is accepted.
//!
//! Violated by: any record of a transaction after END, anything but END after a decision, a record
//! that names another one than the transaction's last as the one before it, a second look-up of
//! a local transaction while the first is under way (L8).

use std::collections::BTreeSet;

use handfast_core::ids::{Lsn, TransactionId};
use handfast_core::input::Input;
use handfast_core::output::Output;
use handfast_core::record::Record;

use super::{Facts, Invariant, Seen, ensure};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Fencing {
    resolving: BTreeSet<TransactionId>,
}

impl Invariant for Fencing {
    fn name(&self) -> &'static str {
        "I12"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Appended(lsn, record) => appended(facts, *lsn, record),
            Seen::Output(Output::Resolve { id, .. }, _) => {
                ensure(self.resolving.insert(*id), || format!("{id} is looked up twice at once"))
            }
            Seen::Input(Input::Resolved { id, .. }) => {
                self.resolving.remove(id);
                Ok(())
            }
            Seen::Crash => {
                self.resolving.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn appended(facts: &Facts, lsn: Lsn, record: &Record) -> Result<(), String> {
    let Some(chain) = record.transaction().and_then(|id| facts.chains.get(&id)) else {
        return Ok(());
    };
    let (id, previous) = match record {
        Record::Begin(begin) => {
            return ensure(chain.begin == Some(lsn), || format!("{} begins twice", begin.id));
        }
        Record::Commit(commit) => (commit.id, commit.previous),
        Record::Abort(abort) => (abort.id, abort.previous),
        Record::Operated(operated) => (operated.id, operated.previous),
        Record::End(end) => (end.id, end.previous),
        _ => return Ok(()),
    };
    let is_end = matches!(record, Record::End(_));
    // Somebody may have seen how it ended; then that is the last word.
    if matches!(record, Record::Operated(operated) if operated.follows_end()) {
        return ensure(chain.end == Some(previous), || {
            format!("what was noted of {id} at {lsn} follows {previous}, not its END")
        });
    }
    ensure(chain.end.is_none_or(|end| end == lsn), || format!("a record of {id} after END"))?;
    let decided = chain.decision.map(|(at, _)| at);
    let decides = matches!(record, Record::Commit(_) | Record::Abort(_));
    ensure(!decides || decided == Some(lsn), || format!("{id} is decided a second time"))?;
    ensure(!is_end || decided.is_some(), || format!("END of {id} without a decision"))?;
    let before = match record {
        Record::End(_) => chain.operated.or(decided),
        Record::Operated(_) => chain.operated_before.or(decided),
        _ => chain.begin,
    };
    ensure(before == Some(previous), || {
        format!("a record of {id} at {lsn} follows {previous}, not {before:?}")
    })?;
    if let Record::End(end) = record {
        let agrees = chain.decision.is_some_and(|(_, commit)| commit == end.committed);
        ensure(agrees, || format!("END of {id} contradicts its decision"))?;
    }
    Ok(())
}
