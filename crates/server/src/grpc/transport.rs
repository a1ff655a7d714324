//! The transport: HTTP/2 and HTTP/1 on the same connections, over TCP or anything else that
//! carries bytes.

use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_stream::Stream;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::{Connected, Router as GrpcRouter};

/// A connection whose other end does not answer for so long is closed.
pub const HALF_OPEN_AFTER: Duration = KEEP_ALIVE_EVERY.saturating_add(KEEP_ALIVE_WAIT);

const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEP_ALIVE_WAIT: Duration = Duration::from_secs(10);
/// Bytes of one stream, and of one connection, that may be under way to the server. Enough for a
/// frame while the one before is taken, and for a fast network's round trip.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Largest frame of HTTP/2, not of the contract.
const HTTP2_FRAME_BYTES: u32 = 64 << 10;
/// Streams and calls of one connection at a time.
const CONCURRENT_STREAMS: u32 = 1_000;
/// A pause after a failed accept: it is for want of file descriptors, or passes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves routes on connections until `shutdown` resolves and the last connection has ended.
///
/// # Errors
/// When `incoming` fails for good.
pub async fn serve<C>(
    routes: Router,
    incoming: impl Stream<Item = io::Result<C>>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error>
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    server(routes).serve_with_incoming_shutdown(incoming, shutdown).await
}

/// Serves routes on a listener, which has to be bound already.
///
/// # Errors
/// When the listener cannot be used.
pub async fn serve_tcp(
    routes: Router,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let incoming = Accepted::new(tokio::net::TcpListener::from_std(listener)?);
    serve(routes, incoming, shutdown).await.map_err(io::Error::other)
}

fn server(routes: Router) -> GrpcRouter {
    Server::builder()
        .accept_http1(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(HTTP2_FRAME_BYTES)
        .max_concurrent_streams(CONCURRENT_STREAMS)
        .http2_keepalive_interval(Some(KEEP_ALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_WAIT))
        .add_routes(Routes::from(routes))
}

/// Connections of a listener. A failed accept is logged and tried again: it is about one
/// connection, or about a limit that others will leave.
struct Accepted {
    listener: tokio::net::TcpListener,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Accepted {
    fn new(listener: tokio::net::TcpListener) -> Self {
        Self { listener, pause: None }
    }
}

impl Stream for Accepted {
    type Item = io::Result<TcpStream>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match ready!(self.listener.poll_accept(cx)) {
                Ok((connection, _)) => {
                    // Small frames leave at once. A connection that refuses this is broken, and
                    // will say so when it is used.
                    let _ = connection.set_nodelay(true);
                    return Poll::Ready(Some(Ok(connection)));
                }
                Err(error) => {
                    tracing::warn!("a connection was not accepted: {error}");
                    self.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }
}
