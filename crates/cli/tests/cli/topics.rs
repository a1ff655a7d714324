//! Topics: to create them, change them, publish to them and read them.

use serde_json::{Value, json};

use crate::harness::{ask, ask_with_input, lines_of, start};

#[test]
fn topics() {
    let (_directory, server) = start();
    let ask = |line: &str| ask(&server, line);

    assert_eq!(ask("topic list").text(), "No topics: `handfast topic create NAME` makes one.\n");
    assert_eq!(
        ask("topic create transfers").text(),
        "Created topic transfers, which keeps everything.\n"
    );
    assert_eq!(
        ask("topic create transfers").text(),
        "Topic transfers was there already, and keeps everything.\n"
    );
    let (status, error) = ask("topic create transfers --retain-age 7d --json").error();
    assert_eq!((status, &error["code"]), (1, &json!("topic_exists")));
    assert_eq!(error["retryable"], false);
    assert_eq!(
        ask("topic create clicks --retain-age 7d --retain-bytes 10GiB --json").json(),
        json!({
            "name": "clicks", "created": true, "retain_ms": 604_800_000_u64,
            "retain_bytes": 10_737_418_240_u64, "retain_unacknowledged": false
        })
    );

    // What is not named stays.
    let altered = ask("topic alter clicks --retain-bytes none --retain-unacknowledged --json");
    let altered = altered.json();
    assert_eq!(altered["retain_ms"], 604_800_000_u64);
    assert_eq!(altered["retain_bytes"], Value::Null);
    assert_eq!(altered["retain_unacknowledged"], true);

    let list = ask("topic list --json").json();
    let names: Vec<&Value> =
        list["topics"].as_array().unwrap().iter().map(|topic| &topic["name"]).collect();
    assert_eq!(names, ["clicks", "transfers"]);
    assert!(ask("topic list").text().starts_with("TOPIC "));

    // Without a terminal nobody can be asked.
    let (status, error) = ask("topic delete clicks --json").error();
    assert_eq!((status, &error["code"]), (2, &json!("not_confirmed")));
    assert_eq!(ask("topic delete clicks --yes --json").json()["deleted"], true);
    assert_eq!(ask("topic delete transfers --yes").text(), "Deleted topic transfers.\n");
    assert_eq!(ask("topic list --json").json(), json!({ "topics": [] }));

    for line in ["topic delete gone --yes", "topic alter gone --retain-age 1d", "topic tail gone"] {
        let (status, error) = ask(&format!("{line} --json")).error();
        assert_eq!((status, &error["code"]), (1, &json!("unknown_topic")), "{line}");
        let (status, sentence) = ask(line).sentence();
        let remedy = "gone (unknown_topic): `handfast topic list` shows all topics\n";
        assert!(status == 1 && sentence.ends_with(remedy), "{line}: {sentence}");
    }
    let (status, _) = ask("topic publish gone --data x --json").error();
    assert_eq!(status, 1);
}

