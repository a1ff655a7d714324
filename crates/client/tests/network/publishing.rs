//! Publishing: what is sent again, what goes together, and what is said of an answer that is lost.

use std::time::Duration;

use handfast::{Code, Error, Event, Fault, Handfast, Published};
use handfast_core::refusal::Refusal;
use handfast_wire::v1;
use handfast_wire::v1::publish_reply::Result as Answer;

use crate::fake::{Fake, Publishing};

type Call = tokio::task::JoinHandle<Result<Published, Error>>;

fn event() -> Event {
    Event::new("made", "/bank")
}

/// The next frame's batches: number, sequence and how many events.
async fn batches(stream: &mut Publishing) -> Vec<(u64, u64, usize)> {
    let batches = stream.frame().await.batches.into_iter().map(|batch| {
        let publish = batch.publish.expect("a batch");
        assert_eq!(publish.producer_id.len(), 16);
        (batch.request, publish.sequence, publish.events.len())
    });
    batches.collect()
}

async fn answer(stream: &Publishing, request: u64, answer: Answer) {
    let replies = vec![v1::PublishReply { request, result: Some(answer) }];
    stream.send(v1::PublishReplyFrame { replies }).await;
}

fn published(offsets: Vec<u64>) -> Answer {
    Answer::Published(v1::Published { offsets, repeated: false })
}

/// So many calls at once, each of one event to this topic.
fn publish(hf: &Handfast, topic: &'static str, calls: usize) -> Vec<Call> {
    let one = |_| {
        let hf = hf.clone();
        tokio::spawn(async move { hf.publish(topic, event()).await })
    };
    (0..calls).map(one).collect()
}

