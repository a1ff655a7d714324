//! Going through all sealed segments beside the writer, to find damage before somebody needs what
//! is there.

use std::sync::Arc;

use handfast_core::ids::{Offset, TopicId};

use super::Reader;
use crate::damage::Lost;
use crate::error::Error;
use crate::files::pool::moved;
use crate::index::Index;
use crate::scan::{Scan, Window};
use crate::sealed::Sealed;

/// Entries of an index are taken so many at a time.
const BATCH: usize = 256;
/// Neighbouring records are read together.
const READ_AHEAD: usize = 32 << 10;

impl Reader {
    /// Reads every sealed segment that there is now, oldest first, and notes what cannot be read:
    /// [`Reader::damage`]. `pace` is told how many bytes were read, may take its time, and says
    /// whether to go on.
    ///
    /// # Errors
    /// [`Error::Io`] where files cannot be opened for want of descriptors; what was found so far is
    /// noted.
    pub fn check(&self, pace: &mut dyn FnMut(u64) -> bool) -> Result<(), Error> {
        let segments: Vec<u64> = self.shared.read().sealed.iter().map(|s| s.segment()).collect();
        for segment in segments {
            // Removed meanwhile.
            let Some(sealed) = self.shared.read().sealed(segment).cloned() else { continue };
            match scan(&sealed, pace) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                // Replaced meanwhile by what was read when it was written. Or it is gone, and whoever
                // wants to read there says so.
                Err(Error::Io { source, .. }) if moved(&source) => {}
                Err(error) => match self.unreadable(segment, None, error) {
                    Error::Unreadable(damage) => {
                        let whole = Error::Corrupt(damage.why);
                        self.find_events(&sealed, &whole, pace);
                    }
                    other => return Err(other),
                },
            }
        }
        Ok(())
    }

    /// Notes which events of a damaged segment cannot be read.
    fn find_events(&self, sealed: &Sealed, whole: &Error, pace: &mut dyn FnMut(u64) -> bool) {
        for topic in &sealed.summary.topics {
            let end = Offset(topic.last.0 + 1);
            let mut window = Window::new(READ_AHEAD);
            let mut at = 0;
            let mut lost: Option<(Offset, Error)> = None;
            while let Ok(entries) = sealed.entries(topic.topic, at, BATCH)
                && !entries.is_empty()
            {
                at += entries.len();
                for entry in entries {
                    let read = sealed.source.record_at(entry.position, entry.lsn, &mut window);
                    match (read, lost.take()) {
                        (Ok(_), None) => {}
                        (Ok(_), Some((from, why))) => {
                            self.note_lost(sealed, topic.topic, (from, entry.first), why);
                        }
                        (Err(why), None) => lost = Some((entry.first, why)),
                        (Err(_), before) => lost = before,
                    }
                }
                if !pace(READ_AHEAD as u64) {
                    break;
                }
            }
            if let Some((from, why)) = lost {
                self.note_lost(sealed, topic.topic, (from, end), why);
            } else if at == 0
                && let Error::Corrupt(why) = whole
            {
                // Without its index nobody knows which.
                let why = Error::Corrupt(why.clone());
                self.note_lost(sealed, topic.topic, (topic.first, end), why);
            }
        }
    }

    fn note_lost(&self, sealed: &Sealed, topic: TopicId, (from, to): (Offset, Offset), why: Error) {
        let _ = self.unreadable(sealed.segment(), Some(Lost { topic, from, to }), why);
    }
}

/// Reads a whole segment; says whether to go on. Whatever does not check is damage.
fn scan(sealed: &Arc<Sealed>, pace: &mut dyn FnMut(u64) -> bool) -> Result<bool, Error> {
    let mut scan = Scan::new(sealed.source.file.clone(), sealed.header.clone())?;
    loop {
        let before = scan.at;
        match scan.next()? {
            Ok(frame) => scan.check_records(&frame)?,
            Err(_) if scan.at == sealed.tail.end => return Ok(true),
            Err(why) => return Err(scan.corrupt(scan.at, why)),
        }
        if !pace(scan.at - before) {
            return Ok(false);
        }
    }
}
