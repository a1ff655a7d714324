//! Stable hashes. Their values are written to the journal, so they must never change.
//!
//! The hash is FNV-1a with 64 bits (offset basis `cbf29ce484222325`, prime `100000001b3`), as in
//! the IETF draft by Fowler, Noll, Vo and Eastlake. It does not withstand somebody who looks for
//! collisions, and need not: a collision of keys costs a publisher some parallelism of his own
//! events, and one of requests needs the same idempotency key too.

use handfast_core::command::BeginRequest;
use handfast_core::ids::KeyHash;
use handfast_core::record::ParticipantKind;

use crate::event;

const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// FNV-1a with 64 bits.
#[derive(Clone, Copy)]
pub(crate) struct Fnv(u64);

impl Fnv {
    pub(crate) fn new() -> Self {
        Self(BASIS)
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
        self
    }

    pub(crate) fn number(self, value: u64) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    /// With its length first, so that what follows cannot be taken for a part of it.
    pub(crate) fn text(self, text: &[u8]) -> Self {
        self.number(text.len() as u64).bytes(text)
    }

    pub(crate) fn finish(self) -> u64 {
        self.0
    }
}

/// The hash of an ordering key: FNV-1a 64 over its UTF-8 bytes.
#[must_use]
pub fn key_hash(key: &str) -> KeyHash {
    KeyHash(Fnv::new().bytes(key.as_bytes()).finish())
}

/// The digest of a begin request for its idempotency key: over whether it is local (and in which
/// database), whether it commits in the same call, its participants with their work, its events
/// with their topics, and the subscriptions and offsets of its acknowledgements.
///
/// Left out is what a repetition may change: the id, the key itself, the deadline, what the caller
/// waits for, `detached`, the attempts of deliveries, and the order of attributes in an event.
#[must_use]
pub fn of_begin(request: &BeginRequest) -> u64 {
    let mut hash = Fnv::new().text(b"handfast begin 1").number(u64::from(request.commit.is_some()));
    hash = match &request.local {
        None => hash.number(0),
        Some(database) => hash.number(1).text(database.as_str().as_bytes()),
    };
    hash = hash.number(request.branches.len() as u64);
    for branch in &request.branches {
        hash = hash.text(branch.participant.name.as_str().as_bytes());
        hash = hash.number(match branch.participant.kind {
            ParticipantKind::Service => 1,
            ParticipantKind::Database => 2,
        });
        hash = match &branch.work {
            None => hash.number(0),
            Some(work) => hash.number(1).text(work),
        };
    }
    hash = hash.number(request.events.len() as u64);
    for event in &request.events {
        hash = hash.text(event.topic.as_str().as_bytes()).number(event::digest(&event.body));
    }
    hash = hash.number(request.acknowledgements.len() as u64);
    for reference in &request.acknowledgements {
        hash = hash.number(u64::from(reference.subscription.0)).number(reference.offset.0);
    }
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published test values of FNV-1a 64: if these fail, stored hashes no longer match.
    #[test]
    fn the_hash_never_changes() {
        assert_eq!(key_hash(""), KeyHash(0xcbf2_9ce4_8422_2325));
        assert_eq!(key_hash("a"), KeyHash(0xaf63_dc4c_8601_ec8c));
        assert_eq!(key_hash("foobar"), KeyHash(0x8594_4171_f739_67e8));
    }
}
