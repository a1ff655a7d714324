//! What may wait for the pump: bytes of requests, and calls that nobody has answered.
//!
//! A stream that would go beyond waits, and so does its client, whose frames are not read meanwhile;
//! a call that belongs to no stream is refused. What is counted here is forgotten as soon as the
//! core has it: from there on the core's own limits hold.

use std::sync::Arc;

use handfast_core::command::Command;
use handfast_core::refusal::{Code, Refusal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::NodeStopped;

/// What a request takes besides its events, work and lists, about.
const EACH_BYTES: usize = 256;

/// Bounds of what waits in memory between clients and the core.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Queues {
    /// Bytes of requests of all streams and calls that have not been handled; more wait, and their
    /// streams with them. At most 4 GiB.
    pub request_bytes: usize,
    /// Calls that belong to no stream and are not answered; more are refused.
    pub calls: usize,
    /// Bytes of deliveries that one stream may have to read; beyond it, it gets no more until it
    /// has read half of them.
    pub unread_bytes: usize,
    /// Bytes that all streams together may have to read. The nearer they are to it, the less each
    /// may have; beyond it, those that read nothing are ended, with the most first.
    pub all_unread_bytes: usize,
}

impl Default for Queues {
    fn default() -> Self {
        Self {
            request_bytes: 64 << 20,
            calls: 100_000,
            unread_bytes: 8 << 20,
            all_unread_bytes: 42 << 20,
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Requests {
    bytes: Arc<Semaphore>,
    most_bytes: u32,
    calls: Arc<Semaphore>,
    most_calls: usize,
}

/// Room for requests, until it is dropped.
#[derive(Debug)]
pub(crate) struct Room(#[expect(dead_code, reason = "held")] OwnedSemaphorePermit);

/// The place of a call, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place(#[expect(dead_code, reason = "held")] OwnedSemaphorePermit);

impl Requests {
    pub(crate) fn new(queues: &Queues) -> Self {
        let most_bytes = u32::try_from(queues.request_bytes).unwrap_or(u32::MAX).max(1);
        let most_calls = queues.calls.min(Semaphore::MAX_PERMITS);
        Self {
            bytes: Arc::new(Semaphore::new(most_bytes as usize)),
            most_bytes,
            calls: Arc::new(Semaphore::new(most_calls)),
            most_calls,
        }
    }

    /// Waits until there is room. Whoever asked first gets it first; what is larger than everything
    /// waits until it is alone.
    ///
    /// Cancel safe.
    pub(crate) async fn room_for(
        &self,
        commands: impl Iterator<Item = &Command>,
    ) -> Result<Room, NodeStopped> {
        let bytes: usize = commands.map(|command| EACH_BYTES + command.held_bytes()).sum();
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.most_bytes);
        let room = Arc::clone(&self.bytes).acquire_many_owned(bytes).await;
        room.map(Room).map_err(|_| NodeStopped)
    }

    /// The place of a call that waits for its answer.
    pub(crate) fn place(&self) -> Result<Place, Refusal> {
        Arc::clone(&self.calls).try_acquire_owned().map(Place).map_err(|_| {
            let detail = format!("{} calls are not answered yet", self.most_calls);
            Refusal::new(Code::TooManyCalls, detail)
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt;
    use handfast_core::event::{DeliveryRef, EventRequest};
    use handfast_core::ids::{DeliveryToken, Digest, Name, Offset, ProducerId, SubscriptionId};

    use super::*;

    fn publish(bytes: usize) -> Command {
        let (topic, body) = (Name::new("t").expect("a name"), Bytes::from(vec![0; bytes]));
        let events = vec![EventRequest { topic, key: None, body }];
        Command::Publish { producer: ProducerId(1), sequence: 1, digest: Digest(1), events }
    }

    #[test]
    fn bytes_wait_for_room_in_the_order_in_which_they_came() {
        let requests = Requests::new(&Queues { request_bytes: 10_000, ..Queues::default() });
        let (small, large, huge) = (publish(1_000), publish(9_000), publish(1_000_000));
        let room = |command| requests.room_for([command].into_iter());
        let first = room(&small).now_or_never().expect("there is room").expect("nothing is over");
        let mut second = Box::pin(room(&large));
        assert!(second.as_mut().now_or_never().is_none(), "there is not so much");
        let mut third = Box::pin(room(&small));
        assert!(third.as_mut().now_or_never().is_none(), "it came later");
        drop(first);
        let second = second.now_or_never().expect("it is its turn").expect("nothing is over");
        assert!(third.as_mut().now_or_never().is_none());
        drop(second);
        let third = third.now_or_never().expect("it is its turn").expect("nothing is over");
        let mut all = Box::pin(room(&huge));
        assert!(all.as_mut().now_or_never().is_none(), "it needs everything");
        drop(third);
        drop(all.now_or_never().expect("it is alone").expect("nothing is over"));
    }

    /// Only events and work counted: 10,000 deliveries to acknowledge were taken for one request, and
    /// 64 MiB of those for a thousandth of what they are (I15).
    #[test]
    fn lists_take_room_too() {
        const MANY: usize = 10_000;
        let requests = Requests::new(&Queues { request_bytes: 150_000, ..Queues::default() });
        let delivery = DeliveryRef {
            subscription: SubscriptionId(1),
            offset: Offset(1),
            token: DeliveryToken(1),
        };
        let acknowledge = Command::Acknowledge { deliveries: vec![delivery; MANY] };
        let small = publish(10);
        assert!(acknowledge.held_bytes() >= MANY * size_of::<DeliveryRef>());
        let room = |command| requests.room_for([command].into_iter());
        let first = room(&acknowledge).now_or_never().expect("it is alone").expect("it goes on");
        assert!(room(&small).now_or_never().is_none(), "there is room for nothing else");
        drop(first);
        drop(room(&small).now_or_never().expect("there is room").expect("it goes on"));
    }

    #[test]
    fn a_call_too_many_is_refused_until_another_is_answered() {
        let requests = Requests::new(&Queues { calls: 1, ..Queues::default() });
        let place = requests.place().expect("the first");
        let refused = requests.place().expect_err("the second");
        assert!(refused.code == Code::TooManyCalls && refused.code.is_retryable());
        drop(place);
        requests.place().expect("the first is answered");
    }
}
