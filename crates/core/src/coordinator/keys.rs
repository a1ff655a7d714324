//! Idempotency keys: the same key inside the window means the same transaction (I10).
//!
//! Bounded by age and number; the oldest ended ones go first, those of open transactions never.
//!
//! A million keys are too many to be restated by every checkpoint. So they are written once, in
//! batches, as their transactions end ([`Record::KeysEnded`]); a checkpoint only says where those
//! batches are and restates what is not in one yet.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use crate::ids::{Lsn, TransactionId};
use crate::limits::Limits;
use crate::record::{IdempotencyKey, KeyBatch, KeyRestated, Record};

/// The keys that are kept.
#[derive(Clone)]
pub(crate) struct Keys {
    /// Keys of open transactions: digest and transaction.
    open: HashMap<Arc<str>, (u64, TransactionId)>,
    /// Keys of ended transactions, the oldest end first.
    ended: VecDeque<KeyRestated>,
    /// The number of the first of them. It only rises, but for what a recovery puts in front.
    first: u64,
    /// Hash and number of each ended key: small, and never hashed again when it grows.
    places: HashTable<(u64, u64)>,
    hasher: DefaultHashBuilder,
    /// Batches that are in the log, oldest first: they hold the first of the ended keys.
    batches: VecDeque<Batch>,
    /// Ended keys in those of them that were read.
    sealed: usize,
    /// Ended keys in a batch that is appended, not accepted yet.
    sealing: usize,
    /// The keys of all transactions that ended at or after this Unix time are kept.
    since_ms: u64,
    /// So many keys there may be.
    most: usize,
}

/// From so many ended keys on there is room for all that there may ever be: moving half a million
/// of them into a larger place would stop everything for some 50 ms.
const MANY: usize = 16_384;

impl Default for Keys {
    fn default() -> Self {
        Self {
            open: HashMap::default(),
            ended: VecDeque::new(),
            // Far from both ends of its range.
            first: 1 << 63,
            places: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            batches: VecDeque::new(),
            sealed: 0,
            sealing: 0,
            since_ms: 0,
            most: 0,
        }
    }
}

/// What it holds. How that is found again differs from value to value, because hashes are seeded.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("open", &self.open)
            .field("ended", &self.ended)
            .field("batches", &self.batches)
            .field("sealing", &self.sealing)
            .field("since_ms", &self.since_ms)
            .finish_non_exhaustive()
    }
}

/// A batch of ended keys in the log.
#[derive(Clone, Copy, Debug)]
struct Batch {
    lsn: Lsn,
    /// Keys in the record.
    total: usize,
    /// How many of them, the last ones, are still kept.
    kept: usize,
    /// In recovery: the record has not been read.
    missing: bool,
}

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) digest: u64,
    pub(crate) id: TransactionId,
}

impl Keys {
    pub(crate) fn find(&self, key: &str) -> Option<Entry> {
        if let Some((digest, id)) = self.open.get(key) {
            return Some(Entry { digest: *digest, id: *id });
        }
        let ended = self.ended_at(self.place(self.hasher.hash_one(key), key)?);
        Some(Entry { digest: ended.key.digest, id: ended.id })
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len() + self.ended.len()
    }

    /// How far back the keys reach: those of transactions that ended earlier may be forgotten.
    pub(crate) fn since_ms(&self) -> u64 {
        self.since_ms
    }

    /// After recovery: which keys were let go of before is not known, so only what is kept counts.
    ///
    /// # Panics
    /// If a batch that the checkpoint refers to was not read.
    pub(crate) fn recovered(&mut self, limits: &Limits, wall_ms: u64) {
        self.most = limits.keys;
        assert!(self.elsewhere().is_empty(), "batches of keys were not read (I10)");
        self.since_ms = self.ended.front().map_or(wall_ms, |ended| ended.wall_ms);
    }

    /// A transaction was begun under the key.
    pub(crate) fn insert(&mut self, key: &IdempotencyKey, id: TransactionId) {
        self.open.insert(Arc::clone(&key.key), (key.digest, id));
    }

