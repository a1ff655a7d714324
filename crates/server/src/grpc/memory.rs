//! Connections without sockets: the same services, for callers in the same process.

use std::io;

use axum::Router;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::door::Door;

/// Bytes that may be under way in one direction.
const BUFFER_BYTES: usize = 1 << 20;

/// Serves routes to callers in this process. The server ends when this and its connections are
/// dropped.
#[derive(Clone, Debug)]
pub struct Memory(mpsc::UnboundedSender<DuplexStream>);

impl Memory {
    /// Starts to serve, on a task of the current runtime.
    #[must_use]
    pub fn serve(routes: Router) -> Self {
        let (connections, accepted) = mpsc::unbounded_channel();
        let incoming = UnboundedReceiverStream::new(accepted).map(io::Result::Ok);
        tokio::spawn(async move {
            Door::default().serve(routes, incoming, std::future::pending()).await;
        });
        Self(connections)
    }

    /// A new connection, for a client that speaks HTTP/2 over it.
    #[must_use]
    pub fn connect(&self) -> DuplexStream {
        let (client, server) = tokio::io::duplex(BUFFER_BYTES);
        // If the server has ended, the client finds its connection closed.
        let _ = self.0.send(server);
        client
    }
}
