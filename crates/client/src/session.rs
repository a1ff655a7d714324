//! A stream with batches that many callers share.
//!
//! Whatever is queued goes into one frame; the answers of one frame wake their callers one after
//! the other. One task drives a stream, whatever the number of calls: there is no task, timer or
//! lock for each call.
//!
//! A stream that breaks is opened again as soon as somebody needs it. What was not answered is
//! sent again where the call allows that ([`Terms::resend`]), in the order in which it was first
//! asked; everything else is told that its answer is lost. This file decides nothing about
//! transactions.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use handfast_core::refusal::Code;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tonic::Streaming;

use crate::backoff::{Backoff, after};
use crate::connection::Connection;
use crate::error::{Error, Fault, Refusal};
use crate::lanes::Lane;

/// Frames are closed at this many calls.
const FRAME_CALLS: usize = 128;
/// Frames are closed at this many bytes; one call may be larger.
const FRAME_BYTES: usize = 4 << 20;
/// How often calls that wait too long are looked for.
const TICK: Duration = Duration::from_millis(100);
/// Opening a stream may take this long.
const OPENING: Duration = Duration::from_secs(5);
/// Frames that wait for the connection to take them.
const FRAMES: usize = 2;

/// The number of what answers no call.
const UNASKED: u64 = 0;

/// On what terms a call waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// When it stops waiting.
    pub(crate) give_up: Instant,
    /// How long that is from the beginning, for people.
    pub(crate) limit: Duration,
    /// It may be sent again on another stream: whoever gets it twice knows it by its key.
    pub(crate) resend: bool,
    /// It makes sense on this stream only.
    pub(crate) only_on: Option<u64>,
}

impl Terms {
    pub(crate) fn within(limit: Duration) -> Self {
        Self { give_up: Instant::now() + limit, limit, resend: false, only_on: None }
    }

    pub(crate) fn resent(self) -> Self {
        Self { resend: true, ..self }
    }

    pub(crate) fn only_on(self, stream: Option<u64>) -> Self {
        Self { only_on: stream, ..self }
    }
}

/// An answer, and the number of the stream that it came on.
#[derive(Debug)]
pub(crate) struct Answered<T> {
    pub(crate) answer: T,
    pub(crate) stream: u64,
}

/// There is no answer.
#[derive(Debug)]
pub(crate) struct Unanswered {
    /// The call may have taken effect.
    pub(crate) sent: bool,
    pub(crate) error: Error,
}

impl Unanswered {
    /// The error, of which nobody may conclude that nothing happened unless that is so.
    pub(crate) fn honest(self) -> Error {
        if self.sent && self.error.has_no_side_effects() {
            return lost(self.error.to_string());
        }
        self.error
    }
}

/// Told of what a stream brings unasked, by the stream's number, and with nothing of its end.
pub(crate) type Unasked<L> = Box<dyn Fn(u64, Option<<L as Lane>::Answer>) + Send>;

type Outcome<L> = Result<Answered<<L as Lane>::Answer>, Unanswered>;

/// What became of a call.
#[derive(Debug)]
struct Settled<L: Lane> {
    outcome: Outcome<L>,
    /// The call, if it was refused and may be sent again.
    refused: Option<L::Call>,
}

/// The callers' side.
#[derive(Debug)]
pub(crate) struct Session<L: Lane> {
    queue: mpsc::UnboundedSender<Box<Queued<L>>>,
    permits: Arc<Semaphore>,
    /// See [`Session::call_when_busy`].
    when_busy: bool,
}

/// A call on its way. Boxed, because it goes through several hands.
#[derive(Debug)]
struct Queued<L: Lane> {
    /// None: it was sent and will not be sent again.
    call: Option<L::Call>,
    bytes: usize,
    terms: Terms,
    /// None: nobody waits.
    waiter: Option<oneshot::Sender<Settled<L>>>,
    /// It has been sent, and nobody has said that it had no effect.
    sent: bool,
    /// The same on a stream that has ended: no later answer speaks for that one.
    sent_before: bool,
    /// Its place among the calls that may be under way; given back with the call.
    _permit: Option<OwnedSemaphorePermit>,
}

/// A call that is queued; wait for its answer with [`Waiting::answer`]. Dropping it does not take
/// the call back.
#[derive(Debug)]
pub(crate) struct Waiting<L: Lane>(oneshot::Receiver<Settled<L>>);

impl<L: Lane> Waiting<L> {
    pub(crate) async fn answer(self) -> Outcome<L> {
        self.settled().await.outcome
    }

    async fn settled(self) -> Settled<L> {
        self.0.await.unwrap_or_else(|_| {
            let error = Fault::Closed("the runtime is shutting down").into();
            Settled { outcome: Err(Unanswered { sent: true, error }), refused: None }
        })
    }
}