#[test]
fn publishing_and_tailing() {
    let (directory, server) = start();
    let ask = |line: &str| ask(&server, line);
    ask("topic create t").text();

    assert_eq!(ask("topic publish t --data hello").text(), "Published at offset 0.\n");
    let line = "topic publish t --data {\"n\":1} --content-type application/json --type made \
                --source /x --subject s --key k --attribute traceparent=00-1 --json";
    let published = ask(line).json();
    assert_eq!((&published["topic"], &published["offset"]), (&json!("t"), &json!(1)));
    let file = directory.path().join("data");
    std::fs::write(&file, [0xff, 0]).unwrap();
    let line = format!("topic publish t {}", file.display());
    assert_eq!(ask(&line).text(), "Published at offset 2.\n");
    let piped = ask_with_input(&server, "topic publish t -", b"two\nlines\n");
    assert_eq!(piped.text(), "Published at offset 3.\n");

    let events = lines_of(&ask("topic tail t --json").text());
    assert_eq!(events.len(), 4);
    assert_eq!(events[0]["data"], "hello");
    assert_eq!(events[0]["handfastoffset"], "0");
    assert_eq!(events[0].get("handfasttransaction"), None);
    for (field, value) in [
        ("id", published["event_id"].clone()),
        ("specversion", json!("1.0")),
        ("type", json!("made")),
        ("source", json!("/x")),
        ("subject", json!("s")),
        ("partitionkey", json!("k")),
        ("traceparent", json!("00-1")),
        ("datacontenttype", json!("application/json")),
        ("data", json!({ "n": 1 })),
    ] {
        assert_eq!(events[1][field], value, "{field}");
    }
    assert_eq!(events[2]["data_base64"], "/wA=");
    assert_eq!(events[3]["data"], "two\nlines\n");

    let text = ask("topic tail t --from 3").text();
    assert!(text.starts_with("     3  2") && text.ends_with("message  two\\nlines\\n\n"), "{text}");
    for (line, count) in [
        ("topic tail t --limit 2", 2),
        ("topic tail t --from latest", 0),
        ("topic tail t --follow --from earliest --limit 3", 3),
        ("topic tail t --since 1h", 4),
        ("topic tail t --since 2999-01-01T00:00:00Z", 0),
    ] {
        assert_eq!(ask(line).text().lines().count(), count, "{line}");
    }

    // More than one batch.
    let many: String = (0..2_500).map(|n| format!("line {n}\n")).collect();
    let line = "topic publish t - --lines --json";
    let published = ask_with_input(&server, line, many.as_bytes()).json();
    assert_eq!(
        published,
        json!({ "topic": "t", "published": 2500, "first_offset": 4, "last_offset": 2503 })
    );
    let events = lines_of(&ask("topic tail t --from 4 --json").text());
    assert_eq!(events.len(), 2_500);
    assert!(events.iter().enumerate().all(|(n, event)| event["data"] == format!("line {n}")));
    let none = ask_with_input(&server, "topic publish t - --lines", b"").text();
    assert_eq!(none, "Published 0 events.\n");

    // Lines are text of people: what a program on another system adds is no part of them.
    let windows = b"\xef\xbb\xbfalpha\r\n\r\nbeta\r\ngamma";
    let published = ask_with_input(&server, line, windows).json();
    let first = published["first_offset"].as_u64().unwrap();
    let events = lines_of(&ask(&format!("topic tail t --from {first} --json")).text());
    let data: Vec<&Value> = events.iter().map(|event| &event["data"]).collect();
    assert_eq!(data, ["alpha", "", "beta", "gamma"]);
    for (input, says) in [
        (&b"a\nb\0\n"[..], "standard input, line 2: it has a zero byte"),
        (b"a\n\xff\n", "standard input, line 2: it is not UTF-8"),
    ] {
        let (status, error) = ask_with_input(&server, line, input).error();
        assert_eq!((status, &error["code"]), (1, &json!("invalid_argument")));
        let message = error["message"].as_str().unwrap();
        assert!(message.starts_with(says) && message.contains("1 event was"), "{message}");
    }

    // A value that its attribute cannot have is refused by its name, before anything is sent.
    for (option, names) in [
        ("--source /a|b", "`source`"),
        ("--content-type json", "`datacontenttype`"),
        ("--attribute dataschema=schemas/order", "`dataschema`"),
    ] {
        let (status, error) = ask(&format!("topic publish t --data x {option} --json")).error();
        assert_eq!((status, &error["code"]), (1, &json!("invalid_argument")), "{option}");
        assert!(error["message"].as_str().unwrap().contains(names), "{error}");
    }

    // What came before an error stays published, and is told.
    let mut too_long = b"fits\n".to_vec();
    too_long.resize(5 + (2 << 20), b'x');
    let (status, error) = ask_with_input(&server, line, &too_long).error();
    assert_eq!((status, &error["code"]), (1, &json!("too_large")));
    let message = error["message"].as_str().unwrap();
    assert!(message.ends_with("; 1 event was published before that"), "{message}");

    let (status, error) = ask("topic tail t --from 9999 --json").error();
    assert_eq!((status, &error["code"]), (1, &json!("offset_out_of_range")));
    let (status, error) = ask("topic publish t /nowhere/to/be/found --json").error();
    assert_eq!((status, &error["code"]), (1, &json!("failed")));
}
