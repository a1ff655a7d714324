//! Deliveries that end without an acknowledgement: which of them are attempts that count (D3 to
//! D5), which are nobody's judgement of the event (D6), and the pause before the next one.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;

use super::ending::{By, Failure, Left};
use super::subscription::Subscription;
use super::timers::Timers;
use super::window::{Phase, Unjudged};
use super::{Bus, Reach};
use crate::effects::Effects;
use crate::ids::{Lsn, Now, Offset, SubscriptionId};
use crate::limits::Limits;
use crate::reason::clipped;
use crate::record::SubscriptionSettings;

/// Who finishes nothing for so many leases, and extends, loses what waits behind it.
const STUCK_LEASES: u64 = 10;

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
            // What was answered is not silence.
            subscription.take_back(&mut reach);
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
    /// Moves an event on and keeps its timer. `by`: who does.
    pub(super) fn set_phase(&mut self, timers: &mut Timers, offset: Offset, phase: Phase, by: By) {
        let Some((before, session, token)) = self.window.set_phase(offset, phase) else { return };
        self.end_timer(timers, offset, before);
        match phase {
            Phase::Waiting { until_ms } => timers.pause(until_ms, self.id(), offset),
            Phase::Ready
            | Phase::Staged { .. }
            | Phase::Acknowledging { .. }
            | Phase::Burying { .. } => {}
            Phase::Sent | Phase::Leased { .. } => unreachable!("a stream is looked after for that"),
        }
        if before.is_under_way() {
            let ran = before != Phase::Sent;
            self.returned.push(Left { session, token, ran, by });
        }
    }

    fn end_timer(&mut self, timers: &mut Timers, offset: Offset, before: Phase) {
        let id = self.id();
        match before {
            Phase::Leased { .. } => self.leases.end(timers, id),
            Phase::Waiting { until_ms } => timers.end_pause(until_ms, id, offset),
            Phase::Ready
            | Phase::Sent
            | Phase::Staged { .. }
            | Phase::Acknowledging { .. }
            | Phase::Burying { .. } => {}
        }
    }

    /// The event is not under way any more; the next one of its key may go.
    pub(super) fn drop_entry(&mut self, timers: &mut Timers, offset: Offset) {
        let Some(entry) = self.window.remove(offset) else { return };
        self.end_timer(timers, offset, entry.phase());
        if entry.phase().is_under_way() {
            let ran = entry.phase() != Phase::Sent;
            let (session, token) = (entry.session, entry.token);
            self.returned.push(Left { session, token, ran, by: By::Server });
        }
    }

    /// The lease of an event starts anew: its subscriber says that it is at work on it. True if
    /// others went back because of that.
    pub(super) fn extend(&mut self, reach: &mut Reach<'_>, offset: Offset) -> bool {
        let Some(entry) = self.window.entry(offset) else { return false };
        let (before, session, now_ms) = (entry.phase(), entry.session, reach.now.mono_ms);
        let lease_ms = self.settings().lease_ms;
        let until_ms = now_ms.saturating_add(lease_ms);
        let Some(stream) = reach.streams.get_mut(&session) else { return false };
        stream.flow.heard_ms = now_ms;
        let sent_ms = match before {
            // Extended twice in one millisecond: it has its place in line.
            Phase::Leased { until_ms: until, .. } if until == until_ms => return false,
            Phase::Leased { sent_ms, .. } => sent_ms,
            // When it was sent does not matter any more: the stream has been heard since.
            Phase::Sent => {
                stream.running += 1;
                now_ms.saturating_sub(1)
            }
            Phase::Ready
            | Phase::Waiting { .. }
            | Phase::Staged { .. }
            | Phase::Acknowledging { .. }
            | Phase::Burying { .. } => return false,
        };
        // Whoever only extends, and finishes nothing for ten leases, keeps from others what waits.
        let waits_since_ms = stream.flow.front().map(|first| first.sent_ms);
        let since_ms = waits_since_ms.map(|sent_ms| sent_ms.max(stream.flow.answered_ms));
        let is_stuck = since_ms.is_some_and(|since_ms| {
            now_ms.saturating_sub(since_ms) >= lease_ms.saturating_mul(STUCK_LEASES)
        });
        self.window.set_phase(offset, Phase::Leased { sent_ms, until_ms });
        let id = self.id();
        self.end_timer(reach.timers, offset, before);
        self.leases.begin(reach.timers, id, &self.window, (until_ms, offset));
        if is_stuck {
            self.recall(reach, session);
        }
        is_stuck
    }

    /// An attempt failed and counts: a dead letter after the last one, else another attempt after a
    /// pause. Says which record the answer to the one who failed it has to wait for.
    pub(super) fn fail(
        &mut self,
        reach: &mut Reach<'_>,
        limits: &Limits,
        offset: Offset,
        failure: Failure,
    ) -> Lsn {
        if self.is_lost(offset, reach.topic_start) {
            self.drop_entry(reach.timers, offset);
            return Lsn(0);
        }
        let by = self.count(offset, failure);
        if self.is_exhausted(offset) && self.has_room_for_dead(limits) {
            return self.bury(reach, offset, by);
        }
        let pause_ms = self.pause_ms(offset);
        let phase = match pause_ms {
            0 => Phase::Ready,
            _ => Phase::Waiting { until_ms: reach.now.mono_ms.saturating_add(pause_ms) },
        };
        self.set_phase(reach.timers, offset, phase, by);
        Lsn(0)
    }

    /// Its subscriber says that it can never be processed: a dead letter at once.
    pub(super) fn reject_for_good(
        &mut self,
        reach: &mut Reach<'_>,
        offset: Offset,
        failure: Failure,
    ) -> Lsn {
        let by = self.count(offset, failure);
        self.bury(reach, offset, by)
    }

    /// A stream ended that had nothing but this event: that counts (D5).
    pub(super) fn stream_ended_on(&mut self, reach: &mut Reach<'_>, offset: Offset) {
        if self.is_lost(offset, reach.topic_start) {
            self.drop_entry(reach.timers, offset);
            return;
        }
        let by = self.count(offset, Failure::StreamEnded);
        // Whether it becomes a dead letter is decided by the timer, at once.
        let pause_ms = if self.is_exhausted(offset) { 0 } else { self.pause_ms(offset) };
        let until_ms = reach.now.mono_ms.saturating_add(pause_ms);
        self.set_phase(reach.timers, offset, Phase::Waiting { until_ms }, by);
    }

    /// A delivery ended through nobody's judgement of the event: that does not count (D6).
    pub(super) fn give_back(&mut self, reach: &mut Reach<'_>, offset: Offset, why: Unjudged) {
        if self.is_lost(offset, reach.topic_start) {
            self.drop_entry(reach.timers, offset);
            return;
        }
        let failures = self.window.note_unjudged(offset, why);
        // One transaction may fail for any reason, and is tried again at once. If all that have the
        // event fail, they shall not do so as fast as they can.
        let pause_ms = match failures {
            0 | 1 => 0,
            _ => pause_ms(self.settings(), failures - 1),
        };
        let phase = match pause_ms {
            0 => Phase::Ready,
            _ => Phase::Waiting { until_ms: reach.now.mono_ms.saturating_add(pause_ms) },
        };
        self.set_phase(reach.timers, offset, phase, By::Server);
    }

    /// Counts an attempt, with its reason. Says who has ended it.
    fn count(&mut self, offset: Offset, failure: Failure) -> By {
        let (by, tally, reason) = match failure {
            Failure::Rejected(by, reason) => (By::Stream(by), &mut self.tally.rejected, Ok(reason)),
            Failure::LeaseOver => (By::Server, &mut self.tally.expired, Err(LEASE_OVER)),
            Failure::StreamEnded => (By::Server, &mut self.tally.lost, Err(STREAM_ENDED)),
        };
        *tally += 1;
        self.window.count(offset, |before| match reason {
            Ok(reason) => reason,
            Err(what) => with_words(what, before),
        });
        by
    }

    /// The pause that follows the last attempt that has counted.
    fn pause_ms(&self, offset: Offset) -> u64 {
        let attempts = self.window.entry(offset).map_or(0, |entry| entry.attempts);
        pause_ms(self.settings(), attempts)
    }

    /// The lease of an event is over. That counts if the subscriber had taken the event up: it has
    /// sent a word since, and this is the first it has not answered; or there was nothing else
    /// that it could be busy with (D4).
    fn lease_over(&mut self, reach: &mut Reach<'_>, limits: &Limits, offset: Offset) {
        let Some(entry) = self.window.entry(offset) else { return };
        let Phase::Leased { sent_ms, .. } = entry.phase() else { return };
        let (session, now_ms) = (entry.session, reach.now.mono_ms);
        let Some(stream) = reach.streams.get_mut(&session) else {
            unreachable!("a lease ends with the stream that has it")
        };
        let heard_ms = stream.flow.heard_ms;
        let was_alone = stream.under_way == 1 && !stream.behind;
        let is_silent = now_ms.saturating_sub(heard_ms) >= self.facts.created.settings.lease_ms;
        stream.silent |= is_silent;
        if !is_silent && stream.under_way > 1 {
            stream.flow.has_too_much();
        }
        if heard_ms > sent_ms || was_alone {
            self.fail(reach, limits, offset, Failure::LeaseOver);
        } else {
            self.give_back(reach, offset, Unjudged::Death);
        }
        if is_silent {
            self.recall(reach, session);
        }
    }

    fn timer_ended(&mut self, reach: &mut Reach<'_>, limits: &Limits, offset: Offset) {
        let Some(entry) = self.window.entry(offset) else { return };
        match entry.phase() {
            Phase::Leased { .. } => self.lease_over(reach, limits, offset),
            Phase::Waiting { .. } => {
                if self.is_lost(offset, reach.topic_start) {
                    self.drop_entry(reach.timers, offset);
                } else if self.is_exhausted(offset) && self.has_room_for_dead(limits) {
                    self.bury(reach, offset, By::Server);
                } else {
                    self.set_phase(reach.timers, offset, Phase::Ready, By::Server);
                }
            }
            Phase::Ready
            | Phase::Sent
            | Phase::Staged { .. }
            | Phase::Acknowledging { .. }
            | Phase::Burying { .. } => {
                unreachable!("a timer for {offset}, which waits for none")
            }
        }
    }
}

const LEASE_OVER: &str = "its lease was over before it was answered";
const STREAM_ENDED: &str = "its stream ended before it was answered, and had nothing else";

/// What happened, and what was said about the event before.
fn with_words(what: &str, before: Option<&str>) -> String {
    const JOINED: &str = "; before that: ";
    match before {
        // Neither of these two has words of its own before it.
        Some(before) if before != LEASE_OVER && before != STREAM_ENDED => {
            let words = before.rsplit(JOINED).next().unwrap_or(before);
            clipped(format!("{what}{JOINED}{words}"))
        }
        Some(_) | None => what.into(),
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
