//! Digests of requests, by which a repeat is known. Their values are written to the journal, so they
//! must never change.

use handfast_core::command::BeginRequest;
use handfast_core::event::EventRequest;
use handfast_core::ids::Digest;
use handfast_core::record::ParticipantKind;

use crate::event;
use crate::hash::{Fnv, SEED, mix, of_bytes};

/// The digest of a batch for its producer's number: over its events in their order, with their
/// topics. Of each event what [`event::digest`] takes.
#[must_use]
pub fn of_publish(events: &[EventRequest]) -> Digest {
    let mut hash = mix(SEED, events.len() as u64);
    for event in events {
        hash = mix(hash, of_bytes(0, event.topic.as_str().as_bytes()));
        hash = mix(hash, event::digest(&event.body));
    }
    Digest(hash)
}

/// The digest of a begin request for its idempotency key: over whether it is local (and in which
/// database), whether it commits in the same call, its participants with their work, its events
/// with their topics, and the subscriptions and offsets of its acknowledgements.
///
/// Left out is what a repetition may change: the id, the key itself, the deadline, what the caller
/// waits for, `detached`, the attempts of deliveries, and of an event its `time` and the order of its
/// attributes.
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
