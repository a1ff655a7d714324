//! The task that drives a stream.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use handfast_core::refusal::Code;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::task::yield_now;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tonic::Streaming;

use super::answer::lost;
use super::channel::Connection;
use super::queued::Queued;
use super::stream::{BatchStream, OnPush};
use crate::backoff::Backoff;
use crate::error::{Error, Fault};

/// Frames are closed at this many calls.
const FRAME_CALLS: usize = 128;
/// Frames are closed at this many bytes; one call may be larger.
const FRAME_BYTES: usize = 4 << 20;
/// Most calls that go together. So many share what a call costs; and a subscriber far behind, who
/// is given single events, reads all that went with each.
const TOGETHER: usize = 32;
/// Most bytes of calls that go together; a larger one goes alone.
const TOGETHER_BYTES: usize = 32 << 10;
/// How often calls that wait too long are looked for.
const TICK: Duration = Duration::from_millis(100);
/// Opening a stream may take this long.
const OPENING: Duration = Duration::from_secs(5);
/// Frames that wait for the connection to take them.
const FRAMES: usize = 2;

/// The number of what answers no call.
const PUSHED: u64 = 0;

/// The task.
pub(super) struct Worker<L: BatchStream> {
    connection: Arc<Connection>,
    inbox: mpsc::UnboundedReceiver<Box<Queued<L>>>,
    /// The inbox may bring more.
    open: bool,
    /// Calls that wait to be sent, in order.
    backlog: VecDeque<Box<Queued<L>>>,
    /// Calls that were sent on the stream that is open.
    in_flight: HashMap<u64, Box<Queued<L>>>,
    next_request: u64,
    /// The number of the next call that is new.
    next_number: u64,
    /// The number of the stream that is open, or was last.
    stream: u64,
    /// The server is about to stop: nothing is sent before.
    paused_until: Option<Instant>,
    /// Pauses between streams; starts anew with each answer.
    backoff: Backoff,
    on_push: OnPush<L>,
}

/// A stream that is open.
struct Open<L: BatchStream> {
    frames: mpsc::Sender<L::Frame>,
    replies: Streaming<L::ReplyFrame>,
}

impl<L: BatchStream> Worker<L> {
    pub(super) fn new(
        connection: Arc<Connection>,
        inbox: mpsc::UnboundedReceiver<Box<Queued<L>>>,
        on_push: OnPush<L>,
    ) -> Self {
        Self {
            connection,
            inbox,
            open: true,
            backlog: VecDeque::new(),
            in_flight: HashMap::new(),
            next_request: 1,
            next_number: 1,
            stream: 0,
            paused_until: None,
            backoff: Backoff::default(),
            on_push,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            while self.backlog.is_empty() {
                match self.inbox.recv().await {
                    Some(queued) => self.take(queued, None),
                    None => return,
                }
            }
            if let Some(stream) = self.open_stream().await {
                self.stream += 1;
                let ended = self.drive(stream).await;
                (self.on_push)(self.stream, None);
                if let Some(error) = ended {
                    self.broken(&error);
                    // A server that ends every stream at once is not asked without a pause.
                    let pause = sleep(self.backoff.next());
                    self.meanwhile(pause, None).await;
                }
            }
        }
    }

    /// Takes a call over; `stream` is the one that is open.
    fn take(&mut self, queued: Box<Queued<L>>, stream: Option<u64>) {
        match queued.only_on {
            Some(wanted) if Some(wanted) != stream => queued.fail(&gone().into()),
            _ => self.backlog.push_back(queued),
        }
    }

    /// Opens a stream, however often it takes; none: nobody wants it any more.
    async fn open_stream(&mut self) -> Option<Open<L>> {
        // What stopped the last attempt, for those who wait in vain.
        let mut problem = None;
        loop {
            let (frames, outgoing) = mpsc::channel(FRAMES);
            let attempt = open::<L>(Arc::clone(&self.connection), outgoing);
            match self.meanwhile(attempt, problem.as_ref()).await? {
                Ok(replies) => return Some(Open { frames, replies }),
                Err(error) if error.is_retryable() => problem = Some(error),
                Err(error) => {
                    for queued in self.backlog.drain(..) {
                        queued.fail(&error);
                    }
                    return None;
                }
            }
            let pause = sleep(self.backoff.next());
            self.meanwhile(pause, problem.as_ref()).await?;
        }
    }

