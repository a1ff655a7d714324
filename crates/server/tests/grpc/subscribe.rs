//! Subscriptions, the subscriber's stream, and dead letters.

use handfast_wire::v1::from_subscriber::Message as From;
use handfast_wire::v1::start::From as Place;
use handfast_wire::v1::to_subscriber::Message as To;

use super::*;

struct Subscriber {
    sending: Sending<v1::FromSubscriberFrame>,
    frames: Streaming<v1::ToSubscriberFrame>,
    /// Messages that came with another one that was waited for.
    early: Vec<(u64, To)>,
}

impl Subscriber {
    async fn open(world: &World) -> Self {
        let (sending, stream) = Sending::new();
        let frames = world.events().subscribe(stream).await.unwrap().into_inner();
        Self { sending, frames, early: Vec::new() }
    }

    /// Opens a stream and creates its subscription.
    async fn subscribed(world: &World, credit: u32) -> (Self, v1::SubscriptionReply) {
        let mut this = Self::open(world).await;
        this.send(vec![(1, subscribe("billing", credit, Some("orders")))]).await;
        let mut messages = this.receive().await;
        match messages.remove(0) {
            (1, To::Subscribed(reply)) => {
                this.early = messages;
                (this, reply)
            }
            other => panic!("{other:?}"),
        }
    }

    async fn send(&self, messages: Vec<(u64, From)>) {
        let messages = messages
            .into_iter()
            .map(|(request, message)| v1::FromSubscriber { request, message: Some(message) });
        self.sending.send(v1::FromSubscriberFrame { messages: messages.collect() }).await;
    }

    async fn receive(&mut self) -> Vec<(u64, To)> {
        if !self.early.is_empty() {
            return std::mem::take(&mut self.early);
        }
        let found = collect(&mut self.frames, 1, |frame| frame.messages).await;
        found.into_iter().map(|m| (m.request, m.message.unwrap())).collect()
    }

    /// Deliveries until there are so many; nothing else may come.
    async fn deliveries(&mut self, count: usize) -> Vec<v1::Delivery> {
        let mut found = Vec::new();
        while found.len() < count {
            for message in self.receive().await {
                match message {
                    (0, To::Deliveries(batch)) => found.extend(batch.deliveries),
                    other => panic!("{other:?}"),
                }
            }
        }
        found
    }
}

fn subscribe(name: &str, credit: u32, create: Option<&str>) -> From {
    let create = create.map(|topic| v1::CreateWith { topic: topic.into(), ..Default::default() });
    From::Subscribe(v1::SubscribeRequest { subscription: name.into(), credit, create })
}

fn reference(subscription_id: u32, delivery: &v1::Delivery) -> v1::DeliveryRef {
    v1::DeliveryRef { subscription_id, offset: delivery.offset, token: delivery.token }
}

fn reject(delivery: v1::DeliveryRef) -> From {
    From::Reject(v1::Reject { delivery: Some(delivery), reason: "broken".into(), dead: true })
}

#[tokio::test]
async fn subscriptions_come_move_and_go() {
    let world = World::new().await;
    world.topic("orders").await;
    let offsets = world.publish("orders", 1, &["a", "b"]).await;
    let mut client = world.events();
    let create = v1::CreateSubscriptionRequest {
        name: "billing".into(),
        topic: "orders".into(),
        start: Some(v1::Start { from: Some(Place::TimeUnixMs(0)) }),
        settings: None,
    };
    let created = client.create_subscription(create.clone()).await.unwrap().into_inner();
    assert!(created.created && created.settings.unwrap().lease_ms == Some(30_000));
    let again = client.create_subscription(create.clone()).await.unwrap().into_inner();
    assert_eq!((again.created, again.subscription_id), (false, created.subscription_id));
    let settings = Some(v1::SubscriptionSettings { lease_ms: Some(1), ..Default::default() });
    let other = v1::CreateSubscriptionRequest { settings, ..create };
    let expected = (tonic::Code::AlreadyExists, "subscription_exists".into());
    assert_eq!(refused(client.create_subscription(other).await), expected);

    let get = || v1::GetSubscriptionRequest { name: "billing".into() };
    let view = client.get_subscription(get()).await.unwrap().into_inner();
    assert_eq!((view.topic.as_str(), view.backlog), ("orders", 2));
    for (topic, count) in [("", 1), ("orders", 1), ("other", 0)] {
        let list = v1::ListSubscriptionsRequest { topic: topic.into() };
        let listed = client.list_subscriptions(list).await.unwrap().into_inner();
        assert_eq!(listed.subscriptions.len(), count, "{topic}");
    }
    for (place, offset) in [
        (Place::TimeUnixMs(u64::MAX), offsets[1] + 1),
        (Place::TimeUnixMs(0), offsets[0]),
        (Place::Offset(offsets[1]), offsets[1]),
    ] {
        let to = Some(v1::Start { from: Some(place) });
        let seek = v1::SeekSubscriptionRequest { name: "billing".into(), to };
        let sought = client.seek_subscription(seek).await.unwrap().into_inner();
        assert_eq!(sought.offset, offset, "{place:?}");
    }
    let delete = v1::DeleteSubscriptionRequest { name: "billing".into() };
    client.delete_subscription(delete).await.unwrap();
    let expected = (tonic::Code::NotFound, "unknown_subscription".into());
    assert_eq!(refused(client.get_subscription(get()).await), expected);
}

