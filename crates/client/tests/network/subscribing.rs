//! Subscribing: what is handed out, answered, given back and asked for again.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use handfast::{
    Attribute, Code, Delivery, Error, Event, Fault, Item, ReadItem, Start, Subscription,
    Transaction,
};
use handfast_core::refusal::Refusal;
use handfast_wire::raw::to_subscriber::Message as To;
use handfast_wire::v1::from_subscriber::Message as From;
use handfast_wire::{event, raw, v1};

use crate::fake::{Fake, Subscribing};

fn body() -> Bytes {
    event::encode(&raw::Event::from(Event::new("made", "/bank")))
}

async fn send(stream: &Subscribing, request: u64, message: To) {
    let messages = vec![raw::ToSubscriber { request, message: Some(message) }];
    stream.send(raw::ToSubscriberFrame { messages }).await;
}

async fn deliver(stream: &Subscribing, offsets: std::ops::Range<u64>) {
    let deliveries = offsets
        .map(|offset| raw::Delivery {
            offset,
            token: 1_000 + offset,
            attempt: 1,
            lease_ms: 30_000,
            event: body(),
            transaction_id: vec![7; 16].into(),
            published_unix_ms: 1_700_000_000_000,
        })
        .collect();
    send(stream, 0, To::Deliveries(raw::Deliveries { deliveries })).await;
}

/// The next frame's messages, with their numbers.
async fn messages(stream: &mut Subscribing) -> Vec<(u64, From)> {
    let messages = stream.frame().await.messages;
    messages.into_iter().map(|m| (m.request, m.message.expect("a message"))).collect()
}

async fn message(stream: &mut Subscribing) -> (u64, From) {
    let mut messages = messages(stream).await;
    assert_eq!(messages.len(), 1, "{messages:?}");
    messages.remove(0)
}

/// Takes the next stream and says yes to it.
async fn accept(fake: &mut Fake) -> (Subscribing, v1::SubscribeRequest) {
    let mut stream = fake.subscribes.recv().await.expect("a stream");
    let (request, first) = message(&mut stream).await;
    let From::Subscribe(subscribe) = first else { panic!("{first:?}") };
    let subscribed = v1::SubscriptionReply {
        subscription_id: 3,
        name: subscribe.subscription.clone(),
        topic: "transfers".into(),
        settings: None,
        created: true,
    };
    send(&stream, request, To::Subscribed(subscribed)).await;
    (stream, subscribe)
}

async fn subscribed(fake: &mut Fake) -> (Subscription, Subscribing) {
    let hf = fake.connect().await;
    let opening = tokio::spawn(hf.subscribe("billing").on("transfers").with_credit(10).open());
    let (stream, subscribe) = accept(fake).await;
    assert_eq!((subscribe.subscription.as_str(), subscribe.credit), ("billing", 10));
    assert_eq!(subscribe.create.expect("it is created").topic, "transfers");
    (opening.await.expect("no panic").expect("subscribed"), stream)
}

async fn next(subscription: &mut Subscription) -> Delivery {
    match subscription.next().await.expect("no fault").expect("it goes on") {
        Item::Event(delivery) => delivery,
        Item::Gap(gap) => panic!("{gap:?}"),
    }
}

#[tokio::test]
async fn a_delivery_is_a_cloud_event_that_carries_its_place() {
    let mut fake = Fake::start();
    let (mut subscription, stream) = subscribed(&mut fake).await;
    deliver(&stream, 5..6).await;
    let delivery = next(&mut subscription).await;
    assert!(delivery.event.extensions.is_empty(), "as it was published");
    let extensions = delivery.cloud_event().extensions;
    let published = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_000);
    let expected = [
        ("handfastoffset", Attribute::from("5")),
        ("handfasttime", Attribute::Time(published)),
        ("handfasttransaction", Attribute::from("07070707-0707-0707-0707-070707070707")),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value));
    assert_eq!(extensions, BTreeMap::from(expected));
}

