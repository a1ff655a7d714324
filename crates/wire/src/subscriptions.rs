//! Subscriptions, the subscriber's stream and dead letters: requests become commands, the core's
//! outputs become messages.

use handfast_core::command::{Command, Start};
use handfast_core::event::{Delivery, DeliveryRef, OffsetRange};
use handfast_core::ids::{Name, Offset};
use handfast_core::limits::LEASE_MS;
use handfast_core::output::Reply;
use handfast_core::record::SubscriptionSettings;
use handfast_core::refusal::{Code, Refusal};
use tonic::Status;

use crate::events::{StartAt, start};
use crate::raw::to_subscriber::Message as To;
use crate::transactions::DEFAULT_LIMIT;
use crate::v1::from_subscriber::Message as FromMessage;
use crate::{LIST_ITEMS, Malformed, ids, raw, status, v1};

/// Reads how a subscription delivers; what is absent has its default.
///
/// # Errors
/// When a lease is none or too long, or the pauses contradict each other.
pub fn settings(
    message: Option<v1::SubscriptionSettings>,
) -> Result<SubscriptionSettings, Malformed> {
    let default = SubscriptionSettings::default();
    let Some(message) = message else { return Ok(default) };
    let lease_ms = message.lease_ms.unwrap_or(default.lease_ms);
    if !(1..=LEASE_MS).contains(&lease_ms) {
        return Err(Malformed::new("lease_ms", format!("{lease_ms} is not 1 to {LEASE_MS}")));
    }
    let backoff_ms = message.backoff_ms.unwrap_or(default.backoff_ms);
    let backoff_max_ms = message.backoff_max_ms.unwrap_or(default.backoff_max_ms.max(backoff_ms));
    if backoff_max_ms < backoff_ms {
        let problem = format!("{backoff_max_ms} is less than `backoff_ms`, {backoff_ms}");
        return Err(Malformed::new("backoff_max_ms", problem));
    }
    let max_attempts = match message.max_attempts {
        None => default.max_attempts,
        Some(0) => None,
        Some(most) => Some(most),
    };
    Ok(SubscriptionSettings { lease_ms, max_attempts, backoff_ms, backoff_max_ms })
}

impl From<SubscriptionSettings> for v1::SubscriptionSettings {
    fn from(settings: SubscriptionSettings) -> Self {
        Self {
            lease_ms: Some(settings.lease_ms),
            max_attempts: Some(settings.max_attempts.unwrap_or(0)),
            backoff_ms: Some(settings.backoff_ms),
            backoff_max_ms: Some(settings.backoff_max_ms),
        }
    }
}

/// A subscription to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSubscription {
    /// Its name.
    pub name: Name,
    /// The topic it reads.
    pub topic: Name,
    /// Where it starts.
    pub start: StartAt,
    /// Its settings.
    pub settings: SubscriptionSettings,
}

impl NewSubscription {
    /// The command, once a start that was given as a time has become an offset.
    #[must_use]
    pub fn command(self, start: Start) -> Command {
        let Self { name, topic, start: _, settings } = self;
        Command::CreateSubscription { name, topic, start, settings }
    }
}

impl TryFrom<v1::CreateSubscriptionRequest> for NewSubscription {
    type Error = Refusal;

    fn try_from(request: v1::CreateSubscriptionRequest) -> Result<Self, Refusal> {
        Ok(Self {
            name: ids::name("name", &request.name)?,
            topic: ids::name("topic", &request.topic)?,
            start: start("start", request.start, Some(Start::Earliest))?,
            settings: settings(request.settings)?,
        })
    }
}

/// SeekSubscription: which, and where to.
///
/// # Errors
/// `invalid_argument`; the sentence names the field.
pub fn seek(request: &v1::SeekSubscriptionRequest) -> Result<(Name, StartAt), Refusal> {
    Ok((ids::name("name", &request.name)?, start("to", request.to, None)?))
}

/// DeleteSubscription.
///
/// # Errors
/// `invalid_argument` when it is not a name.
pub fn delete(request: &v1::DeleteSubscriptionRequest) -> Result<Command, Refusal> {
    Ok(Command::DeleteSubscription { subscription: ids::name("name", &request.name)? })
}

/// The answer to CreateSubscription.
///
/// # Errors
/// The refusal, as a status.
///
/// # Panics
/// When the reply is one to another command.
pub fn created(reply: Reply) -> Result<v1::SubscriptionReply, Status> {
    if let Reply::Refused(refusal) = reply {
        return Err(status::status(refusal));
    }
    match self::reply(0, reply).message {
        Some(To::Subscribed(message)) => Ok(message),
        other => panic!("the core answered with another command's reply: {other:?}"),
    }
}

