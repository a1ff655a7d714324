//! I21 rising time: times in the log, in records and in ids, never fall, over restarts and whatever
//! the machine's clock does.
//!
//! Violated by: a record that is appended with a time before one that stands in the log, or with
//! one before the time in its transaction's id.

use handfast_core::ids::{Lsn, TransactionId};
use handfast_core::record::Record;

use super::{Facts, Invariant, Seen, ensure};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct RisingTime {
    newest_ms: u64,
}

impl RisingTime {
    fn appended(&mut self, lsn: Lsn, record: &Record) -> Result<(), String> {
        let Some(wall_ms) = record.wall_ms() else { return Ok(()) };
        let id_ms = record.transaction().map_or(0, TransactionId::unix_ms);
        let newest_ms = self.newest_ms.max(id_ms);
        self.newest_ms = newest_ms.max(wall_ms);
        ensure(wall_ms >= newest_ms, || {
            format!("record {lsn} is of {wall_ms}, and there was a time of {newest_ms}")
        })
    }
}

impl Invariant for RisingTime {
    fn name(&self) -> &'static str {
        "I21"
    }

    fn see(&mut self, facts: &Facts, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Appended(lsn, record) => self.appended(*lsn, record),
            // What was lost with the crash was told to nobody.
            Seen::Crash => {
                self.newest_ms = facts.newest_ms();
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