    /// The key's transaction was never begun after all.
    pub(crate) fn remove(&mut self, key: &IdempotencyKey, id: TransactionId) {
        if self.open.get(&key.key).is_some_and(|(_, of)| *of == id) {
            self.open.remove(&key.key);
        }
    }

    /// The key's transaction ended: from now on the key may go.
    pub(crate) fn end(
        &mut self,
        key: &IdempotencyKey,
        id: TransactionId,
        committed: bool,
        wall_ms: u64,
    ) {
        if self.open.get(&key.key).is_some_and(|(_, of)| *of == id) {
            self.open.remove(&key.key);
            self.push(KeyRestated { key: key.clone(), id, committed, wall_ms });
        }
    }

    /// Lets go of what ended before this Unix time, and of what is too much.
    pub(crate) fn evict(&mut self, limits: &Limits, before_ms: u64) {
        while let Some(ended) = self.ended.front() {
            let at = ended.wall_ms;
            if at >= before_ms && self.len() <= limits.keys {
                break;
            }
            // Others of the same millisecond may be kept; they do not count.
            self.since_ms = self.since_ms.max(at + 1);
            self.pop();
        }
    }

    /// Ended keys that are in no batch yet, which the next ones will take to the log.
    pub(crate) fn fresh(&self) -> usize {
        self.ended.len() - self.sealed
    }

    /// A batch of ended keys that is not in the log yet, once it is large enough.
    pub(crate) fn seal(&mut self, limits: &Limits) -> Option<Record> {
        if self.sealing > 0 || self.fresh() < limits.key_batch {
            return None;
        }
        self.sealing = limits.key_batch;
        let batch = self.ended.range(self.sealed..).take(limits.key_batch);
        Some(Record::KeysEnded(batch.cloned().collect()))
    }

    /// A batch has its place in the log. One of which nothing is kept any more is none.
    pub(crate) fn sealed_at(&mut self, lsn: Lsn, batch: &[KeyRestated]) {
        self.sealing = 0;
        let Some(last) = batch.last() else { return };
        let fresh = self.ended.range(self.sealed..);
        // Nearly always as many as the batch has; fewer when some were let go of meanwhile.
        let kept = fresh.take(batch.len()).position(|ended| ended.id == last.id);
        if let Some(at) = kept {
            let (total, kept) = (batch.len(), at + 1);
            self.batches.push_back(Batch { lsn, total, kept, missing: false });
            self.sealed += kept;
        }
    }

    /// The batch did not find its place in the log.
    pub(crate) fn seal_failed(&mut self) {
        self.sealing = 0;
    }

    /// Part of a checkpoint came back.
    pub(crate) fn restore(&mut self, restated: &KeyRestated) {
        self.push(restated.clone());
    }

    /// A checkpoint says where the older keys are.
    pub(crate) fn refer(&mut self, batches: &[KeyBatch]) {
        let batch = |b: &KeyBatch| Batch {
            lsn: b.lsn,
            total: b.total as usize,
            kept: b.kept as usize,
            missing: true,
        };
        self.batches = batches.iter().map(batch).collect();
        self.sealed = 0;
    }

    /// Batches that were not read yet, the newest first.
    pub(crate) fn elsewhere(&self) -> Vec<Lsn> {
        self.batches.iter().rev().filter(|b| b.missing).map(|b| b.lsn).collect()
    }

    /// The newest batch that was not read yet: its keys ended before all that are here.
    ///
    /// # Panics
    /// If it is not the one that is due.
    pub(crate) fn recall(&mut self, lsn: Lsn, keys: &[KeyRestated]) {
        let due = self.batches.iter_mut().rev().find(|b| b.missing);
        let batch = due.filter(|b| b.lsn == lsn && b.total == keys.len());
        let batch = batch.expect("it is the batch that is due");
        batch.missing = false;
        self.sealed += batch.kept;
        for key in keys[batch.total - batch.kept..].iter().rev() {
            let hash = self.hasher.hash_one(&*key.key.key);
            let newer = self.place(hash, &key.key.key);
            self.first -= 1;
            self.ended.push_front(key.clone());
            if newer.is_none() {
                self.places.insert_unique(hash, (hash, self.first), |(hash, _)| *hash);
            }
        }
    }

