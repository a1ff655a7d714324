//! The demo as a person runs it: the real program, its exit status and its report.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn demo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_handfast"))
        .arg("demo")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

fn report(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    assert!(!errors.contains('\x1b'), "no escape codes where there is no terminal: {errors}");
    serde_json::from_slice(&output.stdout).expect("stdout is one JSON document")
}

fn figure(report: &Value, name: &str) -> i64 {
    report[name].as_i64().unwrap_or_else(|| panic!("{name} is a whole number in {report}"))
}

fn check(report: &Value, transfers: i64) {
    assert_eq!(figure(report, "transfers"), transfers, "{report}");
    assert_eq!(figure(report, "committed") + figure(report, "failed"), transfers, "{report}");
    assert_eq!(figure(report, "events"), figure(report, "committed"), "{report}");
    assert_eq!(figure(report, "money_before"), figure(report, "money_after"), "{report}");
    assert_eq!(figure(report, "duplicates"), 0, "{report}");
    assert_eq!(figure(report, "in_doubt"), 0, "{report}");
    assert!(report["seconds"].as_f64().is_some(), "{report}");
    let proofs = report["proofs"].as_object().expect("the proofs by their names");
    assert!(!proofs.is_empty() && proofs.values().all(|proof| proof == true), "{report}");
    assert_eq!(report["ok"], true, "{report}");
}

#[test]
fn transfers_survive_kills() {
    let output = demo(&["--transfers", "200", "--kills", "4", "--seed", "7", "--json"]);
    let report = report(&output);
    check(&report, 200);
    assert_eq!(figure(&report, "kills"), 4, "{report}");
    assert_eq!(figure(&report, "restarts"), 4, "{report}");
    assert_eq!(figure(&report, "joined"), 1, "{report}");
    assert_eq!(figure(&report, "left"), 1, "{report}");
    assert_eq!(figure(&report, "seed"), 7, "{report}");
    assert!(figure(&report, "committed") > 0 && figure(&report, "failed") > 0, "{report}");
}

#[test]
fn a_person_s_own_transfers() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("transfers.csv");
    // 100.00 each at the start: ann can pay 60.00 once, whichever of the two comes first. Nobody is
    // killed, because what a restart aborts stays reserved for a moment, and then both could fail.
    let text = "from,to,cents\nann,bob,6000\nann,bob,6000\neast-1,east-2,100\nwest-1,ann,1\n\
                west-1,east-1,10001\n";
    fs::write(&file, text).expect("it is ours");
    let kept = dir.path().join("kept");
    let path = |path: &Path| path.to_str().expect("the directory's name is text").to_owned();
    let output = demo(&[
        "--input",
        &path(&file),
        "--kills",
        "0",
        "--seed",
        "1",
        "--json",
        "--dir",
        &path(&kept),
    ]);
    let report = report(&output);
    check(&report, 5);
    assert_eq!(figure(&report, "committed"), 3, "{report}");
    assert_eq!(figure(&report, "failed"), 2, "{report}");
    assert_eq!(figure(&report, "money_before"), 50_000, "{report}");
    assert_eq!(figure(&report, "kills"), 0, "{report}");
    assert!(kept.join("logs").join("server.log").exists(), "a directory that was given stays");

    let again = demo(&["--dir", &path(&kept)]);
    assert_eq!(again.status.code(), Some(2), "it is not empty any more");
}

#[test]
fn a_bad_file_is_refused_before_anything_starts() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("transfers.csv");
    fs::write(&file, "from,to,cents\na,b,100\na,b,much\n").expect("it is ours");
    let file = file.to_str().expect("the directory's name is text");
    let output = demo(&["--input", file]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("line 3") && errors.contains("\"much\""), "{errors}");

    let output = demo(&["--input", file, "--json"]);
    assert_eq!(output.status.code(), Some(2));
    let error: Value = serde_json::from_slice(&output.stderr).expect("errors are JSON as well");
    assert_eq!(error["error"]["exit_status"], 2, "{error}");
}

#[test]
fn a_table_for_people() {
    let output = demo(&["--transfers", "20", "--kills", "0", "--seed", "2"]);
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(text.contains("no money was lost or made") && text.contains("Try next"), "{text}");
    assert!(!text.contains('\x1b') && !errors.contains('\x1b'), "{text}{errors}");
    assert!(errors.contains("joins east") && errors.contains("leaves east"), "{errors}");
}

/// Once, a subscriber got exactly as many events as it had credit (256) and then no more, because
/// each side left it to the other to give the credit back. With a kill of the server now and then
/// nobody noticed, since a new stream starts with new credit; so here nobody is killed.
#[test]
fn more_events_than_a_subscriber_has_credit() {
    let output = demo(&["--transfers", "600", "--kills", "0", "--seed", "5", "--json"]);
    let report = report(&output);
    check(&report, 600);
    assert!(figure(&report, "events") > 256, "{report}");
}
