//! Bodies of requests, on their way in: a message is collected here, in room that was taken for it
//! before it was read, and is handed on when it is there in full.
//!
//! Nothing here knows what a message means. A small one waits for nobody; a large one takes room
//! that all connections have together, and both have to arrive in their time.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Bytes;
use handfast_core::refusal::{Code, Refusal};
use handfast_wire::bounded::{Arrived, EMPTY};
use handfast_wire::bytes::Buf;
use handfast_wire::edge::Edge;
use handfast_wire::{MESSAGE_BYTES, status};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tokio::time::Sleep;
use tonic::Status;

use super::Shared;
use super::connections::Connection;
use super::rooms::Room;

/// Messages of so many bytes or fewer are collected without asking for room: a stream has one.
const SMALL: usize = 16 << 10;
/// Flag and length, before each message of gRPC.
const PREFIX: usize = 5;
/// A body of HTTP that does not say its length may have so many bytes.
const UNTOLD: usize = 1 << 20;

/// What is in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Messages of the contract, handed on by way of [`Arrived`].
    Contract,
    /// Messages of other services (health, reflection), which are small.
    Other,
    /// Anything, as one piece.
    Plain,
}

/// Room that a request holds after its message was handed on: until more is asked for, and of a
/// call that has one message until it is answered.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<HeldRoom>);

#[derive(Debug, Default)]
struct HeldRoom {
    room: Option<Room>,
    /// More was asked for, so that the message is somewhere else.
    is_past: bool,
    is_answered: bool,
}

impl Held {
    fn change(&self, change: impl FnOnce(&mut HeldRoom)) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut held);
        if held.is_past && held.is_answered {
            held.room = None;
        }
    }

    fn hand(&self, room: Option<Room>) {
        self.change(|held| (held.room, held.is_past) = (room, false));
    }

    fn more(&self) {
        self.change(|held| held.is_past = true);
    }

    /// The call was answered, or the answer of the stream begins.
    pub(super) fn answered(&self) {
        self.change(|held| held.is_answered = true);
    }
}

type Waiting = Pin<Box<dyn Future<Output = Room> + Send>>;

/// See the module.
pub(super) struct Arriving {
    body: Incoming,
    kind: Kind,
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    held: Arc<Held>,
    arrived: Arrived,
    /// What was read and belongs to nothing yet.
    chunk: Bytes,
    part: Option<Part>,
    /// For room, of the part.
    waiting: Option<Waiting>,
    /// Of the part.
    deadline: Option<Pin<Box<Sleep>>>,
    is_over: bool,
}

/// A message of which something is there.
struct Part {
    bytes: Vec<u8>,
    len: usize,
    room: Option<Room>,
}

