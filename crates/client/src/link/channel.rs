//! The channel to a server: the handshake, and calls of their own with their retries.
//!
//! A channel that breaks is made again by whoever needs it next. Before anything is asked over a new
//! one the handshake says whether both sides speak the same protocol and whether it is still the
//! same store that answers.

use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use handfast_core::ids::StoreId;
use handfast_wire::{MESSAGE_BYTES, ids, raw, server, v1};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::backoff::Backoff;
use crate::error::{Error, Fault};

/// One attempt to connect, or one handshake, may take this long.
const ATTEMPT: Duration = Duration::from_secs(5);
const CLIENT: &str = concat!("handfast-rust ", env!("CARGO_PKG_VERSION"));

pub(crate) fn endpoint(url: &str) -> Result<Endpoint, Fault> {
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
    pub(crate) fn new(channel: Channel, url: String, limit: Duration) -> Self {
        Self { channel, url, limit, server: OnceLock::new() }
    }

    /// What the server said about itself; none before the first handshake.
    pub(crate) fn info(&self) -> Option<&ServerInfo> {
        self.server.get()
    }

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
