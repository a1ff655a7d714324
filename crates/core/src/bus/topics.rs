//! Topics: their bounds, and the commands that make, change and delete them.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;

use super::parts::{Part, Parts};
use super::{Answer, Bus, Call};
use crate::effects::Effects;
use crate::ids::{Name, Offset, SubscriptionId, TopicId};
use crate::output::Reply;
use crate::record::{Record, TopicAltered, TopicCreated, TopicDeleted, TopicSettings};
use crate::refusal::{Code, Refusal};
use crate::view::TopicView;

/// Whether a topic or a subscription is on its way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Leaving {
    /// It is not.
    #[default]
    Staying,
    /// It goes when its last staged item is decided.
    Emptying,
    /// The record that it is gone has been made.
    Going,
}

/// A topic.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    /// How it was created, with its settings of now.
    pub(super) created: TopicCreated,
    /// It goes when its last staged item is decided.
    pub(super) deleting: bool,
    /// The first offset that is still there.
    pub(super) start: Offset,
    /// One past the last event that was accepted.
    pub(super) end: Offset,
    /// Bytes of events between them.
    pub(super) bytes: u64,
    // What follows is only true while the server runs.
    /// The record of its creation has been accepted.
    pub(super) exists: bool,
    /// Whether it is on its way out, ahead of `deleting`.
    pub(super) leaving: Leaving,
    /// The offset that the next event gets, ahead of `end`.
    pub(super) next: Offset,
    /// One past the last event that is durable.
    pub(super) visible: Offset,
    /// Where retention has been told to begin, ahead of `start`.
    pub(super) truncating: Offset,
    /// Bytes beyond those it holds for which events were last refused because it was full; 0: none
    /// since retention took some.
    pub(super) wanted: u64,
    /// Its events in the newest segment of the log.
    pub(super) parts: Parts,
    /// Events staged in transactions.
    pub(super) staged: u32,
    /// Bytes of events that are staged, or published and not durable.
    pub(super) reserved: u64,
    /// Its subscriptions.
    pub(super) subscriptions: BTreeSet<SubscriptionId>,
}

impl Topic {
    /// An empty topic.
    pub(super) fn new(created: TopicCreated) -> Self {
        Self {
            created,
            deleting: false,
            start: Offset(0),
            end: Offset(0),
            bytes: 0,
            exists: false,
            leaving: Leaving::Staying,
            next: Offset(0),
            visible: Offset(0),
            truncating: Offset(0),
            wanted: 0,
            parts: Parts::default(),
            staged: 0,
            reserved: 0,
            subscriptions: BTreeSet::new(),
        }
    }

    /// The first offset that will still be there when all that was appended is applied.
    pub(super) fn first(&self) -> Offset {
        self.start.max(self.truncating)
    }

    /// Whether it keeps every event until it is acknowledged, and has no room for so many more.
    pub(super) fn is_full_for(&self, bytes: u64) -> bool {
        let settings = &self.created.settings;
        let held = self.bytes.saturating_add(self.reserved).saturating_add(bytes);
        settings.retain_unacknowledged && settings.retain_bytes.is_some_and(|most| held > most)
    }

    /// So many bytes were refused: retention is to make room for them, if there can be any.
    pub(super) fn wants(&mut self, bytes: u64) {
        if self.created.settings.retain_bytes.is_some_and(|most| bytes <= most) {
            self.wanted = self.wanted.max(self.reserved.saturating_add(bytes));
        }
    }

    /// Its events in the newest segment, if it has a limit to keep.
    pub(super) fn newest_parts(&self) -> Vec<Part> {
        let settings = &self.created.settings;
        let limited = settings.retain_ms.is_some() || settings.retain_bytes.is_some();
        if limited { self.parts.to_vec() } else { Vec::new() }
    }

    /// An event has its place in it.
    pub(super) fn add(&mut self, offset: Offset, bytes: u64, wall_ms: u64) {
        self.end = Offset(offset.0 + 1);
        self.next = self.next.max(self.end);
        self.bytes = self.bytes.saturating_add(bytes);
        let span_ms = self.created.settings.retain_ms.map_or(u64::MAX, |ms| ms / LATE_SHARE);
        self.parts.add(offset, bytes, wall_ms, span_ms);
    }
}

impl Bus {
    /// The topic of this name, to add something to it.
    pub(super) fn open_topic(&self, name: &Name) -> Result<&Topic, Refusal> {
        let topic = self.topic_names.get(name).and_then(|id| self.topics.get(id));
        let topic = topic
            .ok_or_else(|| Refusal::new(Code::UnknownTopic, format!("there is no topic {name}")))?;
        if topic.leaving != Leaving::Staying {
            return Err(Refusal::new(Code::Deleting, format!("topic {name} is being deleted")));
        }
        Ok(topic)
    }

