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
mod worker;

use std::sync::Arc;
use std::time::Duration;

use handfast_core::refusal::Code;
use tokio::sync::{Semaphore, TryAcquireError, mpsc, oneshot};
use tokio::time::{Instant, sleep};

use self::queued::Queued;
use self::worker::Worker;
use crate::backoff::after;
use crate::connection::Connection;
use crate::error::{Error, Fault, Refusal};
use crate::lanes::Lane;

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
        let worker = Worker::new(connection, inbox, unasked);
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
        let permit = match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(TryAcquireError::Closed) => return Err(closed()),
            Err(TryAcquireError::NoPermits) => {
                let turn = Arc::clone(&self.permits).acquire_owned();
                let permit = turn.await.map_err(|_| closed())?;
                if Instant::now() >= terms.give_up {
                    return Err(too_late(&terms, false));
                }
                permit
            }
        };
        let (waiter, waiting) = oneshot::channel();
        let queued = Queued::new(call, bytes, terms, Some(waiter), Some(permit));
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
        drop(self.queue.send(Queued::new(call, 0, terms, None, None)));
    }
}

fn too_late(terms: &Terms, sent: bool) -> Unanswered {
    Unanswered { sent, error: Fault::TimedOut { after: terms.limit, sent }.into() }
}

fn lost(problem: String) -> Error {
    Fault::Lost { problem }.into()
}
