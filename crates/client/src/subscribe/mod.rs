//! Subscriptions: events under a lease, to be acknowledged.

mod arrived;
mod buffer;
mod delivery;
mod question;
mod read;
mod stream;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use handfast_core::command::Start as CoreStart;
use handfast_core::ids::Offset;
use handfast_core::limits::CREDIT;
use handfast_wire::events::StartAt;
use handfast_wire::v1;
use tokio::sync::{mpsc, oneshot};
use tokio::task::coop::consume_budget;

use crate::client::Handfast;
use crate::error::{Error, Fault};

use buffer::{Buffer, Taken};
pub use delivery::{Answering, Delivery, Gap, Item};
pub use read::{Events, Read, ReadItem, StoredEvent};
use stream::Subscriber;

/// Where to start in a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With what the topic still holds.
    #[default]
    Earliest,
    /// With the next event.
    Latest,
    /// At this offset; at most the topic's end.
    Offset(u64),
    /// With the first event that was published at this time or later.
    Time(std::time::SystemTime),
}

impl From<Start> for v1::Start {
    fn from(start: Start) -> Self {
        match start {
            Start::Earliest => StartAt::Start(CoreStart::Earliest),
            Start::Latest => StartAt::Start(CoreStart::Latest),
            Start::Offset(offset) => StartAt::Start(CoreStart::At(Offset(offset))),
            Start::Time(time) => StartAt::Time(crate::time::unix_ms(time)),
        }
        .into()
    }
}

/// How a subscription delivers. What is not set has the server's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct SubscriptionSettings(pub(crate) v1::SubscriptionSettings);

impl SubscriptionSettings {
    /// The server's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long a delivery is leased: 1 ms to one hour; default 30 s.
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.0.lease_ms = Some(crate::time::millis(lease));
        self
    }

    /// Attempts after which an event becomes a dead letter; default 10. None: it is tried for
    /// ever.
    pub fn with_max_attempts(mut self, most: Option<u32>) -> Self {
        self.0.max_attempts = Some(most.unwrap_or(0));
        self
    }

    /// Pauses before another attempt: the first, which doubles with each, and the longest.
    /// Default 100 ms and 30 s.
    pub fn with_backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.0.backoff_ms = Some(crate::time::millis(first));
        self.0.backoff_max_ms = Some(crate::time::millis(longest));
        self
    }
}

/// How to subscribe. See [`Handfast::subscribe`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `open`"]
pub struct Subscribe {
    handfast: Handfast,
    subscription: String,
    credit: u32,
    topic: Option<String>,
    start: Start,
    settings: SubscriptionSettings,
}

impl Handfast {
    /// Subscribes. Several subscribers of one subscription share its events.
    ///
    /// An event is delivered again until it is acknowledged, and is a dead letter after as many
    /// attempts as the subscription allows. An attempt counts when the event is rejected; when its
    /// lease is over after [`Subscription::next`] has handed it out; and when it was alone under way
    /// as the connection ended. What waits to be handed out is no attempt, however slow the work is:
    /// it goes back in time, and others may have it.
    ///
    /// ```no_run
    /// # async fn bill(hf: handfast::Handfast) -> Result<(), handfast::Error> {
    /// use handfast::Item;
    ///
    /// let mut billing = hf.subscribe("billing").on("transfers").open().await?;
    /// while let Some(item) = billing.next().await? {
    ///     match item {
    ///         Item::Event(delivery) => {
    ///             println!("{}: {:?}", delivery.offset, delivery.event);
    ///             // Too late, or the connection was lost: the event comes again, by itself.
    ///             if let Err(error) = delivery.acknowledge().await {
    ///                 eprintln!("not acknowledged: {error}");
    ///             }
    ///         }
    ///         Item::Gap(gap) => {
    ///             if let Err(error) = gap.acknowledge().await {
    ///                 eprintln!("the notice comes again: {error}");
    ///             }
    ///         }
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn subscribe(&self, subscription: impl Into<String>) -> Subscribe {
        Subscribe {
            handfast: self.clone(),
            subscription: subscription.into(),
            credit: 256,
            topic: None,
            start: Start::Earliest,
            settings: SubscriptionSettings::new(),
        }
    }
}

