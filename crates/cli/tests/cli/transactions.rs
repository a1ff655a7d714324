//! Transactions and participants, with a service that runs inside the test.

use std::path::Path;
use std::time::Duration;

use handfast::service::rusqlite::Connection;
use handfast::service::{Handler, HandlerError, No, Prepared, SqliteStore};
use handfast::{BeginOptions, Event, Handfast, TopicSettings, TransactionId};
use serde_json::{Value, json};

use crate::harness::{Server, ask, lines_of, start, until};

/// Prepares whatever it is asked to, and cannot finish what has no room.
struct Willing;

impl Handler<Connection> for Willing {
    fn prepare(&self, _: &Connection, _: TransactionId, work: &[u8]) -> Result<Prepared, No> {
        if work == b"no" { Err(No::new("will\x07 not")) } else { Ok(Prepared::Yes) }
    }

    fn commit(&self, _: &Connection, _: TransactionId, work: &[u8]) -> Result<(), HandlerError> {
        if work == b"full" { Err("no room\x07 left".into()) } else { Ok(()) }
    }

    fn abort(&self, _: &Connection, _: TransactionId, _: &[u8]) -> Result<(), HandlerError> {
        Ok(())
    }
}

async fn serve(handfast: &Handfast, directory: &Path, stop: impl Future<Output = ()>) {
    let store = SqliteStore::open(directory.join("payments.db")).unwrap();
    let service = handfast.service("payments").instance("p-1").store(store).handler(Willing);
    service.run(stop).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_and_participants() {
    let (directory, server) = start();
    let ask = |line: &str| ask(&server, line);
    let handfast = Handfast::connect(server.url()).await.unwrap();
    handfast.create_topic("t", TopicSettings::new()).await.unwrap();
    assert_eq!(ask("tx list").text(), "No open transactions.\n");
    assert_eq!(ask("tx list --json").json(), json!({ "transactions": [], "has_more": false }));

    let deadline = Duration::from_secs(3_600);
    let options = || BeginOptions::new().detached().with_deadline(deadline);
    let mut open = handfast.begin_with(options()).await.unwrap();
    open.call("nobody", "work").await.unwrap();
    open.publish("t", Event::new("made", "/test")).await.unwrap();
    let other = handfast.begin_with(options()).await.unwrap();

    let list = ask("tx list --json").json();
    let first = &list["transactions"][0];
    assert_eq!(first["transaction_id"], open.id().to_string());
    assert_eq!(first["state"], "preparing");
    assert_eq!(first["events"], 1);
    assert_eq!(first["decided"], Value::Null);
    let branch = &first["branches"][0];
    assert_eq!((&branch["participant"], &branch["vote"]), (&json!("nobody"), &Value::Null));
    assert_eq!(list["transactions"].as_array().unwrap().len(), 2);
    assert_eq!(ask("tx list --limit 1 --json").json()["has_more"], true);
    assert_eq!(ask("tx list --state committing").text(), "No open transactions.\n");
    let text = ask("tx list --state preparing").text();
    assert!(text.lines().nth(1).unwrap().contains(" 0/1 "), "{text}");
    let limited = ask("tx list --limit 1");
    assert_eq!(limited.stderr, "These are the first 1; see more with --limit.\n");
    assert_eq!(ask("tx list --limit 1 --quiet").stderr, "");

    let text = ask(&format!("tx show {}", open.id())).text();
    assert!(text.contains("  state         Preparing\n"), "{text}");
    assert!(text.contains("  commit        not asked yet\n"), "{text}");
    let id = open.id();
    open.abort("not meant").await.unwrap();
    other.abort("").await.unwrap();
    let text = ask(&format!("tx show {id}")).text();
    assert!(text.contains("reason        aborted: not meant"), "{text}");
    assert!(text.contains(" ms  decided ABORT (aborted)\n"), "{text}");

    // With a service that is there.
    assert_eq!(
        ask("participant list").text(),
        "No participants: no service is connected, no database registered.\n"
    );
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (service, path) = (handfast.clone(), directory.path().to_path_buf());
    let serving = tokio::spawn(async move {
        serve(&service, &path, async { drop(stopped.await) }).await;
    });
    let committed = handfast
        .transaction(|tx| {
            tx.with_deadline(deadline).call("payments", "work");
            tx.publish("t", Event::new("made", "/test"));
        })
        .await
        .unwrap();
    let shown = ask(&format!("tx show {} --json", committed.id)).json();
    assert_eq!(shown["transaction_id"], committed.id.to_string());
    assert!(["committing", "committed"].contains(&shown["state"].as_str().unwrap()), "{shown}");
    assert_eq!(shown["branches"][0]["vote"], "yes");
    assert!(shown["decided_unix_ms"].as_u64() >= shown["begun_unix_ms"].as_u64());
    let text = ask(&format!("tx show {}", committed.id)).text();
    assert!(text.contains(" ms  decided COMMIT\n"), "{text}");
    let event = lines_of(&ask("topic tail t --json").text()).remove(0);
    assert_eq!(event["handfasttransaction"], committed.id.to_string());

    let list = ask("participant list --json").json();
    let payments = &list["participants"][0];
    assert_eq!((&payments["name"], &payments["kind"]), (&json!("payments"), &json!("service")));
    assert_eq!(payments["instances"][0]["instance"], "p-1");
    assert!(ask("participant list").text().contains("payments     service"));

    let failed = handfast.transaction(|tx| _ = tx.call("payments", "no")).await.unwrap_err();
    let shown = ask(&format!("tx show {} --json", failed.id().unwrap())).json();
    assert_eq!(shown["state"], "failed");
    assert_eq!(shown["reason"]["code"], "voted_no");
    assert_eq!(shown["reason"]["participant"], "payments");
    let text = ask(&format!("tx show {}", failed.id().unwrap())).text();
    assert!(text.contains("voted_no by payments: will\\u{7} not"), "{text}");

    // Its words are there as soon as they have come.
    let mut tx = handfast.begin().await.unwrap();
    tx.call("payments", "full").await.unwrap();
    let id = tx.id();
    tx.commit().await.unwrap();
    let show = || ask(&format!("tx show {id} --json")).json();
    let shown = until(show, |shown| !shown["branches"][0]["trouble"].is_null());
    assert_eq!(shown["state"], "committing");
    assert_eq!(shown["branches"][0]["trouble"], "no room\u{7} left");
    let text = ask(&format!("tx show {id}")).text();
    let said = "  payments could not commit and tries again: no room\\u{7} left\n";
    assert!(text.contains(said), "{text}");

    let unknown = "00000000-0000-7000-8000-000000000000";
    let (status, error) = ask(&format!("tx show {unknown} --json")).error();
    assert_eq!((status, &error["code"]), (1, &json!("unknown_transaction")));
    drop(stop);
    serving.await.unwrap();
}

/// "What failed last night?": the server has been started again since, and nobody wrote down an id.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_ended_is_found_after_a_restart() {
    let (directory, server) = start();
    let store = directory.path().join("store");
    let list = ask(&server, "tx list --ended --json").json();
    let none = json!({
        "transactions": [], "has_more": false, "removed": null, "removed_unix_ms": null,
    });
    assert_eq!(list, none);
    let text = ask(&server, "tx list --ended --since 2001-01-01T00:00:00Z").text();
    assert_eq!(text, "No transaction has ended since 2001-01-01 00:00:00.000Z.\n");

    let handfast = Handfast::connect(server.url()).await.unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (service, path) = (handfast.clone(), directory.path().to_path_buf());
    let serving = tokio::spawn(async move {
        serve(&service, &path, async { drop(stopped.await) }).await;
    });
    let mut committed = Vec::new();
    for _ in 0..3 {
        let done = handfast.transaction(|tx| _ = tx.call("payments", "work")).await.unwrap();
        committed.push(done.id.to_string());
    }
    let refused = handfast.transaction(|tx| _ = tx.call("payments", "no")).await.unwrap_err();
    let refused = refused.id().unwrap().to_string();
    let open = handfast.begin_with(BeginOptions::new().detached()).await.unwrap();
    let dropped = open.id().to_string();
    open.abort("not meant").await.unwrap();
    let fits = |list: &Value| list["transactions"].as_array().unwrap().len() == 5;
    let before = until(|| ask(&server, "tx list --ended --json").json(), fits);
    drop(stop);
    serving.await.unwrap();

    drop(server);
    let server = Server::start(&store, "");
    let ask = |line: &str| ask(&server, line);
    assert_eq!(ask("tx list --ended --since 1h --json").json(), before);
    let ids = |line: &str| -> Vec<String> {
        let list = ask(line).json();
        let ids = list["transactions"].as_array().unwrap().iter();
        ids.map(|tx| tx["transaction_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids("tx list --ended --state failed --json"), [refused.clone(), dropped.clone()]);
    assert_eq!(ids("tx list --ended --state committed --json"), committed);
    // What failed is not pushed out by what went well before it.
    assert_eq!(ids("tx list --ended --limit 2 --json"), [refused.clone(), dropped.clone()]);
    let limited = ask("tx list --ended --limit 3");
    assert!(limited.stdout.contains(&committed[0]), "{}", limited.stdout);
    assert_eq!(
        limited.stderr,
        "These are 3 of them, those that failed before others; see more with --limit.\n"
    );
    // The view is that of `tx show`.
    let list = ask("tx list --ended --state failed --json").json();
    let shown = ask(&format!("tx show {refused} --json")).json();
    for (field, value) in list["transactions"][0].as_object().unwrap() {
        assert_eq!(&shown[field], value, "{field}");
    }
    let text = ask("tx list --ended --since 1h").text();
    assert!(text.contains("voted_no by payments: will\\u{7} not"), "{text}");
    assert!(text.contains("aborted: not meant"), "{text}");
    let ended = list["transactions"][1]["ended"].as_str().unwrap();
    let later = ids(&format!("tx list --ended --state failed --since {ended} --json"));
    assert_eq!(later.last(), Some(&dropped));
    assert_eq!(ask("tx list").text(), "No open transactions.\n");
}
