//! Bodies of answers, on their way out: what the transport has of them is counted until it has left.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body as AxumBody, Bytes};
use http_body::{Body, Frame, SizeHint};

use super::rooms::Way;

/// See the module.
pub(super) struct Leaving {
    body: AxumBody,
    way: Way,
}

impl Leaving {
    pub(super) fn new(body: AxumBody, way: Way) -> Self {
        Self { body, way }
    }
}

impl Body for Leaving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map(|f| f.map_data(|data| self.way.leave(data)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
