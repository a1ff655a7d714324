//! The connection: how it is made, the handshake, and calls of their own with their retries.
//!
//! A connection that breaks is made again by whoever needs it next. Before anything is asked over
//! a new one the handshake says whether both sides speak the same protocol and whether it is
//! still the same store that answers.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use handfast_core::ids::{ProducerId, StoreId};
use handfast_wire::{MESSAGE_BYTES, ids, raw, server, v1};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::error::{Error, Fault};
use crate::lanes::{Publishes, Transactions};
use crate::session::Session;

/// One attempt to connect, or one handshake, may take this long.
const ATTEMPT: Duration = Duration::from_secs(5);
const CLIENT: &str = concat!("handfast-rust ", env!("CARGO_PKG_VERSION"));

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
    pub(crate) transactions: Session<Transactions>,
    pub(crate) publishes: Session<Publishes>,
    #[cfg(feature = "mariadb")]
    pub(crate) finisher: crate::database::finisher::Finisher,
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
    /// [`Fault::Unreachable`] when nothing answers, [`Fault::Incompatible`] when the server speaks
    /// another protocol, [`Fault::InvalidUrl`].
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
    /// [`Fault::InvalidUrl`].
    pub fn connect_lazy(self) -> Result<Handfast, Error> {
        let channel = match self.channel {
            Some(channel) => channel,
            None => endpoint(&self.url)?.connect_lazy(),
        };
        let connection = Arc::new(Connection {
            channel,
            url: self.url,
            limit: self.limit,
            server: OnceLock::new(),
        });
        #[cfg(feature = "mariadb")]
        let (finisher, unasked) = crate::database::finisher::start();
        // Without databases the server says nothing unasked.
        #[cfg(not(feature = "mariadb"))]
        let unasked = Box::new(|_, _| {});
        let inner = Inner {
            transactions: Session::start(
                Arc::clone(&connection),
                self.in_flight,
                self.when_busy,
                unasked,
            ),
            publishes: Session::start(
                Arc::clone(&connection),
                self.in_flight,
                self.when_busy,
                Box::new(|_, _| {}),
            ),
            #[cfg(feature = "mariadb")]
            finisher,
            connection,
            producer: ProducerId(Uuid::new_v4().as_u128()),
            key_prefix: Uuid::new_v4().simple().to_string(),
            keys: AtomicU64::new(1),
        };
        Ok(Handfast { inner: Arc::new(inner) })
    }
}

fn endpoint(url: &str) -> Result<Endpoint, Fault> {
    let invalid = |problem: String| Fault::InvalidUrl { url: url.to_owned(), problem };
    let endpoint =
        Endpoint::from_shared(url.to_owned()).map_err(|error| invalid(error.to_string()))?;
    if endpoint.uri().host().is_none() || endpoint.uri().scheme().is_none() {
        return Err(invalid("it has no host, or does not start with http://".to_owned()));
    }
    Ok(endpoint
        .connect_timeout(ATTEMPT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(32 << 20))
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
        self.inner.connection.server.get()
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

/// What a server says about itself in the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerInfo {
    /// Its version.
    pub version: String,
    /// The protocol number that both sides speak.
    pub protocol: u32,
    /// Names its data directory for ever.
    pub store: StoreId,
    /// Deadline of a transaction that names none.
    pub default_deadline: Duration,
    /// How long the number of a published batch is remembered.
    pub dedup: Duration,
}

/// The channel and what is known about its other end.
#[derive(Debug)]
pub(crate) struct Connection {
    channel: Channel,
    pub(crate) url: String,
    pub(crate) limit: Duration,
    server: OnceLock<ServerInfo>,
}

/// A stub that takes and gives whole frames.
macro_rules! stub {
    ($self:ident, $stub:path) => {{
        use $stub as Stub;
        Stub::new($self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES)
    }};
}

impl Connection {
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn transactions(&self) -> raw::transactions_client::TransactionsClient<Channel> {
        stub!(self, raw::transactions_client::TransactionsClient)
    }

    pub(crate) fn events(&self) -> raw::events_client::EventsClient<Channel> {
        stub!(self, raw::events_client::EventsClient)
    }

    pub(crate) fn participants(&self) -> raw::participants_client::ParticipantsClient<Channel> {
        stub!(self, raw::participants_client::ParticipantsClient)
    }

    pub(crate) fn databases(&self) -> v1::databases_client::DatabasesClient<Channel> {
        stub!(self, v1::databases_client::DatabasesClient)
    }

    pub(crate) fn server(&self) -> v1::server_client::ServerClient<Channel> {
        stub!(self, v1::server_client::ServerClient)
    }

    /// Deadline of a transaction that names none.
    pub(crate) fn default_deadline(&self) -> Duration {
        self.server.get().map_or(Duration::from_secs(30), |server| server.default_deadline)
    }

    /// Makes sure that the other end speaks the protocol and is the store it was. Has to succeed
    /// on every new stream before anything is asked over it.
    pub(crate) async fn handshake(&self) -> Result<(), Error> {
        let attempt = async { self.server().hello(server::hello(CLIENT)).await };
        let reply = match timeout_at(Instant::now() + ATTEMPT, attempt).await {
            Ok(Ok(reply)) => reply.into_inner(),
            Ok(Err(status)) => return Err(Error::from_status(&status, &self.url, false)),
            Err(_) => {
                let problem = format!("no handshake within {ATTEMPT:?}");
                return Err(Fault::Unreachable { url: self.url.clone(), problem }.into());
            }
        };
        let store = ids::store_id("store_id", &reply.store_id)?;
        let limits = reply.limits.unwrap_or_default();
        let known = self.server.get_or_init(|| ServerInfo {
            version: reply.server_version,
            protocol: reply.protocol,
            store,
            default_deadline: or_seconds(limits.default_deadline_ms, 30),
            dedup: or_seconds(limits.dedup_ms, 120),
        });
        if known.store != store {
            let (expected, url) = (known.store, self.url.clone());
            return Err(Fault::OtherStore { url, expected, found: store }.into());
        }
        Ok(())
    }

    /// A call of its own that may be repeated: until it is answered or the time limit is over.
    pub(crate) async fn repeat<T, F>(&self, call: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let give_up = Instant::now() + self.limit;
        let mut backoff = Backoff::default();
        loop {
            let error = match timeout_at(give_up, call()).await {
                Ok(Ok(reply)) => return Ok(reply.into_inner()),
                Ok(Err(status)) => Error::from_status(&status, &self.url, true),
                Err(_) => return Err(Fault::TimedOut { after: self.limit, sent: true }.into()),
            };
            let pause = match &error {
                Error::Fault(fault) if fault.is_retryable() => backoff.next(),
                _ => return Err(error),
            };
            if Instant::now() + pause >= give_up {
                return Err(error);
            }
            sleep(pause).await;
        }
    }

    /// A call of its own that may not be repeated once it may have taken effect.
    pub(crate) async fn once<T, F>(&self, call: F) -> Result<T, Error>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        match timeout_at(Instant::now() + self.limit, call).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => Err(Error::from_status(&status, &self.url, true)),
            Err(_) => Err(Fault::TimedOut { after: self.limit, sent: true }.into()),
        }
    }
}

fn or_seconds(ms: u64, seconds: u64) -> Duration {
    if ms == 0 { Duration::from_secs(seconds) } else { Duration::from_millis(ms) }
}
