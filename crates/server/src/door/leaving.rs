//! Bodies of answers, on their way out: what the transport has of them is counted until it has left,
//! and the status behind them has a code.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body as AxumBody, Bytes};
use axum::http::{HeaderMap, Response};
use handfast_wire::edge::Edge;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

use super::rooms::Way;
use super::statuses::with_code;

/// See the module.
pub(super) struct Leaving {
    body: AxumBody,
    way: Way,
    /// When the caller's time is over.
    deadline: Option<Instant>,
    /// Until then; made when the body is waited for.
    late: Option<Pin<Box<Sleep>>>,
}

impl Leaving {
    /// An answer that leaves.
    pub(super) fn answer(mut response: Response<AxumBody>, way: Way) -> Response<Self> {
        with_code(response.headers_mut());
        response.map(|body| Self { body, way, deadline: None, late: None })
    }

    /// The same, which ends when its time is over.
    pub(super) fn until(self, deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    /// What is said when the caller's time is over. Resolves when it is.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<HeaderMap> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let late = self.late.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        ready!(late.as_mut().poll(cx));
        (self.body, self.deadline, self.late) = (AxumBody::empty(), None, None);
        let mut trailers = HeaderMap::new();
        late_status().add_header(&mut trailers).expect("text and base64 are fit for headers");
        Poll::Ready(trailers)
    }
}

/// The caller's time is over.
pub(super) fn late_status() -> Status {
    Edge::DeadlineExceeded.status("the time that the caller gave it is over")
}

impl Body for Leaving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if this.late.is_some()
            && let Poll::Ready(trailers) = this.poll_late(cx)
        {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            return this.poll_late(cx).map(|trailers| Some(Ok(Frame::trailers(trailers))));
        };
        Poll::Ready(frame.map(|frame| {
            frame.map(|mut frame| {
                if let Some(trailers) = frame.trailers_mut() {
                    with_code(trailers);
                }
                frame.map_data(|data| this.way.leave(data))
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