impl Subscribe {
    /// Creates the subscription on this topic if it does not exist.
    pub fn on(mut self, topic: impl Into<String>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// Where it starts if it is created; default: the earliest.
    pub fn with_start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// How it delivers if it is created. A subscription that exists with other settings is refused
    /// (`subscription_exists`).
    pub fn with_settings(mut self, settings: SubscriptionSettings) -> Self {
        self.settings = settings;
        self
    }

    /// How many deliveries may be under way to this subscriber at most: received and neither
    /// acknowledged nor rejected. So many events may wait in this process's memory. It begins with
    /// 32, asks for more when it has used them up, and gives back what it does not take in half a
    /// lease. Default 256; 1 to 10,000.
    pub fn with_credit(mut self, credit: u32) -> Self {
        self.credit = credit.clamp(1, CREDIT);
        self
    }

    /// Opens the stream; answers when the server delivers.
    ///
    /// # Errors
    /// Refused (`unknown_subscription`, `unknown_topic`, `subscription_exists`), or a fault when
    /// that cannot be had within the time limit.
    pub async fn open(self) -> Result<Subscription, Error> {
        let (ready, opened) = oneshot::channel();
        let (asks, inbox) = mpsc::unbounded_channel();
        let (wanted, wants) = oneshot::channel();
        let buffer = Arc::new(Buffer::new(self.credit));
        let create = self.topic.map(|topic| v1::CreateWith {
            topic,
            start: Some(self.start.into()),
            settings: Some(self.settings.0),
        });
        #[cfg(feature = "_databases")]
        let (handfast, name) = (self.handfast.clone(), self.subscription.clone());
        let request =
            v1::SubscribeRequest { subscription: self.subscription, credit: self.credit, create };
        let connection = self.handfast.connection().clone();
        let held = Arc::clone(&buffer);
        let subscriber = Subscriber::new(connection, request, inbox, held, wanted, ready);
        tokio::spawn(subscriber.run());
        match opened.await {
            Ok(Ok(())) => Ok(Subscription {
                #[cfg(feature = "_databases")]
                handfast,
                #[cfg(feature = "_databases")]
                name,
                asks,
                buffer,
                _wants: wants,
            }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Fault::Closed("the runtime is shutting down").into()),
        }
    }
}

/// An open subscription.
///
/// When the connection is lost it is made again for as long as this value lives. Deliveries of the
/// old connection are void then: their events come again, and acknowledging the old ones is
/// refused (`delivery_expired`).
///
/// When it is dropped, answers that were given are still sent, and what was delivered and not
/// answered returns at once to other subscribers. No more than the credit waits in memory.
#[derive(Debug)]
#[must_use = "a subscription that is dropped ends"]
pub struct Subscription {
    #[cfg(feature = "_databases")]
    pub(crate) handfast: Handfast,
    #[cfg(feature = "_databases")]
    pub(crate) name: String,
    asks: mpsc::UnboundedSender<question::Ask>,
    buffer: Arc<Buffer>,
    /// While it lives the subscription is wanted.
    _wants: oneshot::Receiver<Infallible>,
}

impl Subscription {
    /// The next event or gap; none: the subscription is closed after an error that stays. An event's
    /// lease is not over yet, as far as this side can tell.
    ///
    /// Cancel safe: nothing is lost when it is dropped.
    ///
    /// # Errors
    /// A retryable one: the connection has been lost for longer than the time limit; call again,
    /// it is still being made. Any other: the subscription is gone, or the server cannot be spoken
    /// to; it does not go on.
    pub async fn next(&mut self) -> Result<Option<Item>, Error> {
        consume_budget().await;
        loop {
            match self.buffer.take(&self.asks) {
                Taken::Arrived(arrived, expires) => {
                    return Ok(Some(arrived.item(expires, &self.asks)?));
                }
                Taken::Failed(error) => return Err(error),
                Taken::Closed => return Ok(None),
                Taken::Nothing => self.buffer.changed().await,
            }
        }
    }
}
