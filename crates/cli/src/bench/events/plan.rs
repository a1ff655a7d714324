//! What the processes of `bench events` are told, and what they found.

use serde::{Deserialize, Serialize};

/// What the publishers do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PublisherPlan {
    pub(super) server: String,
    /// One, or in transactions two.
    pub(super) topics: Vec<String>,
    pub(super) publishers: u16,
    pub(super) in_flight: u32,
    /// Of each caller.
    pub(super) keys: u16,
    pub(super) size: u32,
    pub(super) events: u16,
    pub(super) in_tx: bool,
    pub(super) seconds: u32,
    pub(super) threads: u8,
}

/// What the publishers found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Published {
    /// Events, within the time that counts.
    pub(super) events: u64,
    pub(super) seconds: f64,
    /// Of publishes or transactions.
    pub(super) latencies: Vec<(u64, u64)>,
    /// By topic and key: over the whole run, how many were published for certain.
    pub(super) by_topic: Vec<Vec<u64>>,
    pub(super) problems: Vec<String>,
}

/// What a consumer group does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ConsumerPlan {
    pub(super) server: String,
    pub(super) topics: Vec<String>,
    /// Its subscription to a topic has both names.
    pub(super) group: String,
    pub(super) credit: u32,
    pub(super) threads: u8,
}

/// A group's subscription to a topic.
pub(super) fn subscription(group: &str, topic: &str) -> String {
    format!("{group}-{topic}")
}

/// What a consumer group found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Consumed {
    /// Events that count, by when they were sent.
    pub(super) events: u64,
    /// From the first to the last of them.
    pub(super) seconds: f64,
    /// From sending to having it in hand.
    pub(super) latencies: Vec<(u64, u64)>,
    /// By topic and key: over the whole run, how many came.
    pub(super) by_topic: Vec<Vec<u64>>,
    pub(super) problems: Vec<String>,
}