    /// Where the batches are, oldest first: what a checkpoint refers to.
    pub(crate) fn batches(&self) -> Vec<KeyBatch> {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let batch = |b: &Batch| KeyBatch { lsn: b.lsn, total: count(b.total), kept: count(b.kept) };
        self.batches.iter().map(batch).collect()
    }

    /// The keys of ended transactions that are in no batch, oldest first.
    pub(crate) fn restate(&self, out: &mut Vec<Record>) {
        let mut rest = self.ended.range(self.sealed..).cloned().peekable();
        while rest.peek().is_some() {
            out.push(Record::KeysRestated(rest.by_ref().take(RESTATED_KEYS).collect()));
        }
    }

    fn push(&mut self, ended: KeyRestated) {
        if self.ended.len() == MANY && self.ended.capacity() < self.most {
            self.ended.reserve_exact(self.most - MANY);
            self.places.reserve(self.most - MANY, |(hash, _)| *hash);
        }
        let number = self.first + self.ended.len() as u64;
        let hash = self.hasher.hash_one(&*ended.key.key);
        if let Some(old) = self.place(hash, &ended.key.key)
            && let Ok(place) = self.places.find_entry(hash, |(_, number)| *number == old)
        {
            place.remove();
        }
        self.places.insert_unique(hash, (hash, number), |(hash, _)| *hash);
        self.ended.push_back(ended);
    }

    /// Lets go of the oldest ended key.
    fn pop(&mut self) {
        let Some(ended) = self.ended.pop_front() else { return };
        let number = self.first;
        self.first += 1;
        let hash = self.hasher.hash_one(&*ended.key.key);
        if let Ok(place) = self.places.find_entry(hash, |(_, at)| *at == number) {
            place.remove();
        }
        match self.batches.front_mut() {
            Some(batch) => {
                batch.kept -= 1;
                self.sealed -= 1;
                if batch.kept == 0 {
                    self.batches.pop_front();
                }
            }
            None => self.sealing = self.sealing.saturating_sub(1),
        }
    }

    fn place(&self, hash: u64, key: &str) -> Option<u64> {
        let found = self
            .places
            .find(hash, |(h, number)| *h == hash && &*self.ended_at(*number).key.key == key);
        found.map(|(_, number)| *number)
    }

    fn ended_at(&self, number: u64) -> &KeyRestated {
        let at = usize::try_from(number - self.first).unwrap_or(usize::MAX);
        &self.ended[at]
    }
}

