//! A call on its way, and those who wait for its answer.

use smallvec::SmallVec;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::answer::{Answered, CallOutcome, Unanswered, too_late};
use super::options::CallOptions;
use super::stream::BatchStream;
use crate::error::{Error, Refusal};

/// What became of a call.
#[derive(Debug)]
pub(super) struct Settled<L: BatchStream> {
    pub(super) outcome: CallOutcome<L>,
    /// The call, if it was refused and may be sent again.
    pub(super) refused: Option<Box<Queued<L>>>,
}

/// A call on its way. Boxed, because it goes through several hands.
#[derive(Debug)]
pub(crate) struct Queued<L: BatchStream> {
    /// None: it was sent and will not be sent again.
    pub(super) call: Option<L::Call>,
    pub(super) bytes: usize,
    /// It may be sent again on another stream.
    pub(super) resend: bool,
    /// It makes sense on this stream only.
    pub(super) only_on: Option<u64>,
    /// It has its number: what it is does not change any more.
    pub(super) is_numbered: bool,
    /// It has been sent, and nobody has said that it had no effect.
    pub(super) sent: bool,
    /// The same on a stream that has ended: no later answer speaks for that one.
    pub(super) sent_before: bool,
    /// Several when their calls went together, in the order of what they ask: each keeps its place,
    /// whether it still waits or not, because the answer has a part for each.
    callers: SmallVec<[Caller<L>; 1]>,
}

/// Who asked.
#[derive(Debug)]
struct Caller<L: BatchStream> {
    terms: CallOptions,
    /// None: the answer is of no interest, or it has one.
    waiter: Option<oneshot::Sender<Settled<L>>>,
    /// Its place among the calls that may be under way; given back when it has its answer.
    permit: Option<OwnedSemaphorePermit>,
}

impl<L: BatchStream> Caller<L> {
    fn settle(&mut self, settled: Settled<L>) {
        if let Some(waiter) = self.waiter.take() {
            // Fails when the caller has stopped waiting.
            drop(waiter.send(settled));
        }
        self.permit = None;
    }

    fn has_left(&self) -> bool {
        self.waiter.as_ref().is_some_and(oneshot::Sender::is_closed)
    }
}

impl<L: BatchStream> Queued<L> {
    /// A call of so many bytes, about, for whose answer nobody waits yet.
    pub(crate) fn new(call: impl Into<L::Call>, bytes: usize, terms: CallOptions) -> Box<Self> {
        let caller = Caller { terms, waiter: None, permit: None };
        Box::new(Self {
            call: Some(call.into()),
            bytes,
            resend: terms.resend,
            only_on: terms.only_on,
            is_numbered: false,
            sent: false,
            sent_before: false,
            callers: SmallVec::from_buf([caller]),
        })
    }

    /// It goes into the queue.
    pub(super) fn seal(&mut self) {
        if let Some(call) = &mut self.call {
            L::seal(call);
        }
    }

    /// On what terms it waits, or who first asked of those who went together.
    pub(super) fn terms(&self) -> &CallOptions {
        &self.callers[0].terms
    }

    /// Somebody waits for the answer of a call that goes alone, on this place among those that
    /// may be under way.
    pub(super) fn wait(&mut self, permit: OwnedSemaphorePermit) -> oneshot::Receiver<Settled<L>> {
        let (waiter, waiting) = oneshot::channel();
        let caller = &mut self.callers[0];
        (caller.waiter, caller.permit) = (Some(waiter), Some(permit));
        waiting
    }

    /// How many calls went together.
    pub(super) fn callers(&self) -> usize {
        self.callers.len()
    }

    /// The callers of another one, whose call went into this one's, wait for this one's answer.
    pub(super) fn join(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.callers.extend(other.callers);
    }

    /// Each caller gets its part of the answer.
    pub(super) fn answer(mut self, mut answer: L::Answer, stream: u64) {
        let Some((last, others)) = self.callers.split_last_mut() else { return };
        for caller in others {
            let outcome = Ok(Answered { answer: L::part(&mut answer), stream });
            caller.settle(Settled { outcome, refused: None });
        }
        last.settle(Settled { outcome: Ok(Answered { answer, stream }), refused: None });
    }

    /// It was refused; whoever asked alone gets the call back, if it may be sent again.
    pub(super) fn refuse(mut self: Box<Self>, refusal: Refusal) {
        self.sent = self.sent_before;
        let unanswered = |refusal: Refusal| Unanswered { sent: self.sent, error: refusal.into() };
        if let [caller] = self.callers.as_mut_slice()
            && self.call.is_some()
        {
            let outcome = Err(unanswered(refusal));
            let (waiter, permit) = (caller.waiter.take(), caller.permit.take());
            let mut caller = Caller { terms: caller.terms, waiter, permit };
            caller.settle(Settled { outcome, refused: Some(self) });
            return;
        }
        for caller in &mut self.callers {
            let outcome = Err(unanswered(refusal.clone()));
            caller.settle(Settled { outcome, refused: None });
        }
    }

    /// It is refused on this side, and was not sent.
    pub(super) fn hold_back(self: Box<Self>, refusal: Refusal) -> Settled<L> {
        let unanswered = Unanswered { sent: self.sent, error: refusal.into() };
        Settled { outcome: Err(unanswered), refused: Some(self) }
    }

    /// There is no answer.
    pub(super) fn fail(mut self, error: &Error) {
        let sent = self.sent;
        for caller in &mut self.callers {
            let outcome: CallOutcome<L> = Err(Unanswered { sent, error: error.clone() });
            caller.settle(Settled { outcome, refused: None });
        }
    }

    /// Answers those whose time is over, with what is known to stand in the way, if it says more
    /// than that; false when the time of all is over.
    pub(super) fn expire(&mut self, now: Instant, problem: Option<&Error>) -> bool {
        let sent = self.sent;
        let mut is_any_left = false;
        for caller in &mut self.callers {
            if caller.terms.give_up > now {
                is_any_left = true;
                continue;
            }
            if caller.waiter.is_none() {
                // It has its answer, or wants none.
                continue;
            }
            let unanswered = match problem {
                Some(error) if !sent => Unanswered { sent, error: error.clone() },
                Some(_) | None => too_late(&caller.terms, sent),
            };
            caller.settle(Settled { outcome: Err(unanswered), refused: None });
        }
        is_any_left
    }

    /// Whether everybody who asked has stopped waiting.
    pub(super) fn is_abandoned(&self) -> bool {
        self.callers.iter().all(Caller::has_left)
    }
}
