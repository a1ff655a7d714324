//! The stream of publishes: Events.PublishStream.

use handfast_wire::v1::publish_reply::Result as PublishResult;
use handfast_wire::{raw, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::channel::Connection;
use super::stream::{BatchStream, Opening};
use crate::error::Refusal;

/// Events.PublishStream.
#[derive(Debug)]
pub(crate) enum Publishes {}

impl BatchStream for Publishes {
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
