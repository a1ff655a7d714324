//! The newest durable records, kept in memory so that reading what was just written copies
//! nothing. Bounded by bytes; what is not here is read from the segments.

use std::collections::VecDeque;
use std::sync::Arc;

use handfast_core::ids::Lsn;
use handfast_core::record::Record;

#[derive(Debug)]
pub(crate) struct Recent {
    records: VecDeque<(Arc<Record>, u32)>,
    /// LSN of the front.
    first: Lsn,
    bytes: usize,
    limit: usize,
}

impl Recent {
    pub(crate) fn new(next: Lsn, limit: usize) -> Self {
        Self { records: VecDeque::new(), first: next, bytes: 0, limit }
    }

    /// Adds the next record; `length` is what it takes in the log.
    pub(crate) fn push(&mut self, record: Arc<Record>, length: u32) {
        self.records.push_back((record, length));
        self.bytes += length as usize;
        while self.bytes > self.limit
            && let Some((_, length)) = self.records.pop_front()
        {
            self.bytes -= length as usize;
            self.first.0 += 1;
        }
    }

    pub(crate) fn record(&self, lsn: Lsn) -> Option<Arc<Record>> {
        let at = lsn.0.checked_sub(self.first.0)?;
        self.records.get(usize::try_from(at).ok()?).map(|(record, _)| record.clone())
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_leave_first() {
        let mut recent = Recent::new(Lsn(5), 10);
        for _ in 0..4 {
            recent.push(Arc::new(Record::CheckpointEnd), 4);
        }
        assert_eq!(recent.len(), 2);
        assert!(recent.record(Lsn(6)).is_none());
        assert!(recent.record(Lsn(7)).is_some());
        assert!(recent.record(Lsn(8)).is_some());
        assert!(recent.record(Lsn(9)).is_none());
        recent.push(Arc::new(Record::CheckpointEnd), 99);
        assert_eq!(recent.len(), 0);
        recent.push(Arc::new(Record::CheckpointEnd), 1);
        assert!(recent.record(Lsn(10)).is_some());
    }
}