/// The server has too much to do just now; what it has will end by itself.
fn is_busy(refusal: &Refusal) -> bool {
    refusal.is(Code::TooManyTransactions) || refusal.is(Code::StagedBytesFull)
}

impl<L: Lane> Session<L> {
    /// Starts the task that drives the stream; it ends when this value is dropped and nothing is
    /// under way any more.
    pub(crate) fn start(
        connection: Arc<Connection>,
        in_flight: usize,
        when_busy: bool,
        unasked: Unasked<L>,
    ) -> Self {
        let (queue, inbox) = mpsc::unbounded_channel();
        let worker = Worker {
            connection,
            inbox,
            open: true,
            backlog: VecDeque::new(),
            in_flight: HashMap::new(),
            next_request: 1,
            stream: 0,
            paused_until: None,
            backoff: Backoff::default(),
            unasked,
        };
        tokio::spawn(worker.run());
        Self { queue, permits: Arc::new(Semaphore::new(in_flight)), when_busy }
    }

    /// Puts a call into the queue when it is its turn.
    ///
    /// Cancel safe: when dropped before it returns, the call was not and will not be sent.
    pub(crate) async fn enqueue(
        &self,
        call: L::Call,
        bytes: usize,
        terms: Terms,
    ) -> Result<Waiting<L>, Unanswered> {
        let closed = || Unanswered {
            sent: false,
            error: Fault::Closed("the runtime is shutting down").into(),
        };
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| closed())?;
        if Instant::now() >= terms.give_up {
            return Err(too_late(&terms, false));
        }
        let (waiter, waiting) = oneshot::channel();
        let queued = Box::new(Queued {
            call: Some(call),
            bytes,
            terms,
            waiter: Some(waiter),
            sent: false,
            sent_before: false,
            _permit: Some(permit),
        });
        self.queue.send(queued).map_err(|_| closed())?;
        Ok(Waiting(waiting))
    }

    /// Puts a call into the queue and waits for its answer.
    pub(crate) async fn call(&self, call: L::Call, bytes: usize, terms: Terms) -> Outcome<L> {
        self.enqueue(call, bytes, terms).await?.answer().await
    }

    /// As [`Session::call`], of a call that may be sent again: while the server has too much to do
    /// it is, after the pause that the refusal asks for, and longer ones after that, until its time
    /// is over. Meanwhile it takes nobody's place among the calls that may be under way.
    pub(crate) async fn call_when_busy(
        &self,
        mut call: L::Call,
        bytes: usize,
        terms: Terms,
    ) -> Outcome<L> {
        let mut sent = false;
        for refusals in 0.. {
            let waiting = self.enqueue(call, bytes, terms).await;
            let settled = match waiting {
                Ok(waiting) => waiting.settled().await,
                Err(unanswered) => Settled { outcome: Err(unanswered), refused: None },
            };
            let unanswered = match settled.outcome {
                Ok(answered) => return Ok(answered),
                Err(unanswered) => Unanswered { sent: unanswered.sent || sent, ..unanswered },
            };
            let pause = match &unanswered.error {
                Error::Refused(refusal) if self.when_busy && is_busy(refusal) => {
                    after(refusal.retry_after, refusals)
                }
                Error::Refused(_) | Error::Fault(_) => return Err(unanswered),
            };
            let Some(again) = settled.refused.filter(|_| Instant::now() + pause < terms.give_up)
            else {
                return Err(unanswered);
            };
            (call, sent) = (again, unanswered.sent);
            sleep(pause).await;
        }
        unreachable!("it is asked until its time is over")
    }

    /// Puts a call into the queue whose answer is of no interest.
    pub(crate) fn post(&self, call: L::Call, terms: Terms) {
        // Fails only while the runtime shuts down.
        drop(self.queue.send(Box::new(Queued {
            call: Some(call),
            bytes: 0,
            terms,
            waiter: None,
            sent: false,
            sent_before: false,
            _permit: None,
        })));
    }
}

fn too_late(terms: &Terms, sent: bool) -> Unanswered {
    Unanswered { sent, error: Fault::TimedOut { after: terms.limit, sent }.into() }
}

impl<L: Lane> Queued<L> {
    fn answer(self, outcome: Outcome<L>) {
        self.settle(Settled { outcome, refused: None });
    }

    fn settle(self, settled: Settled<L>) {
        if let Some(waiter) = self.waiter {
            // Fails when the caller has stopped waiting.
            drop(waiter.send(settled));
        }
    }

    fn fail(self, error: Error) {
        let sent = self.sent;
        self.answer(Err(Unanswered { sent, error }));
    }

    fn is_abandoned(&self) -> bool {
        self.waiter.as_ref().is_some_and(oneshot::Sender::is_closed)
    }
}

