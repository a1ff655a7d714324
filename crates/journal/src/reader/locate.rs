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
use crate::source::Source;

impl Reader {
    pub(super) fn load(&self, lsn: Lsn, window: &mut Window) -> Result<Option<Arc<Record>>, Stop> {
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

    pub(super) fn decode(&self, position: u64, body: Bytes) -> Result<Arc<Record>, Error> {
        let record = codec::decode(body);
        let record = record.map_err(|e| Error::corrupt(&self.name(), position, e.to_string()))?;
        Ok(Arc::new(record))
    }

    /// A record that checks by itself. What was read ahead may be older than the record, so one
    /// that does not check is read again before it is called damaged.
    pub(super) fn checked_at<'w>(
        &self,
        position: u64,
        window: &'w mut Window,
    ) -> Result<(RecordHeader, &'w [u8]), Error> {
        let mut found = self.record_bytes(position, window)?;
        if found.is_none() {
            window.forget();
            found = self.record_bytes(position, window)?;
        }
        let detail = "the checksum of the record does not fit";
        let header = found.ok_or_else(|| Error::corrupt(&self.name(), position, detail))?;
        let whole = self.bytes(position, header.record_bytes(), window)?;
        Ok((header, &whole[RECORD_HEADER..]))
    }

    fn record_bytes(
        &self,
        position: u64,
        window: &mut Window,
    ) -> Result<Option<RecordHeader>, Error> {
        let head = self.bytes(position, RECORD_HEADER, window)?;
        let Some(header) = RecordHeader::decode(head) else { return Ok(None) };
        let whole = self.bytes(position, header.record_bytes(), window)?;
        let body = whole.get(RECORD_HEADER..header.record_bytes());
        Ok(body.filter(|body| header.checks(body, self.seed)).map(|_| header))
    }

    pub(super) fn frame_at(
        &self,
        at: u64,
        window: &mut Window,
    ) -> Result<Option<FrameHeader>, Error> {
        for _ in 0..2 {
            let head = self.bytes(at, HEADER, window)?;
            if let Some(frame) = FrameHeader::decode(head, self.seed, self.segment) {
                return Ok(Some(frame));
            }
            window.forget();
        }
        Ok(None)
    }

    fn bytes<'w>(&self, at: u64, length: usize, window: &'w mut Window) -> Result<&'w [u8], Error> {
        window.bytes(&self.file, at, length).map_err(|e| Error::io("read", &self.name())(e))
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
                let Some(frame) = self.frame_at(at, window)? else {
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
