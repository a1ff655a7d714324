//! What all streams have in common: a task that reads frames and asks the node, and an answering
//! half that puts whatever is queued into one frame.
//!
//! The answering half is driven by the connection, so a stream costs two tasks however much runs
//! over it. It waits for a client that reads slowly; the node bounds what may queue up meanwhile.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{FutureExt, stream};
use handfast_core::command::Command;
use handfast_core::refusal::{self, Refusal};
use handfast_wire::edge::Edge;
use handfast_wire::prost::Message;
use handfast_wire::status;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tonic::Status;

use super::stopped;
use crate::door::Way;
use crate::node::{Beside, Connection, Inbox, Item, Node, Sender};

/// A frame is closed when it has this many bytes; one message may be larger.
const FRAME_BYTES: usize = 1 << 20;
/// Frames of refusals that may wait before the reading half waits too.
const REFUSED_FRAMES: usize = 2;
/// Requests of a frame that may be refused before they become commands; a frame with more is none.
const REFUSED: usize = 4_096;

/// The frames that a client receives.
pub(super) type Frames<F> = Pin<Box<dyn Stream<Item = Result<F, Status>> + Send>>;

/// How one kind of stream says what the node has for it.
pub(super) trait Voice: Send + 'static {
    /// One message.
    type Message: Message + 'static;
    /// Messages in one frame.
    type Frame: Send + 'static;

    /// Makes messages of items, in their order. An end of the stream is never among them.
    fn say(&mut self, items: Vec<Item>, out: &mut VecDeque<Self::Message>);

    /// Puts messages into a frame.
    fn frame(messages: Vec<Self::Message>) -> Self::Frame;
}

/// The reading half's way to the node and to the answering half.
pub(super) struct Asker<M> {
    sender: Sender,
    answers: mpsc::Sender<Result<Vec<M>, Status>>,
    unanswered: Arc<AtomicU64>,
    beside: Beside,
}

impl<M> Asker<M> {
    /// Hands a batch to the node; waits while too much of the stream is unanswered.
    pub(super) async fn ask(&self, batch: Vec<(u64, Command)>) -> Result<(), Status> {
        if batch.is_empty() {
            return Ok(());
        }
        self.unanswered.fetch_add(batch.len() as u64, Ordering::AcqRel);
        self.sender.send(batch).await.map_err(stopped)
    }

    /// Answers what never became a command.
    pub(super) async fn answer(&self, messages: Vec<M>) -> Result<(), Status> {
        if messages.len() > REFUSED {
            let detail = format!("{} requests of a frame are none", messages.len());
            return Err(status::status(Refusal::new(refusal::Code::Malformed, detail)));
        }
        if !messages.is_empty() {
            self.beside.sent(messages.len()).map_err(status::status)?;
            // Fails only when the stream is over, and then nobody waits for it.
            let _ = self.answers.send(Ok(messages)).await;
        }
        Ok(())
    }
}

/// Opens a session for a stream. `read` takes the client's frames; its error ends the stream.
pub(super) fn open<V, R>(
    node: &Node,
    way: Way,
    voice: V,
    read: impl FnOnce(Asker<V::Message>) -> R,
) -> Frames<V::Frame>
where
    V: Voice,
    R: Future<Output = Result<(), Status>> + Send + 'static,
{
    let Connection { sender, inbox } = node.connect();
    let cut_off = way.clone();
    inbox.when_cut_off(move || cut_off.cut_off());
    let (answers, local) = mpsc::channel(REFUSED_FRAMES);
    let unanswered = Arc::new(AtomicU64::new(0));
    let end = answers.clone();
    let (beside, asked) = (inbox.beside(), Arc::clone(&unanswered));
    let reading = read(Asker { sender, answers, unanswered: asked, beside });
    let reader = tokio::spawn(async move {
        if let Err(status) = reading.await {
            // Fails only when the stream is over already.
            let _ = end.send(Err(status)).await;
        }
    });
    let answering = Answering {
        way,
        voice,
        inbox,
        local,
        unanswered,
        queue: VecDeque::new(),
        is_read: true,
        over: None,
        _reader: AbortOnDrop(reader),
    };
    Box::pin(stream::unfold(answering, |mut answering| async move {
        let frame = answering.next().await?;
        Some((frame, answering))
    }))
}

