//! The contract and its form with events as bytes are one on the wire, and the descriptor that is
//! shown to others is that of the contract.

use std::collections::BTreeMap;

use handfast_core::event::{Delivery, DeliveryRef, StoredEvent};
use handfast_core::ids::{DeliveryToken, Offset, SubscriptionId, TransactionId};
use handfast_wire::bytes::Bytes;
use handfast_wire::prost::Message;
use handfast_wire::prost_types::FileDescriptorSet;
use handfast_wire::prost_types::field_descriptor_proto::Type;
use handfast_wire::{FILE_DESCRIPTOR_SET, event, raw, subscriptions, v1};

fn an_event(id: &str) -> v1::Event {
    let value = v1::event_attribute::Attr::CeString("k".into());
    v1::Event {
        id: id.into(),
        source: "/s".into(),
        spec_version: event::SPEC_VERSION.into(),
        r#type: "t".into(),
        attributes: BTreeMap::from([(
            event::PARTITION_KEY.into(),
            v1::EventAttribute { attr: Some(value) },
        )]),
        data: Some(v1::event::Data::TextData("hello".into())),
    }
}

#[test]
fn what_a_client_publishes_is_read_as_bytes() {
    let public = v1::PublishFrame {
        batches: vec![v1::PublishBatch {
            request: 3,
            publish: Some(v1::PublishRequest {
                producer_id: Bytes::from_static(&[7; 16]),
                sequence: 9,
                events: ["1", "2"]
                    .map(|id| v1::NewEvent { topic: "orders".into(), event: Some(an_event(id)) })
                    .into(),
            }),
        }],
    };
    let sent = Bytes::from(public.encode_to_vec());
    let read = raw::PublishFrame::decode(sent.clone()).expect("it is the same contract");
    let publish = read.batches[0].publish.as_ref().expect("it was sent");
    for (id, read) in ["1", "2"].iter().zip(&publish.events) {
        assert_eq!(read.topic, "orders");
        assert_eq!(read.event, an_event(id).encode_to_vec());
        let inside = sent.as_ptr_range();
        assert!(inside.contains(&read.event.as_ptr()), "it is a slice of what arrived, no copy");
    }
    assert_eq!(read.encode_to_vec(), sent);
}

#[test]
fn what_the_server_delivers_is_read_as_events() {
    let body = Bytes::from(an_event("1").encode_to_vec());
    let delivery = Delivery {
        reference: DeliveryRef {
            subscription: SubscriptionId(1),
            offset: Offset(41),
            token: DeliveryToken(1 << 32 | 5),
        },
        attempt: 2,
        lease_ms: 30_000,
        event: StoredEvent {
            offset: Offset(41),
            key: None,
            transaction: Some(TransactionId(77)),
            wall_ms: 1_795_000_000_000,
            body: body.clone(),
        },
    };
    let message = raw::Delivery::from(delivery);
    assert_eq!(message.event.as_ptr(), body.as_ptr(), "no copy");
    let frame = raw::ToSubscriberFrame { messages: vec![subscriptions::deliveries(vec![message])] };
    let read = v1::ToSubscriberFrame::decode(&*frame.encode_to_vec()).expect("one contract");
    let Some(v1::to_subscriber::Message::Deliveries(list)) = &read.messages[0].message else {
        panic!("{read:?}");
    };
    let [read] = &list.deliveries[..] else { panic!("{list:?}") };
    assert_eq!(read.event, Some(an_event("1")));
    assert_eq!((read.offset, read.token, read.attempt), (41, 1 << 32 | 5, 2));
    assert_eq!(read.transaction_id[..], 77u128.to_be_bytes());
}

#[test]
fn an_absent_event_is_refused_as_an_empty_one() {
    let absent = v1::NewEvent { topic: "orders".into(), event: None };
    let empty = v1::NewEvent { topic: "orders".into(), event: Some(v1::Event::default()) };
    for message in [absent, empty] {
        let read = raw::NewEvent::decode(&*message.encode_to_vec()).expect("one contract");
        assert!(event::check(&read.event).is_err());
    }
}

#[test]
fn the_descriptor_shows_events_as_events() {
    let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("it is a descriptor");
    let messages = || files.file.iter().flat_map(|file| &file.message_type);
    let carriers: Vec<_> = messages()
        .flat_map(|message| message.field.iter().map(move |field| (message.name(), field)))
        .filter(|(_, field)| field.name() == "event" && field.r#type() == Type::Message)
        .collect();
    let names: Vec<_> = carriers.iter().map(|(message, _)| *message).collect();
    assert_eq!(names, ["NewEvent", "StoredEvent", "Delivery", "GetDeadLetterReply"]);
    let services: usize = files.file.iter().map(|file| file.service.len()).sum();
    assert_eq!(services, 5);
    assert!(files.file.iter().any(|file| file.name() == "google/protobuf/timestamp.proto"));
}
