//! Retention, and what it takes from subscriptions that are too slow.

use alloc::vec;
use alloc::vec::Vec;

use super::subscription::Subscription;
use super::topics::{ADMIN_BYTES, Leaving};
use super::window::Phase;
use super::{Answer, Bus, Call, Reach};
use crate::effects::Effects;
use crate::event::OffsetRange;
use crate::ids::{Name, Now, Offset, SubscriptionId, TopicId};
use crate::output::{Output, Reply};
use crate::record::{Acknowledged, GapAcknowledged, Record, TopicTruncated};
use crate::refusal::Refusal;

impl Bus {
    /// Retention offers to forget the events before `to`.
    pub(crate) fn expire(&mut self, topic: TopicId, to: Offset, bytes: u64, effects: &mut Effects) {
        let Some(known) = self.topics.get(&topic) else { return };
        let first = known.first();
        let offered = to.min(known.visible);
        let mut to = offered;
        if known.created.settings.retain_unacknowledged {
            for id in &known.subscriptions {
                let Some(subscription) = self.subscriptions.get(id) else { continue };
                if subscription.hold > effects.durable() {
                    // It is on its way to another place; retention asks again.
                    return;
                }
                to = to.min(subscription.passed());
            }
        }
        if to <= first || known.leaving == Leaving::Going {
            return;
        }
        let bytes = share(bytes, to.0 - first.0, offered.0 - first.0);
        self.acknowledge_holes(topic, to, effects);
        let truncated = TopicTruncated { topic, start: to, bytes };
        self.append(effects, Record::TopicTruncated(truncated));
        if let Some(known) = self.topics.get_mut(&topic) {
            known.truncating = to;
            known.wanted = 0;
        }
    }

    pub(super) fn acknowledge_gap(
        &mut self,
        call: &mut Call<'_>,
        name: &Name,
        to: Offset,
    ) -> Result<Answer, Refusal> {
        let subscription = self.known_subscription(name)?;
        let id = subscription.id();
        let Some(gap) = subscription.facts.gap.filter(|gap| gap.from < to) else {
            return Ok(Answer::after(self.last, Reply::Done));
        };
        call.need_upkeep(ADMIN_BYTES)?;
        let record = GapAcknowledged { subscription: id, to: to.min(gap.to) };
        let lsn = self.append(call.effects, Record::GapAcknowledged(record));
        if let Some(subscription) = self.subscriptions.get_mut(&id) {
            subscription.hold = lsn;
        }
        Ok(Answer::after(lsn, Reply::Done))
    }

    /// A truncation is durable: what it took is not delivered any more, and those who missed
    /// something are told.
    pub(super) fn truncated(&mut self, now: Now, record: &TopicTruncated, effects: &mut Effects) {
        let Some(topic) = self.topics.get(&record.topic) else { return };
        let readers: Vec<SubscriptionId> = topic.subscriptions.iter().copied().collect();
        for id in readers {
            if let Some((subscription, mut reach)) = self.reach(id, now, effects) {
                subscription.overtaken(&mut reach, record.start);
                subscription.pump(&mut reach);
            }
        }
    }

    /// Offsets that were never used count as acknowledged, but only reading finds them. Before
    /// retention takes them it is written down, so that no gap is made of them.
    fn acknowledge_holes(&mut self, topic: TopicId, to: Offset, effects: &mut Effects) {
        let Some(known) = self.topics.get(&topic) else { return };
        let mut holes = Vec::new();
        for id in &known.subscriptions {
            let Some(subscription) = self.subscriptions.get(id) else { continue };
            let range = OffsetRange {
                from: subscription.facts.progress.floor(),
                to: to.min(subscription.passed()),
            };
            if range.from < range.to && subscription.hold <= effects.durable() {
                holes.push(Acknowledged { subscription: *id, ranges: vec![range] });
            }
        }
        for hole in holes {
            self.append(effects, Record::Acknowledged(hole));
        }
    }
}

impl Subscription {
    /// Tells every stream that has credit and does not know of the gap yet.
    pub(super) fn notify_of_gap(&mut self, reach: &mut Reach<'_>) {
        let Some(gap) = self.facts.gap else { return };
        if self.gap_lsn > reach.effects.durable() {
            return;
        }
        for session in &self.sessions {
            let Some(stream) = reach.streams.get_mut(session) else { continue };
            let has_credit = stream.is_able() && stream.under_way < stream.granted;
            if has_credit && stream.gap_sent != Some(gap.to) {
                stream.gap_sent = Some(gap.to);
                reach.effects.emit(Output::Gap { session: *session, gap });
            }
        }
    }

    /// Forgets what waits below `to`. What somebody has may still be acknowledged.
    fn overtaken(&mut self, reach: &mut Reach<'_>, to: Offset) {
        let below = OffsetRange { from: Offset(0), to };
        let retried = &self.facts.retried;
        self.window.drop_parked(below, |offset| retried.contains(&offset));
        let entries = self.window.entries().take_while(|(offset, _)| *offset < to);
        let waiting = entries.filter(|(offset, entry)| match entry.phase() {
            Phase::Ready | Phase::Waiting { .. } => !self.facts.retried.contains(offset),
            Phase::Sent
            | Phase::Leased { .. }
            | Phase::Staged { .. }
            | Phase::Acknowledging { .. }
            | Phase::Burying { .. } => false,
        });
        let waiting: Vec<Offset> = waiting.map(|(offset, _)| offset).collect();
        for offset in waiting {
            self.drop_entry(reach.timers, offset);
        }
        self.cursor = self.cursor.max(to);
    }
}

/// The part of `bytes` that falls on `some` of `all` events, as far as that can be told without
/// knowing the size of each.
fn share(bytes: u64, some: u64, all: u64) -> u64 {
    if some >= all {
        return bytes;
    }
    u64::try_from(u128::from(bytes) * u128::from(some) / u128::from(all)).unwrap_or(bytes)
}
