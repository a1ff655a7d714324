//! Publishers: batches outside of transactions, sent again with the same number until answered.
//! Now and then one takes a number that it has used for another batch.

use handfast_core::command::Command;
use handfast_core::event::EventRequest;
use handfast_core::ids::{Digest, KeyHash, ProducerId, SessionId};
use handfast_core::output::Reply;

use super::{Down, Peer, TOPICS, World, numbered};

/// How long a batch is sent again: well inside the time for which its number is remembered.
const GIVE_UP_MS: u64 = 60_000;

/// One publisher.
#[derive(Debug)]
pub(super) struct Publisher {
    producer: ProducerId,
    session: Option<SessionId>,
    sequence: u64,
    /// The batch that is not answered: when it was first sent, and its request on this stream.
    pending: Option<(Vec<EventRequest>, u64, Option<u64>)>,
}

impl Publisher {
    /// A publisher.
    #[must_use]
    pub(super) fn new(at: usize) -> Self {
        let producer = ProducerId(at as u128 + 1);
        Self { producer, session: None, sequence: 0, pending: None }
    }

    /// Whether everything it sent was answered.
    #[must_use]
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_none()
    }
}

impl World {
    /// Some events with bytes of their own.
    pub(super) fn new_events(&mut self, most: u64) -> Vec<EventRequest> {
        let count = self.rng.between(1, most);
        (0..count)
            .map(|_| EventRequest {
                topic: numbered("t", self.rng.index(TOPICS)),
                key: self.rng.percent(70).then(|| KeyHash(self.rng.below(3))),
                body: self.new_body(),
            })
            .collect()
    }

    pub(super) fn publisher_act(&mut self, at: usize) {
        let session = match self.publishers[at].session {
            Some(session) => session,
            None => {
                let session = self.open(Peer::Publisher(at));
                self.publishers[at].session = Some(session);
                session
            }
        };
        let now_ms = self.now.mono_ms;
        if self.publishers[at].pending.is_none() && !self.healing {
            let events = self.new_events(2);
            let is_mistaken = self.publishers[at].sequence > 0 && self.rng.percent(8);
            self.publishers[at].sequence += u64::from(!is_mistaken);
            self.publishers[at].pending = Some((events, now_ms, None));
        }
        let publisher = &mut self.publishers[at];
        let Some((events, since_ms, request)) = &publisher.pending else { return };
        if now_ms > since_ms + GIVE_UP_MS {
            publisher.pending = None;
            return;
        }
        if request.is_none() {
            let (producer, sequence) = (publisher.producer, publisher.sequence);
            let (events, digest) = (events.clone(), digest(events));
            let publish = Command::Publish { producer, sequence, digest, events };
            let request = self.send(session, publish);
            if let Some(pending) = &mut self.publishers[at].pending {
                pending.2 = Some(request);
            }
        }
    }

    pub(super) fn publisher_told(&mut self, at: usize, message: &Down) {
        let publisher = &mut self.publishers[at];
        if let Down::Reply(request, Reply::Published { .. } | Reply::Refused(_)) = message
            && publisher.pending.as_ref().is_some_and(|p| p.2 == Some(*request))
        {
            publisher.pending = None;
        }
    }

    pub(super) fn publisher_lost(&mut self, at: usize, session: SessionId) {
        let publisher = &mut self.publishers[at];
        if publisher.session == Some(session) {
            publisher.session = None;
            if let Some(pending) = &mut publisher.pending {
                pending.2 = None;
            }
        }
    }
}

/// Of what a batch says; every event here has bytes of its own.
fn digest(events: &[EventRequest]) -> Digest {
    let bytes = events.iter().flat_map(|event| event.body.iter());
    Digest(bytes.fold(1, |hash: u64, byte| hash.wrapping_mul(1_099_511_628_211) ^ u64::from(*byte)))
}
