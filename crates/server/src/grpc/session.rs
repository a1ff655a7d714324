//! Transactions.Session: requests about transactions, batched.

use std::collections::VecDeque;

use handfast_core::ids::TransactionId;
use handfast_wire::raw::transaction_request::Call;
use handfast_wire::transactions as wire;
use handfast_wire::{raw, v1};
use tonic::{Status, Streaming};

use super::stream::{self, Asker, Frames, Voice};
use crate::door::Way;
use crate::node::{Item, Node};

/// Opens the stream.
pub(super) fn open(
    node: &Node,
    way: Way,
    requests: Streaming<raw::TransactionFrame>,
) -> Frames<v1::TransactionReplyFrame> {
    stream::open(node, way, Replies(node.clone()), |asker| read(node.clone(), requests, asker))
}

/// An id for the transaction that a call may begin; other calls need none.
pub(super) fn id_for(node: &Node, call: Option<&Call>) -> TransactionId {
    match call {
        Some(Call::Begin(_) | Call::BeginLocal(_) | Call::Run(_)) => node.new_transaction_id(),
        _ => TransactionId::default(),
    }
}

async fn read(
    node: Node,
    mut requests: Streaming<raw::TransactionFrame>,
    asker: Asker<v1::TransactionReply>,
) -> Result<(), Status> {
    while let Some(frame) = requests.message().await? {
        let mut batch = Vec::with_capacity(frame.requests.len());
        let mut refused = Vec::new();
        for request in frame.requests {
            let (number, id) = (request.request, id_for(&node, request.call.as_ref()));
            match wire::session_command(request, id) {
                Ok(command) => batch.push((number, command)),
                Err(refusal) => refused.push(wire::session_refusal(number, refusal)),
            }
        }
        asker.answer(refused).await?;
        asker.ask(batch).await?;
    }
    Ok(())
}

/// Holds the node for what goes into every answer.
struct Replies(Node);

impl Voice for Replies {
    type Message = v1::TransactionReply;
    type Frame = v1::TransactionReplyFrame;

    fn say(&mut self, items: Vec<Item>, out: &mut VecDeque<Self::Message>) {
        let about = self.0.about();
        out.extend(items.into_iter().map(|item| match item {
            Item::Reply { request, reply } => wire::session_reply(request, reply, about),
            Item::Finish { id, database, commit } => wire::finish(id, &database, commit),
            other => unreachable!("not for a stream of transactions: {other:?}"),
        }));
    }

    fn frame(replies: Vec<Self::Message>) -> Self::Frame {
        v1::TransactionReplyFrame { replies }
    }
}
