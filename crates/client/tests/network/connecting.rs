//! How a client connects, shakes hands, and what it says when it cannot.

use std::time::Duration;

use handfast::{Blame, Code, Error, Fault, Handfast, TopicSettings};

use crate::fake::Fake;

#[tokio::test]
async fn nothing_listens() {
    // A port that was free a moment ago, on an address that routes nowhere else.
    let error = Handfast::connect("http://127.0.0.1:1").await.expect_err("nothing listens there");
    assert!(matches!(error, Error::Fault(Fault::Unreachable { .. })), "{error:?}");
    assert!(error.is_retryable() && error.has_no_side_effects());
    assert_eq!(error.blame(), Blame::Network);
    let text = error.to_string();
    assert!(text.starts_with("nothing answers at http://127.0.0.1:1"), "{text}");
    assert!(text.contains("is `handfast serve` running?"), "{text}");
}

#[tokio::test]
async fn an_address_that_is_none() {
    for url in ["", "127.0.0.1:7400", "not a url", "/x"] {
        let error = Handfast::connect(url).await.expect_err("no address");
        assert!(matches!(error, Error::Fault(Fault::InvalidUrl { .. })), "{url}: {error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_comes_later_is_waited_for() {
    let fake = Fake::start();
    fake.down(true);
    let error = fake.builder().connect().await.expect_err("it is down");
    assert!(matches!(error, Error::Fault(Fault::Unreachable { .. })), "{error:?}");
    let waiting =
        tokio::spawn(fake.builder().with_wait_for_server(Duration::from_secs(60)).connect());
    tokio::time::sleep(Duration::from_secs(10)).await;
    fake.down(false);
    let hf = waiting.await.expect("no panic").expect("it came");
    assert_eq!(hf.server().expect("it shook hands").version, "0.1.0");
}

#[tokio::test(start_paused = true)]
async fn protocols_that_do_not_meet() {
    let fake = Fake::start();
    fake.protocol(9);
    let error = fake.builder().connect().await.expect_err("another protocol");
    assert!(matches!(error, Error::Fault(Fault::Incompatible { .. })), "{error:?}");
    assert!(!error.is_retryable() && error.has_no_side_effects());
    assert!(error.to_string().contains("protocol 9 only"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn calls_of_their_own_are_answered_or_refused() {
    let fake = Fake::start();
    let hf = fake.connect().await;
    let topic = hf
        .create_topic("t", TopicSettings::new().with_age(Duration::from_secs(1)))
        .await
        .expect("created");
    assert_eq!((topic.name.as_str(), topic.settings.retain_ms), ("t", Some(1_000)));
    let refused = hf.delete_topic("x").await.expect_err("refused");
    assert!(refused.is_refused_with(Code::UnknownTopic) && refused.has_no_side_effects());
}
