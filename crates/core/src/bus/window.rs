//! The events of one subscription that are under way: leased, staged, waiting for another
//! attempt, or parked behind an earlier event of the same key. It holds offsets and keys, never
//! bodies, and never more than a window's worth.

use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use hashbrown::HashMap;

use super::near::NearMap;
use crate::event::OffsetRange;
use crate::ids::{DeliveryToken, KeyHash, Lsn, Offset, SessionId, TransactionId};

/// From so many ends of streams on an event is delivered alone. One such end is a restart of the
/// subscriber, as there is every day.
const SUSPECT: u8 = 2;

/// Where an event that holds its key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It may be fetched and delivered as soon as somebody has credit.
    Ready,
    /// It was sent into a stream, behind others that are not answered yet: its lease has not begun.
    Sent,
    /// It is the first that its stream has not answered, or was overtaken: its lease runs.
    Leased {
        /// When it was sent.
        sent_ms: u64,
        /// When the lease runs out.
        until_ms: u64,
    },
    /// An attempt failed; the next one comes after a pause.
    Waiting {
        /// When the pause is over.
        until_ms: u64,
    },
    /// Its acknowledgement waits for the decision of a transaction.
    Staged {
        /// The transaction.
        transaction: TransactionId,
    },
    /// Its acknowledgement waits to be durable.
    Acknowledging {
        /// The record that says so.
        lsn: Lsn,
    },
    /// It becomes a dead letter when the record is durable.
    Burying {
        /// The record that says so.
        lsn: Lsn,
    },
}

impl Phase {
    /// A stream has it, and may answer it.
    pub(super) fn is_under_way(self) -> bool {
        match self {
            Self::Sent | Self::Leased { .. } => true,
            Self::Ready
            | Self::Waiting { .. }
            | Self::Staged { .. }
            | Self::Acknowledging { .. }
            | Self::Burying { .. } => false,
        }
    }
}

/// One event that holds its key (or has none).
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its ordering key; also none while it is not known yet, after a restart.
    pub(super) key: Option<KeyHash>,
    /// Attempts that count (D3 to D5).
    pub(super) attempts: u32,
    /// How often it was among several that a stream had when it ended or fell silent.
    deaths: u8,
    /// Transactions in a row that staged its acknowledgement and failed.
    failures: u8,
    /// The last delivery.
    pub(super) token: DeliveryToken,
    /// Where that went.
    pub(super) session: SessionId,
    /// Where it stands.
    phase: Phase,
    /// What the last subscriber said about it.
    pub(super) reason: Option<Box<str>>,
}

impl Entry {
    /// Not under lease.
    fn fresh(key: Option<KeyHash>, phase: Phase) -> Self {
        let (token, session) = (DeliveryToken(0), SessionId(0));
        Self { key, attempts: 0, deaths: 0, failures: 0, token, session, phase, reason: None }
    }

    /// It is delivered alone, so that it becomes known who ends the streams (D7).
    pub(super) fn is_suspect(&self) -> bool {
        self.deaths >= SUSPECT
    }

    /// Where it stands.
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }
}

/// A delivery.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sending {
    /// What names it.
    pub(super) token: DeliveryToken,
    /// Whom it goes to.
    pub(super) session: SessionId,
    /// Sent, or leased at once.
    pub(super) phase: Phase,
}

/// Why an event goes back without an attempt that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unjudged {
    /// It was not near: the subscriber gave it back, or was busy with others when it fell silent.
    Untouched,
    /// It was among several that a stream had when that ended; or it was the first of several when
    /// the stream fell silent.
    Death,
    /// The transaction that had staged its acknowledgement failed.
    Transaction,
}

/// Who holds a key, and who comes after, in the order of the log.
#[derive(Clone, Debug)]
struct Turn {
    holder: Offset,
    parked: VecDeque<Offset>,
}

/// See the file's head.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    entries: NearMap<Entry>,
    /// Looked up, and walked only where the order cannot matter.
    keys: HashMap<KeyHash, Turn>,
    ready: BTreeSet<Offset>,
    /// Ready too, but to be delivered alone; those with few attempts first, so that each has its
    /// turn.
    suspects: BTreeSet<(u32, Offset)>,
    /// Every parked event. The holder of its key may come later in the log or be long overtaken.
    parked: BTreeSet<Offset>,
}

