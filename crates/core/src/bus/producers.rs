//! What is remembered of producers, so that a batch that is sent twice is published once, and so
//! that a number stands for one batch only.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use hashbrown::HashMap;

use crate::ids::{Digest, Lsn, ProducerId};
use crate::limits::{Limits, PRODUCER_BATCHES, REMEMBERED_BATCHES};
use crate::record::{ProducerRestated, Published};

/// Batches that are remembered of every producer, however much is remembered of others.
const LEAST: usize = 16;

/// One producer.
#[derive(Clone, Debug, Default)]
struct Producer {
    /// Which of the numbers below this were used, and for what, is not known any more.
    floor: u64,
    /// Accepted batches from there on, ascending by number.
    batches: VecDeque<(u64, Digest)>,
    /// Unix time in milliseconds of its last accepted batch.
    wall_ms: u64,
    /// When it is forgotten; none: it was only seen in the log so far.
    forget_ms: Option<u64>,
}

/// All producers.
#[derive(Clone, Debug, Default)]
pub(super) struct Producers {
    known: BTreeMap<ProducerId, Producer>,
    /// Batches that are remembered, of all of them.
    batches: usize,
    /// When to forget whom.
    idle: BTreeSet<(u64, ProducerId)>,
    /// Seen in the log only: their time starts with the first tick.
    unseen: Vec<ProducerId>,
    /// Batches that are not durable yet. Only looked up.
    under_way: HashMap<(ProducerId, u64), (Lsn, Digest)>,
}

/// What is known of a batch's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is free.
    New,
    /// This very batch was published by this record; zero: durable.
    Same(Lsn),
    /// Another batch was published under it.
    Other,
    /// It is below all that are remembered: nobody knows what it stands for.
    Forgotten,
}

impl Producers {
    /// What a number stands for.
    pub(super) fn seen(&self, producer: ProducerId, sequence: u64, digest: Digest) -> Seen {
        let is = |lsn, known| if known == digest { Seen::Same(lsn) } else { Seen::Other };
        if let Some((lsn, known)) = self.under_way.get(&(producer, sequence)) {
            return is(*lsn, *known);
        }
        match self.known.get(&producer).map(|p| (p.find(sequence), sequence < p.floor)) {
            Some((Some(known), _)) => is(Lsn(0), known),
            Some((None, true)) => Seen::Forgotten,
            Some((None, false)) | None => Seen::New,
        }
    }

    /// Whether a batch of this producer can be remembered.
    pub(super) fn has_room_for(&self, producer: ProducerId, limits: &Limits) -> bool {
        self.known.len() < limits.producers || self.known.contains_key(&producer)
    }

    /// A batch was appended.
    pub(super) fn appended(
        &mut self,
        (producer, sequence): (ProducerId, u64),
        digest: Digest,
        lsn: Lsn,
        forget_ms: u64,
    ) {
        self.under_way.insert((producer, sequence), (lsn, digest));
        let known = self.known.entry(producer).or_default();
        if let Some(before) = known.forget_ms.replace(forget_ms) {
            self.idle.remove(&(before, producer));
        }
        self.idle.insert((forget_ms, producer));
    }

    /// The fold.
    pub(super) fn apply(&mut self, published: &Published) {
        self.add(published.producer, published.sequence, published.digest);
        self.entry(published.producer).wall_ms = published.wall_ms;
    }

    /// The fold, of a checkpoint.
    pub(super) fn apply_restated(&mut self, restated: &ProducerRestated) {
        for (sequence, digest) in &restated.batches {
            self.add(restated.producer, *sequence, *digest);
        }
        let producer = self.entry(restated.producer);
        producer.wall_ms = producer.wall_ms.max(restated.wall_ms);
        producer.floor = producer.floor.max(restated.floor);
    }

    /// A batch is durable.
    pub(super) fn durable(&mut self, published: &Published) {
        self.under_way.remove(&(published.producer, published.sequence));
    }

    /// Forgets who has not published for long enough.
    pub(super) fn tick(&mut self, now_ms: u64, limits: &Limits) {
        self.see(now_ms, limits);
        while let Some((forget_ms, producer)) = self.idle.first().copied()
            && forget_ms <= now_ms
        {
            self.idle.remove(&(forget_ms, producer));
            self.forget(producer);
        }
    }

    /// When [`Producers::tick`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        if self.unseen.is_empty() { self.idle.first().map(|(ms, _)| *ms) } else { Some(0) }
    }

    /// The checkpoint's part.
    pub(super) fn restate(&self) -> Vec<ProducerRestated> {
        let known = self.known.iter().filter(|(_, p)| !p.batches.is_empty());
        let restated = known.map(|(producer, p)| ProducerRestated {
            producer: *producer,
            floor: p.floor,
            batches: p.batches.iter().copied().collect(),
            wall_ms: p.wall_ms,
        });
        restated.collect()
    }

    /// Starts the time of those that were found in the log. It starts anew: how long the server
    /// was away is not known on any clock that can be trusted.
    fn see(&mut self, now_ms: u64, limits: &Limits) {
        let mut unseen = core::mem::take(&mut self.unseen);
        unseen.retain(|id| self.known.get(id).is_some_and(|p| p.forget_ms.is_none()));
        unseen.sort_unstable_by_key(|id| (self.known.get(id).map_or(0, |p| p.wall_ms), *id));
        let over = self.known.len().saturating_sub(limits.producers).min(unseen.len());
        for producer in unseen.drain(..over) {
            self.forget(producer);
        }
        let forget_ms = now_ms.saturating_add(limits.dedup_ms);
        for id in unseen {
            if let Some(producer) = self.known.get_mut(&id) {
                producer.forget_ms = Some(forget_ms);
                self.idle.insert((forget_ms, id));
            }
        }
    }

    fn entry(&mut self, id: ProducerId) -> &mut Producer {
        self.known.entry(id).or_insert_with(|| {
            self.unseen.push(id);
            Producer::default()
        })
    }

    /// Remembers a batch. When there are too many the producer's own lowest number goes, so that
    /// nobody who publishes much takes the memory of others.
    fn add(&mut self, id: ProducerId, sequence: u64, digest: Digest) {
        let room = self.batches < REMEMBERED_BATCHES;
        let producer = self.entry(id);
        let before = producer.batches.len();
        producer.add(sequence, digest);
        let most = if room { PRODUCER_BATCHES } else { before.clamp(LEAST, PRODUCER_BATCHES) };
        producer.keep(most);
        let after = producer.batches.len();
        self.batches = self.batches + after - before;
    }

    fn forget(&mut self, id: ProducerId) {
        if let Some(producer) = self.known.remove(&id) {
            self.batches -= producer.batches.len();
        }
    }
}