/// Keys in one record of a checkpoint.
const RESTATED_KEYS: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    fn key(n: u64) -> IdempotencyKey {
        IdempotencyKey { key: format!("key-{n}").into(), digest: n }
    }

    fn id(n: u64) -> TransactionId {
        TransactionId(u128::from(n))
    }

    fn ended(keys: &mut Keys, numbers: core::ops::Range<u64>) {
        for n in numbers {
            keys.insert(&key(n), id(n));
            keys.end(&key(n), id(n), n % 2 == 0, n);
        }
    }

    /// What a checkpoint says and the batches it refers to, put together again.
    fn recovered(keys: &Keys, batches: &[(Lsn, Vec<KeyRestated>)]) -> Keys {
        let mut again = Keys::default();
        again.refer(&keys.batches());
        let mut records = Vec::new();
        keys.restate(&mut records);
        for record in &records {
            let Record::KeysRestated(restated) = record else { panic!("{record:?}") };
            restated.iter().for_each(|k| again.restore(k));
        }
        for lsn in again.elsewhere() {
            let (_, batch) = batches.iter().find(|(at, _)| *at == lsn).unwrap();
            again.recall(lsn, batch);
        }
        again.recovered(&Limits::default(), 0);
        again
    }

    #[test]
    fn the_oldest_ended_keys_go_first_and_open_ones_stay() {
        let limits = Limits { keys: 2, ..Limits::default() };
        let mut keys = Keys::default();
        for n in 1..=4 {
            keys.insert(&key(n), id(n));
        }
        keys.end(&key(3), id(3), true, 10);
        keys.end(&key(2), id(2), false, 20);
        keys.evict(&limits, 0);
        assert_eq!(keys.len(), 2);
        assert!(keys.find("key-1").is_some() && keys.find("key-4").is_some());
        keys.end(&key(1), id(1), true, 30);
        keys.evict(&limits, 30);
        assert!(keys.find("key-1").is_some());
        keys.evict(&limits, 31);
        assert_eq!((keys.len(), keys.find("key-1")), (1, None));
        assert_eq!(keys.since_ms(), 31);
    }

    #[test]
    fn a_checkpoint_and_the_batches_it_refers_to_bring_the_keys_back() {
        let limits = Limits { keys: 90, key_batch: 10, ..Limits::default() };
        let mut keys = Keys::default();
        let mut batches = Vec::new();
        for n in 0..1_000 {
            ended(&mut keys, n..n + 1);
            keys.evict(&limits, 0);
            if let Some(Record::KeysEnded(batch)) = keys.seal(&limits) {
                assert_eq!(batch.len(), 10);
                // Another ends between the append and its place.
                assert_eq!(keys.seal(&limits), None);
                let lsn = Lsn(n + 1);
                keys.sealed_at(lsn, &batch);
                batches.push((lsn, batch));
            }
            let again = recovered(&keys, &batches);
            assert_eq!(again.ended, keys.ended, "after {n}");
            for old in n.saturating_sub(200)..=n {
                let name = format!("key-{old}");
                assert_eq!(again.find(&name), keys.find(&name), "{name} after {n}");
            }
        }
        assert!(keys.batches().len() < 11, "{:?}", keys.batches());
    }

    #[test]
    fn keys_let_go_of_while_their_batch_is_appended_do_not_come_back() {
        let mut limits = Limits { key_batch: 4, ..Limits::default() };
        let mut keys = Keys::default();
        ended(&mut keys, 0..5);
        let Some(Record::KeysEnded(batch)) = keys.seal(&limits) else { panic!("it is due") };
        limits.keys = 2;
        keys.evict(&limits, 0);
        keys.sealed_at(Lsn(9), &batch);
        let again = recovered(&keys, &[(Lsn(9), batch)]);
        assert_eq!(again.len(), 2);
        assert_eq!((again.find("key-2"), again.find("key-3").is_some()), (None, true));
        limits.keys = 0;
        keys.evict(&limits, 0);
        assert_eq!((keys.len(), keys.batches().len()), (0, 0));
    }

    #[test]
    fn a_batch_that_was_lost_is_made_again() {
        let limits = Limits { key_batch: 3, ..Limits::default() };
        let mut keys = Keys::default();
        ended(&mut keys, 0..4);
        let lost = keys.seal(&limits);
        keys.seal_failed();
        assert!(lost.is_some());
        assert_eq!(keys.seal(&limits), lost);
    }

    #[test]
    fn the_same_key_again_after_it_was_let_go_of_is_the_new_one() {
        let limits = Limits { keys: 0, ..Limits::default() };
        let mut keys = Keys::default();
        ended(&mut keys, 7..8);
        keys.evict(&limits, 0);
        keys.insert(&key(7), id(70));
        keys.end(&key(7), id(70), true, 100);
        assert_eq!(keys.find("key-7").map(|e| e.id), Some(id(70)));
        // A recovery knows both, and the older one ended before.
        let old = KeyRestated { key: key(7), id: id(7), committed: false, wall_ms: 7 };
        keys.refer(&[KeyBatch { lsn: Lsn(1), total: 1, kept: 1 }]);
        keys.recall(Lsn(1), &[old]);
        assert_eq!(keys.find("key-7").map(|e| e.id), Some(id(70)));
        keys.evict(&limits, 0);
        assert_eq!((keys.len(), keys.find("key-7")), (0, None));
    }
}
