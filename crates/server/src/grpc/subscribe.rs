//! Events.Subscribe: deliveries of one subscription.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use handfast_core::command::Command;
use handfast_core::event::Delivery;
use handfast_core::ids::Name;
use handfast_core::output::Reply;
use handfast_core::refusal::{Code, Refusal};
use handfast_wire::raw::to_subscriber::Message as To;
use handfast_wire::subscriptions::{self as wire, NewSubscription, Sent};
use handfast_wire::{raw, status, v1};
use tonic::{Status, Streaming};

use super::stream::{self, Asker, Frames, Voice};
use super::{stopped, topics};
use crate::door::Way;
use crate::node::{Item, Node};

/// Deliveries are put together until they have this many bytes.
const DELIVERIES_BYTES: usize = 256 << 10;
/// What a delivery has besides its event, at most.
const DELIVERY_OVERHEAD: usize = 80;

/// Opens the stream.
pub(super) fn open(
    node: &Node,
    way: Way,
    requests: Streaming<v1::FromSubscriberFrame>,
) -> Frames<raw::ToSubscriberFrame> {
    let joined = Arc::new(Joined::default());
    let messages = Messages { joined: Arc::clone(&joined), bytes: 0 };
    stream::open(node, way, messages, |asker| read(node.clone(), requests, joined, asker))
}

/// What the stream is subscribed to; told by the half that hears it from the node.
#[derive(Default)]
struct Joined {
    name: OnceLock<Name>,
    created: AtomicBool,
}

async fn read(
    node: Node,
    mut requests: Streaming<v1::FromSubscriberFrame>,
    joined: Arc<Joined>,
    asker: Asker<raw::ToSubscriber>,
) -> Result<(), Status> {
    let mut asked = None;
    while let Some(frame) = requests.message().await? {
        let mut batch = Vec::with_capacity(frame.messages.len());
        let mut refused = Vec::new();
        for message in frame.messages {
            let number = message.request;
            let command = match wire::sent(message, joined.name.get().or(asked.as_ref())) {
                Ok(Sent::Command(command)) => Ok(command),
                Ok(Sent::Subscribe { subscription, credit, create }) => {
                    let made = match create {
                        Some(new) if joined.name.get().is_none() => {
                            create_first(&node, new).await?
                        }
                        _ => Ok(false),
                    };
                    made.map(|made| {
                        joined.created.fetch_or(made, Ordering::AcqRel);
                        asked = Some(subscription.clone());
                        Command::Subscribe { subscription, credit }
                    })
                }
                Err(refusal) => Err(refusal),
            };
            match command {
                Ok(command) => batch.push((number, command)),
                Err(refusal) => refused.push(wire::refused(number, refusal)),
            }
        }
        asker.answer(refused).await?;
        asker.ask(batch).await?;
    }
    Ok(())
}

/// Creates a subscription that the stream wants to exist; says whether it is new. One that exists
/// on the same topic is what was wanted, whatever its settings are.
async fn create_first(node: &Node, new: NewSubscription) -> Result<Result<bool, Refusal>, Status> {
    let (name, topic) = (new.name.clone(), new.topic.clone());
    let start = match topics::start(node, &topic, new.start).await {
        Ok(start) => start,
        // The only refusal there is of a time; anything else ends the stream.
        Err(other) => return refusal_of(other).map(Err),
    };
    match node.call(new.command(start)).await.map_err(stopped)? {
        Reply::Subscription { created, .. } => Ok(Ok(created)),
        Reply::Refused(refusal) if refusal.code == Code::SubscriptionExists => {
            match topics::subscription(node, &name).await {
                Ok(view) if view.topic == topic => Ok(Ok(false)),
                Ok(_) => Ok(Err(refusal)),
                Err(gone) => refusal_of(gone).map(Err),
            }
        }
        Reply::Refused(refusal) => Ok(Err(refusal)),
        other => unreachable!("a subscription was created, not {other:?}"),
    }
}

fn refusal_of(other: Status) -> Result<Refusal, Status> {
    status::refusal(&other).and_then(|refusal| refusal.try_into().ok()).ok_or(other)
}

struct Messages {
    joined: Arc<Joined>,
    /// Bytes in the last message of the queue, if that has deliveries.
    bytes: usize,
}

impl Messages {
    fn deliver(&mut self, delivery: Delivery, out: &mut VecDeque<raw::ToSubscriber>) {
        let bytes = delivery.event.body.len() + DELIVERY_OVERHEAD;
        if let Some(raw::ToSubscriber { message: Some(To::Deliveries(last)), .. }) = out.back_mut()
            && self.bytes + bytes <= DELIVERIES_BYTES
        {
            self.bytes += bytes;
            last.deliveries.push(delivery.into());
            return;
        }
        self.bytes = bytes;
        out.push_back(wire::deliveries(vec![delivery.into()]));
    }
}

impl Voice for Messages {
    type Message = raw::ToSubscriber;
    type Frame = raw::ToSubscriberFrame;

    fn say(&mut self, items: Vec<Item>, out: &mut VecDeque<Self::Message>) {
        for item in items {
            match item {
                Item::Deliver(delivery) => self.deliver(*delivery, out),
                Item::Gap(gap) => out.push_back(wire::gap(gap)),
                Item::Reply { request, mut reply } => {
                    if let Reply::Subscription { name, created, .. } = &mut reply {
                        *created |= self.joined.created.load(Ordering::Acquire);
                        // A stream subscribes once; the core refuses a second time.
                        let _ = self.joined.name.set(name.clone());
                    }
                    out.push_back(wire::reply(request, reply));
                }
                other => unreachable!("not for a subscriber: {other:?}"),
            }
        }
    }

    fn frame(messages: Vec<Self::Message>) -> Self::Frame {
        raw::ToSubscriberFrame { messages }
    }
}
