//! Events as the core sees them: a topic, an ordering key, an offset and opaque bytes.
//!
//! The core never looks into a body. Its bytes are shared with the buffer they arrived in, so an
//! event exists once in memory until it is in the journal, and there once on disk.

use bytes::Bytes;

use crate::ids::{DeliveryToken, KeyHash, Name, Offset, SubscriptionId, TopicId, TransactionId};

/// An event that somebody wants published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRequest {
    /// The topic, by its public name.
    pub topic: Name,
    /// Events of one topic with the same key are delivered in order; none: no order promised.
    pub key: Option<KeyHash>,
    /// The encoded CloudEvent.
    pub body: Bytes,
}

/// An event that was checked and taken, but has no offset yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedEvent {
    /// The topic.
    pub topic: TopicId,
    /// The ordering key.
    pub key: Option<KeyHash>,
    /// The encoded CloudEvent. Empty in a local transaction whose BEGIN is durable: there the
    /// bytes are in the journal already, and `size` still tells their number.
    pub body: Bytes,
    /// Length of the body in bytes.
    pub size: u32,
}

/// An event with its place in its topic, as it is written in a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedEvent {
    /// The topic.
    pub topic: TopicId,
    /// Its place in the topic.
    pub offset: Offset,
    /// The ordering key.
    pub key: Option<KeyHash>,
    /// The bytes, or where they are.
    pub body: Body,
}

/// Where an event's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// In this record.
    Here(Bytes),
    /// Item number `item` of the BEGIN record of the same (local) transaction.
    InBegin {
        /// Index into the events of BEGIN.
        item: u32,
        /// Length in bytes.
        size: u32,
    },
}

impl Body {
    /// Length of the event in bytes, wherever it is.
    #[must_use]
    pub fn size(&self) -> u32 {
        match self {
            Self::Here(bytes) => u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            Self::InBegin { size, .. } => *size,
        }
    }
}

/// An event as it is read back from the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its place in its topic.
    pub offset: Offset,
    /// The ordering key.
    pub key: Option<KeyHash>,
    /// The transaction that published it, if one did.
    pub transaction: Option<TransactionId>,
    /// Unix time in milliseconds at which it was published or its transaction decided.
    pub wall_ms: u64,
    /// The encoded CloudEvent.
    pub body: Bytes,
}

/// Names one attempt to deliver one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryRef {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// The event's place in its topic.
    pub offset: Offset,
    /// The attempt.
    pub token: DeliveryToken,
}

/// An event handed to a subscriber, under a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// What to acknowledge.
    pub reference: DeliveryRef,
    /// One more than the attempts that have counted since the server started. An event that comes
    /// again after an attempt that does not count has the same number.
    pub attempt: u32,
    /// How long it is leased, in milliseconds, from when the stream has answered what it was sent
    /// before.
    pub lease_ms: u64,
    /// The event.
    pub event: StoredEvent,
}

/// Offsets `from..to` of a subscription, all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OffsetRange {
    /// First offset.
    pub from: Offset,
    /// First offset after the range.
    pub to: Offset,
}
