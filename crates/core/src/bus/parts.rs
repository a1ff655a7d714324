//! Where the events of a topic lie that the log's newest segment holds, in a few parts: so that
//! retention can take some of them before the segment is full. Older ones are in the summaries of
//! their segments.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::ids::Offset;

/// Most parts of a topic. More of them would only make what expires together smaller.
const PARTS: usize = 64;
/// A part takes more events until it is this share of them all.
const SHARE: u64 = 16;
/// What an event counts besides its bytes.
const EVENT_BYTES: u64 = 64;

/// Consecutive events of a topic, which expire together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// One past the last of them.
    pub to: Offset,
    /// How many they are.
    pub events: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The oldest of their times, Unix time in milliseconds.
    pub oldest_ms: u64,
    /// The newest of their times.
    pub newest_ms: u64,
}

/// See the file's head.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    parts: VecDeque<Part>,
    /// What all of them weigh.
    weight: u64,
}

impl Parts {
    /// Adds the next event. A part spans at most `span_ms`, unless there were too many.
    pub(super) fn add(&mut self, offset: Offset, bytes: u64, wall_ms: u64, span_ms: u64) {
        let to = Offset(offset.0 + 1);
        let next = Part { to, events: 1, bytes, oldest_ms: wall_ms, newest_ms: wall_ms };
        self.weight += next.weight();
        let most = self.weight / SHARE;
        if let Some(last) = self.parts.back_mut()
            && last.weight() + next.weight() <= most
            && wall_ms.saturating_sub(last.oldest_ms) <= span_ms
        {
            last.take(&next);
            return;
        }
        self.parts.push_back(next);
        if self.parts.len() > PARTS {
            self.join_smallest();
        }
    }

    /// Events below `start` are gone.
    pub(super) fn forget_below(&mut self, start: Offset) {
        while let Some(first) = self.parts.front().filter(|part| part.to <= start) {
            self.weight -= first.weight();
            self.parts.pop_front();
        }
    }

    /// A new segment begins: all there is is in those before it.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The parts, oldest first.
    pub(super) fn to_vec(&self) -> Vec<Part> {
        self.parts.iter().copied().collect()
    }

    /// Makes one part of the two neighbours that are smallest together.
    fn join_smallest(&mut self) {
        let sum = |i: &usize| self.parts[*i].weight() + self.parts[i + 1].weight();
        let Some(at) = (0..self.parts.len() - 1).min_by_key(sum) else { return };
        if let Some(next) = self.parts.remove(at + 1) {
            self.parts[at].take(&next);
        }
    }
}

impl Part {
    fn weight(&self) -> u64 {
        self.bytes + self.events * EVENT_BYTES
    }

    fn take(&mut self, next: &Self) {
        self.to = next.to;
        self.events += next.events;
        self.bytes += next.bytes;
        self.oldest_ms = self.oldest_ms.min(next.oldest_ms);
        self.newest_ms = self.newest_ms.max(next.newest_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_events_there_are_a_part_is_a_small_share_of_them() {
        for size in [0, 1, 100, 10_000] {
            let mut parts = Parts::default();
            for offset in 0..5_000 {
                parts.add(Offset(offset), size, offset, u64::MAX);
            }
            let all = parts.to_vec();
            assert!(all.len() <= PARTS);
            assert_eq!(all.iter().map(|p| p.bytes).sum::<u64>(), 5_000 * size);
            assert_eq!(all.last().map(|p| p.to), Some(Offset(5_000)));
            let mut from = 0;
            for part in all {
                assert!(part.to.0 - from <= 5_000 / 8, "{from}..{}", part.to);
                assert_eq!((part.oldest_ms, part.newest_ms), (from, part.to.0 - 1));
                from = part.to.0;
            }
        }
    }

    #[test]
    fn a_part_spans_no_more_than_its_time() {
        let mut parts = Parts::default();
        for offset in 0..1_000 {
            parts.add(Offset(offset), 10, offset * 10, 500);
        }
        assert!(parts.to_vec().iter().all(|p| p.newest_ms - p.oldest_ms <= 500));
        parts.forget_below(Offset(990));
        assert!(parts.to_vec().len() < 3);
        parts.forget_below(Offset(1_000));
        assert!(parts.to_vec().is_empty());
    }
}