/// The answer to ListSubscriptions; `topic` as it was asked, none: all.
///
/// # Errors
/// The refusal, as a status.
///
/// # Panics
/// When the reply is one to another command.
pub fn list(reply: Reply, topic: Option<&Name>) -> Result<v1::ListSubscriptionsReply, Status> {
    match reply {
        Reply::Subscriptions(views) => {
            let wanted = views.into_iter().filter(|view| topic.is_none_or(|t| view.topic == *t));
            Ok(v1::ListSubscriptionsReply { subscriptions: wanted.map(Into::into).collect() })
        }
        Reply::Refused(refusal) => Err(status::status(refusal)),
        other => status::foreign(&other),
    }
}

/// The answer to GetSubscription, out of the list of all.
///
/// # Errors
/// The refusal, as a status: `unknown_subscription` when it is not in the list.
///
/// # Panics
/// When the reply is one to another command.
pub fn find(reply: Reply, name: &Name) -> Result<v1::Subscription, Status> {
    match reply {
        Reply::Subscriptions(views) => match views.into_iter().find(|view| view.name == *name) {
            Some(view) => Ok(view.into()),
            None => {
                let detail = format!("no subscription has the name {name}");
                Err(status::status(Refusal::new(Code::UnknownSubscription, detail)))
            }
        },
        Reply::Refused(refusal) => Err(status::status(refusal)),
        other => status::foreign(&other),
    }
}

/// The answer to SeekSubscription.
///
/// # Errors
/// The refusal, as a status.
///
/// # Panics
/// When the reply is one to another command.
pub fn sought(reply: Reply) -> Result<v1::SeekSubscriptionReply, Status> {
    match reply {
        Reply::Sought { offset } => Ok(v1::SeekSubscriptionReply { offset: offset.0 }),
        Reply::Refused(refusal) => Err(status::status(refusal)),
        other => status::foreign(&other),
    }
}

/// What a subscriber sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Its first message. Create first, if that is asked, then [`Command::Subscribe`].
    Subscribe {
        /// The subscription.
        subscription: Name,
        /// How many deliveries may be under way.
        credit: u32,
        /// With what to create it if it does not exist.
        create: Option<NewSubscription>,
    },
    /// Anything else.
    Command(Command),
}

/// One message of a subscriber. `subscribed` is the subscription of the stream, once it has sent
/// `subscribe` (whether or not that was answered).
///
/// # Errors
/// `not_subscribed` for anything but `subscribe` before that; `invalid_argument` or `too_large`
/// with a sentence that names the field.
pub fn sent(message: v1::FromSubscriber, subscribed: Option<&Name>) -> Result<Sent, Refusal> {
    ids::request_number(message.request)?;
    let message = match message.message.ok_or_else(|| Malformed::missing("message"))? {
        FromMessage::Subscribe(request) => return subscribe(request),
        other => other,
    };
    let Some(subscribed) = subscribed else {
        let detail = "the first message of the stream has to be `subscribe`";
        return Err(Refusal::new(Code::NotSubscribed, detail));
    };
    Ok(Sent::Command(match message {
        FromMessage::Subscribe(_) => unreachable!("returned above"),
        FromMessage::Credit(credit) => Command::Credit { more: credit.more },
        FromMessage::Acknowledge(message) => {
            Command::Acknowledge { deliveries: references(message.deliveries)? }
        }
        FromMessage::Reject(message) => Command::Reject {
            delivery: message.delivery.ok_or_else(|| Malformed::missing("delivery"))?.into(),
            reason: message.reason,
            dead: message.dead,
        },
        FromMessage::ExtendLease(message) => {
            Command::ExtendLease { deliveries: references(message.deliveries)? }
        }
        FromMessage::GiveBack(message) => {
            Command::GiveBack { deliveries: references(message.deliveries)? }
        }
        FromMessage::AcknowledgeGap(message) => {
            Command::AcknowledgeGap { subscription: subscribed.clone(), to: Offset(message.to) }
        }
    }))
}

fn subscribe(request: v1::SubscribeRequest) -> Result<Sent, Refusal> {
    let subscription = ids::name("subscription", &request.subscription)?;
    let create = match request.create {
        None => None,
        Some(create) => Some(NewSubscription {
            name: subscription.clone(),
            topic: ids::name("topic", &create.topic)?,
            start: start("start", create.start, Some(Start::Earliest))?,
            settings: settings(create.settings)?,
        }),
    };
    Ok(Sent::Subscribe { subscription, credit: request.credit, create })
}

fn references(messages: Vec<v1::DeliveryRef>) -> Result<Vec<DeliveryRef>, Refusal> {
    ids::at_most("deliveries", messages.len(), LIST_ITEMS)?;
    Ok(messages.into_iter().map(Into::into).collect())
}

