//! The two streams with batches that a client shares among its callers: what their frames look
//! like. How they are driven is in `session`.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use handfast_wire::raw::transaction_request::Call;
use handfast_wire::v1::publish_reply::Result as PublishResult;
use handfast_wire::v1::transaction_reply::Result as TransactionResult;
use handfast_wire::{encoded, raw, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::connection::Connection;
use crate::error::Refusal;

pub(crate) type Opening<R> = Pin<Box<dyn Future<Output = Result<Streaming<R>, Status>> + Send>>;

/// One kind of stream.
pub(crate) trait Lane: Debug + Send + Sync + 'static {
    /// What is asked.
    type Call: Clone + Debug + Send;
    /// What is answered, when it is not refused.
    type Answer: Debug + Send;
    /// Calls together.
    type Frame: Send;
    /// Answers together.
    type ReplyFrame: Send + 'static;

    /// The topic of a call that may go together with others to the same topic: as one call, which
    /// is taken or refused as a whole.
    fn topic(call: &Self::Call) -> Option<&str>;

    /// Takes what another call asks into this one, behind what it asks itself.
    fn join(call: &mut Self::Call, other: Self::Call);

    /// Takes the first of those that went together their part from the answer.
    fn part(answer: &mut Self::Answer) -> Self::Answer;

    /// Makes a call ready to wait in the queue and for its answer: from here on it is looked into
    /// only to put others of its topic with it.
    fn seal(call: &mut Self::Call);

    /// Numbers a call before it is sent for the first time: the server knows it by that, should it
    /// be sent again.
    fn number(call: &mut Self::Call, number: u64);

    fn frame(calls: Vec<(u64, Self::Call)>) -> Self::Frame;

    /// The answers with their numbers; none: not one that this protocol has.
    fn answers(
        frame: Self::ReplyFrame,
    ) -> impl Iterator<Item = (u64, Option<Result<Self::Answer, Refusal>>)> + Send;

    fn open(
        connection: &Connection,
        frames: mpsc::Receiver<Self::Frame>,
    ) -> Opening<Self::ReplyFrame>;
}

/// Transactions.Session.
#[derive(Debug)]
pub(crate) enum Transactions {}

/// What is asked of transactions.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    /// As it was asked.
    Call(Call),
    /// Encoded: what waits for its answer takes one piece of memory instead of many.
    Encoded(Bytes),
}

impl From<Call> for Asked {
    fn from(call: Call) -> Self {
        Self::Call(call)
    }
}

impl Asked {
    fn encoded(self) -> Bytes {
        match self {
            Self::Call(call) => encoded::call(&call),
            Self::Encoded(bytes) => bytes,
        }
    }
}

impl Lane for Transactions {
    type Call = Asked;
    type Answer = TransactionResult;
    type Frame = encoded::TransactionFrame;
    type ReplyFrame = v1::TransactionReplyFrame;

    fn topic(_: &Asked) -> Option<&str> {
        None
    }

    fn join(_: &mut Asked, other: Asked) {
        unreachable!("each goes alone: {other:?}")
    }

    fn part(answer: &mut TransactionResult) -> TransactionResult {
        unreachable!("each goes alone: {answer:?}")
    }

    fn seal(asked: &mut Asked) {
        if let Asked::Call(call) = asked {
            *asked = Asked::Encoded(encoded::call(call));
        }
    }

    /// A transaction has its idempotency key.
    fn number(_: &mut Asked, _: u64) {}

    fn frame(calls: Vec<(u64, Asked)>) -> encoded::TransactionFrame {
        let requests = calls.into_iter().map(|(request, asked)| (request, asked.encoded()));
        encoded::TransactionFrame(requests.collect())
    }

    fn answers(
        frame: v1::TransactionReplyFrame,
    ) -> impl Iterator<Item = (u64, Option<Result<TransactionResult, Refusal>>)> + Send {
        frame.replies.into_iter().map(|reply| {
            let result = reply.result.map(|result| match result {
                TransactionResult::Refusal(refusal) => Err(refusal.into()),
                other => Ok(other),
            });
            (reply.request, result)
        })
    }

    fn open(
        connection: &Connection,
        frames: mpsc::Receiver<encoded::TransactionFrame>,
    ) -> Opening<v1::TransactionReplyFrame> {
        let channel = connection.channel();
        Box::pin(async move {
            Ok(encoded::session(channel, ReceiverStream::new(frames)).await?.into_inner())
        })
    }
}

/// Events.PublishStream.
#[derive(Debug)]
pub(crate) enum Publishes {}

impl Lane for Publishes {
    type Call = raw::PublishRequest;
    type Answer = v1::Published;
    type Frame = raw::PublishFrame;
    type ReplyFrame = v1::PublishReplyFrame;

    /// Several events in one call are taken or refused without others.
    fn topic(call: &raw::PublishRequest) -> Option<&str> {
        match call.events.as_slice() {
            [event] => Some(&event.topic),
            _ => None,
        }
    }

    fn join(call: &mut raw::PublishRequest, other: raw::PublishRequest) {
        call.events.extend(other.events);
    }

    fn part(answer: &mut v1::Published) -> v1::Published {
        let first = answer.offsets.len().min(1);
        let offsets = answer.offsets.drain(..first).collect();
        v1::Published { offsets, repeated: answer.repeated }
    }

    /// Others may still go with it.
    fn seal(_: &mut raw::PublishRequest) {}

    fn number(call: &mut raw::PublishRequest, number: u64) {
        call.sequence = number;
    }

    fn frame(calls: Vec<(u64, raw::PublishRequest)>) -> raw::PublishFrame {
        let batches = calls
            .into_iter()
            .map(|(request, publish)| raw::PublishBatch { request, publish: Some(publish) })
            .collect();
        raw::PublishFrame { batches }
    }

    fn answers(
        frame: v1::PublishReplyFrame,
    ) -> impl Iterator<Item = (u64, Option<Result<v1::Published, Refusal>>)> + Send {
        frame.replies.into_iter().map(|reply| {
            let result = reply.result.map(|result| match result {
                PublishResult::Refusal(refusal) => Err(refusal.into()),
                PublishResult::Published(published) => Ok(published),
            });
            (reply.request, result)
        })
    }

    fn open(
        connection: &Connection,
        frames: mpsc::Receiver<raw::PublishFrame>,
    ) -> Opening<v1::PublishReplyFrame> {
        let mut stub = connection.events();
        Box::pin(
            async move { Ok(stub.publish_stream(ReceiverStream::new(frames)).await?.into_inner()) },
        )
    }
}