impl Producer {
    /// What was published under a number.
    fn find(&self, sequence: u64) -> Option<Digest> {
        let at = self.batches.binary_search_by_key(&sequence, |(number, _)| *number).ok()?;
        Some(self.batches[at].1)
    }

    /// Numbers mostly rise, so its place is found from the end. What a number stands for never
    /// changes.
    fn add(&mut self, sequence: u64, digest: Digest) {
        let higher = self.batches.iter().rev().take_while(|(number, _)| *number > sequence).count();
        let at = self.batches.len() - higher;
        let known = at.checked_sub(1).is_some_and(|before| self.batches[before].0 == sequence);
        if !known && sequence >= self.floor {
            self.batches.insert(at, (sequence, digest));
        }
    }

    /// Forgets the lowest numbers beyond so many batches.
    fn keep(&mut self, most: usize) {
        while self.batches.len() > most {
            if let Some((sequence, _)) = self.batches.pop_front() {
                self.floor = sequence.saturating_add(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(producer: u128, sequence: u64) -> Published {
        Published {
            producer: ProducerId(producer),
            sequence,
            digest: Digest(sequence * 3),
            wall_ms: 0,
            events: Vec::new(),
        }
    }

    #[test]
    fn a_number_stands_for_what_it_was_used_for() {
        let mut all = Producers::default();
        for n in [5, 7, 6, 1, 9, u64::MAX / 3] {
            all.apply(&published(1, n));
        }
        let seen = |sequence, digest| all.seen(ProducerId(1), sequence, Digest(digest));
        for n in [1, 5, 6, 7, 9, u64::MAX / 3] {
            assert_eq!((seen(n, n * 3), seen(n, 2)), (Seen::Same(Lsn(0)), Seen::Other));
        }
        // A gap is free, and so is what no higher number has pushed out.
        for n in [0, 2, 4, 8, 10] {
            assert_eq!(seen(n, n * 3), Seen::New);
        }
        assert_eq!(all.seen(ProducerId(2), 5, Digest(15)), Seen::New);
        assert_eq!(all.batches, 6);
    }

    /// More than are remembered: the lowest numbers are refused from then on, used or not, because
    /// "not known" is neither "published" nor "free".
    #[test]
    fn the_lowest_numbers_are_forgotten_and_never_free_again() {
        let mut all = Producers::default();
        for n in 0..PRODUCER_BATCHES as u64 + 10 {
            all.apply(&published(1, 2 * n));
        }
        let seen = |sequence: u64| all.seen(ProducerId(1), sequence, Digest(sequence * 3));
        assert_eq!(
            (seen(0), seen(1), seen(18)),
            (Seen::Forgotten, Seen::Forgotten, Seen::Forgotten)
        );
        assert_eq!((seen(20), seen(21)), (Seen::Same(Lsn(0)), Seen::New));
        assert_eq!(all.batches, PRODUCER_BATCHES);
        // A checkpoint says the same.
        let mut again = Producers::default();
        again.apply_restated(&all.restate()[0]);
        assert_eq!(again.restate(), all.restate());
        assert_eq!(again.batches, all.batches);
        let seen = |sequence: u64| again.seen(ProducerId(1), sequence, Digest(sequence * 3));
        assert_eq!(
            (seen(17), seen(18), seen(20)),
            (Seen::Forgotten, Seen::Forgotten, Seen::Same(Lsn(0)))
        );
    }

    #[test]
    fn all_together_are_bounded_and_each_keeps_a_few() {
        let mut all = Producers::default();
        let full = REMEMBERED_BATCHES / PRODUCER_BATCHES;
        for producer in 0..full as u128 {
            for n in 0..PRODUCER_BATCHES as u64 {
                all.apply(&published(producer, n));
            }
        }
        assert_eq!(all.batches, REMEMBERED_BATCHES);
        let late = full as u128;
        for n in 0..1_000 {
            all.apply(&published(late, n));
            all.apply(&published(0, PRODUCER_BATCHES as u64 + n));
        }
        assert_eq!(all.batches, REMEMBERED_BATCHES + LEAST);
        assert_eq!(all.known[&ProducerId(late)].batches.len(), LEAST);
        all.forget(ProducerId(1));
        for n in 1_000..2_000 {
            all.apply(&published(late, n));
        }
        assert_eq!(all.known[&ProducerId(late)].batches.len(), LEAST + 1_000);
        let counted: usize = all.known.values().map(|p| p.batches.len()).sum();
        assert_eq!(all.batches, counted);
    }
}