#[tokio::test(start_paused = true)]
async fn publishes_at_one_time_share_frames_and_those_to_one_topic_go_together() {
    let mut fake = Fake::start();
    let hf = fake.connect().await;
    let calls = publish(&hf, "t", 50);
    let mut stream = fake.publishes.recv().await.expect("a stream");
    let batches = batches(&mut stream).await;
    assert_eq!(batches.iter().map(|(_, _, events)| *events).collect::<Vec<_>>(), [32, 18]);
    assert_eq!(batches.iter().map(|(_, sequence, _)| *sequence).collect::<Vec<_>>(), [1, 2]);
    let mut next = 0..50;
    let mut replies: Vec<_> = batches
        .iter()
        .map(|(request, _, events)| {
            let result = Some(published(next.by_ref().take(*events).collect()));
            v1::PublishReply { request: *request, result }
        })
        .collect();
    replies.reverse();
    stream.send(v1::PublishReplyFrame { replies }).await;
    for (at, call) in calls.into_iter().enumerate() {
        let published = call.await.expect("no panic").expect("published");
        assert_eq!(published.offset, Some(at as u64), "each its own, in the order of the calls");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_of_several_events_and_those_to_other_topics_go_alone() {
    let mut fake = Fake::start();
    let hf = fake.connect().await;
    let mut calls = publish(&hf, "a", 2);
    calls.extend(publish(&hf, "b", 1));
    let several = tokio::spawn({
        let hf = hf.clone();
        async move { hf.publish_all([("b", event()), ("b", event())]).await }
    });
    let last = publish(&hf, "b", 2);
    let mut stream = fake.publishes.recv().await.expect("a stream");
    let batches = batches(&mut stream).await;
    assert_eq!(batches.iter().map(|(_, _, events)| *events).collect::<Vec<_>>(), [2, 1, 2, 2]);
    for (at, (request, _, events)) in batches.iter().enumerate() {
        let first = 10 * at as u64;
        answer(&stream, *request, published((first..first + *events as u64).collect())).await;
    }
    let mut offsets = Vec::new();
    for call in calls.into_iter().chain(last) {
        offsets.extend(call.await.expect("no panic").expect("published").offset);
    }
    assert_eq!(offsets, [0, 1, 10, 30, 31]);
    let several = several.await.expect("no panic").expect("published");
    assert_eq!(several.iter().map(|one| one.offset).collect::<Vec<_>>(), [Some(20), Some(21)]);
}

#[tokio::test(start_paused = true)]
async fn those_that_went_together_are_refused_together_and_a_bad_event_is_not_among_them() {
    let mut fake = Fake::start();
    let hf = fake.connect().await;
    let first = publish(&hf, "t", 2);
    let bad = hf.publish("t", event().with_key("")).await.expect_err("an empty key");
    assert!(bad.is_refused_with(Code::InvalidArgument), "{bad}");
    let mut stream = fake.publishes.recv().await.expect("a stream");
    let batches = batches(&mut stream).await;
    assert_eq!(batches.len(), 1);
    let full = Refusal::new(Code::TopicFull, "t is full");
    answer(&stream, batches[0].0, Answer::Refusal(full.into())).await;
    for call in first {
        let error = call.await.expect("no panic").expect_err("full");
        assert!(error.is_refused_with(Code::TopicFull) && error.has_no_side_effects(), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn those_that_went_together_are_sent_again_together_even_if_one_has_left() {
    let mut fake = Fake::start();
    let hf = fake.connect().await;
    let mut calls = publish(&hf, "t", 3);
    let mut stream = fake.publishes.recv().await.expect("a stream");
    let first = batches(&mut stream).await;
    assert_eq!(first, [(1, 1, 3)]);
    calls.remove(1).abort();
    stream.cut().await;
    let later = publish(&hf, "t", 1);
    let mut stream = fake.publishes.recv().await.expect("a stream");
    let mut again = batches(&mut stream).await;
    if again.len() < 2 {
        again.extend(batches(&mut stream).await);
    }
    let numbers: Vec<_> = again.iter().map(|(_, sequence, events)| (*sequence, *events)).collect();
    assert_eq!(numbers, [(1, 3), (2, 1)], "what has a number does not change");
    answer(&stream, again[0].0, published(vec![7, 8, 9])).await;
    answer(&stream, again[1].0, published(vec![10])).await;
    let mut offsets = Vec::new();
    for call in calls.into_iter().chain(later) {
        offsets.extend(call.await.expect("no panic").expect("published").offset);
    }
    assert_eq!(offsets, [7, 9, 10]);
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_up_keeps_its_place_among_those_that_went_together() {
    let mut fake = Fake::start();
    let builder = fake.builder().with_time_limit(Duration::from_secs(60));
    let hf = builder.connect().await.expect("no panic");
    fake.down(true);
    let early = publish(&hf, "t", 1);
    tokio::time::sleep(Duration::from_secs(20)).await;
    let late = publish(&hf, "t", 2);
    fake.down(false);
    // Well before the first gives up, however long the pauses between attempts are.
    let mut stream = fake.publishes.recv().await.expect("a stream");
    assert_eq!(batches(&mut stream).await, [(1, 1, 3)]);
    for call in early {
        let error = call.await.expect("no panic").expect_err("its time is over");
        assert!(matches!(error, Error::Fault(Fault::TimedOut { sent: true, .. })), "{error:?}");
    }
    answer(&stream, 1, published(vec![7, 8, 9])).await;
    let mut offsets = Vec::new();
    for call in late {
        offsets.extend(call.await.expect("no panic").expect("published").offset);
    }
    assert_eq!(offsets, [8, 9], "each its own");
}

#[tokio::test(start_paused = true)]
async fn each_of_those_that_went_together_waits_no_longer_than_it_said() {
    let mut fake = Fake::start();
    let builder = fake.builder().with_time_limit(Duration::from_secs(5)).with_in_flight(3);
    let hf = builder.connect().await.expect("no panic");
    let calls = publish(&hf, "t", 2);
    let mut stream = fake.publishes.recv().await.expect("a stream");
    assert_eq!(batches(&mut stream).await, [(1, 1, 2)]);
    for call in calls {
        let error = call.await.expect("no panic").expect_err("no answer");
        assert!(matches!(error, Error::Fault(Fault::TimedOut { sent: true, .. })), "{error:?}");
    }
    let calls = publish(&hf, "t", 3);
    let next = batches(&mut stream).await;
    assert_eq!(next, [(2, 2, 3)], "their places are free again");
    answer(&stream, 1, published(vec![1, 2])).await;
    answer(&stream, 2, published(vec![3, 4, 5])).await;
    for (call, offset) in calls.into_iter().zip(3..) {
        assert_eq!(call.await.expect("no panic").expect("published").offset, Some(offset));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_not_answered_is_sent_again_under_its_number_and_in_order() {
    let mut fake = Fake::start();
    let hf = fake.connect().await;
    let all = tokio::spawn({
        let hf = hf.clone();
        async move { hf.publish_all([("a", event()), ("b", event())]).await }
    });
    let one = tokio::spawn(async move { hf.publish("a", event()).await });
    let mut stream = fake.publishes.recv().await.expect("a stream");
    let first = batches(&mut stream).await;
    assert_eq!(first.iter().map(|(_, _, events)| *events).collect::<Vec<_>>(), [2, 1]);
    stream.cut().await;
    let mut stream = fake.publishes.recv().await.expect("a stream");
    let second = batches(&mut stream).await;
    let numbers = |batches: &[(u64, u64, usize)]| -> Vec<u64> {
        batches.iter().map(|(_, sequence, _)| *sequence).collect()
    };
    assert_eq!(numbers(&first), numbers(&second));
    let repeated = Answer::Published(v1::Published { offsets: Vec::new(), repeated: true });
    answer(&stream, second[0].0, repeated).await;
    answer(&stream, second[1].0, published(vec![9])).await;
    assert_eq!(all.await.expect("no panic").expect("published"), [Published { offset: None }; 2]);
    assert_eq!(one.await.expect("no panic").expect("published").offset, Some(9));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_handed_on_and_a_lost_answer_is_not_called_harmless() {
    let mut fake = Fake::start();
    let hf =
        fake.builder().with_time_limit(Duration::from_secs(5)).connect().await.expect("no panic");
    let refused = tokio::spawn({
        let hf = hf.clone();
        async move { hf.publish("t", event()).await }
    });
    let mut stream = fake.publishes.recv().await.expect("a stream");
    let request = batches(&mut stream).await[0].0;
    let full = Refusal::new(Code::TopicFull, "t is full");
    answer(&stream, request, Answer::Refusal(full.into())).await;
    let error = refused.await.expect("no panic").expect_err("full");
    assert!(error.is_refused_with(Code::TopicFull) && error.is_retryable());

    let lost = tokio::spawn({
        let hf = hf.clone();
        async move { hf.publish("t", event()).await }
    });
    batches(&mut stream).await;
    let error = lost.await.expect("no panic").expect_err("no answer");
    assert!(!error.has_no_side_effects(), "{error:?}");

    let large = hf.publish("t", event().with_data(vec![0; 1 << 20])).await.expect_err("large");
    assert!(large.is_refused_with(Code::TooLarge));
    let none = hf.publish_all(Vec::<(String, Event)>::new()).await;
    assert!(none.expect_err("no events").is_refused_with(Code::InvalidArgument));
}

#[tokio::test(start_paused = true)]
async fn a_publish_that_may_have_been_sent_before_is_not_called_harmless() {
    let mut fake = Fake::start();
    let hf =
        fake.builder().with_time_limit(Duration::from_secs(5)).connect().await.expect("no panic");
    let call = tokio::spawn(async move { hf.publish("t", event()).await });
    let mut stream = fake.publishes.recv().await.expect("a stream");
    batches(&mut stream).await;
    fake.down(true);
    stream.cut().await;
    let error = call.await.expect("no panic").expect_err("nobody answers any more");
    assert!(!error.has_no_side_effects(), "it was sent once: {error:?}");
    assert!(!matches!(error, Error::Fault(Fault::Unreachable { .. })), "{error:?}");
}
