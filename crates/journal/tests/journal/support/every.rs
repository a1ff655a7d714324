//! One record of every kind with every shape of its fields, for the fixture. Its values must not
//! be changed: they are on disk.

use handfast_core::event::{Body, OffsetRange, PlacedEvent, StagedEvent};
use handfast_core::ids::{
    Digest, KeyHash, Lsn, Name, Offset, ProducerId, StateId, SubscriptionId, TopicId, TransactionId,
};
use handfast_core::record::*;

use super::{body, id};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn participants() -> Vec<Participant> {
    vec![
        Participant { name: name("billing"), kind: ParticipantKind::Service },
        Participant { name: name("ledger.eu-1"), kind: ParticipantKind::Database },
    ]
}

fn updaters() -> Vec<Updater> {
    let states = [StateId(0xaa), StateId(0)];
    let each = participants().into_iter().zip(states);
    each.map(|(participant, state_id)| Updater { participant, state_id }).collect()
}

fn begin(id: TransactionId) -> Begin {
    Begin {
        id,
        wall_ms: 300,
        deadline_ms: 30_000,
        key: Some(IdempotencyKey { key: "order 17".into(), digest: u64::MAX }),
        participants: participants(),
        local: None,
    }
}

fn topic() -> TopicCreated {
    let settings = TopicSettings {
        retain_ms: Some(86_400_000),
        retain_bytes: None,
        retain_unacknowledged: true,
    };
    TopicCreated { topic: TopicId(200), name: name("orders"), settings, wall_ms: 301 }
}

fn subscription() -> SubscriptionCreated {
    let settings = SubscriptionSettings {
        lease_ms: 30_000,
        max_attempts: None,
        backoff_ms: 100,
        backoff_max_ms: 20_000,
    };
    SubscriptionCreated {
        subscription: SubscriptionId(70),
        name: name("orders-mail"),
        topic: TopicId(200),
        settings,
        start: Offset(128),
        wall_ms: 302,
    }
}

fn dead() -> DeadLettered {
    DeadLettered {
        subscription: SubscriptionId(70),
        offset: Offset(130),
        attempts: 10,
        reason: "no such address: zoë".to_owned(),
        wall_ms: 303,
    }
}

fn gap() -> OffsetRange {
    OffsetRange { from: Offset(100), to: Offset(127) }
}

fn reasons() -> Vec<Reason> {
    let all = ReasonCode::ALL.iter().enumerate();
    all.map(|(i, code)| Reason {
        code: *code,
        participant: (i == 0).then(|| name("billing")),
        detail: "why".repeat(i),
        retryable: i % 2 == 0,
    })
    .collect()
}