impl Window {
    /// The entry of an event.
    pub(super) fn entry(&self, offset: Offset) -> Option<&Entry> {
        self.entries.get(offset)
    }

    /// All entries, ascending.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Offset, &Entry)> {
        self.entries.iter()
    }

    /// The first event under way at or after an offset, parked or not.
    pub(super) fn first_from(&self, offset: Offset) -> Option<Offset> {
        let entry = self.entries.first_from(offset);
        let parked = self.parked.range(offset..).next().copied();
        entry.into_iter().chain(parked).min()
    }

    /// Events that could be delivered now, ascending.
    pub(super) fn ready(&self) -> impl Iterator<Item = Offset> {
        self.ready.iter().copied()
    }

    /// Whether an event could be delivered now.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Events that wait for an earlier one of their key.
    pub(super) fn parked(&self) -> usize {
        self.parked.len()
    }

    /// Whether an event of the key is under way.
    pub(super) fn is_busy(&self, key: Option<KeyHash>) -> bool {
        key.is_some_and(|key| self.keys.contains_key(&key))
    }

    /// Events that could be delivered alone now: those with few attempts first.
    pub(super) fn suspects(&self) -> impl Iterator<Item = Offset> {
        self.suspects.iter().map(|(_, offset)| *offset)
    }

    /// Whether an event waits to be delivered alone.
    pub(super) fn has_suspects(&self) -> bool {
        !self.suspects.is_empty()
    }

    /// An event that holds its key is delivered: one that was not known, or one that was ready.
    /// Says how many attempts have counted.
    pub(super) fn send(&mut self, offset: Offset, key: Option<KeyHash>, sending: Sending) -> u32 {
        let Self { entries, ready, suspects, .. } = self;
        let entry = entries.get_or_insert_with(offset, || Entry::fresh(key, sending.phase));
        // One that was just made has never been sent.
        if entry.token != DeliveryToken(0) || entry.phase != sending.phase {
            assert!(entry.phase == Phase::Ready, "an event is with one subscriber at a time");
            if entry.is_suspect() {
                suspects.remove(&(entry.attempts, offset));
            } else {
                ready.remove(&offset);
            }
            entry.phase = sending.phase;
        }
        entry.token = sending.token;
        entry.session = sending.session;
        entry.attempts
    }

    /// An attempt counts. `reason` says what happened, given what was said before.
    pub(super) fn count(&mut self, offset: Offset, reason: impl FnOnce(Option<&str>) -> String) {
        let Some(entry) = self.entries.get_mut(offset) else { return };
        debug_assert!(entry.phase != Phase::Ready, "it is in no set that is in the order of these");
        entry.attempts = entry.attempts.saturating_add(1);
        entry.failures = 0;
        entry.reason = Some(reason(entry.reason.as_deref()).into_boxed_str());
    }

    /// An attempt is over that does not count. Says how many transactions have failed in a row.
    pub(super) fn note_unjudged(&mut self, offset: Offset, why: Unjudged) -> u32 {
        let Some(entry) = self.entries.get_mut(offset) else { return 0 };
        debug_assert!(entry.phase != Phase::Ready, "it is in no set that is in the order of these");
        match why {
            Unjudged::Untouched => {}
            Unjudged::Death => entry.deaths = entry.deaths.saturating_add(1),
            Unjudged::Transaction => entry.failures = entry.failures.saturating_add(1),
        }
        u32::from(entry.failures)
    }

    /// Takes an event whose key is not known yet.
    pub(super) fn admit_unknown(&mut self, offset: Offset, phase: Phase) {
        if self.entries.get(offset).is_some() {
            return;
        }
        self.entries.get_or_insert_with(offset, || Entry::fresh(None, phase));
        if phase == Phase::Ready {
            self.ready.insert(offset);
        }
    }

    /// Now the key of an entry is known. False if another event of the key is under way and the
    /// entry had to be parked behind it.
    pub(super) fn learn_key(&mut self, offset: Offset, key: Option<KeyHash>) -> bool {
        let Some(entry) = self.entries.get(offset) else { return false };
        if entry.key.is_some() || key.is_none() {
            return true;
        }
        if self.is_busy(key) && entry.phase != Phase::Ready {
            // It is bound elsewhere and cannot step back; it ends without having held the key.
            return true;
        }
        if self.claim(offset, key) {
            if let Some(entry) = self.entries.get_mut(offset) {
                entry.key = key;
            }
            return true;
        }
        if let Some(entry) = self.entries.remove(offset) {
            self.forget_ready(&entry, offset);
        }
        false
    }

    /// Moves an entry on; the caller keeps the timers. Says where it stood, and which delivery it
    /// was.
    pub(super) fn set_phase(
        &mut self,
        offset: Offset,
        phase: Phase,
    ) -> Option<(Phase, SessionId, DeliveryToken)> {
        let Self { entries, ready, suspects, .. } = self;
        let entry = entries.get_mut(offset)?;
        let before = core::mem::replace(&mut entry.phase, phase);
        match (before == Phase::Ready, phase == Phase::Ready, entry.is_suspect()) {
            (false, true, false) => _ = ready.insert(offset),
            (false, true, true) => _ = suspects.insert((entry.attempts, offset)),
            (true, false, false) => _ = ready.remove(&offset),
            (true, false, true) => _ = suspects.remove(&(entry.attempts, offset)),
            (true, true, _) | (false, false, _) => {}
        }
        Some((before, entry.session, entry.token))
    }

    /// The event is done with: the next one of its key may go.
    pub(super) fn remove(&mut self, offset: Offset) -> Option<Entry> {
        let entry = self.entries.remove(offset)?;
        self.forget_ready(&entry, offset);
        if let Some(key) = entry.key {
            self.pass_on(offset, key);
        }
        Some(entry)
    }

    /// The events of a range whose acknowledgement is this record are done with.
    pub(super) fn remove_acknowledged(&mut self, range: OffsetRange, lsn: Lsn) {
        let is_done = |entry: &Entry| entry.phase == Phase::Acknowledging { lsn };
        let mut from = range.from;
        while let Some(offset) = self.entries.first_from(from).filter(|offset| *offset < range.to) {
            let done = self.entries.remove_if(offset, is_done);
            if let Some(key) = done.and_then(|entry| entry.key) {
                self.pass_on(offset, key);
            }
            from = Offset(offset.0 + 1);
        }
    }

    /// Forgets the parked events of a range for which `keep` does not speak up.
    pub(super) fn drop_parked(&mut self, range: OffsetRange, keep: impl Fn(Offset) -> bool) {
        let dropped = self.parked.range(range.from..range.to).copied();
        let dropped: Vec<Offset> = dropped.filter(|offset| !keep(*offset)).collect();
        if dropped.is_empty() {
            return;
        }
        for offset in &dropped {
            self.parked.remove(offset);
        }
        let Self { keys, parked, .. } = self;
        for turn in keys.values_mut() {
            turn.parked.retain(|offset| parked.contains(offset));
        }
    }

    /// Makes an event that was not known the holder of its key. True unless an earlier event of its
    /// key is under way; then it is parked.
    pub(super) fn claim(&mut self, offset: Offset, key: Option<KeyHash>) -> bool {
        let Some(key) = key else { return true };
        let Some(turn) = self.keys.get_mut(&key) else {
            self.keys.insert(key, Turn { holder: offset, parked: VecDeque::new() });
            return true;
        };
        if turn.holder == offset {
            return true;
        }
        if self.parked.insert(offset) {
            // Nearly always the newest event. Only a dead letter that is tried again is earlier.
            let place = turn.parked.partition_point(|o| *o < offset);
            turn.parked.insert(place, offset);
        }
        false
    }

    fn forget_ready(&mut self, entry: &Entry, offset: Offset) {
        if entry.phase == Phase::Ready && entry.is_suspect() {
            self.suspects.remove(&(entry.attempts, offset));
        } else if entry.phase == Phase::Ready {
            self.ready.remove(&offset);
        }
    }

    fn pass_on(&mut self, offset: Offset, key: KeyHash) {
        let Some(turn) = self.keys.get_mut(&key) else { return };
        if turn.holder != offset {
            return;
        }
        let Some(next) = turn.parked.pop_front() else {
            self.keys.remove(&key);
            return;
        };
        turn.holder = next;
        self.parked.remove(&next);
        self.entries.get_or_insert_with(next, || Entry::fresh(Some(key), Phase::Ready));
        self.ready.insert(next);
    }
}
