//! Reading a topic without a subscription: nothing is leased or acknowledged.

use std::collections::VecDeque;
use std::time::SystemTime;

use handfast_core::ids::TransactionId;
use handfast_wire::{Malformed, ids, raw, v1};
use tokio::time::{Instant, sleep};
use tonic::Streaming;

use super::Start;
use crate::backoff::Backoff;
use crate::client::Handfast;
use crate::error::{Error, Fault};
use crate::event::Event;

/// An event with its place in its topic.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StoredEvent {
    /// Its place. Offsets rise; holes are normal.
    pub offset: u64,
    /// The transaction that published it.
    pub transaction: Option<TransactionId>,
    /// When it was published, or its transaction decided.
    pub published: SystemTime,
    /// The event as it was published.
    pub event: Event,
}

impl StoredEvent {
    /// The event as a CloudEvent that carries its place; see [`super::Delivery::cloud_event`].
    #[must_use]
    pub fn cloud_event(&self) -> Event {
        self.event.clone().stamped(self.offset, self.published, self.transaction)
    }
}

impl TryFrom<raw::StoredEvent> for StoredEvent {
    type Error = Malformed;

    fn try_from(message: raw::StoredEvent) -> Result<Self, Malformed> {
        let transaction = &message.transaction_id;
        Ok(Self {
            offset: message.offset,
            transaction: ids::transaction_id_or_none("transaction_id", transaction)?,
            published: crate::time::from_unix_ms(message.published_unix_ms),
            event: Event::decode(message.event)?,
        })
    }
}

/// What a topic holds.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are events")]
pub enum ReadItem {
    /// An event.
    Event(StoredEvent),
    /// Events that were wanted and had gone by retention.
    Gap {
        /// First offset that is gone.
        from: u64,
        /// First offset after them.
        to: u64,
    },
}

/// How to read a topic. See [`Handfast::read`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `open`"]
pub struct Read {
    handfast: Handfast,
    topic: String,
    start: Start,
    follow: bool,
    limit: u64,
}

impl Handfast {
    /// Reads a topic without a subscription.
    pub fn read(&self, topic: impl Into<String>, start: Start) -> Read {
        Read { handfast: self.clone(), topic: topic.into(), start, follow: false, limit: 0 }
    }
}

impl Read {
    /// True: wait for more at the topic's end. False, the default: end there.
    pub fn follow(mut self, follow: bool) -> Self {
        self.follow = follow;
        self
    }

    /// End after this many events; zero, the default: no limit.
    pub fn limit(mut self, limit: u64) -> Self {
        self.limit = limit;
        self
    }

    /// Opens the stream.
    ///
    /// # Errors
    /// Refused (`unknown_topic`, `offset_out_of_range`), or a fault when that cannot be had within
    /// the time limit.
    pub async fn open(self) -> Result<Events, Error> {
        let request = v1::ReadRequest {
            topic: self.topic,
            start: Some(self.start.into()),
            limit: self.limit,
            follow: self.follow,
        };
        let mut events = Events {
            handfast: self.handfast,
            request,
            stream: None,
            ready: VecDeque::new(),
            down_since: None,
            backoff: Backoff::default(),
            done: false,
        };
        events.connect().await?;
        Ok(events)
    }
}

/// What a topic holds, one after the other. After a lost connection it goes on where it was.
#[derive(Debug)]
pub struct Events {
    handfast: Handfast,
    /// What is left to ask for.
    request: v1::ReadRequest,
    stream: Option<Streaming<raw::ReadFrame>>,
    ready: VecDeque<Ready>,
    down_since: Option<Instant>,
    backoff: Backoff,
    done: bool,
}

#[derive(Debug)]
enum Ready {
    Event(raw::StoredEvent),
    Gap(v1::OffsetRange),
}

impl Events {
    /// The next event or gap; none: the end.
    ///
    /// Cancel safe: nothing is lost when it is dropped.
    ///
    /// # Errors
    /// A retryable one: the connection has been lost for longer than the time limit; call again to
    /// go on.
    pub async fn next(&mut self) -> Result<Option<ReadItem>, Error> {
        loop {
            match self.ready.pop_front() {
                Some(Ready::Event(event)) => return Ok(Some(ReadItem::Event(event.try_into()?))),
                Some(Ready::Gap(gap)) => {
                    return Ok(Some(ReadItem::Gap { from: gap.from, to: gap.to }));
                }
                None if self.done => return Ok(None),
                None => {}
            }
            self.connect().await?;
            let Some(stream) = &mut self.stream else { continue };
            let error = match stream.message().await {
                Ok(Some(frame)) => {
                    self.take(frame);
                    continue;
                }
                Ok(None) if !self.request.follow => {
                    self.done = true;
                    continue;
                }
                Ok(None) => {
                    Fault::Lost { problem: "the server ended the stream".to_owned() }.into()
                }
                Err(status) => Error::from_status(&status, self.handfast.url(), true),
            };
            self.stream = None;
            self.broken(error).await?;
        }
    }

    /// Waits before another attempt, unless none is left.
    async fn broken(&mut self, error: Error) -> Result<(), Error> {
        let pause = self.backoff.next();
        let since = *self.down_since.get_or_insert_with(Instant::now);
        let too_long = since.elapsed() + pause >= self.handfast.connection().limit;
        if error.stays() || too_long {
            self.down_since = None;
            self.done |= error.stays();
            return Err(error);
        }
        sleep(pause).await;
        Ok(())
    }

    /// Makes sure that there is a stream, within the time limit.
    async fn connect(&mut self) -> Result<(), Error> {
        while self.stream.is_none() {
            let connection = self.handfast.connection();
            let opened = match connection.handshake().await {
                Ok(()) => connection
                    .events()
                    .read(self.request.clone())
                    .await
                    .map_err(|status| Error::from_status(&status, &connection.url, false)),
                Err(error) => Err(error),
            };
            match opened {
                Ok(stream) => self.stream = Some(stream.into_inner()),
                Err(error) => self.broken(error).await?,
            }
        }
        Ok(())
    }

    fn take(&mut self, frame: raw::ReadFrame) {
        self.backoff.reset();
        self.down_since = None;
        self.request.start = Some(Start::Offset(frame.next_offset).into());
        self.ready.extend(frame.gap.map(Ready::Gap));
        if self.request.limit > 0 {
            let read = frame.events.len() as u64;
            self.request.limit = self.request.limit.saturating_sub(read);
            self.done |= self.request.limit == 0;
        }
        self.ready.extend(frame.events.into_iter().map(Ready::Event));
    }
}
