//! Acknowledging, rejecting, extending and giving back deliveries outside a transaction.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::ending::{By, Failure};
use super::refusals::{expired, staged};
use super::topics::{ADMIN_BYTES, OFFSET_BYTES};
use super::window::{Phase, Unjudged};
use super::{Answer, Bus, Call};
use crate::effects::Effects;
use crate::event::{DeliveryRef, OffsetRange};
use crate::ids::{Lsn, Now, Offset, SubscriptionId};
use crate::limits::CREDIT;
use crate::output::Reply;
use crate::reason::clipped;
use crate::record::{Acknowledged, Record};
use crate::refusal::{Code, Refusal};

/// What a dead letter says of a rejection without words.
const NO_REASON: &str = "its subscriber rejected it and gave no reason";

/// Where a delivery stands that somebody names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is under lease.
    Current,
    /// It was acknowledged by this record, which is not durable yet.
    Acknowledged(Lsn),
    /// It waits for the decision of a transaction.
    Staged,
    /// Its lease ran out, or it is done with, or it never was.
    Over,
}

impl Bus {
    /// Where a delivery stands.
    pub(super) fn standing(&self, delivery: &DeliveryRef) -> Standing {
        let subscription = self.subscriptions.get(&delivery.subscription);
        let entry = subscription.and_then(|s| s.window.entry(delivery.offset));
        let Some(entry) = entry.filter(|entry| entry.token == delivery.token) else {
            return Standing::Over;
        };
        match entry.phase() {
            Phase::Sent | Phase::Leased { .. } => Standing::Current,
            Phase::Acknowledging { lsn } => Standing::Acknowledged(lsn),
            Phase::Staged { .. } => Standing::Staged,
            Phase::Ready | Phase::Waiting { .. } | Phase::Burying { .. } => Standing::Over,
        }
    }

    pub(super) fn acknowledge(
        &mut self,
        call: &mut Call<'_>,
        deliveries: &[DeliveryRef],
    ) -> Result<Answer, Refusal> {
        check_count(deliveries)?;
        let by = By::Stream(call.caller.session);
        let mut after = Lsn(0);
        let mut refused = Vec::new();
        let mut current: BTreeMap<SubscriptionId, Vec<Offset>> = BTreeMap::new();
        for delivery in deliveries {
            match self.standing(delivery) {
                Standing::Current => {
                    current.entry(delivery.subscription).or_default().push(delivery.offset);
                }
                Standing::Acknowledged(lsn) => after = after.max(lsn),
                Standing::Staged => refused.push((*delivery, staged(delivery))),
                Standing::Over => refused.push((*delivery, expired(delivery))),
            }
        }
        if !current.is_empty() {
            let each = ADMIN_BYTES * current.len() as u64;
            call.need_upkeep(each + OFFSET_BYTES * deliveries.len() as u64)?;
        }
        for (id, mut offsets) in current {
            offsets.sort_unstable();
            offsets.dedup();
            let record = Acknowledged { subscription: id, ranges: coalesce(&offsets) };
            let lsn = self.append(call.effects, Record::Acknowledged(record));
            after = after.max(lsn);
            let Some(subscription) = self.subscriptions.get_mut(&id) else { continue };
            for offset in offsets {
                let phase = Phase::Acknowledging { lsn };
                subscription.set_phase(&mut self.timers, offset, phase, by);
            }
        }
        if !refused.is_empty() {
            after = after.max(self.last);
        }
        Ok(Answer::after(after, Reply::Acknowledged { refused }))
    }

    pub(super) fn extend_leases(
        &mut self,
        call: &mut Call<'_>,
        deliveries: &[DeliveryRef],
    ) -> Result<Answer, Refusal> {
        check_count(deliveries)?;
        let mut refused = Vec::new();
        for delivery in deliveries {
            match self.standing(delivery) {
                Standing::Current => {
                    let reached = self.reach(delivery.subscription, call.now, call.effects);
                    if let Some((subscription, mut reach)) = reached
                        && subscription.extend(&mut reach, delivery.offset)
                    {
                        subscription.pump(&mut reach);
                    }
                }
                Standing::Staged => refused.push((*delivery, staged(delivery))),
                Standing::Acknowledged(_) | Standing::Over => {
                    refused.push((*delivery, expired(delivery)));
                }
            }
        }
        let after = if refused.is_empty() { Lsn(0) } else { self.last };
        Ok(Answer::after(after, Reply::Acknowledged { refused }))
    }

