//! What records of the bus say: topics, events, subscriptions.

use alloc::string::String;
use alloc::vec::Vec;

#[cfg(doc)]
use super::Record;
use crate::event::{OffsetRange, PlacedEvent};
use crate::ids::{Digest, Name, Offset, ProducerId, SubscriptionId, TopicId};

/// See [`Record::Published`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Who published.
    pub producer: ProducerId,
    /// The producer's number of this batch.
    pub sequence: u64,
    /// Of what the batch says; left out of it are the events' times (see `docs/format.md`).
    pub digest: Digest,
    /// Unix time in milliseconds.
    pub wall_ms: u64,
    /// The events; their bytes are always here.
    pub events: Vec<PlacedEvent>,
}

/// How long a topic keeps its events. Whatever limit is met first ends an event; none: for ever.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TopicSettings {
    /// Events older than this many milliseconds may go.
    pub retain_ms: Option<u64>,
    /// Oldest events may go while the topic holds more bytes than this.
    pub retain_bytes: Option<u64>,
    /// Nothing goes before every subscription has acknowledged it; at `retain_bytes` publishing to
    /// this topic is refused instead.
    pub retain_unacknowledged: bool,
}

/// See [`Record::TopicCreated`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicCreated {
    /// Its internal id.
    pub topic: TopicId,
    /// Its public name.
    pub name: Name,
    /// Its settings.
    pub settings: TopicSettings,
    /// Unix time in milliseconds.
    pub wall_ms: u64,
}

/// See [`Record::TopicAltered`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicAltered {
    /// The topic.
    pub topic: TopicId,
    /// Its new settings.
    pub settings: TopicSettings,
}

/// See [`Record::TopicDeleted`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDeleted {
    /// The topic.
    pub topic: TopicId,
    /// False: it still has staged items and only refuses new ones. True: it is gone, and its
    /// subscriptions with it.
    pub gone: bool,
}

/// See [`Record::TopicTruncated`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicTruncated {
    /// The topic.
    pub topic: TopicId,
    /// The first offset that is still there.
    pub start: Offset,
    /// Bytes of events that went.
    pub bytes: u64,
}

/// How a subscription delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionSettings {
    /// Milliseconds for which a delivery is leased.
    pub lease_ms: u64,
    /// Attempts after which an event becomes a dead letter; none: it is tried for ever.
    pub max_attempts: Option<u32>,
    /// First pause before another attempt, in milliseconds; doubles with each.
    pub backoff_ms: u64,
    /// Longest pause before another attempt, in milliseconds.
    pub backoff_max_ms: u64,
}

impl Default for SubscriptionSettings {
    fn default() -> Self {
        Self { lease_ms: 30_000, max_attempts: Some(10), backoff_ms: 100, backoff_max_ms: 30_000 }
    }
}

/// See [`Record::SubscriptionCreated`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionCreated {
    /// Its internal id.
    pub subscription: SubscriptionId,
    /// Its public name.
    pub name: Name,
    /// The topic it reads.
    pub topic: TopicId,
    /// Its settings.
    pub settings: SubscriptionSettings,
    /// The first offset it delivers.
    pub start: Offset,
    /// Unix time in milliseconds.
    pub wall_ms: u64,
}

/// See [`Record::SubscriptionSought`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionSought {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// The next offset to deliver.
    pub offset: Offset,
}

/// See [`Record::SubscriptionDeleted`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionDeleted {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// False: it still has staged acknowledgements and only refuses new ones. True: it is gone.
    pub gone: bool,
}

/// See [`Record::Acknowledged`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// What was acknowledged, ascending.
    pub ranges: Vec<OffsetRange>,
}

/// See [`Record::GapAcknowledged`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GapAcknowledged {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// The end of the gap that was noted.
    pub to: Offset,
}

/// See [`Record::DeadLettered`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLettered {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// The event.
    pub offset: Offset,
    /// How often it was tried.
    pub attempts: u32,
    /// What the last subscriber said, if anything.
    pub reason: String,
    /// Unix time in milliseconds.
    pub wall_ms: u64,
}

/// See [`Record::DeadLettersTaken`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLettersTaken {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// Which.
    pub offsets: Vec<Offset>,
    /// True: deliver them again. False: they are dropped for good.
    pub retry: bool,
}
