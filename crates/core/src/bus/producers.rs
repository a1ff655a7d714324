//! What is remembered of producers, so that a batch that is sent twice is published once.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use hashbrown::HashMap;

use crate::ids::{Lsn, ProducerId};
use crate::limits::Limits;
use crate::record::{ProducerRestated, Published};

/// Most runs of sequence numbers that are kept of one producer. Only refused batches make runs.
const RUNS: usize = 1_024;

/// One producer.
#[derive(Clone, Debug, Default)]
struct Producer {
    /// First and last number of each run of accepted batches, ascending.
    runs: Vec<(u64, u64)>,
    /// Unix time in milliseconds of its last accepted batch.
    wall_ms: u64,
    /// When it is forgotten; none: it was only seen in the log so far.
    forget_ms: Option<u64>,
}

/// All producers.
#[derive(Clone, Debug, Default)]
pub(super) struct Producers {
    known: BTreeMap<ProducerId, Producer>,
    /// When to forget whom.
    idle: BTreeSet<(u64, ProducerId)>,
    /// Seen in the log only: their time starts with the first tick.
    unseen: Vec<ProducerId>,
    /// Batches that are not durable yet. Only looked up.
    under_way: HashMap<(ProducerId, u64), Lsn>,
}

/// What is known of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is new.
    New,
    /// It was published by this record; zero: durable.
    At(Lsn),
}

impl Producers {
    /// Whether a batch was published before.
    pub(super) fn seen(&self, producer: ProducerId, sequence: u64) -> Seen {
        if let Some(lsn) = self.under_way.get(&(producer, sequence)) {
            return Seen::At(*lsn);
        }
        let known = self.known.get(&producer).is_some_and(|p| p.contains(sequence));
        if known { Seen::At(Lsn(0)) } else { Seen::New }
    }

    /// Whether a batch of this producer can be remembered.
    pub(super) fn has_room_for(&self, producer: ProducerId, limits: &Limits) -> bool {
        self.known.len() < limits.producers || self.known.contains_key(&producer)
    }

    /// A batch was appended.
    pub(super) fn appended(
        &mut self,
        producer: ProducerId,
        sequence: u64,
        lsn: Lsn,
        forget_ms: u64,
    ) {
        self.under_way.insert((producer, sequence), lsn);
        let known = self.known.entry(producer).or_default();
        if let Some(before) = known.forget_ms.replace(forget_ms) {
            self.idle.remove(&(before, producer));
        }
        self.idle.insert((forget_ms, producer));
    }

    /// The fold.
    pub(super) fn apply(&mut self, published: &Published) {
        let producer = self.entry(published.producer);
        producer.add((published.sequence, published.sequence));
        producer.wall_ms = published.wall_ms;
    }

    /// The fold, of a checkpoint.
    pub(super) fn apply_restated(&mut self, restated: &ProducerRestated) {
        let producer = self.entry(restated.producer);
        for run in &restated.sequences {
            producer.add(*run);
        }
        producer.wall_ms = producer.wall_ms.max(restated.wall_ms);
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
            self.known.remove(&producer);
        }
    }

    /// When [`Producers::tick`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        if self.unseen.is_empty() { self.idle.first().map(|(ms, _)| *ms) } else { Some(0) }
    }

    /// The checkpoint's part.
    pub(super) fn restate(&self) -> Vec<ProducerRestated> {
        let known = self.known.iter().filter(|(_, p)| !p.runs.is_empty());
        let restated = known.map(|(producer, p)| ProducerRestated {
            producer: *producer,
            sequences: p.runs.clone(),
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
            self.known.remove(&producer);
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
}

impl Producer {
    fn contains(&self, sequence: u64) -> bool {
        let after = self.runs.partition_point(|(first, _)| *first <= sequence);
        after > 0 && sequence <= self.runs[after - 1].1
    }

    /// Adds a run and joins what touches it.
    fn add(&mut self, (mut first, mut last): (u64, u64)) {
        let from = self.runs.partition_point(|(_, l)| l.saturating_add(1) < first);
        let to = self.runs.partition_point(|(f, _)| *f <= last.saturating_add(1));
        if from < to {
            first = first.min(self.runs[from].0);
            last = last.max(self.runs[to - 1].1);
        }
        self.runs.splice(from..to.max(from), [(first, last)]);
        if self.runs.len() > RUNS {
            self.runs.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_join_and_the_oldest_go() {
        let mut p = Producer::default();
        for n in [5, 7, 6, 1, 9, 2] {
            p.add((n, n));
        }
        assert_eq!(p.runs, [(1, 2), (5, 7), (9, 9)]);
        assert!(p.contains(6) && p.contains(1) && !p.contains(3) && !p.contains(8));
        p.add((u64::MAX, u64::MAX));
        p.add((0, 4));
        assert_eq!(p.runs, [(0, 7), (9, 9), (u64::MAX, u64::MAX)]);
        let mut p = Producer::default();
        for n in 0..=RUNS as u64 {
            p.add((2 * n, 2 * n));
        }
        assert_eq!(p.runs.len(), RUNS);
        assert!(!p.contains(0) && p.contains(2));
    }
}
