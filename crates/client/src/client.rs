//! The client: one connection, two streams with batches, and what its users share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use handfast_core::ids::{ProducerId, TransactionId};
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::error::Error;
use crate::link::{Connection, Link, Publishes, Pushed, ServerInfo, Transactions, endpoint};

/// A handfast server, as its clients see it.
///
/// Cheap to clone; all clones share one connection, one stream of transactions and one stream of
/// publishes, which are opened when they are first needed and again when they break. It needs a
/// tokio runtime. When the last clone is gone the streams end.
#[derive(Clone)]
pub struct Handfast {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) connection: Arc<Connection>,
    pub(crate) transactions: Link<Transactions>,
    pub(crate) publishes: Link<Publishes>,
    pub(crate) pushed: Arc<Pushed>,
    pub(crate) producer: ProducerId,
    key_prefix: String,
    keys: AtomicU64,
}

/// How to connect. See [`Handfast::builder`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    url: String,
    limit: Duration,
    wait: Duration,
    in_flight: usize,
    when_busy: bool,
    channel: Option<Channel>,
}

impl Builder {
    /// How long a call tries before it gives up; default 30 s. A call that waits for a
    /// transaction's decision has the transaction's deadline on top of it. At least 1 ms, at most
    /// an hour.
    pub fn with_time_limit(mut self, limit: Duration) -> Self {
        self.limit = limit.clamp(Duration::from_millis(1), Duration::from_secs(3_600));
        self
    }

    /// How long [`Builder::connect`] waits for a server that is not there yet; default: it does
    /// not wait.
    pub fn with_wait_for_server(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// How many calls may be unanswered on each of the two streams; more wait for their turn.
    /// Default 4,096, at least 1.
    pub fn with_in_flight(mut self, most: usize) -> Self {
        self.in_flight = most.clamp(1, 1 << 20);
        self
    }

    /// Whether a transaction that is refused because the server has too much to do
    /// (`too_many_transactions`, `staged_bytes_full`) is asked for again after the pause that the
    /// refusal names, until the time limit. Default: yes. Without it the refusal is handed on at
    /// once.
    ///
    /// Either way, while the server refuses for `too_many_transactions`, this client sends only
    /// an eighth more than was taken lately, and refuses the rest without asking, with the same code
    /// and pause; for up to a second after the last refusal, so also some for which there is room
    /// again. Less than 40 calls in a second, evenly spread, are always sent, and so is a transaction
    /// with a key of the caller's own, because it may be a repeat of one that has committed.
    pub fn with_retry_when_busy(mut self, retry: bool) -> Self {
        self.when_busy = retry;
        self
    }

    /// Over a channel that was made elsewhere: with TLS, through a proxy, within the process. The
    /// URL is then for messages only.
    pub fn with_channel(mut self, channel: Channel) -> Self {
        self.channel = Some(channel);
        self
    }

    /// Connects and shakes hands.
    ///
    /// # Errors
    /// [`Fault::Unreachable`](crate::Fault::Unreachable) when nothing answers,
    /// [`Fault::Incompatible`](crate::Fault::Incompatible) when the server speaks another protocol,
    /// [`Fault::InvalidUrl`](crate::Fault::InvalidUrl).
    pub async fn connect(self) -> Result<Handfast, Error> {
        let give_up = Instant::now() + self.wait;
        let handfast = self.connect_lazy()?;
        let mut backoff = Backoff::default();
        loop {
            match handfast.inner.connection.handshake().await {
                Ok(()) => return Ok(handfast),
                Err(error) if !error.is_retryable() => return Err(error),
                Err(error) => {
                    let pause = backoff.next();
                    if Instant::now() + pause >= give_up {
                        return Err(error);
                    }
                    sleep(pause).await;
                }
            }
        }
    }

    /// As [`Builder::connect`], but leaves connecting to the first call: for programs that start
    /// in any order. Has to be called in a tokio runtime.
    ///
    /// # Errors
    /// [`Fault::InvalidUrl`](crate::Fault::InvalidUrl).
    pub fn connect_lazy(self) -> Result<Handfast, Error> {
        let channel = match self.channel {
            Some(channel) => channel,
            None => endpoint(&self.url)?.connect_lazy(),
        };
        let connection = Arc::new(Connection::new(channel, self.url, self.limit));
        let pushed = Arc::new(Pushed::default());
        let said = Arc::clone(&pushed);
        let on_push = Box::new(move |stream, answer| said.say(stream, answer));
        let inner = Inner {
            transactions: Link::start(
                Arc::clone(&connection),
                self.in_flight,
                self.when_busy,
                on_push,
            ),
            publishes: Link::start(
                Arc::clone(&connection),
                self.in_flight,
                self.when_busy,
                Box::new(|_, _| {}),
            ),
            pushed,
            connection,
            producer: ProducerId(Uuid::new_v4().as_u128()),
            key_prefix: Uuid::new_v4().simple().to_string(),
            keys: AtomicU64::new(1),
        };
        Ok(Handfast { inner: Arc::new(inner) })
    }
}

impl Handfast {
    /// Connects to a server such as `http://127.0.0.1:7400`.
    ///
    /// # Errors
    /// As [`Builder::connect`].
    pub async fn connect(url: impl Into<String>) -> Result<Self, Error> {
        Self::builder(url).connect().await
    }

    /// Connects with other settings than the usual ones.
    pub fn builder(url: impl Into<String>) -> Builder {
        Builder {
            url: url.into(),
            limit: Duration::from_secs(30),
            wait: Duration::ZERO,
            in_flight: 4_096,
            when_busy: true,
            channel: None,
        }
    }

    /// The address that was connected to.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.inner.connection.url
    }

    /// What the server said about itself; none before the first handshake.
    #[must_use]
    pub fn server(&self) -> Option<&ServerInfo> {
        self.inner.connection.info()
    }

    /// Whoever holds something for a transaction hears that its abort was asked.
    pub(crate) fn abort_asked(&self, id: TransactionId) {
        if let Some(listener) = self.inner.pushed.listener() {
            listener.abort_asked(id);
        }
    }

    /// The same, that it failed.
    pub(crate) fn failed(&self, id: TransactionId) {
        if let Some(listener) = self.inner.pushed.listener() {
            listener.failed(id);
        }
    }

    /// The same, that it has got a new deadline.
    pub(crate) fn extended(&self, id: TransactionId, deadline: Instant) {
        if let Some(listener) = self.inner.pushed.listener() {
            listener.extended(id, deadline);
        }
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.inner.connection
    }

    /// A key that nobody else uses: 128 random bits of this client and a number.
    pub(crate) fn next_key(&self) -> String {
        let number = self.inner.keys.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number}", self.inner.key_prefix)
    }
}

impl fmt::Debug for Handfast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handfast").field("url", &self.url()).finish_non_exhaustive()
    }
}
