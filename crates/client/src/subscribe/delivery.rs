//! An event under a lease, and the ways to answer it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use handfast_core::event::DeliveryRef;
use handfast_core::ids::TransactionId;
use tokio::sync::{mpsc, oneshot};

use super::question::{Ask, Question};
use crate::error::{Error, Fault};
use crate::event::Event;

/// What a subscription brings.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are events")]
pub enum Item {
    /// An event.
    Event(Delivery),
    /// Events that were gone before they were read.
    Gap(Gap),
}

/// An event under a lease.
///
/// Answer it with [`Delivery::acknowledge`], [`Delivery::reject`], [`Delivery::dead_letter`] or
/// [`Delivery::give_back`], or stage it in a transaction; if it is dropped without any of these it is rejected, so that it is
/// tried again soon. An answer that comes after the lease is refused (`delivery_expired`), and the
/// event is or will be delivered again.
pub struct Delivery {
    /// The event as it was published.
    pub event: Event,
    /// Its place in its topic.
    pub offset: u64,
    /// One more than the attempts that have counted since the server started. An event that comes
    /// again after an attempt that does not count has the same number.
    pub attempt: u32,
    /// Until it is delivered again, from when everything that came before it was answered.
    pub lease: Duration,
    /// The transaction that published it.
    pub transaction: Option<TransactionId>,
    /// When it was published, or its transaction decided.
    pub published: SystemTime,
    pub(super) handle: Handle,
    /// When the lease is over, as far as this side can tell.
    #[cfg(feature = "_databases")]
    pub(crate) expires: tokio::time::Instant,
    pub(super) answered: AtomicBool,
    /// It goes back if it is dropped, and is not rejected.
    #[cfg(feature = "_databases")]
    pub(crate) returns: bool,
}

/// The way back to the stream that something came on.
pub(super) struct Handle {
    pub(super) asks: mpsc::UnboundedSender<Ask>,
    /// The number of that stream.
    pub(super) stream: u64,
    pub(super) reference: DeliveryRef,
}

impl Handle {
    fn ask(&self, question: Question) -> Answering {
        let (waiter, answer) = oneshot::channel();
        let ask = Ask { stream: self.stream, question, waiter: Some(waiter) };
        // If the subscription is closed the waiter is dropped, and the answer says so.
        drop(self.asks.send(ask));
        Answering(answer)
    }
}

/// The server's word on an answer to a delivery. The answer itself is on its way already: waiting
/// only tells when, and whether, it is durable.
#[derive(Debug)]
#[must_use = "without waiting, nobody knows whether it was durable"]
pub struct Answering(oneshot::Receiver<Result<(), Error>>);

impl Future for Answering {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|answer| {
            answer.unwrap_or_else(|_| Err(Fault::Closed("the subscription is closed").into()))
        })
    }
}

impl Delivery {
    /// The event was processed: it is not delivered again. The answer is sent at once, together
    /// with others; waiting for it tells that it is durable.
    ///
    /// # Errors
    /// `delivery_expired`: the lease was over, or the connection was lost. A fault: the event may
    /// come again.
    pub fn acknowledge(self) -> Answering {
        self.answer(Question::Acknowledge(self.handle.reference))
    }

    /// It could not be processed: another attempt after the back-off. `why` is for people, at
    /// most 512 bytes.
    ///
    /// # Errors
    /// As [`Delivery::acknowledge`].
    pub fn reject(self, why: impl Into<String>) -> Answering {
        let (delivery, reason) = (self.handle.reference, why.into());
        self.answer(Question::Reject { delivery, reason, dead: false })
    }

    /// It can never be processed: it becomes a dead letter, for people to look at.
    ///
    /// # Errors
    /// As [`Delivery::acknowledge`].
    pub fn dead_letter(self, why: impl Into<String>) -> Answering {
        let (delivery, reason) = (self.handle.reference, why.into());
        self.answer(Question::Reject { delivery, reason, dead: true })
    }

    /// It goes back as if it had never been delivered, and others may have it: no attempt that
    /// counts, because nobody has judged the event.
    ///
    /// # Errors
    /// As [`Delivery::acknowledge`].
    pub fn give_back(self) -> Answering {
        self.answer(Question::GiveBack(self.handle.reference))
    }

    /// The lease starts anew.
    ///
    /// # Errors
    /// As [`Delivery::acknowledge`].
    pub fn extend(&self) -> Answering {
        self.handle.ask(Question::Extend(self.handle.reference))
    }

    /// The event as a CloudEvent that carries its place: with the extensions `handfastoffset`,
    /// `handfasttime` and, if a transaction published it, `handfasttransaction`.
    #[must_use]
    pub fn cloud_event(&self) -> Event {
        self.event.clone().stamped(self.offset, self.published, self.transaction)
    }

    /// What names this attempt to the server.
    #[must_use]
    pub fn reference(&self) -> DeliveryRef {
        self.handle.reference
    }

    /// From here on dropping it means nothing: somebody has answered it, or will.
    pub(crate) fn is_answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    fn answer(&self, question: Question) -> Answering {
        self.is_answered();
        self.handle.ask(question)
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if !self.answered.load(Ordering::Relaxed) {
            #[cfg(feature = "_databases")]
            let returns = self.returns;
            #[cfg(not(feature = "_databases"))]
            let returns = false;
            let delivery = self.handle.reference;
            let question = if returns {
                Question::GiveBack(delivery)
            } else {
                let reason = "the subscriber dropped it without an answer".to_owned();
                Question::Reject { delivery, reason, dead: false }
            };
            let ask = Ask { stream: self.handle.stream, question, waiter: None };
            drop(self.handle.asks.send(ask));
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("offset", &self.offset)
            .field("attempt", &self.attempt)
            .field("event", &self.event)
            .finish_non_exhaustive()
    }
}

/// Events were gone before the subscription read them: retention had overtaken it. Nothing is
/// delivered before it is acknowledged; until then each new connection brings it again.
pub struct Gap {
    /// First offset that is gone.
    pub from: u64,
    /// First offset after them.
    pub to: u64,
    pub(super) handle: Handle,
}

impl Gap {
    /// It was noted: deliveries go on.
    ///
    /// # Errors
    /// A fault: the notice may come again.
    pub fn acknowledge(self) -> Answering {
        self.handle.ask(Question::Gap { to: self.to })
    }
}

impl fmt::Debug for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gap")
            .field("from", &self.from)
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}
