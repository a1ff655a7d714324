//! The door: connections, and what is under way on them, before it is gRPC or HTTP.
//!
//! Everything that somebody whom nobody knows can make the server hold is counted here: connections,
//! streams and calls, messages that arrive, frames that leave. Each has a bound for all together and
//! a share that one connection may have of it, so that nobody can take what others need. The time
//! that a caller gives a call is kept here, and every status that leaves has a stable code. Nothing
//! here knows what a request means.

mod accepted;
mod arriving;
mod calls;
mod connections;
mod leaving;
mod options;
mod requests;
mod rooms;
mod statuses;
mod transport;

use std::io;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_stream::{Stream, StreamExt};

use accepted::Accepted;
use connections::Connections;
pub use connections::Figures;
pub use options::Options;
use rooms::Rooms;
pub(crate) use rooms::Way;
pub use transport::HALF_OPEN_AFTER;

/// How often it is looked after those who are silent.
const ROUND: Duration = Duration::from_millis(500);

/// A door, before it is opened and while it is. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Door(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    options: Options,
    connections: Arc<Connections>,
    rooms: Rooms,
    streams: Arc<Semaphore>,
    /// Connections that have a wide window.
    wide: Arc<Semaphore>,
}

impl Default for Door {
    fn default() -> Self {
        Self::new(Options::default())
    }
}

impl Door {
    /// A door with these bounds.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self(Arc::new(Shared {
            connections: Arc::new(Connections::new(&options)),
            rooms: Rooms::new(&options),
            streams: Arc::new(Semaphore::new(options.streams.min(Semaphore::MAX_PERMITS))),
            wide: Arc::new(Semaphore::new(transport::WIDE)),
            options,
        }))
    }

    /// Counts of connections.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.0.figures()
    }

    /// Serves routes on connections until `shutdown` resolves and the last connection has ended. A
    /// connection that fails to come is no reason to end.
    pub async fn serve<C>(
        &self,
        routes: Router,
        incoming: impl Stream<Item = io::Result<C>>,
        shutdown: impl Future<Output = ()>,
    ) where
        C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self(shared) = self;
        let _rounds = AbortOnDrop(tokio::spawn(rounds(Arc::clone(shared))));
        let (end, ending) = watch::channel(());
        {
            let (mut incoming, mut shutdown) = (pin!(incoming), pin!(shutdown));
            loop {
                let next = async {
                    shared.connections.may_accept().await;
                    incoming.next().await
                };
                let io = tokio::select! {
                    () = &mut shutdown => break,
                    io = next => io,
                };
                match io {
                    Some(Ok(io)) => {
                        // Who finds no place is told so by the end of the connection.
                        let Some(place) = shared.connections.admit() else { continue };
                        let (routes, shared) = (routes.clone(), Arc::clone(shared));
                        tokio::spawn(transport::carry(io, routes, shared, place, ending.clone()));
                    }
                    Some(Err(error)) => tracing::debug!("a connection did not come: {error}"),
                    None => break,
                }
            }
            // Here nobody listens any more: who connects hears so at once.
        }
        drop(ending);
        end.send_replace(());
        end.closed().await;
    }

    /// Serves routes on a listener, which has to be bound already.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub async fn serve_tcp(
        &self,
        routes: Router,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let incoming = Accepted::new(tokio::net::TcpListener::from_std(listener)?);
        self.serve(routes, incoming, shutdown).await;
        Ok(())
    }
}

impl Shared {
    fn figures(&self) -> Figures {
        let (arriving_bytes, leaving_bytes) = self.rooms.taken();
        Figures { arriving_bytes, leaving_bytes, ..self.connections.figures() }
    }
}

/// Looks after those who are silent, and who keep others waiting.
async fn rounds(shared: Arc<Shared>) {
    let mut every = tokio::time::interval(ROUND);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        shared.connections.close_silent();
        if shared.rooms.is_short() {
            let enough = shared.options.leaving_bytes / 4;
            shared.connections.cut_off(shared.options.stalled_ms, enough);
        }
    }
}

/// Ends a task with the one that needs it.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
