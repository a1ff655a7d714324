//! What a subscription has acknowledged: a floor, and ranges above it. Nothing else may decide
//! whether an event still has to be delivered.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::event::OffsetRange;
use crate::ids::Offset;

/// A set of offsets: everything below the floor, and ranges above it that do not touch it or
/// each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// The lowest offset that is not acknowledged.
    floor: Offset,
    /// First offset to first offset after, above the floor.
    ranges: BTreeMap<Offset, Offset>,
}

impl Progress {
    /// Everything below `floor`, and nothing else.
    pub(super) fn below(floor: Offset) -> Self {
        Self { floor, ranges: BTreeMap::new() }
    }

    /// The lowest offset that is not acknowledged.
    pub(super) fn floor(&self) -> Offset {
        self.floor
    }

    /// Whether the offset is acknowledged.
    pub(super) fn contains(&self, offset: Offset) -> bool {
        offset < self.floor
            || self.ranges.range(..=offset).next_back().is_some_and(|(_, to)| offset < *to)
    }

    /// Adds a range; what is in already stays in.
    pub(super) fn acknowledge(&mut self, range: OffsetRange) {
        let mut from = range.from.max(self.floor);
        let mut to = range.to;
        if from >= to {
            return;
        }
        let before = self.ranges.range(..=from).next_back().map(|(f, t)| (*f, *t));
        if let Some((first, after)) = before
            && after >= from
        {
            from = first;
            to = to.max(after);
        }
        while let Some((first, after)) = self.ranges.range(from..=to).next().map(|(f, t)| (*f, *t))
        {
            self.ranges.remove(&first);
            to = to.max(after);
        }
        if from == self.floor {
            self.floor = to;
        } else {
            self.ranges.insert(from, to);
        }
    }

    /// The ranges above the floor, ascending.
    pub(super) fn ranges(&self) -> Vec<OffsetRange> {
        self.ranges.iter().map(|(from, to)| OffsetRange { from: *from, to: *to }).collect()
    }

    /// How many offsets below `end` are missing.
    pub(super) fn missing_below(&self, end: Offset) -> u64 {
        let all = end.0.saturating_sub(self.floor.0);
        let above: u64 = self
            .ranges
            .iter()
            .map(|(from, to)| (*to).min(end).0.saturating_sub(from.0))
            .fold(0, u64::saturating_add);
        all.saturating_sub(above)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    fn range(from: u64, to: u64) -> OffsetRange {
        OffsetRange { from: Offset(from), to: Offset(to) }
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let mut p = Progress::below(Offset(5));
        p.acknowledge(range(7, 9));
        p.acknowledge(range(10, 12));
        assert_eq!(p.ranges(), [range(7, 9), range(10, 12)]);
        p.acknowledge(range(9, 10));
        assert_eq!(p.ranges(), [range(7, 12)]);
        p.acknowledge(range(0, 7));
        assert_eq!((p.floor(), p.ranges()), (Offset(12), Vec::new()));
    }

    #[test]
    fn it_is_a_set_whatever_the_order() {
        let mut state = 7u64;
        let mut roll = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
            (state >> 33) % n
        };
        for _ in 0..200 {
            let mut p = Progress::below(Offset(3));
            let mut model: BTreeSet<u64> = (0..3).collect();
            for _ in 0..30 {
                let from = roll(60);
                let to = from + roll(6);
                p.acknowledge(range(from, to));
                model.extend(from..to);
            }
            for offset in 0..70 {
                assert_eq!(p.contains(Offset(offset)), model.contains(&offset));
            }
            let floor = (0..).find(|o| !model.contains(o)).expect("the set is finite");
            assert_eq!(p.floor(), Offset(floor));
            let missing = (0..50).filter(|o| !model.contains(o)).count() as u64;
            assert_eq!(p.missing_below(Offset(50)), missing);
            let mut again = Progress::below(p.floor());
            for r in p.ranges() {
                again.acknowledge(r);
            }
            assert_eq!(again, p);
        }
    }
}
