//! From an LSN or a position to a record that checks.

use std::sync::Arc;

use bytes::Bytes;
use handfast_core::ids::Lsn;
use handfast_core::record::Record;

use super::{Reader, Stop, stop};
use crate::codec;
use crate::error::Error;
use crate::index::{Index, Mark};
use crate::layout::frame::{FrameHeader, HEADER, RECORD_HEADER, RecordHeader, aligned};
use crate::scan::Window;
use crate::sealed;
use crate::view::Source;

impl Reader {
    pub(super) fn load(
        &self,
        lsn: Lsn,
        window: &mut Window,
    ) -> Result<Option<Arc<Record>>, Stop> {
        let (source, mark) = {
            let view = self.shared.read();
            if lsn > view.durable {
                return Ok(None);
            }
            if let Some(record) = view.recent.record(lsn) {
                return Ok(Some(record));
            }
            if lsn >= view.active.header.first {
                let segment = view.active.source.segment;
                let mark = view.active.index.mark(lsn).map_err(stop(segment))?;
                (view.active.source.clone(), mark)
            } else {
                let Some(sealed) = sealed::find(&view.sealed, lsn).cloned() else {
                    return Ok(None);
                };
                drop(view);
                let mark = sealed.mark(lsn).map_err(stop(sealed.segment()))?;
                (sealed.source.clone(), mark)
            }
        };
        let found = match mark {
            Some(mark) => source.walk(mark, lsn, window)?,
            None => None,
        };
        if found.is_none() && !source.compacted {
            let at = mark.map_or(0, |m| m.position);
            let detail = format!("record {lsn} is not where it should be");
            return Err(Error::corrupt(&source.name(), at, detail).into());
        }
        Ok(found)
    }
}

impl Source {
    /// The record at a position, which must be the one with this LSN.
    pub(crate) fn record_at(
        &self,
        position: u64,
        lsn: Lsn,
        window: &mut Window,
    ) -> Result<Arc<Record>, Error> {
        let (header, body) = self.checked_at(position, window)?;
        if header.lsn != lsn {
            let detail = format!("record {} is where record {lsn} should be", header.lsn);
            return Err(Error::corrupt(&self.name(), position, detail));
        }
        self.decode(position, Bytes::copy_from_slice(body))
    }

    fn decode(&self, position: u64, body: Bytes) -> Result<Arc<Record>, Error> {
        let record = codec::decode(body);
        let record =
            record.map_err(|e| Error::corrupt(&self.name(), position, e.to_string()))?;
        Ok(Arc::new(record))
    }

    fn checked_at<'w>(
        &self,
        position: u64,
        window: &'w mut Window,
    ) -> Result<(RecordHeader, &'w [u8]), Error> {
        let wrong =
            || Error::corrupt(&self.name(), position, "the checksum of the record does not fit");
        let head = window.bytes(&*self.file, position, RECORD_HEADER);
        let head = head.map_err(Error::io("read", &self.name()))?;
        let header = RecordHeader::decode(head).ok_or_else(wrong)?;
        let whole = window.bytes(&*self.file, position, header.record_bytes());
        let whole = whole.map_err(Error::io("read", &self.name()))?;
        let body = whole.get(RECORD_HEADER..header.record_bytes()).ok_or_else(wrong)?;
        if header.checks(body, self.seed) { Ok((header, body)) } else { Err(wrong()) }
    }

    /// Reads on from a mark. Every record that is passed is verified, so that damage is never
    /// taken for absence.
    fn walk(
        &self,
        mark: Mark,
        lsn: Lsn,
        window: &mut Window,
    ) -> Result<Option<Arc<Record>>, Error> {
        let (mut at, mut area_end) = (mark.position, mark.area_end);
        loop {
            if at >= area_end {
                at = aligned(at);
                let head = window.bytes(&*self.file, at, HEADER);
                let head = head.map_err(Error::io("read", &self.name()))?;
                let Some(frame) = FrameHeader::decode(head, self.seed, self.segment) else {
                    // The end of the segment; or damage, which the caller sees by what is missing.
                    return Ok(None);
                };
                at += HEADER as u64;
                area_end = at + u64::from(frame.length);
            }
            let (header, body) = self.checked_at(at, window)?;
            if header.lsn == lsn {
                let body = Bytes::copy_from_slice(body);
                return self.decode(at, body).map(Some);
            }
            if header.lsn > lsn {
                return Ok(None);
            }
            at += header.record_bytes() as u64;
        }
    }
}
