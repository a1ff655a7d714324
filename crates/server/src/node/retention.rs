//! Housekeeping: which events may expire, which segments nobody needs any more, and which are
//! mostly dead.
//!
//! It only proposes. Whether events go is the core's decision, and a segment's removal is a record
//! that is durable before the file goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use handfast_core::Core;
use handfast_core::ids::{Lsn, Now, Offset};
use handfast_core::input::Input;
use handfast_journal::SegmentSummary;

use super::needs::Needs;
use super::writer::Segments;

/// How often it looks, in milliseconds.
const PAUSE_MS: u64 = 1_000;
/// Smaller segments are not worth rewriting.
const WORTHWHILE_BYTES: u64 = 4 << 20;

/// What did not fit is tried again when there is so much more room.
const MORE_ROOM: u64 = 256 << 10;

/// What is known of sealed segments, and what is being done about them.
#[derive(Debug)]
pub(crate) struct Retention {
    segments: Segments,
    key_age_ms: u64,
    next_ms: u64,
    durable: Lsn,
    /// The segment whose removal is in the log, and where.
    removing: Option<(u64, Lsn)>,
    /// Its file is being removed.
    is_removing: bool,
    /// Segments that were compacted: not again before it is worth it.
    compacted: BTreeMap<u64, Tried>,
}

/// A segment was rewritten, or was to be.
#[derive(Clone, Copy, Debug)]
struct Tried {
    /// Bytes of it that were needed then.
    live: u64,
    /// It did not fit into so many bytes, which were all that the disk had left.
    without_room: Option<u64>,
}

impl Tried {
    /// It is worth it now, when so many bytes are needed and so many are left.
    fn is_over(&self, live: u64, left: u64) -> bool {
        match self.without_room {
            Some(had) => left >= had.saturating_add(MORE_ROOM),
            None => live < self.live && live <= self.live / 2,
        }
    }
}

impl Retention {
    pub(crate) fn new(segments: Segments, key_age_ms: u64) -> Self {
        Self {
            segments,
            key_age_ms,
            next_ms: 0,
            durable: Lsn(0),
            removing: None,
            is_removing: false,
            compacted: BTreeMap::new(),
        }
    }

    /// The journal has other segments now.
    pub(crate) fn changed(&mut self, segments: Segments) {
        self.segments = segments;
        self.next_ms = 0;
        if self.is_removing && !self.segments.numbers.contains(&self.removing.map_or(0, |r| r.0)) {
            self.removing = None;
            self.is_removing = false;
        }
    }

    /// Numbers of the segments that exist as far as the log says: those whose removal is in it are
    /// gone, whether the file is or not.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        let removing = self.removing.map(|(segment, _)| segment);
        self.segments.numbers.iter().copied().filter(|n| Some(*n) != removing).collect()
    }

    /// How many segments there are.
    pub(crate) fn count(&self) -> usize {
        self.segments.numbers.len()
    }

    /// The log is durable up to here.
    pub(crate) fn durable(&mut self, through: Lsn) {
        self.durable = through;
    }

    /// When it wants to look again, on the monotonic clock.
    pub(crate) fn next_ms(&self) -> u64 {
        self.next_ms
    }

    /// It is time to look.
    pub(crate) fn is_due(&mut self, now: Now) -> bool {
        let due = now.mono_ms >= self.next_ms;
        if due {
            self.next_ms = now.mono_ms + PAUSE_MS;
        }
        due
    }

    /// What may expire by age or size: what a sealed segment has of a topic at a time, and in the
    /// active one the parts that the core knows.
    pub(crate) fn expired(&self, now: Now, core: &Core) -> Vec<Input> {
        let mut inputs = Vec::new();
        for topic in core.topics() {
            let settings = &topic.settings;
            if settings.retain_ms.is_none() && settings.retain_bytes.is_none() {
                continue;
            }
            let (mut to, mut bytes) = (topic.start, 0);
            let sealed = self.segments.sealed.iter().filter_map(|s| s.topic(topic.topic));
            let sealed = sealed.map(|s| (Offset(s.last.0 + 1), s.bytes, s.newest_ms));
            let newest = topic.parts.iter().map(|p| (p.to, p.bytes, p.newest_ms));
            let held = topic.bytes.saturating_add(topic.wanted);
            for (end, size, newest_ms) in sealed.chain(newest) {
                if end <= to {
                    continue;
                }
                let old = |age: u64| newest_ms < core.older_than(now, age);
                let over = |most: u64| held.saturating_sub(bytes) > most;
                if !settings.retain_ms.is_some_and(old) && !settings.retain_bytes.is_some_and(over)
                {
                    break;
                }
                to = end;
                bytes += size;
            }
            if to > topic.start {
                inputs.push(Input::Expire { topic: topic.topic, to, bytes });
            }
        }
        inputs
    }

    /// The oldest segment that holds nothing anybody needs.
    pub(crate) fn removable(&self, core: &Core, now: Now) -> Option<u64> {
        if self.removing.is_some() || self.segments.sealed.is_empty() {
            return None;
        }
        let needs = Needs::of(core, now, self.key_age_ms);
        let free = |s: &&Arc<SegmentSummary>| {
            needs.none_of(s) && {
                let mut referring =
                    self.segments.sealed.iter().filter_map(|o| o.reference(s.segment));
                !referring.any(|reference| needs.reference(reference))
            }
        };
        self.segments.sealed.iter().find(free).map(|s| s.segment)
    }

    /// A segment of which little is needed, and what is: worth rewriting without the rest, on a disk
    /// that has so many bytes left.
    pub(crate) fn compactable(&mut self, core: &Core, now: Now, left: u64) -> Option<(u64, Needs)> {
        let needs = Needs::of(core, now, self.key_age_ms);
        let removing = self.removing.map(|(segment, _)| segment);
        let segment = self.segments.sealed.iter().find(|s| {
            let live = needs.live_bytes(s);
            let tried = self.compacted.get(&s.segment);
            s.bytes >= WORTHWHILE_BYTES
                && live < s.bytes / 4
                && tried.is_none_or(|tried| tried.is_over(live, left))
                && removing != Some(s.segment)
                && !needs.outcomes_of(s)
        })?;
        let number = segment.segment;
        let live = needs.live_bytes(segment);
        self.compacted.insert(number, Tried { live, without_room: None });
        Some((number, needs))
    }

    /// It was not rewritten, for want of room: so many bytes are left.
    pub(crate) fn not_compacted(&mut self, segment: u64, left: u64) {
        if let Some(tried) = self.compacted.get_mut(&segment) {
            tried.without_room = Some(left);
        }
    }

    /// The removal of a segment is at this place in the log.
    pub(crate) fn removing(&mut self, segment: u64, lsn: Lsn) {
        self.removing = Some((segment, lsn));
    }

    /// The segment whose removal has become durable: its file may go.
    pub(crate) fn removed(&mut self) -> Option<u64> {
        let (segment, lsn) = self.removing?;
        if lsn > self.durable || self.is_removing {
            return None;
        }
        self.is_removing = true;
        Some(segment)
    }
}
