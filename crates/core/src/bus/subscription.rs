//! One subscription: the facts that the log holds about it, and what is only true while the
//! server runs. Facts change in the fold and nowhere else.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

use super::ending::Left;
use super::ending::{By, Tally};
use super::facts::Facts;
use super::timers::{Leases, Timers};
use super::topics::Leaving;
use super::window::{Phase, Window};
use crate::ids::{Lsn, Offset, SessionId, SubscriptionId, TopicId};
use crate::record::{SubscriptionCreated, SubscriptionSettings};
use crate::refusal::Refusal;

/// Why a subscription stands still.
#[derive(Clone, Debug)]
pub(super) struct Damaged {
    pub(super) refusal: Refusal,
    /// Its streams have been ended.
    pub(super) is_told: bool,
}

/// A subscription.
#[derive(Clone, Debug)]
pub(super) struct Subscription {
    /// What the log holds.
    pub(super) facts: Facts,
    /// The record of its creation has been accepted: the facts are facts.
    pub(super) exists: bool,
    /// Whether it is on its way out, ahead of the facts.
    pub(super) leaving: Leaving,
    /// The record of its creation; zero if it was created before the server started.
    pub(super) created_lsn: Lsn,
    /// Nothing is delivered before this record is durable.
    pub(super) hold: Lsn,
    /// The last seek.
    pub(super) sought_lsn: Lsn,
    /// The record that made the gap.
    pub(super) gap_lsn: Lsn,
    /// Every event below is acknowledged, in the window, or does not exist.
    pub(super) cursor: Offset,
    /// The events under way.
    pub(super) window: Window,
    /// Those of them that are leased.
    pub(super) leases: Leases,
    /// Streams that are attached.
    pub(super) sessions: BTreeSet<SessionId>,
    /// Those with room, the next one to serve first.
    pub(super) line: VecDeque<SessionId>,
    /// Room of all streams together.
    pub(super) credit: u64,
    /// The stream that gets nothing new, so that an event can be delivered there alone.
    pub(super) emptied: Option<SessionId>,
    /// Deliveries that are over: they leave their streams with the next pump.
    pub(super) returned: Vec<Left>,
    /// The fetch that has not been answered.
    pub(super) fetch: Option<Outstanding>,
    /// The events that come next cannot be read.
    pub(super) damaged: Option<Damaged>,
    /// The last fetch was for events that are tried again: new ones are next.
    pub(super) new_next: bool,
    /// Acknowledgements staged in transactions.
    pub(super) staged: u32,
    /// Dead letters whose record is not durable yet.
    pub(super) burying: usize,
    /// Dead letters that are being taken off the list.
    pub(super) taken: BTreeSet<Offset>,
    /// What has become of attempts.
    pub(super) tally: Tally,
}

/// A fetch that has not been answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outstanding {
    /// Its number.
    pub(super) fetch: u64,
    /// The offsets it asked for one by one; empty for a range.
    pub(super) offsets: Vec<Offset>,
}

impl Subscription {
    /// A subscription with nothing under way.
    pub(super) fn new(created: SubscriptionCreated) -> Self {
        let start = created.start;
        Self {
            facts: Facts::new(created),
            exists: false,
            leaving: Leaving::Staying,
            created_lsn: Lsn(0),
            hold: Lsn(0),
            sought_lsn: Lsn(0),
            gap_lsn: Lsn(0),
            cursor: start,
            window: Window::default(),
            leases: Leases::default(),
            sessions: BTreeSet::new(),
            line: VecDeque::new(),
            credit: 0,
            emptied: None,
            returned: Vec::new(),
            fetch: None,
            damaged: None,
            new_next: false,
            staged: 0,
            burying: 0,
            taken: BTreeSet::new(),
            tally: Tally::default(),
        }
    }

    /// Its internal id.
    pub(super) fn id(&self) -> SubscriptionId {
        self.facts.created.subscription
    }

    /// The topic it reads.
    pub(super) fn topic(&self) -> TopicId {
        self.facts.created.topic
    }

    /// How it delivers.
    pub(super) fn settings(&self) -> &SubscriptionSettings {
        &self.facts.created.settings
    }

    /// Every event below is acknowledged for good, or does not exist. Ahead of the floor where
    /// offsets were never used, which only reading finds out.
    pub(super) fn passed(&self) -> Offset {
        let floor = self.facts.progress.floor();
        let first = self.window.first_from(floor).unwrap_or(self.cursor);
        floor.max(first.min(self.cursor))
    }

    /// Whether retention took the event, so that it cannot be delivered again. A dead letter that
    /// is tried again is kept by the journal.
    pub(super) fn is_lost(&self, offset: Offset, topic_start: Offset) -> bool {
        offset < topic_start && !self.facts.retried.contains(&offset)
    }

    /// Whether as many attempts have counted as may.
    pub(super) fn is_exhausted(&self, offset: Offset) -> bool {
        let attempts = self.window.entry(offset).map_or(0, |entry| entry.attempts);
        self.settings().max_attempts.is_some_and(|max| attempts >= max)
    }

    /// Forgets everything under way but what is staged, and goes on at `cursor`.
    pub(super) fn restart_at(&mut self, timers: &mut Timers, cursor: Offset) {
        self.stop_timers(timers);
        let window = core::mem::take(&mut self.window);
        for (offset, entry) in window.entries() {
            match entry.phase() {
                phase @ Phase::Staged { .. } => self.window.admit_unknown(offset, phase),
                phase @ (Phase::Sent | Phase::Leased { .. }) => {
                    let (session, token) = (entry.session, entry.token);
                    let ran = phase != Phase::Sent;
                    self.returned.push(Left { session, token, ran, by: By::Server });
                }
                Phase::Ready
                | Phase::Waiting { .. }
                | Phase::Acknowledging { .. }
                | Phase::Burying { .. } => {}
            }
        }
        for offset in &self.facts.retried {
            self.window.admit_unknown(*offset, Phase::Ready);
        }
        self.cursor = cursor;
        self.fetch = None;
        self.damaged = None;
        self.burying = 0;
    }

    /// Nothing happens by itself any more.
    pub(super) fn stop_timers(&mut self, timers: &mut Timers) {
        let id = self.id();
        self.leases.clear(timers, id);
        for (offset, entry) in self.window.entries() {
            if let Phase::Waiting { until_ms } = entry.phase() {
                timers.end_pause(until_ms, id, offset);
            }
        }
    }
}