#[tokio::test(start_paused = true)]
async fn deliveries_are_acknowledged_together_and_answered_each() {
    let mut fake = Fake::start();
    let (mut billing, mut stream) = subscribed(&mut fake).await;
    deliver(&stream, 0..3).await;
    let mut answers = Vec::new();
    for offset in 0..3 {
        let delivery = next(&mut billing).await;
        assert_eq!((delivery.offset, delivery.attempt), (offset, 1));
        assert_eq!(delivery.event.kind, "made");
        assert!(delivery.transaction.is_some());
        assert_eq!(delivery.lease, Duration::from_secs(30));
        answers.push(delivery.acknowledge());
    }
    let (request, sent) = message(&mut stream).await;
    let From::Acknowledge(v1::Acknowledge { deliveries }) = sent else { panic!("{sent:?}") };
    assert_eq!(deliveries.len(), 3);
    assert_eq!(deliveries[2], v1::DeliveryRef { subscription_id: 3, offset: 2, token: 1_002 });
    let refusal = Refusal::new(Code::DeliveryExpired, "too late").into();
    let refused =
        vec![v1::RefusedDelivery { delivery: Some(deliveries[1]), refusal: Some(refusal) }];
    send(&stream, request, To::Acknowledged(v1::Acknowledged { refused })).await;
    let mut results = Vec::new();
    for answer in answers {
        results.push(answer.await);
    }
    assert!(results[0].is_ok() && results[2].is_ok());
    assert!(results[1].as_ref().is_err_and(|e| e.is_refused_with(Code::DeliveryExpired)));
}

