//! Idempotency keys: the same key inside the window means the same transaction (I10).
//!
//! Bounded by age and number; the oldest ended ones go first, those of open transactions never.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use hashbrown::HashMap;

use crate::ids::TransactionId;
use crate::limits::Limits;
use crate::record::{IdempotencyKey, KeyRestated, Record};

/// The keys that are kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    entries: HashMap<String, Entry>,
    /// Keys of ended transactions, the oldest end first.
    ended: VecDeque<(u64, String)>,
    /// The keys of all transactions that ended at or after this Unix time are kept.
    since_ms: u64,
}

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) digest: u64,
    pub(crate) id: TransactionId,
    /// How the transaction ended, and when; none: it is open.
    pub(crate) ended: Option<(bool, u64)>,
}

impl Keys {
    pub(crate) fn find(&self, key: &str) -> Option<Entry> {
        self.entries.get(key).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How far back the keys reach: those of transactions that ended earlier may be forgotten.
    pub(crate) fn since_ms(&self) -> u64 {
        self.since_ms
    }

    /// After recovery: which keys were let go of before is not known, so only what is kept counts.
    pub(crate) fn recovered(&mut self, wall_ms: u64) {
        self.since_ms = self.ended.front().map_or(wall_ms, |(ended, _)| *ended);
    }

    /// A transaction was begun under the key.
    pub(crate) fn insert(&mut self, key: &IdempotencyKey, id: TransactionId) {
        let entry = Entry { digest: key.digest, id, ended: None };
        self.entries.insert(key.key.clone(), entry);
    }

    /// The key's transaction was never begun after all.
    pub(crate) fn remove(&mut self, key: &IdempotencyKey, id: TransactionId) {
        if self.entries.get(&key.key).is_some_and(|e| e.id == id) {
            self.entries.remove(&key.key);
        }
    }

    /// The key's transaction ended: from now on the key may go.
    pub(crate) fn end(&mut self, key: &IdempotencyKey, committed: bool, wall_ms: u64) {
        if let Some(entry) = self.entries.get_mut(&key.key)
            && entry.ended.is_none()
        {
            entry.ended = Some((committed, wall_ms));
            self.ended.push_back((wall_ms, key.key.clone()));
        }
    }

    /// Lets go of what is too old or too much.
    pub(crate) fn evict(&mut self, limits: &Limits, wall_ms: u64) {
        let horizon = wall_ms.saturating_sub(limits.key_age_ms);
        while let Some((ended, key)) = self.ended.front() {
            if *ended >= horizon && self.entries.len() <= limits.keys {
                break;
            }
            // Others of the same millisecond may be kept; they do not count.
            self.since_ms = self.since_ms.max(*ended + 1);
            self.entries.remove(key);
            self.ended.pop_front();
        }
    }

    /// Part of a checkpoint came back.
    pub(crate) fn restore(&mut self, restated: &KeyRestated) {
        self.insert(&restated.key, restated.id);
        if let Some(committed) = restated.committed {
            self.end(&restated.key, committed, restated.wall_ms);
        }
    }

    /// The keys of ended transactions, oldest first, in records of bounded size.
    pub(crate) fn restate(&self, out: &mut Vec<Record>) {
        let mut batch = Vec::new();
        for (wall_ms, key) in &self.ended {
            let Some(entry) = self.entries.get(key) else { continue };
            let Some((committed, _)) = entry.ended else { continue };
            batch.push(KeyRestated {
                key: IdempotencyKey { key: key.clone(), digest: entry.digest },
                id: entry.id,
                committed: Some(committed),
                wall_ms: *wall_ms,
            });
            if batch.len() == RESTATED_KEYS {
                out.push(Record::KeysRestated(core::mem::take(&mut batch)));
            }
        }
        if !batch.is_empty() {
            out.push(Record::KeysRestated(batch));
        }
    }
}

/// Keys in one record of a checkpoint.
const RESTATED_KEYS: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    fn key(n: u64) -> IdempotencyKey {
        IdempotencyKey { key: format!("key-{n}"), digest: n }
    }

    #[test]
    fn the_oldest_ended_keys_go_first_and_open_ones_stay() {
        let limits = Limits { keys: 2, key_age_ms: 1_000, ..Limits::default() };
        let mut keys = Keys::default();
        for n in 1..=4 {
            keys.insert(&key(n), TransactionId(u128::from(n)));
        }
        keys.end(&key(3), true, 10);
        keys.end(&key(2), false, 20);
        keys.evict(&limits, 20);
        assert_eq!(keys.len(), 2);
        assert!(keys.find("key-1").is_some() && keys.find("key-4").is_some());
        keys.end(&key(1), true, 30);
        keys.evict(&limits, 1_030);
        assert!(keys.find("key-1").is_some());
        keys.evict(&limits, 1_031);
        assert_eq!((keys.len(), keys.find("key-1")), (1, None));
        assert_eq!(keys.since_ms(), 31);
    }

    #[test]
    fn a_checkpoint_brings_the_keys_back() {
        let mut keys = Keys::default();
        for n in 0..10_000 {
            keys.insert(&key(n), TransactionId(u128::from(n)));
            keys.end(&key(n), n % 2 == 0, n);
        }
        let mut records = Vec::new();
        keys.restate(&mut records);
        let mut again = Keys::default();
        for record in &records {
            let Record::KeysRestated(restated) = record else { panic!("{record:?}") };
            restated.iter().for_each(|k| again.restore(k));
        }
        assert_eq!(again.entries, keys.entries);
        assert_eq!(again.ended, keys.ended);
    }
}
