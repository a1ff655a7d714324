//! Events.Read: a topic's events without a subscription.
//!
//! Each frame is one read of the journal, made when the client has taken the one before, so a slow
//! reader costs nothing but its own time. The topic is looked up again before each, because
//! retention may have overtaken the reader.

use futures_util::stream;
use handfast_core::command::Start;
use handfast_core::ids::{Name, Offset, TopicId};
use handfast_core::output::{Fetch, Wanted};
use handfast_core::refusal::{Code, Refusal};
use handfast_core::view::TopicView;
use handfast_wire::edge::Edge;
use handfast_wire::events::Read;
use handfast_wire::status::status;
use handfast_wire::{raw, v1};
use tokio::sync::watch;
use tonic::Status;

use super::stream::Frames;
use super::{not_read, topics};
use crate::door::Way;
use crate::node::Node;

/// Events of a frame are read until they have this many bytes.
const FRAME_BYTES: u32 = 1 << 20;
/// What an event has in a frame besides its body, about.
const EVENT_OVERHEAD: usize = 48;
/// Most events in a frame.
const FRAME_EVENTS: u32 = 10_000;

/// Starts to read.
pub(super) async fn open(
    node: &Node,
    way: Way,
    request: v1::ReadRequest,
) -> Result<Frames<raw::ReadFrame>, Status> {
    let Read { topic: name, start, limit, follow } = Read::try_from(request).map_err(status)?;
    let durable = node.durable_changed();
    let start = topics::start(node, &name, start).await?;
    let view = topics::topic(node, &name).await?;
    let next = match start {
        Start::Earliest => view.start,
        Start::Latest => view.end,
        Start::At(offset) if offset <= view.end => offset,
        Start::At(offset) => {
            let detail = format!("{offset} is after the end of topic {name}, {}", view.end);
            return Err(status(Refusal::new(Code::OffsetOutOfRange, detail)));
        }
    };
    let end = if follow { None } else { Some(view.end) };
    let reading = Reading {
        node: node.clone(),
        way,
        topic: view.topic,
        name,
        next,
        end,
        left: limit.unwrap_or(u64::MAX),
        durable,
    };
    Ok(Box::pin(stream::try_unfold(reading, |mut reading| async move {
        let frame = reading.frame().await?;
        Ok(frame.map(|frame| (frame, reading)))
    })))
}

struct Reading {
    node: Node,
    way: Way,
    name: Name,
    topic: TopicId,
    /// The next offset that is wanted.
    next: Offset,
    /// Where to stop; none: follow.
    end: Option<Offset>,
    /// Events that are still wanted.
    left: u64,
    durable: watch::Receiver<u64>,
}

impl Reading {
    /// The next frame that says something; none at the end.
    async fn frame(&mut self) -> Result<Option<raw::ReadFrame>, Status> {
        loop {
            if self.left == 0 || self.end.is_some_and(|end| self.next >= end) {
                return Ok(None);
            }
            // Marked as seen before the topic is looked up: what comes later wakes us.
            self.durable.mark_unchanged();
            let view = self.look_up().await?;
            let gap = (self.next < view.start)
                .then_some(v1::OffsetRange { from: self.next.0, to: view.start.0 });
            let from = self.next.max(view.start);
            let to = self.end.map_or(view.end, |end| end.min(view.end));
            let events = self.fetch(from, to).await?;
            if gap.is_some() || !events.is_empty() {
                return Ok(Some(raw::ReadFrame { events, gap, next_offset: self.next.0 }));
            }
            if self.next >= to && self.end.is_none() {
                let changed = self.durable.changed().await;
                changed.map_err(|_| Edge::Stopped.status("the server has stopped"))?;
            }
        }
    }

    async fn look_up(&self) -> Result<TopicView, Status> {
        let view = topics::topic(&self.node, &self.name).await?;
        if view.topic == self.topic {
            return Ok(view);
        }
        let detail = format!("topic {} was deleted, and a new one has its name", self.name);
        Err(status(Refusal::new(Code::UnknownTopic, detail)))
    }

    async fn fetch(&mut self, from: Offset, to: Offset) -> Result<Vec<raw::StoredEvent>, Status> {
        self.next = from;
        if from >= to {
            return Ok(Vec::new());
        }
        let max_events = u32::try_from(self.left).unwrap_or(u32::MAX).min(FRAME_EVENTS);
        let wanted = Wanted::Range { from, to, max_events };
        let fetch = Fetch { fetch: 0, topic: self.topic, wanted, max_bytes: FRAME_BYTES };
        // Before it is read: what many readers do not take must not fill the memory.
        let room = self.way.room_for(FRAME_BYTES as usize).await;
        let (events, next) = self.node.fetch(fetch).await.map_err(not_read)?;
        room.made(events.iter().map(|event| event.body.len() + EVENT_OVERHEAD).sum());
        self.left -= events.len() as u64;
        self.next = next.max(from);
        Ok(events.into_iter().map(Into::into).collect())
    }
}