/// The task.
struct Worker<L: Lane> {
    connection: Arc<Connection>,
    inbox: mpsc::UnboundedReceiver<Box<Queued<L>>>,
    /// The inbox may bring more.
    open: bool,
    /// Calls that wait to be sent, in order.
    backlog: VecDeque<Box<Queued<L>>>,
    /// Calls that were sent on the stream that is open.
    in_flight: HashMap<u64, Box<Queued<L>>>,
    next_request: u64,
    /// The number of the stream that is open, or was last.
    stream: u64,
    /// The server is about to stop: nothing is sent before.
    paused_until: Option<Instant>,
    /// Pauses between streams; starts anew with each answer.
    backoff: Backoff,
    unasked: Unasked<L>,
}

/// A stream that is open.
struct Open<L: Lane> {
    frames: mpsc::Sender<L::Frame>,
    replies: Streaming<L::ReplyFrame>,
}

impl<L: Lane> Worker<L> {
    async fn run(mut self) {
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
                (self.unasked)(self.stream, None);
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
        match queued.terms.only_on {
            Some(wanted) if Some(wanted) != stream => queued.fail(gone().into()),
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
                        queued.fail(error.clone());
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
        let mut bytes = 0;
        while let Some(next) = self.backlog.front() {
            if calls.len() >= FRAME_CALLS || (bytes + next.bytes > FRAME_BYTES && bytes > 0) {
                break;
            }
            let Some(mut queued) = self.backlog.pop_front() else { break };
            if queued.terms.give_up <= now {
                let late = too_late(&queued.terms, queued.sent);
                queued.answer(Err(late));
                continue;
            }
            if queued.is_abandoned() {
                continue;
            }
            let again = if queued.terms.resend { queued.call.clone() } else { None };
            let Some(call) = std::mem::replace(&mut queued.call, again) else { continue };
            bytes += queued.bytes;
            queued.sent = true;
            let request = self.next_request;
            self.next_request += 1;
            calls.push((request, call));
            self.in_flight.insert(request, queued);
        }
        (!calls.is_empty()).then(|| L::frame(calls))
    }

    fn answer(&mut self, frame: L::ReplyFrame) {
        self.backoff.reset();
        let mut not_taken = Vec::new();
        for (request, answer) in L::answers(frame) {
            if request == UNASKED {
                if let Some(Ok(answer)) = answer {
                    (self.unasked)(self.stream, Some(answer));
                }
                continue;
            }
            // No call: it had stopped waiting.
            let Some(mut queued) = self.in_flight.remove(&request) else { continue };
            let Some(answer) = answer else {
                queued.fail(Fault::Failed("its answer is empty".to_owned()).into());
                continue;
            };
            match answer {
                Err(refusal) if queued.terms.resend && refusal.is(Code::Draining) => {
                    // It waits for the server's successor.
                    let pause = refusal.retry_after.max(TICK);
                    self.paused_until.get_or_insert_with(|| Instant::now() + pause);
                    queued.sent = queued.sent_before;
                    not_taken.push((request, queued));
                }
                Err(refusal) => queued.refuse(refusal),
                Ok(answer) => {
                    let stream = self.stream;
                    queued.answer(Ok(Answered { answer, stream }));
                }
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
            if queued.terms.resend && !queued.is_abandoned() {
                queued.sent_before = true;
                self.backlog.push_back(queued);
            } else {
                queued.fail(in_flight_error(error));
            }
        }
        for queued in waiting {
            self.take(queued, None);
        }
    }

    /// Ends what has waited too long and forgets what nobody waits for.
    fn expire_backlog(&mut self, problem: Option<&Error>) {
        let now = Instant::now();
        for _ in 0..self.backlog.len() {
            let Some(queued) = self.backlog.pop_front() else { break };
            if queued.is_abandoned() {
                continue;
            }
            if queued.terms.give_up > now {
                self.backlog.push_back(queued);
            } else {
                let late = too_late(&queued.terms, queued.sent);
                match problem {
                    // It says more than that the time is over.
                    Some(error) if !queued.sent => queued.fail(error.clone()),
                    _ => queued.answer(Err(late)),
                }
            }
        }
    }

    fn expire_in_flight(&mut self) {
        let now = Instant::now();
        let late = self.in_flight.extract_if(|_, queued| queued.terms.give_up <= now);
        for (_, queued) in late {
            let late = too_late(&queued.terms, true);
            queued.answer(Err(late));
        }
    }
}

impl<L: Lane> Queued<L> {
    fn refuse(mut self, refusal: Refusal) {
        let (sent, refused) = (self.sent_before, self.call.take());
        let outcome = Err(Unanswered { sent, error: refusal.into() });
        self.settle(Settled { outcome, refused });
    }
}

async fn open<L: Lane>(
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

fn lost(problem: String) -> Error {
    Fault::Lost { problem }.into()
}

/// What a call is told that made sense only on a stream that has ended.
fn gone() -> Fault {
    Fault::Lost { problem: "the stream that it belonged to has ended".to_owned() }
}