/// The half of a stream that answers.
struct Answering<V: Voice> {
    way: Way,
    voice: V,
    inbox: Inbox,
    local: mpsc::Receiver<Result<Vec<V::Message>, Status>>,
    unanswered: Arc<AtomicU64>,
    queue: VecDeque<V::Message>,
    /// The client may still say something.
    is_read: bool,
    /// Nothing comes any more; with a status if the server ended it.
    over: Option<Option<Status>>,
    _reader: AbortOnDrop,
}

impl<V: Voice> Answering<V> {
    async fn next(&mut self) -> Option<Result<V::Frame, Status>> {
        if self.queue.is_empty() && self.over.is_none() {
            // Until here what was taken waited to be read.
            self.inbox.taken();
            self.wait().await;
            // Whoever is about to queue something gets to do it, and one frame carries all.
            tokio::task::yield_now().await;
            self.take_what_is_there();
        }
        if self.queue.is_empty() {
            return self.over.as_mut()?.take().map(Err);
        }
        let (count, bytes) = self.fitting();
        self.way.room_for(bytes).await.made(bytes);
        Some(Ok(V::frame(self.cut(count))))
    }

    /// Waits until there is something to say, or nothing will ever be.
    async fn wait(&mut self) {
        while self.queue.is_empty() && self.over.is_none() {
            if !self.is_read && self.unanswered.load(Ordering::Acquire) == 0 {
                self.over = Some(None);
                return;
            }
            tokio::select! {
                items = self.inbox.more() => self.take(items),
                answer = self.local.recv(), if self.is_read => self.take_local(answer),
            }
        }
    }

    fn take_what_is_there(&mut self) {
        while self.over.is_none() {
            let Some(items) = self.inbox.more().now_or_never() else { break };
            self.take(items);
        }
        while self.over.is_none() && self.is_read {
            match self.local.try_recv() {
                Ok(answer) => self.take_local(Some(answer)),
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => self.is_read = false,
            }
        }
    }

    fn take(&mut self, items: Option<Vec<Item>>) {
        let Some(mut items) = items else {
            self.over = Some(Some(Edge::Stopped.status("the server has stopped")));
            return;
        };
        if let Some(end) = items.iter().position(|item| matches!(item, Item::End(_))) {
            items.truncate(end + 1);
            if let Some(Item::End(refusal)) = items.pop() {
                self.over = Some(Some(status::status(refusal)));
            }
        }
        let replies = items.iter().filter(|item| matches!(item, Item::Reply { .. })).count();
        self.unanswered.fetch_sub(replies as u64, Ordering::AcqRel);
        self.voice.say(items, &mut self.queue);
    }

    fn take_local(&mut self, answer: Option<Result<Vec<V::Message>, Status>>) {
        match answer {
            Some(Ok(messages)) => {
                self.inbox.received_beside(messages.len());
                self.queue.extend(messages);
            }
            Some(Err(status)) => self.over = Some(Some(status)),
            None => self.is_read = false,
        }
    }

    /// How many messages are in the next frame, and its bytes: at least one, and no more than fit.
    fn fitting(&self) -> (usize, usize) {
        let (mut count, mut bytes) = (0, 0);
        for message in &self.queue {
            // Tag and length of the message in its frame are a few bytes more.
            let more = message.encoded_len() + 8;
            if count > 0 && bytes + more > FRAME_BYTES {
                break;
            }
            (count, bytes) = (count + 1, bytes + more);
        }
        (count, bytes)
    }

    fn cut(&mut self, count: usize) -> Vec<V::Message> {
        if count == self.queue.len() {
            return std::mem::take(&mut self.queue).into();
        }
        self.queue.drain(..count).collect()
    }
}

/// Ends the reading half with the answering one: the stream is over, whatever the client says.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
