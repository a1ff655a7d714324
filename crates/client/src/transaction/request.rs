//! What a transaction does, written down before it is sent.

use std::time::Duration;

use bytes::Bytes;
use handfast_core::command::Wait;
use handfast_core::limits::{BATCH_BYTES, WORK_BYTES};
use handfast_core::refusal::Code;
use handfast_wire::{MESSAGE_BYTES, raw, v1};

use crate::error::Refusal;
use crate::event::Event;
use crate::publish::{check_events, new_event};
use crate::subscribe::Delivery;

/// Everything that a transaction does, to be run in one call with
/// [`Handfast::run`](crate::Handfast::run) or [`Handfast::transaction`](crate::Handfast::transaction).
///
/// At most 64 calls, 1 MiB of work each and 15 MiB together; at most 1,000 events and
/// acknowledgements, 8 MiB of events.
#[derive(Clone, Debug, Default)]
#[must_use = "a transaction does nothing until it is run"]
pub struct Transaction {
    pub(crate) key: Option<String>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) wait: Wait,
    pub(crate) contents: Contents,
}

impl Transaction {
    /// One that does nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names it, in at most 128 bytes: asking again with the same key and the same content, even
    /// from another process, answers with the first one's outcome; with another content it is
    /// refused (`key_conflict`). Kept for 24 h after its end. Without one, a key of its own is
    /// made for each run, so that a lost answer can be asked for again.
    pub fn with_key(&mut self, key: impl Into<String>) -> &mut Self {
        self.key = Some(key.into());
        self
    }

    /// Until it fails if it is not decided: 1 ms to one hour; default 30 s.
    pub fn with_deadline(&mut self, deadline: Duration) -> &mut Self {
        self.deadline = Some(deadline);
        self
    }

    /// When to answer; default [`Wait::Finished`].
    pub fn with_wait(&mut self, wait: Wait) -> &mut Self {
        self.wait = wait;
        self
    }

    /// A service takes part: it gets this work in its prepare. Each service at most once.
    pub fn call(&mut self, service: impl Into<String>, work: impl Into<Bytes>) -> &mut Self {
        self.contents.call(service.into(), Some(work.into()));
        self
    }

    /// A service takes part that was asked by other means, and votes by itself.
    pub fn expect(&mut self, service: impl Into<String>) -> &mut Self {
        self.contents.call(service.into(), None);
        self
    }

    /// An event is published if it commits.
    pub fn publish(&mut self, topic: impl Into<String>, event: Event) -> &mut Self {
        self.contents.publish(topic.into(), event);
        self
    }

    /// A delivery is acknowledged if it commits, and returns if it fails. From now on the delivery
    /// is not rejected when it is dropped: if the transaction is never run, or is refused, it
    /// returns when its lease is over.
    pub fn acknowledge(&mut self, delivery: &Delivery) -> &mut Self {
        self.contents.acknowledge(delivery);
        self
    }
}

/// So that a chain of calls on a new transaction can be run.
impl From<&mut Transaction> for Transaction {
    fn from(transaction: &mut Transaction) -> Self {
        transaction.clone()
    }
}

impl From<&Transaction> for Transaction {
    fn from(transaction: &Transaction) -> Self {
        transaction.clone()
    }
}

/// Branches, events and acknowledgements on their way to the server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    pub(crate) branches: Vec<v1::Branch>,
    pub(crate) events: Vec<raw::NewEvent>,
    pub(crate) acknowledgements: Vec<v1::DeliveryRef>,
    /// What could not even be written down, told when it is run.
    pub(crate) refused: Option<Refusal>,
}

impl Contents {
    pub(crate) fn call(&mut self, participant: String, work: Option<Bytes>) {
        let kind = v1::ParticipantKind::Service.into();
        self.branches.push(v1::Branch { participant, kind, work });
    }

    pub(crate) fn publish(&mut self, topic: String, event: Event) {
        match new_event(topic, event) {
            Ok(event) => self.events.push(event),
            Err(refusal) => self.refused = self.refused.take().or(Some(refusal)),
        }
    }

    pub(crate) fn acknowledge(&mut self, delivery: &Delivery) {
        delivery.is_answered();
        self.acknowledgements.push(delivery.reference().into());
    }

    /// Refuses what would break the frame that everybody shares; says how many bytes it takes.
    pub(crate) fn check(&self) -> Result<usize, Refusal> {
        if let Some(refusal) = &self.refused {
            return Err(refusal.clone());
        }
        let mut bytes = check_events(&self.events)? + 32 * self.acknowledgements.len() + 512;
        for branch in &self.branches {
            let work = branch.work.as_ref().map_or(0, Bytes::len);
            if work > WORK_BYTES {
                let detail = format!("work has at most {WORK_BYTES} bytes, this has {work}");
                return Err(Refusal::local(Code::TooLarge, detail));
            }
            bytes += work + branch.participant.len() + 32;
        }
        let most = MESSAGE_BYTES - (1 << 20);
        if bytes > most {
            let detail = format!(
                "{bytes} bytes in one call are more than {most}: begin, and call step by step"
            );
            return Err(Refusal::local(Code::TooLarge, detail));
        }
        debug_assert!(BATCH_BYTES < most);
        Ok(bytes)
    }
}
