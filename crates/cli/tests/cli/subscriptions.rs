//! Subscriptions and dead letters.

use handfast::{Event, Handfast, Item, TopicSettings};
use serde_json::{Value, json};

use crate::harness::{ask, start};

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_and_dead_letters() {
    let (_directory, server) = start();
    let ask = |line: &str| ask(&server, line);
    let handfast = Handfast::connect(server.url()).await.unwrap();
    handfast.create_topic("t", TopicSettings::new()).await.unwrap();
    for n in 0..3 {
        let event = Event::new("made", "/test").with_text(format!("event {n}"));
        handfast.publish("t", event).await.unwrap();
    }
    assert_eq!(ask("subscription list").text(), "No subscriptions.\n");
    let mut billing = handfast.subscribe("billing").on("t").open().await.unwrap();
    for _ in 0..3 {
        match billing.next().await.unwrap().unwrap() {
            Item::Event(delivery) => delivery.dead_letter("no such\naccount").await.unwrap(),
            Item::Gap(_) => panic!("nothing was removed"),
        }
    }
    drop(billing);

    let list = ask("subscription list --json").json();
    assert_eq!(list["subscriptions"].as_array().unwrap().len(), 1);
    let shown = ask("subscription show billing --json").json();
    for (field, value) in [
        ("name", json!("billing")),
        ("topic", json!("t")),
        ("end", json!(3)),
        ("dead_letters", json!(3)),
        ("gap", Value::Null),
        ("deleting", json!(false)),
    ] {
        assert_eq!(shown[field], value, "{field}");
    }
    assert_eq!(shown["settings"]["max_attempts"], 10);
    assert!(ask("subscription show billing").text().starts_with("Subscription billing\n"));
    assert_eq!(ask("subscription list --topic t").text().lines().count(), 2);
    let (_, error) = ask("subscription list --topic gone --json").error();
    assert_eq!(error["code"], "unknown_topic");

    let dead = ask("dead list billing --json").json();
    assert_eq!(dead["has_more"], false);
    let letters = dead["dead_letters"].as_array().unwrap();
    assert_eq!(letters.len(), 3);
    assert_eq!(letters[1]["offset"], 1);
    assert_eq!(letters[1]["reason"], "no such\naccount");
    assert!(letters[1]["since"].as_str().unwrap().ends_with('Z'));
    let text = ask("dead list billing").text();
    assert!(text.contains("no such\\naccount"), "{text}");
    assert_eq!(text.lines().count(), 4);
    assert_eq!(ask("dead list billing --limit 2 --json").json()["has_more"], true);
    let shown = ask("dead show billing 1 --json").json();
    assert_eq!(shown["dead_letter"]["attempts"], 1);
    assert_eq!(shown["event"]["data"], "event 1");
    assert!(ask("dead show billing 1").text().contains("data        event 1"));

    assert_eq!(ask("dead retry billing 0 --json").json()["retried"], 1);
    assert_eq!(ask("dead drop billing 1").text(), "Dropped 1 dead letter of billing.\n");
    let (status, error) = ask("dead drop billing 1 --json").error();
    assert_eq!((status, &error["code"]), (1, &json!("unknown_dead_letter")));
    let (_, error) = ask("dead show billing 1 --json").error();
    assert_eq!(error["code"], "unknown_dead_letter");
    assert_eq!(ask("dead drop billing --all --json").json()["dropped"], 1);
    assert_eq!(ask("dead list billing").text(), "Subscription billing has no dead letters.\n");

    assert_eq!(ask("subscription seek billing --to 1 --json").json()["next_offset"], 1);
    assert_eq!(
        ask("subscription seek billing --to latest").text(),
        "Subscription billing goes on at offset 3.\n"
    );
    assert_eq!(ask("subscription seek billing --to 1h --json").json()["next_offset"], 0);
    let (_, error) = ask("subscription seek billing --to 99 --json").error();
    assert_eq!(error["code"], "offset_out_of_range");

    let (status, sentence) = ask("subscription delete billing").sentence();
    assert_eq!(status, 2);
    assert_eq!(
        sentence,
        "handfast: this has to be confirmed, and there is no terminal: add --yes\n"
    );
    assert_eq!(ask("subscription delete billing --yes").text(), "Deleted subscription billing.\n");
    for line in ["subscription show billing", "dead list billing", "dead retry billing --all"] {
        let (status, error) = ask(&format!("{line} --json")).error();
        assert_eq!((status, &error["code"]), (1, &json!("unknown_subscription")), "{line}");
    }
}
