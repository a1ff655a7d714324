//! The world's log and reader, played by hand.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::world::World;
use crate::bus::Bus;
use crate::bus::topics::Topic;
use crate::effects::Effects;
use crate::event::StoredEvent;
use crate::ids::{Lsn, Offset, OpeningId, StoreId};
use crate::output::Wanted;
use crate::record::{Opened, Record};

impl World {
    /// The log accepts everything that was appended.
    pub(super) fn accept(&mut self) {
        while let Some((lsn, record)) = self.effects.next_accepted(Lsn(u64::MAX)) {
            self.bus.apply(lsn, &record);
        }
    }

    /// Everything accepted becomes durable.
    pub(super) fn make_durable(&mut self) {
        while let Some((lsn, record)) = self.effects.next_durable(Lsn(u64::MAX)) {
            self.note(&record);
            self.bus.durable(self.now, lsn, &record, &mut self.effects);
            self.effects.release();
            self.drain();
        }
    }

    /// The reader answers what was asked first.
    pub(super) fn read(&mut self) -> bool {
        let Some(fetch) = self.fetches.pop_front() else { return false };
        let none = BTreeMap::new();
        let stored = self.stored.get(&fetch.topic).unwrap_or(&none);
        let (events, next): (Vec<StoredEvent>, Offset) = match &fetch.wanted {
            Wanted::Range { from, to, max_events } => {
                assert!(from < to && *max_events > 0);
                let most = if self.short_reads { 1 } else { *max_events as usize };
                let events: Vec<StoredEvent> =
                    stored.range(*from..*to).take(most).map(|(_, e)| e.clone()).collect();
                let next = match events.last() {
                    Some(last) if events.len() == most => Offset(last.offset.0 + 1),
                    _ => *to,
                };
                (events, next)
            }
            Wanted::Offsets(offsets) => {
                assert!(!offsets.is_empty() && offsets.is_sorted());
                let most = if self.short_reads { 1 } else { offsets.len() };
                let found = offsets.iter().filter_map(|o| stored.get(o).cloned());
                (found.take(most).collect(), Offset(0))
            }
        };
        self.bus.fetched(self.now, fetch.fetch, events, next, &mut self.effects);
        self.drain();
        true
    }

    /// Lets everything happen that happens without time.
    pub(super) fn settle(&mut self) {
        loop {
            self.accept();
            self.make_durable();
            if !self.read() && self.effects.durable() == self.effects.last() {
                break;
            }
        }
    }

    /// The process ends; what is durable is read again.
    pub(super) fn crash(&mut self) {
        let durable = self.effects.durable();
        self.log.retain(|(lsn, _)| *lsn <= durable);
        self.epoch += 1;
        let lsn = Lsn(durable.0 + 1);
        let (store, epoch, wall_ms) = (StoreId(1), self.epoch, self.now.wall_ms);
        let opening = OpeningId(u128::from(epoch));
        let opened = Opened { store, epoch, opening, wall_ms, newest_ms: wall_ms };
        self.log.push((lsn, Record::Opened(opened)));
        self.bus = Bus::default();
        for (lsn, record) in &self.log {
            self.bus.apply(*lsn, record);
        }
        self.effects = Effects::after(lsn);
        self.fetches.clear();
        self.credit.clear();
        for model in self.models.values_mut() {
            model.restarted();
        }
    }

    /// The facts as a fold of the whole log, next to those of the running bus.
    pub(super) fn check_fold(&mut self) {
        self.settle();
        let mut folded = Bus::default();
        for (lsn, record) in &self.log {
            folded.apply(*lsn, record);
        }
        let (mut live, mut again) = (Vec::new(), Vec::new());
        self.bus.restate(&mut live);
        folded.restate(&mut again);
        assert_eq!(live, again, "the fold of the log is the state (I16)");
        let mut restated = Bus::default();
        for record in &live {
            restated.apply(Lsn(1), record);
        }
        again.clear();
        restated.restate(&mut again);
        assert_eq!(live, again, "a checkpoint is the state (I16)");
        for (id, subscription) in &self.bus.subscriptions {
            let mut facts = subscription.facts.clone();
            // A checkpoint keeps the floor in the place of the start.
            facts.created.start = facts.progress.floor();
            assert_eq!(facts, restated.subscriptions[id].facts);
        }
        for (id, topic) in &self.bus.topics {
            let again = &restated.topics[id];
            let bounds = |t: &Topic| (t.created.clone(), t.deleting, t.start, t.end, t.bytes);
            assert_eq!(bounds(topic), bounds(again));
        }
    }
}
