//! Topics, publishing and reading: requests become commands, the core's replies become answers.

use handfast_core::command::{Command, Start};
use handfast_core::event::{EventRequest, StoredEvent};
use handfast_core::ids::{Name, Offset};
use handfast_core::limits::BATCH_ITEMS;
use handfast_core::output::Reply;
use handfast_core::record::TopicSettings;
use handfast_core::refusal::Refusal;
use tonic::Status;

use crate::v1::publish_reply::Result as PublishAnswer;
use crate::v1::start::From as Place;
use crate::{Malformed, digest, event, ids, raw, status, v1};

/// Where to start in a topic, as it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// As the core knows it.
    Start(Start),
    /// With the first event that was published at this Unix time in milliseconds or later. The
    /// server asks the journal for its offset.
    Time(u64),
}

/// Reads where to start; `absent` is what stands for nothing.
///
/// # Errors
/// When an absent one is not allowed, or it names no place.
pub fn start(
    field: &'static str,
    message: Option<v1::Start>,
    absent: Option<Start>,
) -> Result<StartAt, Malformed> {
    let Some(message) = message else {
        return absent.map(StartAt::Start).ok_or_else(|| Malformed::missing(field));
    };
    Ok(match message.from.ok_or_else(|| Malformed::missing(field))? {
        Place::Edge(edge) => StartAt::Start(match ids::enumeration(field, edge)? {
            v1::Edge::Earliest => Start::Earliest,
            v1::Edge::Latest => Start::Latest,
            v1::Edge::Unspecified => return Err(Malformed::missing(field)),
        }),
        Place::Offset(offset) => StartAt::Start(Start::At(Offset(offset))),
        Place::TimeUnixMs(ms) => StartAt::Time(ms),
    })
}

impl From<StartAt> for v1::Start {
    fn from(start: StartAt) -> Self {
        let from = match start {
            StartAt::Start(Start::Earliest) => Place::Edge(v1::Edge::Earliest.into()),
            StartAt::Start(Start::Latest) => Place::Edge(v1::Edge::Latest.into()),
            StartAt::Start(Start::At(offset)) => Place::Offset(offset.0),
            StartAt::Time(ms) => Place::TimeUnixMs(ms),
        };
        Self { from: Some(from) }
    }
}

/// Reads settings of a topic; absent: keeps every event.
///
/// # Errors
/// When a limit is zero.
pub fn topic_settings(message: Option<v1::TopicSettings>) -> Result<TopicSettings, Malformed> {
    let Some(message) = message else { return Ok(TopicSettings::default()) };
    for (field, value) in [("retain_ms", message.retain_ms), ("retain_bytes", message.retain_bytes)]
    {
        if value == Some(0) {
            return Err(Malformed::new(field, "is at least 1; leave it out for no limit"));
        }
    }
    Ok(TopicSettings {
        retain_ms: message.retain_ms,
        retain_bytes: message.retain_bytes,
        retain_unacknowledged: message.retain_unacknowledged,
    })
}

impl From<TopicSettings> for v1::TopicSettings {
    fn from(settings: TopicSettings) -> Self {
        Self {
            retain_ms: settings.retain_ms,
            retain_bytes: settings.retain_bytes,
            retain_unacknowledged: settings.retain_unacknowledged,
        }
    }
}

/// CreateTopic.
///
/// # Errors
/// `invalid_argument`; the sentence names the field.
pub fn create_topic(request: &v1::CreateTopicRequest) -> Result<Command, Refusal> {
    let name = ids::name("name", &request.name)?;
    Ok(Command::CreateTopic { name, settings: topic_settings(request.settings)? })
}

/// AlterTopic.
///
/// # Errors
/// `invalid_argument`; the sentence names the field.
pub fn alter_topic(request: &v1::AlterTopicRequest) -> Result<Command, Refusal> {
    let name = ids::name("name", &request.name)?;
    if request.settings.is_none() {
        return Err(Malformed::missing("settings").into());
    }
    Ok(Command::AlterTopic { name, settings: topic_settings(request.settings)? })
}

/// DeleteTopic.
///
/// # Errors
/// `invalid_argument` when it is not a name.
pub fn delete_topic(request: &v1::DeleteTopicRequest) -> Result<Command, Refusal> {
    Ok(Command::DeleteTopic { name: ids::name("name", &request.name)? })
}

/// The answer to CreateTopic and AlterTopic.
///
/// # Errors
/// The refusal, as a status.
///
/// # Panics
/// When the reply is one to another command.
pub fn topic(reply: Reply) -> Result<v1::TopicReply, Status> {
    match reply {
        Reply::Topic { name, settings, created } => Ok(v1::TopicReply {
            name: name.as_str().to_owned(),
            settings: Some(settings.into()),
            created,
        }),
        Reply::Refused(refusal) => Err(status::status(refusal)),
        other => status::foreign(&other),
    }
}