#[tokio::test(start_paused = true)]
async fn the_other_answers() {
    let mut fake = Fake::start();
    let (mut billing, mut stream) = subscribed(&mut fake).await;
    deliver(&stream, 0..4).await;
    let first = next(&mut billing).await;
    let extend = tokio::spawn(first.extend());
    let (request, sent) = message(&mut stream).await;
    assert!(matches!(&sent, From::ExtendLease(e) if e.deliveries[0].offset == 0), "{sent:?}");
    send(&stream, request, To::Acknowledged(v1::Acknowledged::default())).await;
    extend.await.expect("no panic").expect("extended");

    let reject = tokio::spawn(first.reject("é".repeat(600)));
    let (request, sent) = message(&mut stream).await;
    let From::Reject(sent) = sent else { panic!("{sent:?}") };
    assert!(!sent.dead && sent.reason.len() <= 512);
    send(&stream, request, To::Done(v1::Done {})).await;
    reject.await.expect("no panic").expect("rejected");

    let dead = tokio::spawn(next(&mut billing).await.dead_letter("broken"));
    let (request, sent) = message(&mut stream).await;
    assert!(matches!(&sent, From::Reject(r) if r.dead && r.reason == "broken"), "{sent:?}");
    let refusal = Refusal::new(Code::DeliveryStaged, "in a transaction").into();
    send(&stream, request, To::Refusal(refusal)).await;
    let error = dead.await.expect("no panic").expect_err("refused");
    assert!(error.is_refused_with(Code::DeliveryStaged));

    // One that is dropped comes again soon; one that a transaction has got does not.
    let mut transaction = Transaction::new();
    let staged = next(&mut billing).await;
    transaction.acknowledge(&staged);
    drop(staged);
    drop(next(&mut billing).await);
    let (_, sent) = message(&mut stream).await;
    let From::Reject(sent) = sent else { panic!("{sent:?}") };
    assert_eq!(sent.delivery.expect("a delivery").offset, 3);
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_shown_and_acknowledged() {
    let mut fake = Fake::start();
    let (mut billing, mut stream) = subscribed(&mut fake).await;
    send(&stream, 0, To::Gap(v1::OffsetRange { from: 2, to: 9 })).await;
    let Some(Item::Gap(gap)) = billing.next().await.expect("no fault") else { panic!("no gap") };
    assert_eq!((gap.from, gap.to), (2, 9));
    let noted = tokio::spawn(gap.acknowledge());
    let (request, sent) = message(&mut stream).await;
    assert!(matches!(&sent, From::AcknowledgeGap(gap) if gap.to == 9), "{sent:?}");
    send(&stream, request, To::Done(v1::Done {})).await;
    noted.await.expect("no panic").expect("noted");
}

#[tokio::test(start_paused = true)]
async fn after_a_cut_it_subscribes_again_and_old_deliveries_are_void() {
    let mut fake = Fake::start();
    let (mut billing, mut stream) = subscribed(&mut fake).await;
    deliver(&stream, 0..2).await;
    let (lost, old) = (next(&mut billing).await, next(&mut billing).await);
    let lost = lost.acknowledge();
    message(&mut stream).await;
    stream.cut().await;
    let error = lost.await.expect_err("its answer is lost");
    assert!(matches!(error, Error::Fault(Fault::Lost { .. })), "{error:?}");

    let (mut stream, subscribe) = accept(&mut fake).await;
    assert!(subscribe.create.is_none(), "one that was deleted since stays so");
    deliver(&stream, 1..2).await;
    let again = next(&mut billing).await;
    let error = old.acknowledge().await.expect_err("void");
    assert!(error.is_refused_with(Code::DeliveryExpired));
    let answer = again.acknowledge();
    let (request, _) = message(&mut stream).await;
    send(&stream, request, To::Acknowledged(v1::Acknowledged::default())).await;
    answer.await.expect("acknowledged");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_subscribed_is_refused_at_once_and_later() {
    let mut fake = Fake::start();
    let hf = fake.connect().await;
    let opening = tokio::spawn(hf.subscribe("billing").open());
    let mut stream = fake.subscribes.recv().await.expect("a stream");
    let (request, first) = message(&mut stream).await;
    assert!(matches!(&first, From::Subscribe(s) if s.create.is_none()), "{first:?}");
    let unknown = || To::Refusal(Refusal::new(Code::UnknownSubscription, "none").into());
    send(&stream, request, unknown()).await;
    let error = opening.await.expect("no panic").expect_err("refused");
    assert!(error.is_refused_with(Code::UnknownSubscription));

    let (mut billing, stream) = subscribed(&mut fake).await;
    stream.cut().await;
    let mut stream = fake.subscribes.recv().await.expect("a stream");
    let (request, _) = message(&mut stream).await;
    send(&stream, request, unknown()).await;
    let error = billing.next().await.expect_err("it is gone");
    assert!(error.is_refused_with(Code::UnknownSubscription));
    assert!(billing.next().await.expect("no fault").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_long_outage_is_told_and_does_not_end_the_subscription() {
    let mut fake = Fake::start();
    let (mut billing, stream) = subscribed(&mut fake).await;
    fake.down(true);
    stream.cut().await;
    let error = billing.next().await.expect_err("it is down");
    assert!(matches!(error, Error::Fault(Fault::Unreachable { .. })), "{error:?}");
    assert!(error.is_retryable());
    fake.down(false);
    let (stream, _) = accept(&mut fake).await;
    deliver(&stream, 0..1).await;
    let mut found = billing.next().await;
    while found.as_ref().is_err_and(Error::is_retryable) {
        found = billing.next().await;
    }
    assert!(matches!(found, Ok(Some(Item::Event(_)))), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_answered_is_sent_before_a_dropped_subscription_ends() {
    let mut fake = Fake::start();
    let (mut billing, mut stream) = subscribed(&mut fake).await;
    deliver(&stream, 0..2).await;
    let answer = next(&mut billing).await.acknowledge();
    drop(billing);
    let (request, sent) = message(&mut stream).await;
    assert!(matches!(&sent, From::Acknowledge(a) if a.deliveries.len() == 1), "{sent:?}");
    send(&stream, request, To::Acknowledged(v1::Acknowledged::default())).await;
    answer.await.expect("acknowledged");
    stream.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_read_goes_on_where_it_was() {
    let mut fake = Fake::start();
    let hf = fake.connect().await;
    let stored = |offset| raw::StoredEvent {
        offset,
        transaction_id: Bytes::new(),
        published_unix_ms: 1,
        event: body(),
    };
    let reading = tokio::spawn(async move {
        let mut events = hf.read("t", Start::Earliest).follow(true).limit(3).open().await?;
        let mut items = Vec::new();
        while let Some(item) = events.next().await? {
            items.push(match item {
                ReadItem::Event(event) => (event.offset, event.offset),
                ReadItem::Gap { from, to } => (from, to),
            });
        }
        Ok::<_, Error>(items)
    });
    let (request, frames) = fake.reads.recv().await.expect("a stream");
    assert_eq!((request.limit, request.follow), (3, true));
    let gap = Some(v1::OffsetRange { from: 0, to: 4 });
    let frame = raw::ReadFrame { events: vec![stored(4), stored(7)], gap, next_offset: 8 };
    frames.send(Ok(frame)).await.expect("no panic");
    frames.send(Err(tonic::Status::unavailable("cut"))).await.expect("no panic");
    let (request, frames) = fake.reads.recv().await.expect("a stream");
    let from = request.start.and_then(|start| start.from);
    assert_eq!(from, Some(v1::start::From::Offset(8)));
    assert_eq!(request.limit, 1, "what is left");
    let frame = raw::ReadFrame { events: vec![stored(8)], gap: None, next_offset: 9 };
    frames.send(Ok(frame)).await.expect("no panic");
    assert_eq!(reading.await.expect("no panic").expect("read"), [(0, 4), (4, 4), (7, 7), (8, 8)]);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_s_progress() {
    let fake = Fake::start();
    let hf = fake.connect().await;
    let error = hf.subscription("billing").await.expect_err("there is none");
    assert!(error.is_refused_with(Code::UnknownSubscription));
    fake.subscription(v1::Subscription {
        subscription_id: 3,
        name: "billing".into(),
        topic: "transfers".into(),
        settings: Some(v1::SubscriptionSettings {
            lease_ms: Some(30_000),
            max_attempts: Some(10),
            backoff_ms: Some(100),
            backoff_max_ms: Some(30_000),
        }),
        acknowledged_below: 7,
        ..v1::Subscription::default()
    });
    let billing = hf.subscription("billing").await.expect("it is there");
    assert_eq!((billing.subscription.0, billing.acknowledged_below.0), (3, 7));
}

/// The loop of the documentation worked on events whose leases were long over, for ever: each
/// acknowledgement was refused, and nothing was ever done.
#[tokio::test(start_paused = true)]
async fn a_delivery_whose_lease_is_over_is_not_handed_out() {
    let mut fake = Fake::start();
    let (mut billing, stream) = subscribed(&mut fake).await;
    deliver(&stream, 0..2).await;
    drop(next(&mut billing).await.give_back());
    // Nobody asks for a lease and more, and the server hears nothing.
    tokio::time::sleep(Duration::from_secs(31)).await;
    deliver(&stream, 7..8).await;
    assert_eq!(next(&mut billing).await.offset, 7);
}

/// What is not taken in half a lease goes back, with its credit, and is asked for again when there
/// is need.
#[tokio::test(start_paused = true)]
async fn what_is_not_taken_in_time_goes_back() {
    let mut fake = Fake::start();
    let (mut billing, mut stream) = subscribed(&mut fake).await;
    deliver(&stream, 0..10).await;
    let first = next(&mut billing).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let (request, sent) = message(&mut stream).await;
    let From::GiveBack(sent) = sent else { panic!("{sent:?}") };
    // One was taken in a quarter of a lease, so two more may be in half of one.
    let mut offsets: Vec<u64> = sent.deliveries.iter().map(|delivery| delivery.offset).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, (3..10).collect::<Vec<_>>());
    send(&stream, request, To::Acknowledged(v1::Acknowledged::default())).await;
    let rest = [first, next(&mut billing).await, next(&mut billing).await];
    assert_eq!(rest.map(|delivery| delivery.offset), [0, 1, 2]);
}

/// A small credit at first, and more as long as all of it is used.
#[tokio::test(start_paused = true)]
async fn more_is_asked_for_when_all_is_used() {
    let mut fake = Fake::start();
    let hf = fake.connect().await;
    let opening = tokio::spawn(hf.subscribe("billing").on("transfers").with_credit(100).open());
    let (mut stream, subscribe) = accept(&mut fake).await;
    let mut billing = opening.await.expect("no panic").expect("subscribed");
    let mut granted = u64::from(subscribe.credit);
    assert_eq!(granted, 32);
    let mut held = Vec::new();
    let mut sent = 0;
    for expected in [64, 100] {
        deliver(&stream, sent..granted).await;
        for _ in sent..granted {
            held.push(next(&mut billing).await);
        }
        sent = granted;
        let nothing = tokio::time::timeout(Duration::from_millis(1), billing.next()).await;
        assert!(nothing.is_err(), "there is nothing yet");
        let (_, credit) = message(&mut stream).await;
        let From::Credit(v1::Credit { more }) = credit else { panic!("{credit:?}") };
        granted += u64::from(more);
        assert_eq!(granted, expected);
    }
}
