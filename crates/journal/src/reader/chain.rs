//! The records of one transaction, found by its id.
//!
//! "None" is answered as whole only if no segment that could have held one is gone: a transaction
//! is never presumed aborted because its records were removed.

use handfast_core::ids::{Lsn, TransactionId};
use handfast_core::input::Chain;
use handfast_core::record::Record;

use super::{Reader, Stop, WINDOW, stop};
use crate::error::Error;
use crate::index::Index;
use crate::scan::Window;

impl Reader {
    /// What the log holds about a transaction: BEGIN, the decision and END, as far as they were
    /// written and are durable.
    ///
    /// # Errors
    /// [`Error::Unreadable`] if it is in a damaged place of a sealed segment, [`Error::Corrupt`] or
    /// [`Error::Io`] if the active segment cannot be read.
    pub fn chain(&self, id: TransactionId) -> Result<Chain, Error> {
        let found = self.with_indexes(|| match self.last_of(id)? {
            Some(last) => self.follow(id, last),
            None => {
                let removed_ms = self.shared.read().removed_ms;
                let whole = removed_ms.is_none_or(|removed_ms| id.unix_ms() > removed_ms);
                Ok(Chain { records: Vec::new(), whole })
            }
        });
        found.map_err(|error| self.unreadable_by_file(error))
    }

    /// The last record of a transaction. One that is open has a record in the active segment, or
    /// is restated there; one that ended is in the index of the segment with its END.
    fn last_of(&self, id: TransactionId) -> Result<Option<Lsn>, Stop> {
        let sealed = {
            let view = self.shared.read();
            let segment = view.active.source.segment;
            if let Some(last) = view.active.index.last_of(id).map_err(stop(segment))? {
                return Ok(Some(last));
            }
            let id_ms = id.unix_ms();
            let may_hold = view.sealed.iter().rev().filter(|s| {
                s.summary.ended_ids_ms.is_some_and(|(low, high)| (low..=high).contains(&id_ms))
            });
            may_hold.cloned().collect::<Vec<_>>()
        };
        for sealed in sealed {
            if let Some(last) = sealed.last_of(id).map_err(stop(sealed.segment()))? {
                return Ok(Some(last));
            }
        }
        Ok(None)
    }

    fn follow(&self, id: TransactionId, last: Lsn) -> Result<Chain, Stop> {
        let mut window = Window::new(WINDOW);
        let mut records = Vec::new();
        let mut lsn = last;
        let mut whole = false;
        while let Some(record) = self.load(lsn, &mut window)? {
            let previous = match &*record {
                Record::Begin(_) => Lsn(0),
                Record::Commit(r) => r.previous,
                Record::Abort(r) => r.previous,
                Record::Operated(r) => r.previous,
                Record::End(r) => r.previous,
                _ => return Err(astray(id, lsn).into()),
            };
            if record.transaction() != Some(id) || previous >= lsn {
                return Err(astray(id, lsn).into());
            }
            records.push((lsn, Record::clone(&record)));
            if previous == Lsn(0) {
                whole = true;
                break;
            }
            lsn = previous;
        }
        records.reverse();
        Ok(Chain { records, whole })
    }
}

fn astray(id: TransactionId, lsn: Lsn) -> Error {
    Error::corrupt("the chain", lsn.0, format!("record {lsn} is not part of transaction {id}"))
}