/// The answer to ListTopics.
///
/// # Errors
/// The refusal, as a status.
///
/// # Panics
/// When the reply is one to another command.
pub fn topics(reply: Reply) -> Result<v1::ListTopicsReply, Status> {
    match reply {
        Reply::Topics(views) => {
            Ok(v1::ListTopicsReply { topics: views.into_iter().map(Into::into).collect() })
        }
        Reply::Refused(refusal) => Err(status::status(refusal)),
        other => status::foreign(&other),
    }
}

/// The answer to calls that have no result (DeleteTopic, DeleteSubscription): make the message of
/// nothing.
///
/// # Errors
/// The refusal, as a status.
///
/// # Panics
/// When the reply is one to another command.
pub fn done(reply: Reply) -> Result<(), Status> {
    match reply {
        Reply::Done => Ok(()),
        Reply::Refused(refusal) => Err(status::status(refusal)),
        other => status::foreign(&other),
    }
}

/// An event to publish: its topic's name and its bytes are checked, its key is hashed.
///
/// # Errors
/// `invalid_argument`, or `too_large`.
pub fn new_event(message: raw::NewEvent) -> Result<EventRequest, Refusal> {
    let topic = ids::name("topic", &message.topic)?;
    let facts = event::check(&message.event)?;
    Ok(EventRequest { topic, key: facts.key, body: message.event })
}

impl From<EventRequest> for raw::NewEvent {
    fn from(request: EventRequest) -> Self {
        Self { topic: request.topic.as_str().to_owned(), event: request.body }
    }
}

/// Publish, and each batch of PublishStream.
///
/// # Errors
/// `invalid_argument`, `too_large` or `too_many`; the sentence names the field.
pub fn publish(request: raw::PublishRequest) -> Result<Command, Refusal> {
    let producer = ids::producer_id("producer_id", &request.producer_id)?;
    let length = request.events.len();
    if length == 0 {
        return Err(Malformed::missing("events").into());
    }
    ids::at_most("events", length, BATCH_ITEMS)?;
    let events: Vec<_> = request.events.into_iter().map(new_event).collect::<Result<_, _>>()?;
    let digest = digest::of_publish(&events);
    Ok(Command::Publish { producer, sequence: request.sequence, digest, events })
}

/// One batch of PublishStream; without one it is refused.
///
/// # Errors
/// As [`publish`].
pub fn publish_batch(batch: raw::PublishBatch) -> Result<Command, Refusal> {
    publish(batch.publish.ok_or_else(|| Malformed::missing("publish"))?)
}

/// The answer to Publish.
///
/// # Errors
/// The refusal, as a status.
///
/// # Panics
/// When the reply is one to another command.
pub fn published(reply: Reply) -> Result<v1::Published, Status> {
    match publish_answer(reply) {
        Ok(published) => Ok(published),
        Err(refusal) => Err(status::status(refusal)),
    }
}

/// The answer on a PublishStream to the batch with this number.
///
/// # Panics
/// When the reply is one to another command.
#[must_use]
pub fn publish_reply(request: u64, reply: Reply) -> v1::PublishReply {
    match publish_answer(reply) {
        Ok(published) => {
            v1::PublishReply { request, result: Some(PublishAnswer::Published(published)) }
        }
        Err(refusal) => publish_refusal(request, refusal),
    }
}

/// The refusal of a batch that never became a command.
#[must_use]
pub fn publish_refusal(request: u64, refusal: Refusal) -> v1::PublishReply {
    v1::PublishReply { request, result: Some(PublishAnswer::Refusal(refusal.into())) }
}

fn publish_answer(reply: Reply) -> Result<v1::Published, Refusal> {
    match reply {
        Reply::Published { places, repeated } => Ok(v1::Published {
            offsets: places.into_iter().map(|(_, offset)| offset.0).collect(),
            repeated,
        }),
        Reply::Refused(refusal) => Err(refusal),
        other => status::foreign(&other),
    }
}

/// An event that was read, as it travels. Its bytes are not copied.
impl From<StoredEvent> for raw::StoredEvent {
    fn from(event: StoredEvent) -> Self {
        Self {
            offset: event.offset.0,
            transaction_id: ids::transaction_bytes_or_none(event.transaction),
            published_unix_ms: event.wall_ms,
            event: event.body,
        }
    }
}

/// What Read asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The topic.
    pub topic: Name,
    /// Where to start.
    pub start: StartAt,
    /// End after this many events; none: no limit.
    pub limit: Option<u64>,
    /// Wait for more at the topic's end.
    pub follow: bool,
}

impl TryFrom<v1::ReadRequest> for Read {
    type Error = Refusal;

    fn try_from(request: v1::ReadRequest) -> Result<Self, Refusal> {
        Ok(Self {
            topic: ids::name("topic", &request.topic)?,
            start: start("start", request.start, Some(Start::Earliest))?,
            limit: (request.limit != 0).then_some(request.limit),
            follow: request.follow,
        })
    }
}