    /// Deliveries go back that nobody has begun to work on, and their credit with them.
    pub(super) fn give_back(
        &mut self,
        call: &mut Call<'_>,
        deliveries: &[DeliveryRef],
    ) -> Result<Answer, Refusal> {
        check_count(deliveries)?;
        let mut refused = Vec::new();
        let mut touched: BTreeSet<SubscriptionId> = BTreeSet::new();
        for delivery in deliveries {
            match self.standing(delivery) {
                Standing::Current => {}
                Standing::Staged => {
                    refused.push((*delivery, staged(delivery)));
                    continue;
                }
                Standing::Acknowledged(_) | Standing::Over => {
                    refused.push((*delivery, expired(delivery)));
                    continue;
                }
            }
            let (id, offset) = (delivery.subscription, delivery.offset);
            let reached = self.reach(id, call.now, call.effects);
            let Some((subscription, mut reach)) = reached else { continue };
            let session = subscription.window.entry(offset).map(|entry| entry.session);
            if let Some(stream) = session.and_then(|session| reach.streams.get_mut(&session)) {
                stream.granted = stream.granted.saturating_sub(1);
            }
            subscription.give_back(&mut reach, offset, Unjudged::Untouched);
            touched.insert(id);
        }
        for id in touched {
            self.pump(id, call.now, call.effects);
        }
        let after = if refused.is_empty() { Lsn(0) } else { self.last };
        Ok(Answer::after(after, Reply::Acknowledged { refused }))
    }

    pub(super) fn reject(
        &mut self,
        call: &mut Call<'_>,
        delivery: &DeliveryRef,
        reason: String,
        dead: bool,
    ) -> Result<Answer, Refusal> {
        match self.standing(delivery) {
            Standing::Current => {}
            Standing::Staged => return Err(staged(delivery)),
            Standing::Acknowledged(_) | Standing::Over => return Err(expired(delivery)),
        }
        call.need_upkeep(ADMIN_BYTES)?;
        let (limits, session) = (call.limits, call.caller.session);
        let Some((subscription, mut reach)) =
            self.reach(delivery.subscription, call.now, call.effects)
        else {
            return Err(expired(delivery));
        };
        let offset = delivery.offset;
        if dead && !subscription.has_room_for_dead(limits) {
            let detail = format!("{} dead letters wait already", limits.dead_letters);
            return Err(Refusal::new(Code::LimitReached, detail));
        }
        let reason = if reason.is_empty() { NO_REASON.into() } else { clipped(reason) };
        let failure = Failure::Rejected(session, reason);
        let lsn = if dead {
            subscription.reject_for_good(&mut reach, offset, failure)
        } else {
            subscription.fail(&mut reach, limits, offset, failure)
        };
        // The key may be free for another event now, or a retry due at once.
        subscription.pump(&mut reach);
        Ok(Answer::after(lsn, Reply::Done))
    }

    /// Acknowledgements are durable: keys are free.
    pub(super) fn acknowledged(
        &mut self,
        now: Now,
        lsn: Lsn,
        record: &Acknowledged,
        effects: &mut Effects,
    ) {
        let Some(subscription) = self.subscriptions.get_mut(&record.subscription) else { return };
        for range in &record.ranges {
            subscription.window.remove_acknowledged(*range, lsn);
        }
        self.pump(record.subscription, now, effects);
    }
}

/// Ascending offsets as ranges.
fn coalesce(offsets: &[Offset]) -> Vec<OffsetRange> {
    let mut ranges: Vec<OffsetRange> = Vec::new();
    for offset in offsets {
        let to = Offset(offset.0 + 1);
        match ranges.last_mut() {
            Some(last) if last.to == *offset => last.to = to,
            Some(_) | None => ranges.push(OffsetRange { from: *offset, to }),
        }
    }
    ranges
}

fn check_count(deliveries: &[DeliveryRef]) -> Result<(), Refusal> {
    if deliveries.len() > CREDIT as usize {
        let detail = format!("{} deliveries in one call, at most {CREDIT}", deliveries.len());
        return Err(Refusal::new(Code::TooMany, detail));
    }
    Ok(())
}
