//! I10 idempotent begin: the same key inside the window means the same transaction and outcome.
//!
//! Violated by: two transactions in the log under one key (runs are shorter than the window); an
//! answer to a keyed begin that names another transaction than the one that key has begun.

use std::collections::BTreeMap;

use handfast_core::ids::TransactionId;
use handfast_core::output::{Output, Reply};
use handfast_core::record::Record;

use super::facts::Asked;
use super::{Facts, Invariant, Seen, ensure};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct IdempotentBegin {
    told: BTreeMap<String, TransactionId>,
}

impl Invariant for IdempotentBegin {
    fn name(&self) -> &'static str {
        "I10"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Appended(_, Record::Begin(begin)) => {
                let Some(key) = &begin.key else { return Ok(()) };
                let begun = facts.keys.get(&*key.key).map_or(0, Vec::len);
                ensure(begun == 1, || format!("{} is transaction {begun} of its key", begin.id))
            }
            Seen::Output(Output::Reply { reply, .. }, Some(Asked::Begin(_, Some(key), _))) => {
                let id = match reply {
                    Reply::Begun { id, .. } => *id,
                    Reply::Outcome(outcome) => outcome.id,
                    _ => return Ok(()),
                };
                let first = *self.told.entry(key.clone()).or_insert(id);
                ensure(first == id, || format!("key {key} is {first} and now {id}"))
            }
            _ => Ok(()),
        }
    }
}
