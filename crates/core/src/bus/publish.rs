//! Publishing outside a transaction, and the checks that staging shares with it.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use super::producers::Seen;
use super::{Answer, Bus, Call};
use crate::command::bytes_of_events;
use crate::event::{Body, EventRequest, PlacedEvent};
use crate::ids::{Digest, KeyHash, Offset, ProducerId, TopicId};
use crate::limits::{BATCH_BYTES, BATCH_ITEMS, EVENT_BYTES, PRODUCER_BATCHES};
use crate::output::Reply;
use crate::record::{Published, Record};
use crate::refusal::{Code, Refusal};

/// Room that an event takes in the log besides its body, and a record besides its events.
const OVERHEAD_BYTES: u64 = 128;

impl Bus {
    pub(super) fn publish(
        &mut self,
        call: &mut Call<'_>,
        (producer, sequence): (ProducerId, u64),
        digest: Digest,
        events: Vec<EventRequest>,
    ) -> Result<Answer, Refusal> {
        match self.producers.seen(producer, sequence, digest) {
            Seen::Same(lsn) => {
                let reply = Reply::Published { places: Vec::new(), repeated: true };
                return Ok(Answer::after(lsn, reply));
            }
            // The refusal reveals the other batch, and waits for it like every refusal of the bus.
            Seen::Other => {
                let detail = format!("the number {sequence} was used for another batch");
                return Err(Refusal::new(Code::SequenceConflict, detail));
            }
            Seen::Forgotten => {
                let detail = format!(
                    "the number {sequence} is below the last {PRODUCER_BATCHES} of this producer \
                     that are remembered: it may have been used for this batch, another one or none"
                );
                return Err(Refusal::new(Code::SequenceConflict, detail));
            }
            Seen::New => {}
        }
        if events.is_empty() {
            return Err(Refusal::new(Code::InvalidArgument, "a publish without events"));
        }
        if events.len() > BATCH_ITEMS {
            let detail = format!("{} events, at most {BATCH_ITEMS}", events.len());
            return Err(Refusal::new(Code::TooMany, detail));
        }
        let topics = self.check_events(&events)?;
        let bytes = bytes_of_events(&events);
        if bytes > BATCH_BYTES {
            let detail = format!("{bytes} bytes of events, at most {BATCH_BYTES}");
            return Err(Refusal::new(Code::TooLarge, detail));
        }
        call.need_space(bytes as u64 + OVERHEAD_BYTES * (events.len() as u64 + 1))?;
        if !self.producers.has_room_for(producer, call.limits) {
            let detail = format!("{} producers are remembered already", call.limits.producers);
            return Err(Refusal::new(Code::TooManyProducers, detail));
        }
        let events: Vec<PlacedEvent> = events
            .into_iter()
            .zip(topics)
            .map(|(event, topic)| {
                self.reserve(topic, event.body.len() as u64);
                self.place_one(topic, event.key, Body::Here(event.body))
            })
            .collect();
        let places = events.iter().map(|event| (event.topic, event.offset)).collect();
        let wall_ms = call.now.wall_ms;
        let record = Record::Published(Published { producer, sequence, digest, wall_ms, events });
        let lsn = self.append(call.effects, record);
        let forget_ms = call.now.mono_ms.saturating_add(call.limits.dedup_ms);
        self.producers.appended((producer, sequence), digest, lsn, forget_ms);
        Ok(Answer::after(lsn, Reply::Published { places, repeated: false }))
    }

    /// Whether every event could be taken, and the topic of each.
    pub(super) fn check_events(
        &mut self,
        events: &[EventRequest],
    ) -> Result<Vec<TopicId>, Refusal> {
        let mut topics = Vec::with_capacity(events.len());
        // What this call alone adds to topics that refuse when they are full.
        let mut added: BTreeMap<TopicId, u64> = BTreeMap::new();
        for event in events {
            let size = event.body.len();
            if size > EVENT_BYTES {
                let detail = format!("an event of {size} bytes, at most {EVENT_BYTES}");
                return Err(Refusal::new(Code::TooLarge, detail));
            }
            let topic = self.open_topic(&event.topic)?;
            let id = topic.created.topic;
            if topic.created.settings.retain_unacknowledged {
                let sum = added.entry(id).or_default();
                *sum += size as u64;
                if topic.is_full_for(*sum) {
                    if let Some(topic) = self.topics.get_mut(&id) {
                        topic.wants(*sum);
                    }
                    let detail = format!("topic {} waits for its subscriptions", event.topic);
                    return Err(Refusal::new(Code::TopicFull, detail));
                }
            }
            topics.push(id);
        }
        Ok(topics)
    }

    /// Counts bytes against a topic before they are in its log.
    pub(super) fn reserve(&mut self, topic: TopicId, bytes: u64) {
        if let Some(topic) = self.topics.get_mut(&topic) {
            topic.reserved += bytes;
        }
    }

    /// Gives an event the next offset of its topic.
    pub(super) fn place_one(
        &mut self,
        topic: TopicId,
        key: Option<KeyHash>,
        body: Body,
    ) -> PlacedEvent {
        let known = self.topics.get_mut(&topic).expect("a topic with items to place is kept");
        let offset = known.next;
        known.next = Offset(offset.0 + 1);
        PlacedEvent { topic, offset, key, body }
    }
}