#[tokio::test]
async fn events_are_delivered_and_acknowledged() {
    let world = World::new().await;
    world.topic("orders").await;
    world.publish("orders", 1, &["a", "b", "c"]).await;
    let (mut subscriber, subscribed) = Subscriber::subscribed(&world, 10).await;
    assert!(subscribed.created && subscribed.topic == "orders");
    let id = subscribed.subscription_id;
    let three = subscriber.deliveries(3).await;
    assert_eq!(three[0].event.as_ref().unwrap(), &event("a"), "as it was published");
    assert_eq!((three[0].attempt, three[0].lease_ms), (1, 30_000));
    assert!(three[0].published_unix_ms > 0 && three[0].transaction_id.is_empty());

    let extend = v1::ExtendLease { deliveries: vec![reference(id, &three[0])] };
    subscriber.send(vec![(2, From::ExtendLease(extend))]).await;
    let nothing_refused = To::Acknowledged(v1::Acknowledged { refused: Vec::new() });
    assert_eq!(subscriber.receive().await, [(2, nothing_refused)]);

    let mut wrong = reference(id, &three[1]);
    wrong.token += 1_000;
    let acknowledge = v1::Acknowledge { deliveries: vec![reference(id, &three[0]), wrong] };
    subscriber.send(vec![(3, From::Acknowledge(acknowledge))]).await;
    let refused = match subscriber.receive().await.remove(0) {
        (3, To::Acknowledged(answer)) => answer.refused,
        other => panic!("{other:?}"),
    };
    assert_eq!((refused.len(), refused[0].delivery), (1, Some(wrong)));
    assert_eq!(refused[0].refusal.as_ref().unwrap().code, "delivery_expired");

    // A transaction takes the third, and publishes.
    let run = v1::RunRequest {
        acknowledgements: vec![reference(id, &three[2])],
        events: vec![new_event("orders", "d")],
        ..v1::RunRequest::default()
    };
    let outcome = world.transactions().run(run).await.unwrap().into_inner();
    let fourth = subscriber.deliveries(1).await.remove(0);
    assert_eq!(fourth.transaction_id, outcome.transaction_id);
}

/// A stream whose credit did not come back would fall silent after so many events.
#[tokio::test]
async fn credit_comes_back_when_a_delivery_is_over() {
    let world = World::new().await;
    world.topic("orders").await;
    world.publish("orders", 1, &["a", "b", "c"]).await;
    let (mut subscriber, subscribed) = Subscriber::subscribed(&world, 1).await;
    let id = subscribed.subscription_id;
    let mut next = async |request, over| {
        subscriber.send(vec![(request, over)]).await;
        loop {
            for message in subscriber.receive().await {
                if let (0, To::Deliveries(mut batch)) = message {
                    return batch.deliveries.remove(0);
                }
            }
        }
    };
    let a = next(2, From::Credit(v1::Credit { more: 0 })).await;
    let acknowledge = v1::Acknowledge { deliveries: vec![reference(id, &a)] };
    let b = next(3, From::Acknowledge(acknowledge)).await;
    assert_eq!(b.event.as_ref().unwrap().id, "b");
    let c = next(4, reject(reference(id, &b))).await;
    assert_eq!(c.event.unwrap().id, "c");
}

#[tokio::test]
async fn credit_is_answered_and_deliveries_return_with_the_stream() {
    let world = World::new().await;
    world.topic("orders").await;
    world.publish("orders", 1, &["a"]).await;
    let (mut first, _) = Subscriber::subscribed(&world, 0).await;
    first.send(vec![(2, From::Credit(v1::Credit { more: 1 }))]).await;
    let mut messages = first.receive().await;
    while messages.len() < 2 {
        messages.extend(first.receive().await);
    }
    assert!(messages.contains(&(2, To::Done(v1::Done {}))), "{messages:?}");
    assert!(messages.iter().any(|m| matches!(m, (0, To::Deliveries(_)))), "{messages:?}");
    drop(first);
    let (mut second, subscribed) = Subscriber::subscribed(&world, 1).await;
    assert!(!subscribed.created);
    assert_eq!(second.deliveries(1).await[0].event.as_ref().unwrap().id, "a");
}

