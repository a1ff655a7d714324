//! Events.PublishStream: batches of events, each answered when it is durable.

use std::collections::VecDeque;

use handfast_wire::events as wire;
use handfast_wire::{raw, v1};
use tonic::{Status, Streaming};

use super::stream::{self, Asker, Frames, Voice};
use crate::door::Way;
use crate::node::{Item, Node};

/// Opens the stream.
pub(super) fn open(
    node: &Node,
    way: Way,
    requests: Streaming<raw::PublishFrame>,
) -> Frames<v1::PublishReplyFrame> {
    stream::open(node, way, Replies, |asker| read(requests, asker))
}

async fn read(
    mut requests: Streaming<raw::PublishFrame>,
    asker: Asker<v1::PublishReply>,
) -> Result<(), Status> {
    while let Some(frame) = requests.message().await? {
        let mut batch = Vec::with_capacity(frame.batches.len());
        let mut refused = Vec::new();
        for publish in frame.batches {
            let number = publish.request;
            match wire::publish_batch(publish) {
                Ok(command) => batch.push((number, command)),
                Err(refusal) => refused.push(wire::publish_refusal(number, refusal)),
            }
        }
        asker.answer(refused).await?;
        asker.ask(batch).await?;
    }
    Ok(())
}

struct Replies;

impl Voice for Replies {
    type Message = v1::PublishReply;
    type Frame = v1::PublishReplyFrame;

    fn say(&mut self, items: Vec<Item>, out: &mut VecDeque<Self::Message>) {
        out.extend(items.into_iter().map(|item| match item {
            Item::Reply { request, reply } => wire::publish_reply(request, reply),
            other => unreachable!("not for a stream of batches: {other:?}"),
        }));
    }

    fn frame(replies: Vec<Self::Message>) -> Self::Frame {
        v1::PublishReplyFrame { replies }
    }
}
