//! Topics.

use std::time::Duration;

use handfast_wire::{events, v1};

use super::{Stub, TopicSettingsView, TopicView, read_all, repeat};
use crate::client::Handfast;
use crate::error::Error;

/// How long a topic keeps its events; without any limit for ever. Whatever limit is met first ends
/// an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct TopicSettings(v1::TopicSettings);

impl TopicSettings {
    /// Keeps every event.
    pub fn new() -> Self {
        Self::default()
    }

    /// Events older than this may go; at least 1 ms.
    pub fn with_age(mut self, age: Duration) -> Self {
        self.0.retain_ms = Some(crate::time::millis(age));
        self
    }

    /// The oldest events may go while the topic holds more bytes than this; at least 1.
    pub fn with_bytes(mut self, bytes: u64) -> Self {
        self.0.retain_bytes = Some(bytes);
        self
    }

    /// Nothing goes before every subscription has acknowledged it; at the limit of bytes,
    /// publishing is refused (`topic_full`) instead.
    pub fn retain_unacknowledged(mut self) -> Self {
        self.0.retain_unacknowledged = true;
        self
    }
}

/// A topic as it stands after a call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its settings.
    pub settings: TopicSettingsView,
    /// It did not exist before.
    pub created: bool,
}

impl Handfast {
    /// Creates a topic. Creating it again with the same settings is no error.
    ///
    /// # Errors
    /// `topic_exists` with other settings, `limit_reached`, `deleting`.
    pub async fn create_topic(
        &self,
        name: impl Into<String>,
        settings: TopicSettings,
    ) -> Result<Topic, Error> {
        let request = v1::CreateTopicRequest { name: name.into(), settings: Some(settings.0) };
        topic(repeat(self, request, |mut stub, r| async move { stub.create_topic(r).await }).await?)
    }

    /// Gives a topic other settings: all of them.
    ///
    /// # Errors
    /// `unknown_topic`, `deleting`.
    pub async fn alter_topic(
        &self,
        name: impl Into<String>,
        settings: TopicSettings,
    ) -> Result<Topic, Error> {
        let request = v1::AlterTopicRequest { name: name.into(), settings: Some(settings.0) };
        topic(repeat(self, request, |mut stub, r| async move { stub.alter_topic(r).await }).await?)
    }

    /// Deletes a topic with its subscriptions, at once or when the last transaction that publishes
    /// to it is decided. It takes no more events.
    ///
    /// # Errors
    /// `unknown_topic`; also when the answer to a first attempt was lost.
    pub async fn delete_topic(&self, name: impl Into<String>) -> Result<(), Error> {
        let mut stub = self.connection().events();
        let request = v1::DeleteTopicRequest { name: name.into() };
        self.connection().once(stub.delete_topic(request)).await.map(drop)
    }

    /// All topics, by name.
    ///
    /// # Errors
    /// A fault.
    pub async fn topics(&self) -> Result<Vec<TopicView>, Error> {
        let request = v1::ListTopicsRequest {};
        let call = |mut stub: Stub, r| async move { stub.list_topics(r).await };
        read_all(repeat(self, request, call).await?.topics)
    }
}

fn topic(reply: v1::TopicReply) -> Result<Topic, Error> {
    let settings = events::topic_settings(reply.settings)?;
    Ok(Topic { name: reply.name, settings, created: reply.created })
}
