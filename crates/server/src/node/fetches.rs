//! What is read for subscribers: not more at a time than there is room for until they read it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use handfast_core::output::Fetch;

use super::unread::AllUnread;

/// So many bytes may be read at once for a session however little room there is.
const LEAST_BYTES: u32 = 64 << 10;
/// How soon it is looked again whether there is room.
pub(crate) const PAUSE_MS: u64 = 20;

/// See the module. The core has one fetch at a time for each subscription, which bounds the queue.
#[derive(Debug)]
pub(crate) struct Fetches {
    all_unread: Arc<AllUnread>,
    waiting: VecDeque<Fetch>,
    /// What readers have, with the bytes that they may find.
    under_way: HashMap<u64, usize>,
    bytes: usize,
}

impl Fetches {
    pub(crate) fn new(all_unread: &Arc<AllUnread>) -> Self {
        Self {
            all_unread: Arc::clone(all_unread),
            waiting: VecDeque::new(),
            under_way: HashMap::new(),
            bytes: 0,
        }
    }

    pub(crate) fn push(&mut self, fetch: Fetch) {
        self.waiting.push_back(fetch);
    }

    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The next one, if there is room for what it finds.
    pub(crate) fn next(&mut self) -> Option<Fetch> {
        let first = self.waiting.front()?;
        let max_bytes = first.max_bytes.min(self.all_unread.most_at_once().max(LEAST_BYTES));
        let bytes = max_bytes as usize;
        if !self.all_unread.has_room_for(self.bytes, bytes) {
            return None;
        }
        let fetch = Fetch { max_bytes, ..self.waiting.pop_front()? };
        self.under_way.insert(fetch.fetch, bytes);
        self.bytes += bytes;
        Some(fetch)
    }

    /// The readers have found what was to be read.
    pub(crate) fn done(&mut self, fetch: u64) {
        self.bytes -= self.under_way.remove(&fetch).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use handfast_core::ids::{Offset, TopicId};
    use handfast_core::output::Wanted;

    use super::*;
    use crate::node::Queues;
    use crate::node::unread::Unread;

    fn fetch(fetch: u64) -> Fetch {
        let wanted = Wanted::Range { from: Offset(0), to: Offset(9), max_events: 9 };
        Fetch { fetch, topic: TopicId(1), wanted, max_bytes: 1 << 20 }
    }

    #[test]
    fn no_more_is_read_than_there_is_room_for() {
        let queues = Queues { all_unread_bytes: 4 << 20, ..Queues::default() };
        let all = Arc::new(AllUnread::new(&queues));
        let mut fetches = Fetches::new(&all);
        (0..100).for_each(|number| fetches.push(fetch(number)));
        let mut under_way = Vec::new();
        while let Some(fetch) = fetches.next() {
            under_way.push(fetch);
        }
        let bytes: usize = under_way.iter().map(|fetch| fetch.max_bytes as usize).sum();
        assert!(bytes <= 4 << 20 && !under_way.is_empty(), "{bytes} bytes");
        let stuck = Unread::new(&all);
        stuck.sent(1, 5 << 20);
        under_way.iter().for_each(|fetch| fetches.done(fetch.fetch));
        assert!(fetches.next().is_none() && fetches.is_waiting(), "somebody has not read");
        drop(stuck);
        assert!(fetches.next().is_some(), "he is gone");
    }
}
