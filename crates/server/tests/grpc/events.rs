//! Topics, publishing and reading.

use handfast_wire::v1::publish_reply::Result as Answer;
use handfast_wire::v1::start::From as Place;

use super::*;

fn read(topic: &str) -> v1::ReadRequest {
    v1::ReadRequest { topic: topic.into(), ..v1::ReadRequest::default() }
}

fn from(place: Place) -> Option<v1::Start> {
    Some(v1::Start { from: Some(place) })
}

async fn read_all(world: &World, request: v1::ReadRequest) -> Vec<String> {
    let mut frames = world.events().read(request).await.unwrap().into_inner();
    let mut ids = Vec::new();
    while let Some(frame) = frames.message().await.unwrap() {
        assert!(frame.events.iter().all(|event| event.offset < frame.next_offset));
        ids.extend(frame.events.into_iter().map(|event| event.event.unwrap().id));
    }
    ids
}

#[tokio::test]
async fn topics_come_change_and_go() {
    let world = World::new().await;
    let mut client = world.events();
    world.topic("orders").await;
    let create = v1::CreateTopicRequest { name: "orders".into(), settings: None };
    assert!(!client.create_topic(create.clone()).await.unwrap().into_inner().created);
    let settings = Some(v1::TopicSettings { retain_ms: Some(1_000), ..Default::default() });
    let alter = v1::AlterTopicRequest { name: "orders".into(), settings };
    let altered = client.alter_topic(alter).await.unwrap().into_inner();
    assert_eq!(altered.settings, settings);
    let expected = (tonic::Code::AlreadyExists, "topic_exists".into());
    assert_eq!(refused(client.create_topic(create).await), expected);
    let topics = client.list_topics(v1::ListTopicsRequest {}).await.unwrap().into_inner().topics;
    assert_eq!((topics.len(), topics[0].name.as_str()), (1, "orders"));
    let delete = v1::DeleteTopicRequest { name: "orders".into() };
    client.delete_topic(delete.clone()).await.unwrap();
    let expected = (tonic::Code::NotFound, "unknown_topic".into());
    assert_eq!(refused(client.delete_topic(delete).await), expected);
    let bad = v1::CreateTopicRequest { name: "no spaces".into(), settings: None };
    let expected = (tonic::Code::InvalidArgument, "invalid_argument".into());
    assert_eq!(refused(client.create_topic(bad).await), expected);
}

#[tokio::test]
async fn a_batch_is_published_once() {
    let world = World::new().await;
    world.topic("orders").await;
    let offsets = world.publish("orders", 1, &["a", "b"]).await;
    assert_eq!(offsets.len(), 2);
    let again = world.events().publish(publish("orders", 1, &["a", "b"])).await.unwrap();
    assert!(again.into_inner().repeated);
    assert_eq!(read_all(&world, read("orders")).await, ["a", "b"]);
    let expected = (tonic::Code::NotFound, "unknown_topic".into());
    assert_eq!(refused(world.events().publish(publish("nope", 2, &["a"])).await), expected);
    let empty = publish("orders", 3, &[]);
    let expected = (tonic::Code::InvalidArgument, "invalid_argument".into());
    assert_eq!(refused(world.events().publish(empty).await), expected);
}