    /// Waits for something while no stream is open; none: nobody wants one any more.
    async fn meanwhile<T>(
        &mut self,
        event: impl Future<Output = T>,
        problem: Option<&Error>,
    ) -> Option<T> {
        tokio::pin!(event);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = &mut event => return Some(event),
                queued = self.inbox.recv(), if self.open => match queued {
                    Some(queued) => self.take(queued, None),
                    None => self.open = false,
                },
                _ = tick.tick() => {
                    self.expire_backlog(problem);
                    if self.backlog.is_empty() {
                        return None;
                    }
                }
            }
        }
    }

    /// Drives an open stream until it ends; none: nobody will ask any more.
    async fn drive(&mut self, stream: Open<L>) -> Option<Error> {
        let Open { frames, mut replies } = stream;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if !self.open && self.backlog.is_empty() && self.in_flight.is_empty() {
                return None;
            }
            let paused = self.paused_until;
            tokio::select! {
                frame = replies.message() => match frame {
                    Ok(Some(frame)) => self.answer(frame),
                    Ok(None) => {
                        return Some(lost("the server ended the stream".to_owned()));
                    }
                    Err(status) => {
                        return Some(Error::from_status(&status, &self.connection.url, true));
                    }
                },
                permit = frames.reserve(), if !self.backlog.is_empty() && paused.is_none() => {
                    let Ok(permit) = permit else {
                        return Some(lost("the connection takes nothing any more".to_owned()));
                    };
                    // Those who are about to ask go into the same frame.
                    yield_now().await;
                    self.drain_inbox();
                    if let Some(frame) = self.frame() {
                        permit.send(frame);
                    }
                }
                queued = self.inbox.recv(), if self.open => match queued {
                    Some(queued) => self.take(queued, Some(self.stream)),
                    None => self.open = false,
                },
                () = sleep_until(paused.unwrap_or_else(Instant::now)), if paused.is_some() => {
                    self.paused_until = None;
                }
                _ = tick.tick(), if !(self.backlog.is_empty() && self.in_flight.is_empty()) => {
                    self.expire_backlog(None);
                    self.expire_in_flight();
                }
            }
        }
    }

    fn drain_inbox(&mut self) {
        loop {
            match self.inbox.try_recv() {
                Ok(queued) => self.take(queued, Some(self.stream)),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.open = false;
                    return;
                }
            }
        }
    }

    /// The next frame, of calls that somebody still waits for.
    fn frame(&mut self) -> Option<L::Frame> {
        let now = Instant::now();
        let mut calls = Vec::with_capacity(self.backlog.len().min(FRAME_CALLS));
        let (mut callers, mut bytes) = (0, 0);
        while let Some(next) = self.backlog.front() {
            if callers >= FRAME_CALLS || (bytes + next.bytes > FRAME_BYTES && bytes > 0) {
                break;
            }
            let Some(mut queued) = self.backlog.pop_front() else { break };
            if !queued.expire(now, None) || queued.is_abandoned() {
                continue;
            }
            let Some(mut call) = queued.call.take() else { continue };
            if !queued.is_numbered {
                self.take_along(&mut queued, &mut call, now);
                queued.is_numbered = true;
                L::number(&mut call, self.next_number);
                self.next_number += 1;
            }
            if queued.resend {
                queued.call = Some(call.clone());
            }
            callers += queued.callers();
            bytes += queued.bytes;
            queued.sent = true;
            let request = self.next_request;
            self.next_request += 1;
            calls.push((request, call));
            self.in_flight.insert(request, queued);
        }
        (!calls.is_empty()).then(|| L::frame(calls))
    }

    /// Those that come next and go to the same topic go with a call.
    fn take_along(&mut self, queued: &mut Queued<L>, call: &mut L::Call, now: Instant) {
        if self.backlog.front().is_none_or(|next| next.is_numbered) {
            return;
        }
        let Some(topic) = L::topic(call).map(ToOwned::to_owned) else { return };
        while let Some(next) = self.backlog.front_mut() {
            let fits = queued.callers() < TOGETHER && queued.bytes + next.bytes <= TOGETHER_BYTES;
            let goes = |call| L::topic(call) == Some(&topic);
            if !fits || next.is_numbered || !next.call.as_ref().is_some_and(goes) {
                return;
            }
            let Some(mut next) = self.backlog.pop_front() else { return };
            if next.expire(now, None)
                && !next.is_abandoned()
                && let Some(other) = next.call.take()
            {
                L::join(call, other);
                queued.join(*next);
            }
        }
    }

    fn answer(&mut self, frame: L::ReplyFrame) {
        self.backoff.reset();
        let mut not_taken = Vec::new();
        for (request, answer) in L::answers(frame) {
            if request == PUSHED {
                if let Some(Ok(answer)) = answer {
                    (self.on_push)(self.stream, Some(answer));
                }
                continue;
            }
            // No call: it had stopped waiting.
            let Some(mut queued) = self.in_flight.remove(&request) else { continue };
            let Some(answer) = answer else {
                queued.fail(&Fault::Failed("its answer is empty".to_owned()).into());
                continue;
            };
            match answer {
                Err(refusal) if queued.resend && refusal.is(Code::Draining) => {
                    // It waits for the server's successor.
                    let pause = refusal.retry_after.max(TICK);
                    self.paused_until.get_or_insert_with(|| Instant::now() + pause);
                    queued.sent = queued.sent_before;
                    not_taken.push((request, queued));
                }
                Err(refusal) => queued.refuse(refusal),
                Ok(answer) => queued.answer(answer, self.stream),
            }
        }
        not_taken.sort_unstable_by_key(|(request, _)| *request);
        for (_, queued) in not_taken.into_iter().rev() {
            self.backlog.push_front(queued);
        }
    }

    /// The stream has ended: what may be sent again goes back to the front, in order.
    fn broken(&mut self, error: &Error) {
        self.paused_until = None;
        let mut unanswered: Vec<_> = self.in_flight.drain().collect();
        unanswered.sort_unstable_by_key(|(request, _)| *request);
        let waiting = std::mem::take(&mut self.backlog);
        for (_, mut queued) in unanswered {
            if queued.resend && !queued.is_abandoned() {
                queued.sent_before = true;
                self.backlog.push_back(queued);
            } else {
                queued.fail(&in_flight_error(error));
            }
        }
        for queued in waiting {
            self.take(queued, None);
        }
    }

    /// Ends what has waited too long and forgets what nobody waits for.
    fn expire_backlog(&mut self, problem: Option<&Error>) {
        let now = Instant::now();
        self.backlog.retain_mut(|queued| !queued.is_abandoned() && queued.expire(now, problem));
    }

    fn expire_in_flight(&mut self) {
        let now = Instant::now();
        self.in_flight.retain(|_, queued| queued.expire(now, None));
    }
}

async fn open<L: BatchStream>(
    connection: Arc<Connection>,
    frames: mpsc::Receiver<L::Frame>,
) -> Result<Streaming<L::ReplyFrame>, Error> {
    connection.handshake().await?;
    match timeout(OPENING, L::open(&connection, frames)).await {
        Ok(Ok(replies)) => Ok(replies),
        Ok(Err(status)) => Err(Error::from_status(&status, &connection.url, false)),
        Err(_) => {
            let problem = format!("no stream within {OPENING:?}");
            Err(Fault::Unreachable { url: connection.url.clone(), problem }.into())
        }
    }
}

/// What a call is told whose stream ended while it was under way. The end's refusal was not of
/// the call.
fn in_flight_error(error: &Error) -> Error {
    match error {
        Error::Refused(refusal) => lost(refusal.to_string()),
        Error::Fault(_) => error.clone(),
    }
}

/// What a call is told that made sense only on a stream that has ended.
fn gone() -> Fault {
    Fault::Lost { problem: "the stream that it belonged to has ended".to_owned() }
}
