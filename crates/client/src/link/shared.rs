//! The side of the callers, who share a stream.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use handfast_core::refusal::Code;
use tokio::sync::{Semaphore, TryAcquireError, mpsc, oneshot};
use tokio::time::{Instant, sleep};

use super::answer::{CallOutcome, Unanswered, closed, too_late};
use super::channel::Connection;
use super::queued::{Queued, Settled};
use super::stream::{BatchStream, OnPush};
use super::throttle::{Permit, Throttle};
use super::worker::Worker;
use crate::backoff::after;
use crate::error::{Error, Refusal};

/// The callers' side.
#[derive(Debug)]
pub(crate) struct Link<L: BatchStream> {
    queue: mpsc::UnboundedSender<Box<Queued<L>>>,
    permits: Arc<Semaphore>,
    /// See [`Link::call_when_busy`].
    when_busy: bool,
    throttle: Throttle,
}

/// A call that is queued; wait for its answer with [`Waiting::answer`]. Dropping it does not take
/// the call back.
#[derive(Debug)]
pub(crate) struct Waiting<L: BatchStream>(oneshot::Receiver<Settled<L>>);

impl<L: BatchStream> Waiting<L> {
    pub(crate) async fn answer(self) -> CallOutcome<L> {
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

impl<L: BatchStream> Link<L> {
    /// Starts the task that drives the stream; it ends when this value is dropped and nothing is
    /// under way any more.
    pub(crate) fn start(
        connection: Arc<Connection>,
        in_flight: usize,
        when_busy: bool,
        on_push: OnPush<L>,
    ) -> Self {
        let (queue, inbox) = mpsc::unbounded_channel();
        let worker = Worker::new(connection, inbox, on_push);
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
    pub(crate) async fn call(&self, queued: Box<Queued<L>>) -> CallOutcome<L> {
        self.enqueue(queued).await?.answer().await
    }

    /// As [`Link::call`], of a call that may be sent again: while the server has too much to do
    /// it is, after the pause that the refusal asks for, and longer ones after that, until its time
    /// is over. Meanwhile it takes nobody's place among the calls that may be under way. A new one
    /// may be refused without asking the server.
    pub(crate) async fn call_when_busy(&self, mut queued: Box<Queued<L>>) -> CallOutcome<L> {
        // By the server: only these make the pauses longer.
        let mut refusals = 0_u32;
        loop {
            // What may have taken effect on a stream that was lost is for the server to answer.
            let is_new = queued.terms().is_new && !queued.sent;
            let pass = if is_new { self.throttle.ask() } else { Ok(Permit::Free) };
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
    ) -> ControlFlow<CallOutcome<L>, (Box<Queued<L>>, Duration)> {
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
