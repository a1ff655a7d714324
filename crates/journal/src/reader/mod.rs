//! Reading what is durable: events, chains, single records.
//!
//! Readers run beside the writer and never change the log. An index page that does not check is
//! built again from its segment; a record that does not check is damage and is said to be.

mod chain;
mod fetch;
mod locate;
mod time;

use std::fmt;
use std::sync::Arc;

use handfast_core::ids::Lsn;
use handfast_core::record::Record;

use crate::error::Error;
use crate::index::Damaged;
use crate::layout::names;
use crate::scan::Window;
use crate::view::Shared;

/// Reads from a journal. Clones read the same journal.
#[derive(Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("store", &self.shared.store).finish_non_exhaustive()
    }
}

/// Why reading stopped.
enum Stop {
    Error(Error),
    /// The index of this segment has to be built again.
    Index(u64),
}

impl From<Error> for Stop {
    fn from(e: Error) -> Self {
        Self::Error(e)
    }
}

/// What a damaged index of a segment means to a reader.
fn stop(segment: u64) -> impl FnOnce(Damaged) -> Stop {
    move |damaged| match damaged {
        Damaged::Page => Stop::Index(segment),
        Damaged::Io(e) => Stop::Error(Error::io("read", &names::index(segment))(e)),
    }
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The last record that is durable.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        self.shared.read().durable
    }

    /// One record; none if it is not durable (yet), or gone with its segment or by compaction.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it does not check, [`Error::Io`] if it cannot be read.
    pub fn record(&self, lsn: Lsn) -> Result<Option<Arc<Record>>, Error> {
        self.with_indexes(|| self.load(lsn, &mut Window::new(WINDOW)))
    }

    /// Runs a query again after an index was built again.
    fn with_indexes<T>(&self, mut query: impl FnMut() -> Result<T, Stop>) -> Result<T, Error> {
        let mut last = None;
        loop {
            match query() {
                Ok(answer) => return Ok(answer),
                Err(Stop::Error(e)) => return Err(e),
                // Built again and damaged again: the disk does not keep what is written.
                Err(Stop::Index(segment)) if last == Some(segment) => {
                    let detail = "the index is damaged again after it was built again";
                    return Err(Error::corrupt(&names::index(segment), 0, detail));
                }
                Err(Stop::Index(segment)) => {
                    self.shared.rebuild_index(segment)?;
                    last = Some(segment);
                }
            }
        }
    }
}

/// Read ahead this much to walk from a mark to a record.
const WINDOW: usize = 20 << 10;