    pub(super) fn create_topic(
        &mut self,
        call: &mut Call<'_>,
        name: Name,
        settings: TopicSettings,
    ) -> Result<Answer, Refusal> {
        if self.topic_names.contains_key(&name) {
            if self.open_topic(&name)?.created.settings != settings {
                let detail = format!("topic {name} exists with other settings");
                return Err(Refusal::new(Code::TopicExists, detail));
            }
            return Ok(Answer::after(self.last, Reply::Topic { name, settings, created: false }));
        }
        call.need_room(call.limits.topics, self.topics.len(), "topics")?;
        let topic = self.next_topic;
        self.next_topic = TopicId(next_id(topic.0, "topic")?);
        let created = TopicCreated {
            topic,
            name: name.clone(),
            settings: settings.clone(),
            wall_ms: call.now.wall_ms,
        };
        self.topic_names.insert(name.clone(), topic);
        self.topics.insert(topic, Topic::new(created.clone()));
        let lsn = self.append(call.effects, Record::TopicCreated(created));
        Ok(Answer::after(lsn, Reply::Topic { name, settings, created: true }))
    }

    pub(super) fn alter_topic(
        &mut self,
        call: &mut Call<'_>,
        name: Name,
        settings: TopicSettings,
    ) -> Result<Answer, Refusal> {
        let topic = self.open_topic(&name)?.created.topic;
        call.need_upkeep(ADMIN_BYTES)?;
        let altered = TopicAltered { topic, settings: settings.clone() };
        let lsn = self.append(call.effects, Record::TopicAltered(altered));
        Ok(Answer::after(lsn, Reply::Topic { name, settings, created: false }))
    }

    pub(super) fn delete_topic(
        &mut self,
        call: &mut Call<'_>,
        name: &Name,
    ) -> Result<Answer, Refusal> {
        let id = self.open_topic(name)?.created.topic;
        call.need_upkeep(ADMIN_BYTES)?;
        if let Some(topic) = self.topics.get_mut(&id) {
            topic.leaving = Leaving::Emptying;
        }
        if !self.finish_topic(id, call.effects) {
            let record = Record::TopicDeleted(TopicDeleted { topic: id, gone: false });
            self.append(call.effects, record);
        }
        Ok(Answer::after(self.last, Reply::Done))
    }

    pub(super) fn list_topics(&self, call: &Call<'_>) -> Answer {
        let topics = self.topic_names.values().filter_map(|id| self.topics.get(id));
        let views = topics.filter(|topic| topic.exists).map(|topic| TopicView {
            topic: topic.created.topic,
            name: topic.created.name.clone(),
            settings: topic.created.settings.clone(),
            start: topic.start,
            end: topic.end,
            bytes: topic.bytes,
            deleting: topic.deleting,
            subscriptions: u32::try_from(topic.subscriptions.len()).unwrap_or(u32::MAX),
        });
        // What was accepted is shown, so the answer waits until all of it is durable.
        Answer::after(call.effects.last(), Reply::Topics(views.collect()))
    }

    /// Lets a topic go that only waited for staged items and has none any more.
    pub(super) fn finish_topic(&mut self, id: TopicId, effects: &mut Effects) -> bool {
        let Some(topic) = self.topics.get(&id) else { return false };
        let mut subscriptions = topic.subscriptions.iter();
        let is_staged = topic.staged > 0
            || subscriptions.any(|s| self.subscriptions.get(s).is_some_and(|s| s.staged > 0));
        if topic.leaving != Leaving::Emptying || is_staged {
            return false;
        }
        self.append(effects, Record::TopicDeleted(TopicDeleted { topic: id, gone: true }));
        if let Some(topic) = self.topics.get_mut(&id) {
            topic.leaving = Leaving::Going;
        }
        true
    }
}

/// Events stay at most this share of `retain_ms` longer than it.
const LATE_SHARE: u64 = 16;
/// Room that a record of administration takes in the log, generously.
pub(super) const ADMIN_BYTES: u64 = 1 << 10;
/// Room that an offset in one takes, or a range of them.
pub(super) const OFFSET_BYTES: u64 = 24;

/// The id after this one.
pub(super) fn next_id(id: u32, what: &str) -> Result<u32, Refusal> {
    let refused = || Refusal::new(Code::LimitReached, format!("every {what} id was used"));
    id.checked_add(1).ok_or_else(refused)
}
