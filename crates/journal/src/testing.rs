//! Generators of arbitrary records, for property tests.
//!
//! They produce every kind of record and every shape of its fields; the records of one list need
//! not make sense together.

use bytes::Bytes;
use handfast_core::event::{Body, OffsetRange, PlacedEvent, StagedEvent};
use handfast_core::ids::{
    Digest, KeyHash, Lsn, Name, Offset, OpeningId, ProducerId, StateId, StoreId, SubscriptionId,
    TopicId, TransactionId,
};
use handfast_core::record::{
    Abort, Acknowledged, Away, Begin, CheckpointStart, Commit, DeadLettered, DeadLettersTaken,
    Decision, End, Finished, GapAcknowledged, IdempotencyKey, KeyBatch, KeyRestated, LocalItems,
    Note, Opened, OpeningRestated, Operated, Participant, ParticipantKind, ProducerRestated,
    Published, Reason, ReasonCode, Record, Remark, SegmentDropped, SubscriptionCreated,
    SubscriptionDeleted, SubscriptionRestated, SubscriptionSettings, SubscriptionSought,
    TopicAltered, TopicCreated, TopicDeleted, TopicRestated, TopicSettings, TopicTruncated,
    TransactionRestated, UnseenRestated, Updater,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Any record at all.
pub fn any_record() -> BoxedStrategy<Record> {
    prop_oneof![
        transaction_record(),
        bus_record(),
        checkpoint_record(),
        (store(), any::<u32>(), opening(), number(), number()).prop_map(
            |(store, epoch, opening, wall_ms, newest_ms)| {
                Record::Opened(Opened { store, epoch, opening, wall_ms, newest_ms })
            }
        ),
        number().prop_map(|segment| Record::SegmentDropped(SegmentDropped { segment })),
    ]
    .boxed()
}

fn remark() -> impl Strategy<Value = Remark> {
    prop_oneof![Just(Remark::Open), Just(Remark::Seen), Just(Remark::Gone)]
}

fn transaction_record() -> BoxedStrategy<Record> {
    prop_oneof![
        begin().prop_map(Record::Begin),
        (id(), lsn(), number(), vec(updater(), 0..4), vec(participant(), 0..3), placed(), acks())
            .prop_map(|(id, previous, wall_ms, updaters, read_only, events, acknowledged)| {
                Record::Commit(Commit {
                    id,
                    previous,
                    wall_ms,
                    updaters,
                    read_only,
                    events,
                    acknowledged,
                })
            }),
        (id(), lsn(), number(), reason()).prop_map(|(id, previous, wall_ms, reason)| {
            Record::Abort(Abort { id, previous, wall_ms, reason })
        }),
        (id(), lsn(), note(), any::<bool>(), option::of(name()), remark()).prop_map(
            |(id, previous, note, noted, released, remark)| {
                Record::Operated(Operated { id, previous, note, noted, released, remark })
            }
        ),
        (
            (id(), lsn(), number()),
            (any::<bool>(), any::<bool>(), text(), any::<bool>()),
            vec(finished(), 0..4)
        )
            .prop_map(
                |((id, previous, wall_ms), (committed, heuristic, why, noted), finished)| {
                    Record::End(End {
                        id,
                        previous,
                        wall_ms,
                        committed,
                        heuristic,
                        why,
                        noted,
                        finished,
                    })
                }
            ),
    ]
    .boxed()
}

fn bus_record() -> BoxedStrategy<Record> {
    prop_oneof![
        (producer(), number(), digest(), number(), placed()).prop_map(
            |(producer, sequence, digest, wall_ms, events)| {
                Record::Published(Published { producer, sequence, digest, wall_ms, events })
            }
        ),
        topic_created().prop_map(Record::TopicCreated),
        (topic(), topic_settings())
            .prop_map(|(topic, settings)| Record::TopicAltered(TopicAltered { topic, settings })),
        (topic(), any::<bool>())
            .prop_map(|(topic, gone)| Record::TopicDeleted(TopicDeleted { topic, gone })),
        (topic(), offset(), number()).prop_map(|(topic, start, bytes)| {
            Record::TopicTruncated(TopicTruncated { topic, start, bytes })
        }),
        subscription_created().prop_map(Record::SubscriptionCreated),
        (subscription(), offset()).prop_map(|(subscription, offset)| {
            Record::SubscriptionSought(SubscriptionSought { subscription, offset })
        }),
        (subscription(), any::<bool>()).prop_map(|(subscription, gone)| {
            Record::SubscriptionDeleted(SubscriptionDeleted { subscription, gone })
        }),
        (subscription(), vec(range(), 0..5)).prop_map(|(subscription, ranges)| {
            Record::Acknowledged(Acknowledged { subscription, ranges })
        }),
        (subscription(), offset()).prop_map(|(subscription, to)| {
            Record::GapAcknowledged(GapAcknowledged { subscription, to })
        }),
        dead().prop_map(Record::DeadLettered),
        (subscription(), vec(offset(), 0..5), any::<bool>()).prop_map(
            |(subscription, offsets, retry)| {
                Record::DeadLettersTaken(DeadLettersTaken { subscription, offsets, retry })
            }
        ),
    ]
    .boxed()
}

fn checkpoint_record() -> BoxedStrategy<Record> {
    prop_oneof![
        (
            store(),
            any::<u32>(),
            topic(),
            subscription(),
            vec(number(), 0..5),
            vec(key_batch(), 0..3),
            vec((opening(), any::<u32>(), lsn(), number()), 0..3),
            vec(away(), 0..3)
        )
            .prop_map(
                |(store, epoch, next_topic, next_subscription, segments, keys, openings, away)| {
                    let restated = |(opening, epoch, lsn, newest_ms)| OpeningRestated {
                        opening,
                        epoch,
                        lsn,
                        newest_ms,
                    };
                    Record::CheckpointStart(CheckpointStart {
                        store,
                        epoch,
                        next_topic,
                        next_subscription,
                        segments,
                        keys,
                        openings: openings.into_iter().map(restated).collect(),
                        away,
                    })
                }
            ),
        (
            begin(),
            lsn(),
            lsn(),
            option::of(decision()),
            number(),
            vec(updater(), 0..4),
            vec(name(), 0..3),
            (vec(note(), 0..3), any::<bool>())
        )
            .prop_map(
                |(
                    begin,
                    begin_lsn,
                    last,
                    decision,
                    decided_wall_ms,
                    updaters,
                    released,
                    (notes, noted),
                )| {
                    Record::TransactionRestated(Box::new(TransactionRestated {
                        begin,
                        begin_lsn,
                        last,
                        decision,
                        decided_wall_ms,
                        updaters,
                        released,
                        notes,
                        noted,
                    }))
                }
            ),
        (
            subscription_created(),
            any::<bool>(),
            vec(range(), 0..5),
            option::of(range()),
            vec(dead(), 0..3),
            vec(offset(), 0..3)
        )
            .prop_map(|(created, deleting, acknowledged, gap, dead, retried)| {
                Record::SubscriptionRestated(Box::new(SubscriptionRestated {
                    created,
                    deleting,
                    acknowledged,
                    gap,
                    dead,
                    retried,
                }))
            }),
        (topic_created(), any::<bool>(), offset(), offset(), number()).prop_map(
            |(created, deleting, start, end, bytes)| {
                Record::TopicRestated(TopicRestated { created, deleting, start, end, bytes })
            }
        ),
        vec(producer_restated(), 0..4).prop_map(Record::ProducersRestated),
        vec(unseen(), 0..4).prop_map(Record::UnseenRestated),
        vec(key_restated(), 0..4).prop_map(Record::KeysEnded),
        vec(key_restated(), 0..4).prop_map(Record::KeysRestated),
        Just(Record::CheckpointEnd),
    ]
    .boxed()
}

fn unseen() -> BoxedStrategy<UnseenRestated> {
    (id(), lsn(), any::<bool>(), number(), text())
        .prop_map(|(id, end, committed, wall_ms, why)| UnseenRestated {
            id,
            end,
            committed,
            wall_ms,
            why,
        })
        .boxed()
}

/// Numbers of every length.
fn number() -> BoxedStrategy<u64> {
    (any::<u64>(), 0u32..64).prop_map(|(value, shift)| value >> shift).boxed()
}

fn small() -> BoxedStrategy<u32> {
    (any::<u32>(), 0u32..32).prop_map(|(value, shift)| value >> shift).boxed()
}

fn id() -> BoxedStrategy<TransactionId> {
    any::<u128>().prop_map(TransactionId).boxed()
}

fn store() -> BoxedStrategy<StoreId> {
    any::<u128>().prop_map(StoreId).boxed()
}

fn opening() -> BoxedStrategy<OpeningId> {
    any::<u128>().prop_map(OpeningId).boxed()
}

fn producer() -> BoxedStrategy<ProducerId> {
    any::<u128>().prop_map(ProducerId).boxed()
}

fn lsn() -> BoxedStrategy<Lsn> {
    number().prop_map(Lsn).boxed()
}

fn offset() -> BoxedStrategy<Offset> {
    number().prop_map(Offset).boxed()
}

fn topic() -> BoxedStrategy<TopicId> {
    small().prop_map(TopicId).boxed()
}

fn subscription() -> BoxedStrategy<SubscriptionId> {
    small().prop_map(SubscriptionId).boxed()
}

fn name() -> BoxedStrategy<Name> {
    "[A-Za-z0-9][A-Za-z0-9._-]{0,63}".prop_filter_map("a name", |s| Name::new(&s).ok()).boxed()
}

fn text() -> BoxedStrategy<String> {
    "\\PC{0,40}".boxed()
}

fn body() -> BoxedStrategy<Bytes> {
    vec(any::<u8>(), 0..300).prop_map(Bytes::from).boxed()
}

fn hash() -> BoxedStrategy<Option<KeyHash>> {
    option::of(any::<u64>().prop_map(KeyHash)).boxed()
}

fn range() -> BoxedStrategy<OffsetRange> {
    (offset(), offset()).prop_map(|(from, to)| OffsetRange { from, to }).boxed()
}

fn acks() -> BoxedStrategy<Vec<(SubscriptionId, Offset)>> {
    vec((subscription(), offset()), 0..4).boxed()
}

fn placed() -> BoxedStrategy<Vec<PlacedEvent>> {
    let bytes = prop_oneof![
        body().prop_map(Body::Here),
        (small(), small()).prop_map(|(item, size)| Body::InBegin { item, size }),
    ];
    let event = (topic(), offset(), hash(), bytes)
        .prop_map(|(topic, offset, key, body)| PlacedEvent { topic, offset, key, body });
    vec(event, 0..4).boxed()
}

fn participant() -> BoxedStrategy<Participant> {
    let kind = prop_oneof![Just(ParticipantKind::Service), Just(ParticipantKind::Database)];
    (name(), kind).prop_map(|(name, kind)| Participant { name, kind }).boxed()
}

fn updater() -> BoxedStrategy<Updater> {
    (participant(), any::<u128>())
        .prop_map(|(participant, state)| Updater { participant, state_id: StateId(state) })
        .boxed()
}

fn finished() -> BoxedStrategy<Finished> {
    let time = || option::of(number());
    (name(), time(), time(), time(), time(), any::<u32>())
        .prop_map(
            |(participant, prepare_sent_ms, voted_ms, decision_sent_ms, finished_ms, sends)| {
                Finished {
                    participant,
                    prepare_sent_ms,
                    voted_ms,
                    decision_sent_ms,
                    finished_ms,
                    sends,
                }
            },
        )
        .boxed()
}

fn note() -> BoxedStrategy<Note> {
    (number(), text()).prop_map(|(wall_ms, text)| Note { wall_ms, text }).boxed()
}

fn key() -> BoxedStrategy<IdempotencyKey> {
    (text(), any::<u64>())
        .prop_map(|(key, digest)| IdempotencyKey { key: key.into(), digest })
        .boxed()
}

fn begin() -> BoxedStrategy<Begin> {
    let staged = (topic(), hash(), body(), small())
        .prop_map(|(topic, key, body, size)| StagedEvent { topic, key, body, size });
    let local = (vec(staged, 0..4), acks())
        .prop_map(|(events, acknowledged)| LocalItems { events, acknowledged });
    let participants = vec(participant(), 0..3);
    (id(), number(), number(), option::of(key()), participants, option::of(local))
        .prop_map(|(id, wall_ms, deadline_ms, key, participants, local)| Begin {
            id,
            wall_ms,
            deadline_ms,
            key,
            participants,
            local,
        })
        .boxed()
}

fn reason() -> BoxedStrategy<Reason> {
    (prop::sample::select(ReasonCode::ALL), option::of(name()), text(), any::<bool>())
        .prop_map(|(code, participant, detail, retryable)| Reason {
            code,
            participant,
            detail,
            retryable,
        })
        .boxed()
}

fn decision() -> BoxedStrategy<Decision> {
    prop_oneof![Just(Decision::Commit), reason().prop_map(Decision::Abort)].boxed()
}

fn topic_settings() -> BoxedStrategy<TopicSettings> {
    (option::of(number()), option::of(number()), any::<bool>())
        .prop_map(|(retain_ms, retain_bytes, retain_unacknowledged)| TopicSettings {
            retain_ms,
            retain_bytes,
            retain_unacknowledged,
        })
        .boxed()
}

fn topic_created() -> BoxedStrategy<TopicCreated> {
    (topic(), name(), topic_settings(), number())
        .prop_map(|(topic, name, settings, wall_ms)| TopicCreated {
            topic,
            name,
            settings,
            wall_ms,
        })
        .boxed()
}

fn subscription_created() -> BoxedStrategy<SubscriptionCreated> {
    let settings = (number(), option::of(small()), number(), number()).prop_map(
        |(lease_ms, max_attempts, backoff_ms, backoff_max_ms)| SubscriptionSettings {
            lease_ms,
            max_attempts,
            backoff_ms,
            backoff_max_ms,
        },
    );
    (subscription(), name(), topic(), settings, offset(), number())
        .prop_map(|(subscription, name, topic, settings, start, wall_ms)| SubscriptionCreated {
            subscription,
            name,
            topic,
            settings,
            start,
            wall_ms,
        })
        .boxed()
}

fn dead() -> BoxedStrategy<DeadLettered> {
    (subscription(), offset(), small(), text(), number())
        .prop_map(|(subscription, offset, attempts, reason, wall_ms)| DeadLettered {
            subscription,
            offset,
            attempts,
            reason,
            wall_ms,
        })
        .boxed()
}

fn producer_restated() -> BoxedStrategy<ProducerRestated> {
    (producer(), number(), vec((number(), digest()), 0..4), number())
        .prop_map(|(producer, floor, batches, wall_ms)| ProducerRestated {
            producer,
            floor,
            batches,
            wall_ms,
        })
        .boxed()
}

fn digest() -> BoxedStrategy<Digest> {
    any::<u64>().prop_map(Digest).boxed()
}

fn away() -> BoxedStrategy<Away> {
    (number(), number())
        .prop_map(|(until_ms, uncounted_ms)| Away { until_ms, uncounted_ms })
        .boxed()
}

fn key_batch() -> BoxedStrategy<KeyBatch> {
    (lsn(), small(), small()).prop_map(|(lsn, total, kept)| KeyBatch { lsn, total, kept }).boxed()
}

fn key_restated() -> BoxedStrategy<KeyRestated> {
    (key(), id(), any::<bool>(), number())
        .prop_map(|(key, id, committed, wall_ms)| KeyRestated { key, id, committed, wall_ms })
        .boxed()
}