/// The answer to a message of a subscriber.
///
/// # Panics
/// When the reply is not one to a command of a subscriber.
#[must_use]
pub fn reply(request: u64, reply: Reply) -> raw::ToSubscriber {
    let message = match reply {
        Reply::Subscription { subscription, name, topic, settings, created } => {
            To::Subscribed(v1::SubscriptionReply {
                subscription_id: subscription.0,
                name: name.as_str().to_owned(),
                topic: topic.as_str().to_owned(),
                settings: Some(settings.into()),
                created,
            })
        }
        Reply::Acknowledged { refused } => {
            let refused = refused.into_iter().map(|(delivery, refusal)| v1::RefusedDelivery {
                delivery: Some(delivery.into()),
                refusal: Some(refusal.into()),
            });
            To::Acknowledged(v1::Acknowledged { refused: refused.collect() })
        }
        Reply::Done => To::Done(v1::Done {}),
        Reply::Refused(refusal) => To::Refusal(refusal.into()),
        other => status::foreign(&other),
    };
    raw::ToSubscriber { request, message: Some(message) }
}

/// The refusal of a message that never became a command.
#[must_use]
pub fn refused(request: u64, refusal: Refusal) -> raw::ToSubscriber {
    raw::ToSubscriber { request, message: Some(To::Refusal(refusal.into())) }
}

/// Deliveries, all of one batch.
#[must_use]
pub fn deliveries(batch: Vec<raw::Delivery>) -> raw::ToSubscriber {
    let message = To::Deliveries(raw::Deliveries { deliveries: batch });
    raw::ToSubscriber { request: 0, message: Some(message) }
}

/// A gap notice.
#[must_use]
pub fn gap(gap: OffsetRange) -> raw::ToSubscriber {
    raw::ToSubscriber { request: 0, message: Some(To::Gap(gap.into())) }
}

/// A delivery as it travels; the subscription is that of the stream. The event's bytes are not
/// copied.
impl From<Delivery> for raw::Delivery {
    fn from(delivery: Delivery) -> Self {
        Self {
            offset: delivery.reference.offset.0,
            token: delivery.reference.token.0,
            attempt: delivery.attempt,
            lease_ms: delivery.lease_ms,
            transaction_id: ids::transaction_bytes_or_none(delivery.event.transaction),
            published_unix_ms: delivery.event.wall_ms,
            event: delivery.event.body,
        }
    }
}

/// ListDeadLetters.
///
/// # Errors
/// `invalid_argument` when it is not a name.
pub fn list_dead_letters(request: &v1::ListDeadLettersRequest) -> Result<Command, Refusal> {
    Ok(Command::ListDeadLetters {
        subscription: ids::name("subscription", &request.subscription)?,
        from: Offset(request.from_offset),
        limit: if request.limit == 0 { DEFAULT_LIMIT } else { request.limit },
    })
}

/// RetryDeadLetters (`retry`) and DropDeadLetters.
///
/// # Errors
/// `invalid_argument` when neither or both of `offsets` and `all` are given; `too_large`.
pub fn take_dead_letters(
    request: v1::TakeDeadLettersRequest,
    retry: bool,
) -> Result<Command, Refusal> {
    let subscription = ids::name("subscription", &request.subscription)?;
    if request.all != request.offsets.is_empty() {
        return Err(Malformed::new("offsets", "name some, or set `all`, but not both").into());
    }
    ids::at_most("offsets", request.offsets.len(), LIST_ITEMS)?;
    let offsets = request.offsets.into_iter().map(Offset).collect();
    Ok(Command::TakeDeadLetters { subscription, offsets, retry })
}

/// The answer to ListDeadLetters.
///
/// # Errors
/// The refusal, as a status.
///
/// # Panics
/// When the reply is one to another command.
pub fn dead_letters(reply: Reply) -> Result<v1::ListDeadLettersReply, Status> {
    match reply {
        Reply::DeadLetters { topic: _, letters } => Ok(v1::ListDeadLettersReply {
            dead_letters: letters.into_iter().map(Into::into).collect(),
        }),
        Reply::Refused(refusal) => Err(status::status(refusal)),
        other => status::foreign(&other),
    }
}

/// The answer to RetryDeadLetters and DropDeadLetters.
///
/// # Errors
/// The refusal, as a status.
///
/// # Panics
/// When the reply is one to another command.
pub fn taken(reply: Reply) -> Result<v1::TakeDeadLettersReply, Status> {
    match reply {
        Reply::Taken(taken) => Ok(v1::TakeDeadLettersReply { taken }),
        Reply::Refused(refusal) => Err(status::status(refusal)),
        other => status::foreign(&other),
    }
}
