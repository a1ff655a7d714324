//! A backup of a server that is being written to, and what a restored store knows.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use handfast::{BeginOptions, Event, Handfast, State, TopicSettings, TransactionId};
use serde_json::json;

use crate::harness::{Server, ask, lines_of, run, start};

/// Small segments, so that some are sealed, dropped or rewritten while they are copied.
const SMALL: &str = "[journal]\nsegment_bytes = 65536\npreallocate_bytes = 65536\n";

/// Publishes an event in each transaction until it is told to stop; what was acknowledged, in
/// order.
async fn load(handfast: Handfast, stop: Arc<AtomicBool>) -> Vec<TransactionId> {
    let mut committed = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let done = handfast
            .transaction(|tx| {
                let data = vec![b'x'; 2_000];
                tx.publish("t", Event::new("made", "/test").with_data(data));
            })
            .await
            .unwrap();
        committed.push(done.id);
    }
    committed
}

fn events(server: &Server) -> Vec<(u64, String)> {
    let lines = lines_of(&ask(server, "topic tail t --json").text());
    let event = |line: &serde_json::Value| {
        let id = line["handfasttransaction"].as_str().unwrap_or_default().to_owned();
        (line["handfastoffset"].as_str().unwrap().parse().unwrap(), id)
    };
    lines.iter().map(event).collect()
}

#[track_caller]
fn sound(directory: &Path) -> serde_json::Value {
    let report = run(&["journal", "check", directory.to_str().unwrap(), "--json"]).json();
    assert_eq!(report["sound"], true, "{report}");
    assert_eq!((&report["torn_bytes"], &report["leftovers"]), (&json!(0), &json!([])), "{report}");
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_holds_what_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("store"), SMALL);
    let handfast = Handfast::connect(server.url()).await.unwrap();
    handfast.create_topic("t", TopicSettings::new()).await.unwrap();
    let failed = handfast.begin_with(BeginOptions::new().detached()).await.unwrap();
    let failed_id = failed.id();
    failed.abort("not meant").await.unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let loading = tokio::spawn(load(handfast.clone(), Arc::clone(&stop)));
    // Some segments are sealed by then.
    let first = loop {
        let status = handfast.server_status().await.unwrap();
        if status.durable_lsn.unwrap() > 1_000 {
            break status;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    let acknowledged = events(&server);
    let backup = directory.path().join("backup");
    let mut told = ask(&server, &format!("backup {} --json", backup.display())).json();
    let durable = told["durable_lsn"].as_u64().unwrap();
    assert!(durable >= first.durable_lsn.unwrap(), "{told}");
    let second = directory.path().join("a/b/second");
    told = ask(&server, &format!("backup {} --json", second.display())).json();
    assert!(told["durable_lsn"].as_u64().unwrap() > durable, "nothing was written meanwhile");
    stop.store(true, Ordering::Relaxed);
    let committed = loading.await.unwrap();
    let all = events(&server);

    let report = sound(&backup);
    assert_eq!(report["last"], durable);
    assert_eq!(report["stale_indexes"], json!([]), "{report}");
    assert!(report["segments"].as_array().unwrap().len() > 2, "{report}");
    sound(&second);
    // The live store lost nothing by it.
    drop(server);
    let store = directory.path().join("store");
    let report = run(&["journal", "check", store.to_str().unwrap(), "--json"]).json();
    assert_eq!(report["sound"], true, "{report}");

    let restored = directory.path().join("restored");
    let line = ["restore", backup.to_str().unwrap(), "--data-dir", restored.to_str().unwrap()];
    let text = run(&line).text();
    assert!(
        text.contains(&format!("up to record r{durable}")) || text.contains("Restored "),
        "{text}"
    );
    sound(&restored);
    let mark = std::fs::read(restored.join("adoption")).unwrap();
    let mark: serde_json::Value = serde_json::from_slice(&mark).unwrap();
    assert_eq!(mark["adopted"], json!({}));
    let source = mark["cause"]["restored"].as_str().unwrap();
    assert_eq!(source, backup.canonicalize().unwrap().to_str().unwrap());

    let server = Server::start(&restored, SMALL);
    let again = events(&server);
    assert!(again.len() >= acknowledged.len(), "{} of {}", again.len(), acknowledged.len());
    assert_eq!(again, all[..again.len()], "another history");
    // Outcomes are the same as before, as far as the backup goes.
    let handfast = Handfast::connect(server.url()).await.unwrap();
    let known: BTreeMap<&str, u64> = again.iter().map(|(at, id)| (id.as_str(), *at)).collect();
    for id in committed.iter().filter(|id| known.contains_key(id.to_string().as_str())) {
        let outcome = handfast.status(*id).await.unwrap();
        assert!(matches!(outcome.state, State::Committing | State::Committed), "{outcome:?}");
    }
    assert_eq!(handfast.status(failed_id).await.unwrap().state, State::Failed);
    // It goes on.
    let next = handfast.publish("t", Event::new("made", "/test")).await;
    assert!(next.is_ok(), "{next:?}");
}

#[test]
fn what_is_no_place_for_a_backup() {
    let (directory, server) = start();
    let (status, sentence) = ask(&server, "backup relative/path").sentence();
    assert_eq!(status, 2);
    assert!(sentence.contains("expected an absolute path"), "{sentence}");
    let full = directory.path().join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("mine"), "").unwrap();
    let (status, error) = ask(&server, &format!("backup {} --json", full.display())).error();
    assert_eq!((status, &error["code"]), (1, &json!("invalid_argument")));
    assert!(error["message"].as_str().unwrap().contains("\"mine\""), "{error}");
    assert_eq!(std::fs::read_dir(&full).unwrap().count(), 1);
    let inside = directory.path().join("store/inside");
    let (status, error) = ask(&server, &format!("backup {} --json", inside.display())).error();
    assert_eq!((status, &error["code"]), (1, &json!("invalid_argument")));
    let file = directory.path().join("full/mine/below");
    let (status, error) = ask(&server, &format!("backup {} --json", file.display())).error();
    assert_eq!((status, &error["code"]), (1, &json!("server_failed")), "{error}");
}

#[test]
fn what_is_not_restored() {
    let (directory, server) = start();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let restore =
        |from: &str, to: &str| run(&["restore", &path(from), "--data-dir", &path(to), "--json"]);
    assert!(ask(&server, &format!("backup {}", path("backup"))).text().contains("Backed up"));
    // A store that is open.
    let (status, error) = restore("store", "new").error();
    assert_eq!((status, &error["code"]), (3, &json!("store_refused")));
    // A directory with something in it, be it a store.
    let (status, error) = restore("backup", "store").error();
    assert_eq!((status, &error["code"]), (1, &json!("not_empty")));
    // No backup.
    std::fs::create_dir(path("empty")).unwrap();
    let (status, _) = restore("empty", "new").error();
    assert_eq!(status, 3);
    let (status, _) = restore("missing", "new").error();
    assert_eq!(status, 3);
    // A damaged one.
    let log = directory.path().join("backup/0000000001.log");
    let mut bytes = std::fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    let (status, error) = restore("backup", "new").error();
    assert_eq!((status, &error["code"]), (3, &json!("damaged")));
    assert!(!directory.path().join("new").exists());
}
