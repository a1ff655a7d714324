//! A map by offset for offsets that lie close together, as those of a window do: a tree of chunks
//! instead of a tree of entries, so that neighbours are found without a search and a search is
//! short. It says nothing about what it holds.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, btree_map};

use crate::ids::Offset;

/// Offsets in a chunk: one for each bit of its mask. Few, because events far apart, such as dead
/// letters that are tried again, have a chunk each.
const CHUNK: u64 = u16::BITS as u64;

/// An ordered map from offsets to values. Its memory is that of the chunks with something in them,
/// and one more.
#[derive(Clone, Debug)]
pub(super) struct NearMap<T> {
    chunks: BTreeMap<u64, Chunk<T>>,
    /// Those of the chunk that was the last to become empty.
    spare: Option<Slots<T>>,
}

type Slots<T> = Box<[Option<T>; CHUNK as usize]>;

#[derive(Clone, Debug)]
struct Chunk<T> {
    /// Which slots are taken; never none.
    taken: u16,
    slots: Slots<T>,
}

impl<T> Default for NearMap<T> {
    fn default() -> Self {
        Self { chunks: BTreeMap::new(), spare: None }
    }
}

fn place(offset: Offset) -> (u64, usize) {
    (offset.0 / CHUNK, (offset.0 % CHUNK) as usize)
}

impl<T> NearMap<T> {
    /// The value at an offset.
    pub(super) fn get(&self, offset: Offset) -> Option<&T> {
        let (number, at) = place(offset);
        self.chunks.get(&number)?.slots[at].as_ref()
    }

    /// The value at an offset, to be changed.
    pub(super) fn get_mut(&mut self, offset: Offset) -> Option<&mut T> {
        let (number, at) = place(offset);
        self.chunks.get_mut(&number)?.slots[at].as_mut()
    }

    /// The value at an offset, which is made if there is none.
    pub(super) fn get_or_insert_with(
        &mut self,
        offset: Offset,
        make: impl FnOnce() -> T,
    ) -> &mut T {
        let (number, at) = place(offset);
        let new = || Box::new([const { None }; CHUNK as usize]);
        let spare = &mut self.spare;
        let chunk = self
            .chunks
            .entry(number)
            .or_insert_with(|| Chunk { taken: 0, slots: spare.take().unwrap_or_else(new) });
        chunk.taken |= 1 << at;
        chunk.slots[at].get_or_insert_with(make)
    }

    /// Takes a value out.
    pub(super) fn remove(&mut self, offset: Offset) -> Option<T> {
        self.remove_if(offset, |_| true)
    }

    /// Takes a value out that is such.
    pub(super) fn remove_if(
        &mut self,
        offset: Offset,
        is_such: impl FnOnce(&T) -> bool,
    ) -> Option<T> {
        let (number, at) = place(offset);
        let btree_map::Entry::Occupied(mut chunk) = self.chunks.entry(number) else { return None };
        let value = chunk.get_mut().slots[at].take_if(|value| is_such(value))?;
        chunk.get_mut().taken &= !(1 << at);
        if chunk.get().taken == 0 {
            self.spare = Some(chunk.remove().slots);
        }
        Some(value)
    }

    /// The first offset with a value at or after one.
    pub(super) fn first_from(&self, offset: Offset) -> Option<Offset> {
        let (first, at) = place(offset);
        self.chunks.range(first..).find_map(|(number, chunk)| {
            // Those before it in its own chunk.
            let skipped = if *number == first { (1 << at) - 1 } else { 0 };
            let taken = chunk.taken & !skipped;
            (taken != 0).then(|| Offset(number * CHUNK + u64::from(taken.trailing_zeros())))
        })
    }

    /// All of them, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Offset, &T)> {
        self.chunks.iter().flat_map(|(number, chunk)| {
            let first = number * CHUNK;
            let slots = (0..CHUNK).zip(chunk.slots.iter());
            slots.filter_map(move |(at, slot)| Some((Offset(first + at), slot.as_ref()?)))
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn it_is_an_ordered_map() {
        let mut state = 3u64;
        let mut roll = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
            (state >> 33) % n
        };
        for round in 0..50 {
            let (mut map, mut model) = (NearMap::default(), BTreeMap::new());
            // Close together, far apart, and at the end of what there is.
            let base = [0, 1 << 40, u64::MAX - 400][round % 3];
            for step in 0..600 {
                let offset = Offset(base + roll([70, 400][round % 2]));
                match roll(6) {
                    0 | 1 => {
                        let value = *map.get_or_insert_with(offset, || step);
                        assert_eq!(value, *model.entry(offset).or_insert(step));
                    }
                    2 => assert_eq!(map.remove(offset), model.remove(&offset)),
                    3 => {
                        let removed = map.remove_if(offset, |value| value % 2 == 0);
                        let expected = model.get(&offset).copied().filter(|value| value % 2 == 0);
                        assert_eq!(removed, expected);
                        if removed.is_some() {
                            model.remove(&offset);
                        }
                    }
                    4 => {
                        if let Some(value) = map.get_mut(offset) {
                            *value += 1;
                        }
                        model.entry(offset).and_modify(|value| *value += 1);
                    }
                    _ => assert_eq!(
                        map.first_from(offset),
                        model.range(offset..).next().map(|(offset, _)| *offset)
                    ),
                }
                assert_eq!(map.get(offset), model.get(&offset));
            }
            let all: Vec<_> = map.iter().map(|(offset, value)| (offset, *value)).collect();
            assert_eq!(all, model.clone().into_iter().collect::<Vec<_>>());
            for offset in model.into_keys() {
                assert!(map.remove(offset).is_some());
            }
            assert!(map.chunks.is_empty(), "nothing is left of what is empty");
        }
    }
}