/// Everything but the records that the journal looks into itself.
pub(crate) fn every_record() -> Vec<Record> {
    let x = id(400, 5);
    let staged = StagedEvent {
        topic: TopicId(200),
        key: Some(KeyHash(0x0102_0304_0506_0708)),
        body: body(1, 20),
        size: 20,
    };
    let placed = PlacedEvent {
        topic: TopicId(201),
        offset: Offset(u64::MAX),
        key: None,
        body: Body::Here(body(2, 130)),
    };
    let local =
        LocalItems { events: vec![staged], acknowledged: vec![(SubscriptionId(70), Offset(131))] };
    let abort = |reason| Record::Abort(Abort { id: x, previous: Lsn(1), wall_ms: 304, reason });
    let mut records = vec![
        Record::Begin(begin(x)),
        Record::Begin(Begin { id: id(401, 6), local: Some(local), ..begin(x) }),
        Record::Commit(Commit {
            id: x,
            previous: Lsn(300),
            wall_ms: 305,
            updaters: updaters(),
            read_only: participants(),
            events: vec![placed.clone()],
            acknowledged: vec![(SubscriptionId(70), Offset(132))],
        }),
        Record::End(End {
            id: x,
            previous: Lsn(301),
            wall_ms: 306,
            committed: true,
            heuristic: true,
            why: "database ledger: it was rolled back".into(),
            noted: true,
            finished: vec![
                Finished {
                    participant: name("billing"),
                    prepare_sent_ms: Some(1),
                    voted_ms: Some(300),
                    decision_sent_ms: Some(302),
                    finished_ms: Some(70_000),
                    sends: 4,
                },
                Finished {
                    participant: name("ledger.eu-1"),
                    prepare_sent_ms: None,
                    voted_ms: None,
                    decision_sent_ms: None,
                    finished_ms: None,
                    sends: 0,
                },
            ],
        }),
        Record::Operated(Operated {
            id: x,
            previous: Lsn(302),
            note: Note { wall_ms: 308, text: "noted by an operator: seen".into() },
            noted: true,
            released: Some(name("billing")),
            remark: Remark::Gone,
        }),
        Record::UnseenRestated(vec![UnseenRestated {
            id: x,
            end: Lsn(303),
            committed: true,
            wall_ms: 309,
            why: "database ledger: it was rolled back".into(),
        }]),
        Record::Published(Published {
            producer: ProducerId(0xbb),
            sequence: 1 << 40,
            digest: Digest(0x0123_4567_89ab_cdef),
            wall_ms: 307,
            events: vec![PlacedEvent { topic: TopicId(202), ..placed }],
        }),
        Record::TopicCreated(topic()),
        Record::TopicAltered(TopicAltered { topic: TopicId(200), settings: topic().settings }),
        Record::TopicDeleted(TopicDeleted { topic: TopicId(200), gone: true }),
        Record::TopicTruncated(TopicTruncated {
            topic: TopicId(200),
            start: Offset(127),
            bytes: 1 << 33,
        }),
        Record::SubscriptionCreated(subscription()),
        Record::SubscriptionSought(SubscriptionSought {
            subscription: SubscriptionId(70),
            offset: Offset(0),
        }),
        Record::SubscriptionDeleted(SubscriptionDeleted {
            subscription: SubscriptionId(70),
            gone: false,
        }),
        Record::Acknowledged(Acknowledged {
            subscription: SubscriptionId(70),
            ranges: vec![gap(), OffsetRange { from: Offset(128), to: Offset(129) }],
        }),
        Record::GapAcknowledged(GapAcknowledged {
            subscription: SubscriptionId(70),
            to: Offset(127),
        }),
        Record::DeadLettered(dead()),
        Record::DeadLettersTaken(DeadLettersTaken {
            subscription: SubscriptionId(70),
            offsets: vec![Offset(130)],
            retry: true,
        }),
        Record::SegmentDropped(SegmentDropped { segment: 1 << 20 }),
        Record::SubscriptionRestated(Box::new(SubscriptionRestated {
            created: subscription(),
            deleting: true,
            acknowledged: vec![gap()],
            gap: Some(gap()),
            dead: vec![dead()],
            retried: vec![Offset(129)],
        })),
        Record::TopicRestated(TopicRestated {
            created: topic(),
            deleting: false,
            start: Offset(127),
            end: Offset(140),
            bytes: 4_000,
        }),
        Record::ProducersRestated(vec![ProducerRestated {
            producer: ProducerId(0xbb),
            floor: 1,
            batches: vec![(4, Digest(0xfedc_ba98_7654_3210)), (6, Digest(6))],
            wall_ms: 308,
        }]),
        Record::KeysEnded(vec![ended_key(x)]),
        Record::KeysRestated(vec![ended_key(x)]),
    ];
    records.extend(reasons().into_iter().map(abort));
    for decision in [None, Some(Decision::Commit), Some(Decision::Abort(reasons()[3].clone()))] {
        records.push(Record::TransactionRestated(Box::new(TransactionRestated {
            begin: begin(id(402, 7)),
            begin_lsn: Lsn(1 << 33),
            last: Lsn((1 << 33) + 1),
            decision,
            decided_wall_ms: 310,
            updaters: updaters(),
            released: vec![name("archive")],
            notes: vec![Note {
                wall_ms: 311,
                text: "archive released by an operator: gone".into(),
            }],
            noted: true,
        })));
    }
    records
}

fn ended_key(id: TransactionId) -> KeyRestated {
    let key = IdempotencyKey { key: "order 16".into(), digest: 0 };
    KeyRestated { key, id, committed: false, wall_ms: 309 }
}
