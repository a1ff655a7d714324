//! Connections of a listener.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_stream::Stream;

/// A pause after a failed accept: it is for want of file descriptors, or passes.
const PAUSE: Duration = Duration::from_millis(50);

/// Connections of a listener. A failed accept is logged and tried again after a pause: it is about
/// one connection, or about a limit that others will leave.
pub(super) struct Accepted {
    listener: TcpListener,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
    failed: u64,
}

impl Accepted {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self { listener, pause: None, failed: 0 }
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
                    self.failed += 1;
                    // It may go on for hours: ever more rarely.
                    if self.failed.is_power_of_two() {
                        let failed = self.failed;
                        tracing::warn!("a connection was not accepted ({failed} so far): {error}");
                    }
                    self.pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
                }
            }
        }
    }
}
