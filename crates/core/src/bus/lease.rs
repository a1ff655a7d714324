//! Attempts that fail: leases that run out, rejections, streams that end; and the pause before
//! the next attempt.

use alloc::collections::{BTreeMap, BTreeSet};

use super::subscription::Subscription;
use super::timers::Timers;
use super::window::Phase;
use super::{Bus, Reach};
use crate::effects::Effects;
use crate::ids::{Lsn, Now, Offset, SubscriptionId};
use crate::limits::Limits;
use crate::record::SubscriptionSettings;

impl Bus {
    /// Leases that ran out, attempts whose pause is over, producers to forget.
    pub(crate) fn tick(&mut self, now: Now, limits: &Limits, effects: &mut Effects) {
        self.wake(effects);
        self.producers.tick(now.mono_ms, limits);
        let mut due: BTreeMap<SubscriptionId, BTreeSet<Offset>> = BTreeMap::new();
        while let Some((id, offset)) = self.timers.pop_pause(now.mono_ms) {
            due.entry(id).or_default().insert(offset);
        }
        while let Some(id) = self.timers.pop_lease(now.mono_ms) {
            let Some(subscription) = self.subscriptions.get_mut(&id) else { continue };
            let Subscription { leases, window, .. } = subscription;
            let over = leases.due(&mut self.timers, id, window, now.mono_ms);
            due.entry(id).or_default().extend(over);
        }
        for (id, offsets) in due {
            let Some((subscription, mut reach)) = self.reach(id, now, effects) else { continue };
            for offset in offsets {
                subscription.timer_ended(&mut reach, limits, offset);
            }
            subscription.pump(&mut reach);
        }
    }

    /// The earliest monotonic time at which [`Bus::tick`] has something to do.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        if !self.awake {
            return Some(0);
        }
        self.timers.next().into_iter().chain(self.producers.next_deadline()).min()
    }
}

impl Subscription {
    /// Moves an event on and keeps its timer.
    pub(super) fn set_phase(&mut self, timers: &mut Timers, offset: Offset, phase: Phase) {
        let Some((before, session)) = self.window.set_phase(offset, phase) else { return };
        if before == phase {
            // Extended twice in one millisecond: it has its place in line.
            return;
        }
        self.end_timer(timers, offset, before);
        let id = self.id();
        match phase {
            Phase::Leased { until_ms } => {
                self.leases.begin(timers, id, &self.window, (until_ms, offset));
            }
            Phase::Waiting { until_ms } => timers.pause(until_ms, id, offset),
            Phase::Ready
            | Phase::Staged { .. }
            | Phase::Acknowledging { .. }
            | Phase::Burying { .. } => {}
        }
        let is_leased = |phase| matches!(phase, Phase::Leased { .. });
        if is_leased(before) && !is_leased(phase) {
            self.returned.push(session);
        }
    }

    fn end_timer(&mut self, timers: &mut Timers, offset: Offset, before: Phase) {
        let id = self.id();
        match before {
            Phase::Leased { .. } => self.leases.end(timers, id),
            Phase::Waiting { until_ms } => timers.end_pause(until_ms, id, offset),
            Phase::Ready
            | Phase::Staged { .. }
            | Phase::Acknowledging { .. }
            | Phase::Burying { .. } => {}
        }
    }

    /// The event is not under way any more; the next one of its key may go.
    pub(super) fn drop_entry(&mut self, timers: &mut Timers, offset: Offset) {
        let Some(entry) = self.window.remove(offset) else { return };
        self.end_timer(timers, offset, entry.phase());
        if let Phase::Leased { .. } = entry.phase() {
            self.returned.push(entry.session);
        }
    }

    /// An attempt failed: a dead letter after the last one, else another attempt after a pause.
    /// Says which record the answer to the one who failed it has to wait for.
    pub(super) fn fail(&mut self, reach: &mut Reach<'_>, limits: &Limits, offset: Offset) -> Lsn {
        if self.is_lost(offset, reach.topic_start) {
            self.drop_entry(reach.timers, offset);
            return Lsn(0);
        }
        if self.is_exhausted(offset) && self.has_room_for_dead(limits) {
            return self.bury(reach, offset);
        }
        let attempts = self.window.entry(offset).map_or(0, |entry| entry.attempts);
        let pause_ms = pause_ms(self.settings(), attempts);
        let phase = match pause_ms {
            0 => Phase::Ready,
            _ => Phase::Waiting { until_ms: reach.now.mono_ms.saturating_add(pause_ms) },
        };
        self.set_phase(reach.timers, offset, phase);
        Lsn(0)
    }

    /// An attempt ended through nobody's judgement of the event: the stream is gone, or the
    /// transaction failed. It counts, but there is no pause.
    pub(super) fn give_back(&mut self, reach: &mut Reach<'_>, offset: Offset) {
        if self.is_lost(offset, reach.topic_start) {
            self.drop_entry(reach.timers, offset);
            return;
        }
        // Whether it becomes a dead letter is decided by the timer, at once.
        let until_ms = reach.now.mono_ms;
        let exhausted = self.is_exhausted(offset);
        let phase = if exhausted { Phase::Waiting { until_ms } } else { Phase::Ready };
        self.set_phase(reach.timers, offset, phase);
    }

    fn timer_ended(&mut self, reach: &mut Reach<'_>, limits: &Limits, offset: Offset) {
        let Some(entry) = self.window.entry(offset) else { return };
        match entry.phase() {
            Phase::Leased { .. } => {
                self.fail(reach, limits, offset);
            }
            Phase::Waiting { .. } => {
                if self.is_lost(offset, reach.topic_start) {
                    self.drop_entry(reach.timers, offset);
                } else if self.is_exhausted(offset) && self.has_room_for_dead(limits) {
                    self.bury(reach, offset);
                } else {
                    self.set_phase(reach.timers, offset, Phase::Ready);
                }
            }
            Phase::Ready
            | Phase::Staged { .. }
            | Phase::Acknowledging { .. }
            | Phase::Burying { .. } => {
                unreachable!("a timer for {offset}, which waits for none")
            }
        }
    }
}

/// The pause after so many attempts.
fn pause_ms(settings: &SubscriptionSettings, attempts: u32) -> u64 {
    let doublings = attempts.saturating_sub(1).min(63);
    let factor = 1u64 << doublings;
    settings.backoff_ms.saturating_mul(factor).min(settings.backoff_max_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_up_to_its_maximum() {
        let settings = SubscriptionSettings::default();
        let pauses: alloc::vec::Vec<u64> = (1..=11).map(|n| pause_ms(&settings, n)).collect();
        let expected = [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000];
        assert_eq!(pauses, expected);
        assert_eq!(pause_ms(&settings, u32::MAX), 30_000);
    }
}