/// A number stands for one batch: another one under it is refused, and is not there.
#[tokio::test]
async fn a_number_of_another_batch_is_refused() {
    let world = World::new().await;
    for topic in ["orders", "bills"] {
        world.topic(topic).await;
    }
    world.publish("orders", 1, &["a", "b"]).await;
    let mut other_data = publish("orders", 1, &["a", "b"]);
    let event = other_data.events[1].event.as_mut().unwrap();
    event.data = Some(v1::event::Data::TextData("other data".into()));
    let others = [
        other_data,
        publish("orders", 1, &["a", "c"]),
        publish("orders", 1, &["b", "a"]),
        publish("orders", 1, &["a"]),
        publish("orders", 1, &["a", "b", "c"]),
        publish("bills", 1, &["a", "b"]),
    ];
    for other in &others {
        let expected = (tonic::Code::AlreadyExists, "sequence_conflict".into());
        assert_eq!(refused(world.events().publish(other.clone()).await), expected, "{other:?}");
    }
    // On a stream too, where it refuses nothing else.
    let (sending, stream) = Sending::new();
    let mut replies = world.events().publish_stream(stream).await.unwrap().into_inner();
    let batches =
        [others[0].clone(), publish("orders", 1, &["a", "b"]), publish("orders", 2, &["c"])];
    let batches = (1..).zip(batches);
    let batches =
        batches.map(|(request, publish)| v1::PublishBatch { request, publish: Some(publish) });
    sending.send(v1::PublishFrame { batches: batches.collect() }).await;
    drop(sending);
    let answers = collect(&mut replies, 3, |frame| frame.replies).await;
    let mut answers: Vec<_> = answers.into_iter().map(|a| (a.request, a.result.unwrap())).collect();
    answers.sort_by_key(|(request, _)| *request);
    match &answers[..] {
        [
            (1, Answer::Refusal(refusal)),
            (2, Answer::Published(again)),
            (3, Answer::Published(next)),
        ] => {
            assert_eq!(refusal.code, "sequence_conflict");
            assert!(again.repeated && !next.repeated);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(read_all(&world, read("orders")).await, ["a", "b", "c"]);
    assert!(read_all(&world, read("bills")).await.is_empty());
}

#[tokio::test]
async fn a_publish_stream_answers_each_batch_once() {
    let world = World::new().await;
    world.topic("orders").await;
    let (sending, stream) = Sending::new();
    let mut replies = world.events().publish_stream(stream).await.unwrap().into_inner();
    let batches = (0..1_000).map(|n| v1::PublishBatch {
        request: n,
        publish: (n != 500).then(|| publish("orders", n + 1, &["x"])),
    });
    sending.send(v1::PublishFrame { batches: batches.collect() }).await;
    drop(sending);
    let answers = collect(&mut replies, 1_000, |frame| frame.replies).await;
    for answer in &answers {
        match (answer.request, answer.result.as_ref().unwrap()) {
            (500, Answer::Refusal(refusal)) => assert_eq!(refusal.code, "invalid_argument"),
            (_, Answer::Published(published)) => assert_eq!(published.offsets.len(), 1),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(replies.message().await.unwrap(), None);
    assert_eq!(read_all(&world, read("orders")).await.len(), 999);
}

#[tokio::test]
async fn reading_starts_and_ends_where_it_is_told() {
    let world = World::new().await;
    world.topic("orders").await;
    let offsets = world.publish("orders", 1, &["a", "b", "c", "d"]).await;
    let request = |start, limit| v1::ReadRequest { start, limit, ..read("orders") };
    for (start, limit, ids) in [
        (None, 0, &["a", "b", "c", "d"][..]),
        (None, 2, &["a", "b"]),
        (from(Place::Offset(offsets[2])), 0, &["c", "d"]),
        (from(Place::Edge(v1::Edge::Earliest.into())), 1, &["a"]),
        (from(Place::Edge(v1::Edge::Latest.into())), 0, &[]),
        (from(Place::TimeUnixMs(0)), 0, &["a", "b", "c", "d"]),
        (from(Place::TimeUnixMs(u64::MAX)), 0, &[]),
    ] {
        assert_eq!(read_all(&world, request(start, limit)).await, ids, "{start:?} {limit}");
    }
    let beyond = request(from(Place::Offset(1 << 40)), 0);
    let expected = (tonic::Code::OutOfRange, "offset_out_of_range".into());
    assert_eq!(refused(world.events().read(beyond).await.map(drop)), expected);
    let expected = (tonic::Code::NotFound, "unknown_topic".into());
    assert_eq!(refused(world.events().read(read("nope")).await.map(drop)), expected);
}

#[tokio::test]
async fn a_following_read_sees_what_comes() {
    let world = World::new().await;
    world.topic("orders").await;
    world.publish("orders", 1, &["a"]).await;
    let request = v1::ReadRequest { follow: true, limit: 3, ..read("orders") };
    let mut frames = world.events().read(request).await.unwrap().into_inner();
    let first = frames.message().await.unwrap().unwrap();
    assert_eq!(first.events[0].event.as_ref().unwrap(), &event("a"), "as it was published");
    assert!(first.events[0].transaction_id.is_empty());
    world.publish("orders", 2, &["b"]).await;
    let second = frames.message().await.unwrap().unwrap();
    assert_eq!(second.events[0].event.as_ref().unwrap().id, "b");

    let run = v1::RunRequest { events: vec![new_event("orders", "c")], ..Default::default() };
    let outcome = world.transactions().run(run).await.unwrap().into_inner();
    let third = frames.message().await.unwrap().unwrap();
    assert_eq!(third.events[0].transaction_id, outcome.transaction_id);
    assert_eq!(frames.message().await.unwrap(), None, "three were wanted");
}

#[tokio::test]
async fn a_large_topic_is_read_in_frames_that_fit() {
    let world = World::new().await;
    world.topic("orders").await;
    let big = || {
        let data = Some(v1::event::Data::BinaryData(vec![1; 900_000].into()));
        v1::NewEvent { topic: "orders".into(), event: Some(v1::Event { data, ..event("big") }) }
    };
    for sequence in 1..=3 {
        let events = vec![big(), big(), big()];
        let request = v1::PublishRequest { producer_id: vec![7; 16].into(), sequence, events };
        world.events().publish(request).await.unwrap();
    }
    assert_eq!(read_all(&world, read("orders")).await.len(), 9);
}
