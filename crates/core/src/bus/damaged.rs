//! Events that the log holds and cannot be read: the subscription stands still before them, and
//! whoever reads it is told. They are never passed over (I7, I17).

use super::subscription::{Damaged, Subscription};
use super::window::Phase;
use super::{Bus, Reach};
use crate::effects::Effects;
use crate::ids::Now;
use crate::output::Output;
use crate::refusal::{Code, Refusal};

impl Bus {
    /// The journal could not read what a fetch wanted next.
    pub(crate) fn unreadable(&mut self, now: Now, fetch: u64, detail: &str, effects: &mut Effects) {
        self.wake(effects);
        let Some(id) = self.fetches.remove(&fetch) else { return };
        let Some((subscription, mut reach)) = self.reach(id, now, effects) else { return };
        if subscription.fetch.as_ref().is_none_or(|outstanding| outstanding.fetch != fetch) {
            return;
        }
        subscription.fetch = None;
        let refusal = Refusal::new(Code::Damaged, detail);
        subscription.damaged = Some(Damaged { refusal, is_told: false });
        subscription.pump(&mut reach);
    }
}

impl Subscription {
    /// Whether it stands before events that cannot be read. When all that was delivered before is
    /// done with, its streams are ended with the reason; whoever subscribes again makes it look
    /// again.
    pub(super) fn stands_still(&mut self, reach: &mut Reach<'_>) -> bool {
        let Some(damaged) = &mut self.damaged else { return false };
        let leased = |phase| {
            matches!(phase, Phase::Sent | Phase::Leased { .. } | Phase::Acknowledging { .. })
        };
        if !damaged.is_told && !self.window.entries().any(|(_, entry)| leased(entry.phase())) {
            damaged.is_told = true;
            for session in &self.sessions {
                let refusal = damaged.refusal.clone();
                reach.effects.emit(Output::EndSession { session: *session, refusal });
            }
        }
        true
    }
}