impl Arriving {
    pub(super) fn new(
        body: Incoming,
        kind: Kind,
        shared: &Arc<Shared>,
        connection: &Arc<Connection>,
        held: &Arc<Held>,
        arrived: &Arrived,
    ) -> Self {
        Self {
            body,
            kind,
            shared: Arc::clone(shared),
            connection: Arc::clone(connection),
            held: Arc::clone(held),
            arrived: arrived.clone(),
            chunk: Bytes::new(),
            part: None,
            waiting: None,
            deadline: None,
            is_over: false,
        }
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.held.more();
        loop {
            match self.next_message(cx) {
                Poll::Ready(Ok(Some(message))) => return Poll::Ready(Some(Ok(message))),
                Poll::Ready(Ok(None)) => {}
                Poll::Ready(Err(status)) => return Poll::Ready(Some(Err(status))),
                Poll::Pending => return self.in_time(cx).map(|late| Some(Err(late))),
            }
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Some(Err(gone(&error))));
                }
                Poll::Ready(None) => {
                    let torn = self.has_begun().then(|| malformed("it ends before it is complete"));
                    return Poll::Ready(torn.map(Err));
                }
                Poll::Pending => return self.in_time(cx).map(|late| Some(Err(late))),
            };
            match frame.into_data() {
                Ok(data) if self.chunk.is_empty() => self.chunk = data,
                Ok(data) => self.chunk = [&*self.chunk, &*data].concat().into(),
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
    }

    /// The next message of which everything is there; none: more has to be read.
    fn next_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, Status>> {
        if self.part.is_none() {
            if self.chunk.len() < PREFIX {
                return Poll::Ready(Ok(None));
            }
            let len = self.length()?;
            self.chunk.advance(PREFIX);
            if self.chunk.len() >= len {
                let message = self.chunk.split_to(len);
                return Poll::Ready(Ok(Some(self.hand(message, None))));
            }
            self.begin(len);
        }
        let room = match &mut self.waiting {
            Some(waiting) => Some(ready!(waiting.as_mut().poll(cx))),
            None => None,
        };
        let part = self.part.as_mut().expect("it was begun above");
        if let Some(room) = room {
            // What is waited for from now on is the client.
            (self.waiting, self.deadline) = (None, None);
            part.room = Some(room);
        }
        if part.bytes.capacity() == 0 {
            part.bytes.reserve_exact(part.len);
        }
        let more = self.chunk.split_to(self.chunk.len().min(part.len - part.bytes.len()));
        part.bytes.extend_from_slice(&more);
        if part.bytes.len() < part.len {
            return Poll::Ready(Ok(None));
        }
        let Part { bytes, room, .. } = self.part.take().expect("it is there");
        self.deadline = None;
        Poll::Ready(Ok(Some(self.hand(bytes.into(), room))))
    }

    /// The length in the prefix that is there.
    fn length(&self) -> Result<usize, Status> {
        let prefix = &self.chunk[..PREFIX];
        match prefix[0] {
            0 => {}
            1 => return Err(malformed("it is compressed, and its call does not say how")),
            _ => return Err(malformed("its flag is none of gRPC")),
        }
        let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        let most = if self.kind == Kind::Contract { MESSAGE_BYTES } else { SMALL };
        if len > most {
            let detail = format!("a message has {len} bytes; it may have {most}");
            return Err(status::status(Refusal::new(Code::TooLarge, detail)));
        }
        Ok(len)
    }

    fn begin(&mut self, len: usize) {
        self.part = Some(Part { bytes: Vec::new(), len, room: None });
        if len > SMALL {
            let (shared, connection) = (Arc::clone(&self.shared), Arc::clone(&self.connection));
            self.waiting =
                Some(Box::pin(async move { shared.rooms.for_message(&connection, len).await }));
        }
    }

    fn hand(&mut self, message: Bytes, room: Option<Room>) -> Frame<Bytes> {
        self.held.hand(room);
        if self.kind == Kind::Contract {
            self.arrived.put(message);
            return Frame::data(Bytes::from_static(EMPTY));
        }
        let len = u32::try_from(message.len()).expect("it is small").to_be_bytes();
        Frame::data([&[0], &len[..], &*message].concat().into())
    }

    fn has_begun(&self) -> bool {
        self.part.is_some() || !self.chunk.is_empty()
    }

    /// Resolves when what has begun to arrive is late.
    fn in_time(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        if !self.has_begun() {
            return Poll::Pending;
        }
        let (len, is_waiting) = (self.part.as_ref().map_or(0, |p| p.len), self.waiting.is_some());
        let options = &self.shared.options;
        let within = match is_waiting {
            true => Duration::from_millis(options.message_ms),
            false => options.arriving(len),
        };
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(within)));
        ready!(deadline.as_mut().poll(cx));
        let (code, detail) = if is_waiting {
            (Code::ArrivingBytesFull, format!("a message of {len} bytes found no room"))
        } else {
            (Code::Unfinished, format!("a message was not complete within {within:?}"))
        };
        Poll::Ready(status::status(Refusal::new(code, detail)))
    }

    /// A body as one piece: passes as it is, after its length was looked at.
    fn poll_plain(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.part.is_none() {
            let told = self.body.size_hint().exact();
            let len = told.map_or(UNTOLD, |len| usize::try_from(len).unwrap_or(usize::MAX));
            if len > MESSAGE_BYTES {
                let detail = format!("the body has {len} bytes; it may have {MESSAGE_BYTES}");
                return Poll::Ready(Some(Err(status::status(Refusal::new(
                    Code::TooLarge,
                    detail,
                )))));
            }
            self.begin(len);
        }
        if let Some(waiting) = &mut self.waiting {
            let Poll::Ready(room) = waiting.as_mut().poll(cx) else {
                return self.in_time(cx).map(|late| Some(Err(late)));
            };
            (self.waiting, self.deadline) = (None, None);
            self.held.hand(Some(room));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            return self.in_time(cx).map(|late| Some(Err(late)));
        };
        let Some(part) = &mut self.part else { return Poll::Ready(None) };
        let frame = frame.map(|frame| frame.map_err(|error| gone(&error)));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let Some(left) = part.len.checked_sub(data.len()) else {
                let detail = format!("a body without a length may have {UNTOLD} bytes");
                return Poll::Ready(Some(Err(status::status(Refusal::new(
                    Code::TooLarge,
                    detail,
                )))));
            };
            part.len = left;
        }
        Poll::Ready(frame)
    }
}

/// The connection or the stream has ended, and with it whoever would hear this.
fn gone(error: &hyper::Error) -> Status {
    Edge::Cancelled.status(format!("the rest of it did not come: {error}"))
}

fn malformed(problem: &str) -> Status {
    let detail = format!("a message is not well-formed: {problem}");
    status::status(Refusal::new(Code::Malformed, detail))
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(None);
        }
        let frame = ready!(match this.kind {
            Kind::Contract | Kind::Other => this.poll_message(cx),
            Kind::Plain => this.poll_plain(cx),
        });
        this.is_over = !matches!(frame, Some(Ok(_)));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || (!self.has_begun() && self.body.is_end_stream())
    }
}
