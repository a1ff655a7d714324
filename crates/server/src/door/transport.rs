//! One connection: HTTP/2 or HTTP/1, over TCP or anything else that carries bytes.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::Shared;
use super::connections::Place;
use super::requests::Requests;

/// A connection whose other end does not answer for so long is closed.
pub const HALF_OPEN_AFTER: Duration = KEEP_ALIVE_EVERY.saturating_add(KEEP_ALIVE_WAIT);

const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEP_ALIVE_WAIT: Duration = Duration::from_secs(10);
/// Bytes of one connection, and of each of its streams, that may be under way to the server: what
/// is received and not asked for yet is in memory. Enough for a fast network's round trip.
const WIDE_WINDOW: u32 = 512 << 10;
/// The same of a connection that comes when so many have the wide one: what HTTP/2 begins with.
const NARROW_WINDOW: u32 = 65_535;
/// See [`NARROW_WINDOW`].
pub(super) const WIDE: usize = 16;
/// Largest frame of HTTP/2, not of the contract.
const HTTP2_FRAME_BYTES: u32 = 16 << 10;
/// Headers of one request.
const HEADER_BYTES: u32 = 8 << 10;
/// Of HTTP/1: what is read ahead, with the headers.
const HTTP1_BUFFER_BYTES: usize = 64 << 10;
/// Streams and calls of one connection at a time.
const CONCURRENT_STREAMS: u32 = 1_000;

/// Serves a connection until it ends, is closed, or everything ends.
pub(super) async fn carry<C>(
    io: C,
    routes: Router,
    shared: Arc<Shared>,
    place: Place,
    mut ending: watch::Receiver<()>,
) where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Held as long as the connection is there.
    let wide = Arc::clone(&shared.wide).try_acquire_owned().ok();
    let builder = builder(&shared, if wide.is_some() { WIDE_WINDOW } else { NARROW_WINDOW });
    let place = Arc::new(place);
    let requests = Requests::new(routes, &shared, &place);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), requests));
    let mut cut_off = pin!(None::<tokio::time::Sleep>);
    let mut is_ending = false;
    loop {
        let is_closing = cut_off.is_some();
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!("a connection has ended: {error}");
                }
                break;
            }
            _ = ending.changed(), if !is_ending => {
                is_ending = true;
                connection.as_mut().graceful_shutdown();
            }
            gently = place.closing(), if !is_closing => {
                if !gently {
                    break;
                }
                connection.as_mut().graceful_shutdown();
                cut_off.set(Some(tokio::time::sleep(Place::closing_time())));
            }
            () = async { cut_off.as_mut().as_pin_mut().expect("it is closing").await }, if is_closing => break,
        }
    }
}

fn builder(shared: &Shared, window: u32) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_connection_window_size(window)
        .initial_stream_window_size(window)
        .max_frame_size(HTTP2_FRAME_BYTES)
        .max_header_list_size(HEADER_BYTES)
        .max_concurrent_streams(CONCURRENT_STREAMS)
        .keep_alive_interval(Some(KEEP_ALIVE_EVERY))
        .keep_alive_timeout(KEEP_ALIVE_WAIT);
    builder
        .http1()
        .timer(TokioTimer::new())
        .max_buf_size(HTTP1_BUFFER_BYTES)
        .header_read_timeout(Duration::from_millis(shared.options.first_request_ms));
    builder
}
