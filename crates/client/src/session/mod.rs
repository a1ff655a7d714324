//! A stream with batches that many callers share.
//!
//! Whatever is queued goes into one frame; the answers of one frame wake their callers one after
//! the other. One task drives a stream, whatever the number of calls: there is no task, timer or
//! lock for each call.
//!
//! A stream that breaks is opened again as soon as somebody needs it. What was not answered is
//! sent again where the call allows that ([`Terms::resend`]), in the order in which it was first
//! asked; everything else is told that its answer is lost. Nothing here decides about transactions.

mod queued;
mod throttle;
mod worker;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use handfast_core::refusal::Code;
use tokio::sync::{Semaphore, TryAcquireError, mpsc, oneshot};
use tokio::time::{Instant, sleep};

use self::throttle::{Pass, Throttle};
use self::worker::Worker;
use crate::backoff::after;
use crate::connection::Connection;
use crate::error::{Error, Fault, Refusal};
use crate::lanes::Lane;

pub(crate) use self::queued::Queued;

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
    /// It begins something that nobody can have asked for before. What may be a repeat is for the
    /// server to answer, because it may have taken effect.
    pub(crate) is_new: bool,
}

impl Terms {
    pub(crate) fn within(limit: Duration) -> Self {
        Self { give_up: Instant::now() + limit, limit, resend: false, only_on: None, is_new: false }
    }

    pub(crate) fn resent(self) -> Self {
        Self { resend: true, ..self }
    }

    pub(crate) fn new_if(self, is_new: bool) -> Self {
        Self { is_new, ..self }
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
    refused: Option<Box<Queued<L>>>,
}

/// The callers' side.
#[derive(Debug)]
pub(crate) struct Session<L: Lane> {
    queue: mpsc::UnboundedSender<Box<Queued<L>>>,
    permits: Arc<Semaphore>,
    /// See [`Session::call_when_busy`].
    when_busy: bool,
    throttle: Throttle,
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
        self.0.await.unwrap_or_else(|_| Settled { outcome: Err(closed(true)), refused: None })
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
        let worker = Worker::new(connection, inbox, unasked);
        tokio::spawn(worker.run());
        Self {
            queue,
            permits: Arc::new(Semaphore::new(in_flight)),
            when_busy,
            throttle: Throttle::new(),
        }
    }

    /// Puts a call into the queue when it is its turn.
    ///
    /// Cancel safe: when dropped before it returns, the call was not and will not be sent by this.
    pub(crate) async fn enqueue(
        &self,
        mut queued: Box<Queued<L>>,
    ) -> Result<Waiting<L>, Unanswered> {
        let permit = match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(TryAcquireError::Closed) => return Err(closed(queued.sent)),
            Err(TryAcquireError::NoPermits) => {
                let turn = Arc::clone(&self.permits).acquire_owned();
                let permit = turn.await.map_err(|_| closed(queued.sent))?;
                let terms = queued.terms();
                if Instant::now() >= terms.give_up {
                    return Err(too_late(terms, queued.sent));
                }
                permit
            }
        };
        queued.seal();
        let waiting = queued.wait(permit);
        self.queue.send(queued).map_err(|unsent| closed(unsent.0.sent))?;
        Ok(Waiting(waiting))
    }

    /// Puts a call into the queue and waits for its answer.
    pub(crate) async fn call(&self, queued: Box<Queued<L>>) -> Outcome<L> {
        self.enqueue(queued).await?.answer().await
    }

    /// As [`Session::call`], of a call that may be sent again: while the server has too much to do
    /// it is, after the pause that the refusal asks for, and longer ones after that, until its time
    /// is over. Meanwhile it takes nobody's place among the calls that may be under way. A new one
    /// may be refused without asking the server.
    pub(crate) async fn call_when_busy(&self, mut queued: Box<Queued<L>>) -> Outcome<L> {
        // By the server: only these make the pauses longer.
        let mut refusals = 0_u32;
        loop {
            // What may have taken effect on a stream that was lost is for the server to answer.
            let is_new = queued.terms().is_new && !queued.sent;
            let pass = if is_new { self.throttle.ask() } else { Ok(Pass::Free) };
            let settled = match pass {
                Ok(pass) => {
                    let settled = self.enqueue(queued).await?.settled().await;
                    self.throttle.see(pass, &settled.outcome);
                    refusals += 1;
                    settled
                }
                Err(refusal) => queued.hold_back(refusal),
            };
            let pause;
            (queued, pause) = match self.again(settled, refusals.saturating_sub(1)) {
                ControlFlow::Continue(again) => again,
                ControlFlow::Break(outcome) => return outcome,
            };
            sleep(pause).await;
        }
    }

    /// What is to be sent again, and after which pause.
    fn again(
        &self,
        Settled { outcome, refused }: Settled<L>,
        refusals: u32,
    ) -> ControlFlow<Outcome<L>, (Box<Queued<L>>, Duration)> {
        let pause = match &outcome {
            Err(Unanswered { error: Error::Refused(refusal), .. })
                if self.when_busy && is_busy(refusal) =>
            {
                after(refusal.retry_after, refusals)
            }
            Ok(_) | Err(_) => return ControlFlow::Break(outcome),
        };
        match refused {
            Some(queued) if Instant::now() + pause < queued.terms().give_up => {
                ControlFlow::Continue((queued, pause))
            }
            Some(_) | None => ControlFlow::Break(outcome),
        }
    }

    /// Puts a call into the queue whose answer is of no interest.
    pub(crate) fn post(&self, mut queued: Box<Queued<L>>) {
        queued.seal();
        // Fails only while the runtime shuts down.
        drop(self.queue.send(queued));
    }
}

fn closed(sent: bool) -> Unanswered {
    Unanswered { sent, error: Fault::Closed("the runtime is shutting down").into() }
}

fn too_late(terms: &Terms, sent: bool) -> Unanswered {
    Unanswered { sent, error: Fault::TimedOut { after: terms.limit, sent }.into() }
}

fn lost(problem: String) -> Error {
    Fault::Lost { problem }.into()
}