#[tokio::test]
async fn the_first_message_has_to_be_subscribe() {
    let world = World::new().await;
    world.topic("orders").await;
    let mut subscriber = Subscriber::open(&world).await;
    let gap = From::AcknowledgeGap(v1::AcknowledgeGap { to: 1 });
    subscriber
        .send(vec![
            (1, From::Credit(v1::Credit { more: 1 })),
            (2, subscribe("billing", 1, Some("nope"))),
            (3, subscribe("not a name", 1, None)),
            (4, gap),
            (5, subscribe("billing", 20_000, Some("orders"))),
            (6, subscribe("billing", 1, None)),
            (7, subscribe("billing", 1, Some("orders"))),
        ])
        .await;
    let mut answers = Vec::new();
    while answers.len() < 7 {
        answers.extend(subscriber.receive().await);
    }
    answers.sort_by_key(|(request, _)| *request);
    let codes: Vec<_> = answers
        .iter()
        .map(|(request, message)| match message {
            To::Refusal(refusal) => (*request, refusal.code.as_str()),
            To::Subscribed(_) => (*request, "subscribed"),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        codes,
        [
            (1, "not_subscribed"),
            (2, "unknown_topic"),
            (3, "invalid_argument"),
            (4, "not_subscribed"),
            (5, "invalid_argument"),
            (6, "subscribed"),
            (7, "invalid_argument"),
        ]
    );
}

#[tokio::test]
async fn an_existing_subscription_is_joined_as_it_is_but_not_on_another_topic() {
    let world = World::new().await;
    world.topic("orders").await;
    world.topic("others").await;
    let (_first, subscribed) = Subscriber::subscribed(&world, 1).await;
    let mut second = Subscriber::open(&world).await;
    let settings = Some(v1::SubscriptionSettings { lease_ms: Some(1), ..Default::default() });
    let create = v1::CreateWith { topic: "orders".into(), start: None, settings };
    let join =
        v1::SubscribeRequest { subscription: "billing".into(), credit: 1, create: Some(create) };
    let refused = subscribe("billing", 1, Some("others"));
    second.send(vec![(1, refused), (2, From::Subscribe(join))]).await;
    let mut answers = second.receive().await;
    while answers.len() < 2 {
        answers.extend(second.receive().await);
    }
    answers.sort_by_key(|(request, _)| *request);
    match &answers[..] {
        [(1, To::Refusal(refusal)), (2, To::Subscribed(reply))] => {
            assert_eq!(refusal.code, "subscription_exists");
            assert_eq!(reply.subscription_id, subscribed.subscription_id);
            assert_eq!(reply.settings.unwrap().lease_ms, Some(30_000), "its own");
            assert!(!reply.created);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn dead_letters_are_listed_shown_retried_and_dropped() {
    let world = World::new().await;
    world.topic("orders").await;
    let offsets = world.publish("orders", 1, &["a", "b"]).await;
    let (mut subscriber, subscribed) = Subscriber::subscribed(&world, 10).await;
    let id = subscribed.subscription_id;
    let deliveries = subscriber.deliveries(2).await;
    let rejects = deliveries.iter().zip(2..).map(|(d, n)| (n, reject(reference(id, d))));
    subscriber.send(rejects.collect()).await;
    let mut done = 0;
    while done < 2 {
        done += subscriber.receive().await.len();
    }

    let mut client = world.events();
    let list = |from_offset| v1::ListDeadLettersRequest {
        subscription: "billing".into(),
        from_offset,
        limit: 0,
    };
    let letters = client.list_dead_letters(list(0)).await.unwrap().into_inner().dead_letters;
    assert_eq!(letters.iter().map(|l| l.offset).collect::<Vec<_>>(), offsets);
    assert_eq!((letters[0].reason.as_str(), letters[0].attempts), ("broken", 1));
    let get = |offset| v1::GetDeadLetterRequest { subscription: "billing".into(), offset };
    let letter = client.get_dead_letter(get(offsets[1])).await.unwrap().into_inner();
    assert_eq!(letter.event.unwrap().event.unwrap().id, "b");
    assert_eq!(letter.dead_letter.unwrap(), letters[1]);
    let expected = (tonic::Code::NotFound, "unknown_dead_letter".into());
    assert_eq!(refused(client.get_dead_letter(get(1 << 40)).await), expected);

    let take =
        |offsets, all| v1::TakeDeadLettersRequest { subscription: "billing".into(), offsets, all };
    let taken = client.retry_dead_letters(take(vec![offsets[0]], false)).await.unwrap();
    assert_eq!(taken.into_inner().taken, 1);
    assert_eq!(subscriber.deliveries(1).await[0].event.as_ref().unwrap().id, "a");
    let taken = client.drop_dead_letters(take(Vec::new(), true)).await.unwrap();
    assert_eq!(taken.into_inner().taken, 1);
    assert!(client.list_dead_letters(list(0)).await.unwrap().into_inner().dead_letters.is_empty());
    let expected = (tonic::Code::InvalidArgument, "invalid_argument".into());
    assert_eq!(refused(client.drop_dead_letters(take(Vec::new(), false)).await), expected);
}
