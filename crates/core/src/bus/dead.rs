//! Dead letters: events that failed too often and wait for a person.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::ending::By;
use super::subscription::Subscription;
use super::topics::{ADMIN_BYTES, OFFSET_BYTES};
use super::window::Phase;
use super::{Answer, Bus, Call, Reach};
use crate::effects::Effects;
use crate::ids::{Lsn, Name, Now, Offset};
use crate::limits::Limits;
use crate::output::Reply;
use crate::record::{DeadLettered, DeadLettersTaken, Record};
use crate::refusal::{Code, Refusal};

/// Most dead letters in one listing.
const LISTED: usize = 1_000;

impl Subscription {
    /// Whether another event may become a dead letter.
    pub(super) fn has_room_for_dead(&self, limits: &Limits) -> bool {
        self.facts.dead.len() + self.burying < limits.dead_letters
    }

    /// Makes an event a dead letter, when the record is durable.
    pub(super) fn bury(&mut self, reach: &mut Reach<'_>, offset: Offset, by: By) -> Lsn {
        let entry = self.window.entry(offset);
        let lsn = reach.append(Record::DeadLettered(DeadLettered {
            subscription: self.id(),
            offset,
            attempts: entry.map_or(0, |entry| entry.attempts),
            reason: entry.and_then(|e| e.reason.as_deref()).map(String::from).unwrap_or_default(),
            wall_ms: reach.now.wall_ms,
        }));
        self.burying += 1;
        self.tally.dead += 1;
        self.set_phase(reach.timers, offset, Phase::Burying { lsn }, by);
        lsn
    }
}

impl Bus {
    pub(super) fn list_dead_letters(
        &self,
        call: &Call<'_>,
        name: &Name,
        from: Offset,
        limit: u32,
    ) -> Result<Answer, Refusal> {
        let subscription = self.known_subscription(name)?;
        let limit = LISTED.min(limit as usize);
        let letters = subscription.facts.dead.range(from..).take(limit);
        let letters = letters.map(|(_, letter)| letter.clone()).collect();
        let reply = Reply::DeadLetters { topic: subscription.topic(), letters };
        Ok(Answer::after(call.effects.last(), reply))
    }

    pub(super) fn take_dead_letters(
        &mut self,
        call: &mut Call<'_>,
        name: &Name,
        offsets: Vec<Offset>,
        retry: bool,
    ) -> Result<Answer, Refusal> {
        let subscription = self.known_subscription(name)?;
        let id = subscription.id();
        let facts = &subscription.facts;
        let is_there = |o: &Offset| facts.dead.contains_key(o) && !subscription.taken.contains(o);
        let wanted: BTreeSet<Offset> = if offsets.is_empty() {
            facts.dead.keys().copied().filter(is_there).collect()
        } else {
            offsets.into_iter().collect()
        };
        if let Some(missing) = wanted.iter().find(|offset| !is_there(offset)) {
            let detail = format!("offset {missing} is no dead letter of {name}");
            return Err(Refusal::new(Code::UnknownDeadLetter, detail));
        }
        let retried = facts.retried.len() + subscription.taken.len() + wanted.len();
        if retry && retried > call.limits.dead_letters {
            let detail = format!("{} dead letters are tried again already", facts.retried.len());
            return Err(Refusal::new(Code::LimitReached, detail));
        }
        let count = u32::try_from(wanted.len()).unwrap_or(u32::MAX);
        if wanted.is_empty() {
            return Ok(Answer::after(self.last, Reply::Taken(count)));
        }
        call.need_upkeep(ADMIN_BYTES + wanted.len() as u64 * OFFSET_BYTES)?;
        let offsets = wanted.iter().copied().collect();
        let record = DeadLettersTaken { subscription: id, offsets, retry };
        let lsn = self.append(call.effects, Record::DeadLettersTaken(record));
        if let Some(subscription) = self.subscriptions.get_mut(&id) {
            subscription.taken.extend(wanted);
        }
        Ok(Answer::after(lsn, Reply::Taken(count)))
    }

    /// A dead letter is durable: its key is free.
    pub(super) fn buried(
        &mut self,
        now: Now,
        lsn: Lsn,
        letter: &DeadLettered,
        effects: &mut Effects,
    ) {
        let Some((subscription, mut reach)) = self.reach(letter.subscription, now, effects) else {
            return;
        };
        let entry = subscription.window.entry(letter.offset);
        if entry.is_some_and(|e| e.phase() == Phase::Burying { lsn }) {
            subscription.window.remove(letter.offset);
            subscription.burying -= 1;
            subscription.pump(&mut reach);
        }
    }

    /// Dead letters are off the list for good: those to be tried again can be.
    pub(super) fn taken(&mut self, now: Now, record: &DeadLettersTaken, effects: &mut Effects) {
        let Some((subscription, mut reach)) = self.reach(record.subscription, now, effects) else {
            return;
        };
        for offset in &record.offsets {
            subscription.taken.remove(offset);
            let is_retried = record.retry && subscription.facts.retried.contains(offset);
            if is_retried {
                subscription.window.admit_unknown(*offset, Phase::Ready);
            }
        }
        subscription.pump(&mut reach);
    }
}
