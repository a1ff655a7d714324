//! The service Participants: the stream of one instance, and the list of participants.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use handfast_core::command::Command;
use handfast_core::ids::StoreId;
use handfast_wire::participants::{self as wire, About};
use handfast_wire::raw::participants_server::Participants;
use handfast_wire::v1;
use tonic::{Request, Response, Status, Streaming};

use super::stream::{self, Asker, Frames, Voice};
use crate::door::Way;
use crate::node::{Item, Node, QUIET};

/// The service.
#[derive(Debug)]
pub(super) struct Service(pub(super) Node);

#[tonic::async_trait]
impl Participants for Service {
    type AttachStream = Frames<v1::ToParticipantFrame>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::FromParticipantFrame>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let asked = Asked::default();
        let messages = Messages { store: self.0.info().store, asked: asked.clone() };
        let way = Way::of(&request);
        let frames =
            stream::open(&self.0, way, messages, |asker| read(request.into_inner(), asked, asker));
        Ok(Response::new(frames))
    }

    async fn list(
        &self,
        request: Request<v1::ListParticipantsRequest>,
    ) -> Result<Response<v1::ListParticipantsReply>, Status> {
        super::list(Way::of(&request), async {
            wire::participants(super::call(&self.0, Ok(Command::ListParticipants)).await?)
        })
        .await
    }
}

async fn read(
    mut requests: Streaming<v1::FromParticipantFrame>,
    asked: Asked,
    asker: Asker<v1::ToParticipant>,
) -> Result<(), Status> {
    while let Some(frame) = requests.message().await? {
        let mut batch = Vec::with_capacity(frame.messages.len());
        let mut refused = Vec::new();
        {
            let mut asked = asked.lock();
            for message in frame.messages {
                let number = message.request;
                match wire::command(message) {
                    Ok((about, command)) => batch.push((asked.remember(number, about), command)),
                    Err(refusal) => refused.push(wire::refused(number, About::Other, refusal)),
                }
            }
        }
        asker.answer(refused).await?;
        asker.ask(batch).await?;
    }
    Ok(())
}

/// What the instance asked and the node has not answered, under numbers of our own: an instance
/// may use its numbers twice.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Open>>);

/// The node answers nearly in order, so a queue with holes is short.
#[derive(Default)]
struct Open {
    /// Our number of the first in the queue.
    first: u64,
    /// The instance's number, until it is answered.
    queue: VecDeque<Option<(u64, About)>>,
}

impl Asked {
    fn lock(&self) -> MutexGuard<'_, Open> {
        // Nothing in between can leave it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn remember(&mut self, number: u64, about: About) -> u64 {
        self.queue.push_back(Some((number, about)));
        let ours = self.first + self.queue.len() as u64 - 1;
        match about {
            // An instance is told of these only when they are refused.
            About::Transaction(_) => ours | QUIET,
            About::Attach | About::Other => ours,
        }
    }

    fn answered(&mut self, ours: u64) -> Option<(u64, About)> {
        let at = usize::try_from((ours & !QUIET).checked_sub(self.first)?).ok()?;
        let known = self.queue.get_mut(at)?.take();
        while self.queue.front().is_some_and(Option::is_none) {
            self.queue.pop_front();
            self.first += 1;
        }
        known
    }
}

struct Messages {
    store: StoreId,
    asked: Asked,
}

impl Voice for Messages {
    type Message = v1::ToParticipant;
    type Frame = v1::ToParticipantFrame;

    fn say(&mut self, items: Vec<Item>, out: &mut VecDeque<Self::Message>) {
        let mut asked = self.asked.lock();
        for item in items {
            match item {
                Item::Reply { request, reply } => {
                    let known = asked.answered(request);
                    let (number, about) = known.expect("the node answers what it was asked, once");
                    out.extend(wire::reply(self.store, number, about, reply));
                }
                Item::ToService(message) => out.push_back(wire::to_participant(message)),
                other => unreachable!("not for an instance of a service: {other:?}"),
            }
        }
    }

    fn frame(messages: Vec<Self::Message>) -> Self::Frame {
        v1::ToParticipantFrame { messages }
    }
}
