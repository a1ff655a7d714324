//! Why a subscription delivers nothing at a moment: a word for programs, a sentence for people. Only
//! looks, and looks at few things: it is asked for every subscription at once.

use alloc::format;
use alloc::string::String;

use super::Bus;
use super::attach::Stream;
use super::subscription::Subscription;
use super::topics::Leaving;
use super::window::Phase;
use crate::ids::{Lsn, Now, Offset};
use crate::limits::WINDOW;
use crate::view::Standing;

impl Bus {
    /// How a subscription stands.
    pub(super) fn stands(&self, subscription: &Subscription, durable: Lsn) -> Standing {
        let Some(topic) = self.topics.get(&subscription.topic()) else { return Standing::Deleting };
        if subscription.facts.deleting || subscription.leaving != Leaving::Staying {
            return Standing::Deleting;
        }
        if !subscription.exists || subscription.hold > durable {
            return Standing::Held;
        }
        if subscription.facts.gap.is_some() {
            return Standing::Gap;
        }
        let cursor = subscription.cursor.max(topic.first());
        if subscription.passed() >= topic.visible {
            return Standing::Done;
        }
        if subscription.sessions.is_empty() {
            return Standing::NoSubscriber;
        }
        let has_new = cursor < topic.visible;
        let is_full = has_new && cursor.0 >= subscription.passed().0.saturating_add(WINDOW);
        let has_ready = subscription.window.has_ready();
        if is_full && !has_ready {
            return Standing::WindowFull;
        }
        let (leased, staged) = (self.has_under_way(subscription), subscription.staged > 0);
        let can_go_on = has_ready || (has_new && !is_full);
        match (can_go_on, subscription.credit > 0) {
            (true, true) => Standing::Delivering,
            // What it was given is all that it wants for now.
            (true, false) if leased => Standing::Leased,
            (true, false) if self.are_behind(subscription) => Standing::NotReading,
            (true, false) => Standing::NoCredit,
            (false, _) if leased => Standing::Leased,
            (false, _) if staged => Standing::Staged,
            (false, _) => Standing::Waiting,
        }
    }

    /// Somebody has an event of it.
    fn has_under_way(&self, subscription: &Subscription) -> bool {
        let has = |stream: &Stream| stream.under_way > 0;
        subscription.sessions.iter().any(|s| self.streams.get(s).is_some_and(has))
    }

    /// No stream of it reads, or answers.
    fn are_behind(&self, subscription: &Subscription) -> bool {
        let hears = |stream: &Stream| !stream.behind && !stream.silent;
        !subscription.sessions.iter().any(|s| self.streams.get(s).is_some_and(hears))
    }

    /// The same in a sentence; empty where there is nothing to say.
    pub(super) fn note(&self, subscription: &Subscription, standing: Standing, now: Now) -> String {
        let first = subscription.passed();
        match standing {
            Standing::Done | Standing::Delivering | Standing::Leased | Standing::Gap => {
                String::new()
            }
            Standing::Deleting => "is being deleted".into(),
            Standing::Held => "waits until its last change is durable".into(),
            Standing::NoSubscriber => "nobody is subscribed".into(),
            Standing::NotReading => "no subscriber reads what it was sent, or answers".into(),
            Standing::NoCredit => "no stream asks for more (no credit)".into(),
            Standing::Staged => "all that is there is staged in transactions".into(),
            Standing::Waiting => {
                format!(
                    "all that is there waits for another attempt; {}",
                    at(subscription, first, now)
                )
            }
            Standing::WindowFull => format!(
                "stands still: it looks no more than {WINDOW} offsets beyond the first that is not \
                 done, and {}",
                at(subscription, first, now)
            ),
        }
    }
}

/// What is with one event.
fn at(subscription: &Subscription, offset: Offset, now: Now) -> String {
    let seconds = |until_ms: u64| until_ms.saturating_sub(now.mono_ms).div_ceil(1_000);
    let Some(entry) = subscription.window.entry(offset) else {
        return format!("{offset} comes first");
    };
    let attempts = entry.attempts;
    match entry.phase() {
        Phase::Sent => format!("{offset} was sent to a subscriber that has not taken it up"),
        Phase::Leased { until_ms, .. } => {
            let left = seconds(until_ms);
            format!("{offset} is with a subscriber for another {left} s at most")
        }
        Phase::Waiting { until_ms } => {
            let left = seconds(until_ms);
            format!("{offset} is tried again in {left} s, after {attempts} attempts")
        }
        Phase::Staged { transaction } => format!("{offset} is staged in transaction {transaction}"),
        Phase::Acknowledging { .. } | Phase::Burying { .. } => {
            format!("{offset} is about to be done")
        }
        Phase::Ready => format!("{offset} comes first"),
    }
}
