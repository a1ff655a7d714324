//! The commands that ask a server, as processes against a real one: results for people and for
//! programs, errors of the one shape, exit statuses.
#![expect(clippy::unwrap_used, reason = "in a test that is how a failure is told")]

mod backup;
mod bench;
mod databases;
mod harness;
mod subscriptions;
mod topics;
mod transactions;

use std::net::TcpListener;

use harness::run;
use serde_json::{Value, json};

#[test]
fn a_server_that_is_not_there() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("http://{address}");
    let (status, sentence) = run(&["tx", "list", "--server", &url]).sentence();
    assert_eq!(status, 4);
    assert_eq!(
        sentence,
        format!(
            "handfast: nothing answers at {url}: start a server with `handfast serve`, or name \
             another with --server\n"
        )
    );
    // The scheme may be left out.
    let address = address.to_string();
    let (status, error) = run(&["topic", "--server", &address, "list", "--json"]).error();
    assert_eq!(status, 4);
    assert_eq!(
        error,
        json!({
            "code": "unreachable",
            "message": format!("nothing answers at {url}"),
            "retryable": true,
            "hint": "start a server with `handfast serve`, or name another with --server",
            "exit_status": 4,
        })
    );
    let (status, error) = run(&["tx", "list", "--json", "--server", "https://127.0.0.1:1"]).error();
    assert_eq!((status, &error["code"]), (2, &json!("usage")));
}

#[test]
fn what_is_not_well_formed_never_reaches_a_server() {
    for (line, words) in [
        ("tx show 123", "expected a transaction's id"),
        ("tx list --limit 0", "0 is not in"),
        ("tx list --state failed", "add --ended"),
        ("tx list --ended --state preparing", "has not ended"),
        ("tx list --ended --attention", "cannot be used"),
        ("tx list --since 1h", "--ended"),
        ("tx list --ended --since yesterday", "expected how long ago"),
        ("topic create a/b", "a name is 1 to 64 characters"),
        ("topic create t --retain-age 7", "expected numbers with units"),
        ("topic create t --retain-bytes 10", "expected a number with a unit"),
        ("topic publish t", "required arguments"),
        ("topic publish t --data x --attribute handfasttime=1", "expected a name"),
        ("topic publish t --data x --type=", "expected a text"),
        ("topic tail t --from middle", "expected earliest, latest or an offset"),
        ("topic tail t --since yesterday", "expected how long ago"),
        ("subscription seek s", "--to"),
        ("dead drop s", "required arguments"),
        ("dead show s -1", "unexpected argument"),
        ("tx resolve 00000000-0000-7000-8000-000000000000 --abort", "--why"),
        ("tx resolve 00000000-0000-7000-8000-000000000000 --why x", "required arguments"),
        (
            "tx resolve 00000000-0000-7000-8000-000000000000 --abort --note --why x",
            "cannot be used",
        ),
        ("database adopt a/b", "a name is 1 to 64 characters"),
        ("doctor", "--database"),
        ("doctor --database postgres://h/d --role app", "--fix"),
        ("nonsense", "unrecognized subcommand"),
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let (status, sentence) = run(&arguments).sentence();
        assert_eq!(status, 2, "{line}: {sentence}");
        assert!(sentence.contains(words), "{line}: {sentence}");
        let (status, error) = run(&[arguments.as_slice(), &["--json"]].concat()).error();
        assert_eq!((status, &error["code"]), (2, &json!("usage")), "{line}");
        assert!(error["message"].as_str().unwrap().contains(words), "{line}: {error}");
    }
}

#[test]
fn explanations_need_no_server() {
    let text = run(&["explain", "topic_full"]).text();
    assert!(text.starts_with("topic_full\n\nThe topic keeps events until"), "{text}");
    assert_eq!(run(&["explain", "TOPIC-FULL"]).text(), text);
    let document = run(&["explain", "topic_full", "--json"]).json();
    assert_eq!(
        (&document["code"], &document["kind"], &document["retryable"]),
        (&json!("topic_full"), &json!("refusal"), &json!(true))
    );
    let reason = run(&["explain", "deadline_passed", "--json"]).json();
    assert_eq!((&reason["kind"], &reason["retryable"]), (&json!("reason"), &Value::Null));
    let all = run(&["explain", "--json"]).json();
    assert_eq!(
        all["codes"].as_array().unwrap().len() + 1,
        run(&["explain"]).text().lines().count()
    );
    let (status, error) = run(&["explain", "topic_ful", "--json"]).error();
    assert_eq!((status, &error["code"]), (1, &json!("unknown_code")));
    assert!(error["hint"].as_str().unwrap().contains("topic_full"), "{error}");
}

#[test]
fn help_says_what_there_is() {
    let text = run(&["--help"]).text();
    for words in ["Run:", "serve", "subscription", "Examples:", "Exit status:", "\n  4 "] {
        assert!(text.contains(words), "{words} is missing:\n{text}");
    }
    let text = run(&["topic", "publish", "--help"]).text();
    assert!(text.contains("HANDFAST_SERVER") && text.contains("Examples:"), "{text}");
}
