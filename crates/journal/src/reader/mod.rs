//! Reading what is durable: events, chains, single records.
//!
//! Readers run beside the writer and never change the log. An index page that does not check is
//! built again from its segment; a record that does not check is damage and is said to be.

mod chain;
mod check;
mod ended;
mod fetch;
mod locate;
mod time;

use std::fmt;
use std::sync::Arc;

use handfast_core::ids::Lsn;
use handfast_core::record::Record;

use crate::damage::{Damage, Lost};
use crate::error::Error;
use crate::files::pool::moved;
use crate::index::Damaged;
use crate::layout::names::{self, Kind};
use crate::scan::Window;
use crate::view::Shared;

pub use ended::Ended;

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
    /// Places in sealed segments that cannot be read, as far as somebody has looked. At most 1,000.
    #[must_use]
    pub fn damage(&self) -> Vec<Damage> {
        let there: Vec<u64> = self.shared.read().sealed.iter().map(|s| s.segment()).collect();
        self.shared.damage().of(|segment| there.binary_search(&segment).is_ok())
    }

    /// Notes that a place in a sealed segment cannot be read; other errors, and those of the active
    /// segment, stay what they are.
    fn unreadable(&self, segment: u64, events: Option<Lost>, error: Error) -> Error {
        let sealed = self.shared.read().sealed(segment).is_some();
        match error.corruption().filter(|_| sealed) {
            Some(why) => {
                let damage = Damage { segment, events, why };
                self.shared.damage().note(&damage);
                Error::Unreadable(Box::new(damage))
            }
            None => error,
        }
    }

    /// The same for an error that says itself in which file it is.
    fn unreadable_by_file(&self, error: Error) -> Error {
        let segment = match error.corruption().map(|why| names::kind(&why.file)) {
            Some(Kind::Log(segment) | Kind::Index(segment)) => segment,
            _ => return error,
        };
        self.unreadable(segment, None, error)
    }

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
        let mut moves = 0;
        loop {
            let error = match query() {
                Ok(answer) => return Ok(answer),
                Err(Stop::Error(e)) => e,
                // Built again and damaged again: the disk does not keep what is written.
                Err(Stop::Index(segment)) if last == Some(segment) => {
                    let detail = "the index is damaged again after it was built again";
                    return Err(Error::corrupt(&names::index(segment), 0, detail));
                }
                Err(Stop::Index(segment)) => {
                    last = Some(segment);
                    match self.shared.rebuild_index(segment) {
                        Ok(()) => continue,
                        Err(e) => e,
                    }
                }
            };
            match error {
                // A segment was compacted or removed while it was read: asked again, the view has
                // what there is now. Removed by somebody else it stays missing.
                Error::Io { file, source, .. } if moved(&source) => {
                    moves += 1;
                    if moves > MOVES {
                        return Err(Error::corrupt(&file, 0, "the file is missing"));
                    }
                    drop(self.shared.maintenance());
                }
                other => return Err(other),
            }
        }
    }
}

/// How often a query is asked again because a segment was replaced meanwhile.
const MOVES: u32 = 3;
/// Read ahead this much to walk from a mark to a record.
const WINDOW: usize = 20 << 10;
