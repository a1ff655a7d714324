//! What one kind of stream with batches looks like: its calls, its answers and its frames.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::channel::Connection;
use crate::error::Refusal;

pub(crate) type Opening<R> = Pin<Box<dyn Future<Output = Result<Streaming<R>, Status>> + Send>>;

/// One kind of stream.
pub(crate) trait BatchStream: Debug + Send + Sync + 'static {
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

/// Told of what a stream brings unasked, by the stream's number, and with nothing of its end.
pub(crate) type OnPush<L> = Box<dyn Fn(u64, Option<<L as BatchStream>::Answer>) + Send>;
