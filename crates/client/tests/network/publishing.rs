use std::time::Duration;

use handfast::{Code, Error, Event, Fault, Published};
use handfast_core::refusal::Refusal;
use handfast_wire::v1;
use handfast_wire::v1::publish_reply::Result as Answer;

use crate::fake::{Fake, Publishing};

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

#[tokio::test(start_paused = true)]
async fn publishes_at_one_time_share_a_frame() {
    let mut fake = Fake::start();
    let hf = fake.connect().await;
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let hf = hf.clone();
            tokio::spawn(async move { hf.publish("t", event()).await })
        })
        .collect();
    let mut stream = fake.publishes.recv().await.expect("a stream");
    let batches = batches(&mut stream).await;
    assert_eq!(batches.len(), 50);
    let replies = batches.iter().rev().map(|(request, sequence, _)| {
        let result = Some(published(vec![*sequence]));
        v1::PublishReply { request: *request, result }
    });
    stream.send(v1::PublishReplyFrame { replies: replies.collect() }).await;
    let mut offsets = Vec::new();
    for call in calls {
        offsets.extend(call.await.expect("no panic").expect("published").offset);
    }
    assert!(offsets.is_sorted() && offsets.len() == 50, "in the order of the calls: {offsets:?}");
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
