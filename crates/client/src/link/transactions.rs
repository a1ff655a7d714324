//! The stream of transactions: Transactions.Session.

use bytes::Bytes;
use handfast_wire::raw::transaction_request::Call;
use handfast_wire::v1::transaction_reply::Result as TransactionResult;
use handfast_wire::{encoded, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::channel::Connection;
use super::stream::{BatchStream, Opening};
use crate::error::Refusal;

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

impl BatchStream for Transactions {
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
