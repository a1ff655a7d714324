//! Benchmarks, each as small as it can be: that they run, prove what they did, and say it in the
//! form that programs read. No figure is compared with anything: machines differ.

use serde_json::Value;

use crate::harness::run;

/// Runs a benchmark; its report.
#[track_caller]
fn report(line: &str) -> Value {
    let arguments: Vec<&str> = line.split(' ').collect();
    let report = run(&arguments).json();
    assert_eq!((&report["ok"], &report["problems"]), (&true.into(), &Vec::<u8>::new().into()));
    assert_eq!(report["bench"], arguments[1]);
    for field in ["version", "kernel", "cores", "time"] {
        assert!(!report["machine"][field].is_null(), "{field}: {report}");
    }
    assert!(report["settings"].is_object(), "{report}");
    report
}

#[track_caller]
fn has(document: &Value, fields: &[&str]) {
    for field in fields {
        let found = field.split('.').fold(document, |inner, name| &inner[name]);
        assert!(!found.is_null(), "{field} is missing: {document}");
    }
}

const PERCENTILES: [&str; 7] = ["samples", "mean", "p50", "p90", "p99", "p99_9", "max"];
const JOURNAL: [&str; 6] =
    ["groups", "records", "records_per_group", "group_us", "written_bytes", "written_bytes_each"];
const PROCESS: [&str; 4] = ["name", "cpu_seconds", "cpu_us_each", "peak_memory_bytes"];

#[track_caller]
fn has_resources(resources: &Value, processes: &[&str]) {
    has(resources, &["cpu_us_each"]);
    has(&resources["journal"], &JOURNAL);
    let found = resources["processes"].as_array().unwrap();
    found.iter().for_each(|process| has(process, &PROCESS));
    assert_eq!(found.iter().map(|process| &process["name"]).collect::<Vec<_>>(), processes);
}

const SERVER_AND_TWO: [&str; 4] = ["server", "participant 1", "participant 2", "client"];

#[test]
fn transactions_across_processes() {
    let report = report("bench tx --concurrency 1,8 --seconds 1 --json");
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2, "one for each concurrency: {report}");
    for run in runs {
        has(run, &["concurrency", "seconds", "committed", "committed_per_second"]);
        has(&run["latency_us"], &PERCENTILES);
        has_resources(&run["resources"], &SERVER_AND_TWO);
        assert!(run["rate"].is_null() && run["failed"] == 0, "{run}");
        assert!(run["events_read_back"].as_u64() >= run["committed"].as_u64(), "{run}");
    }
}

#[test]
fn transactions_at_a_rate_of_which_some_are_refused() {
    let report = report(
        "bench tx --rate 100 --seconds 1 --abort-percent 25 --durable-votes --wait finished \
         --events 2 --json",
    );
    let run = &report["runs"][0];
    has(&run["latency_us"], &PERCENTILES);
    assert_eq!((&run["rate"], &report["settings"]["wait"]), (&100.into(), &"finished".into()));
    assert!(run["failed"].as_u64() > Some(0), "{run}");
    // Each that was due counts, whenever it was done.
    assert_eq!(run["latency_us"]["samples"], 100);
}

#[test]
fn transactions_that_are_twice_as_many_as_can_be_done() {
    let report = report("bench tx --overload --concurrency 4 --seconds 1 --json");
    let runs = report["runs"].as_array().unwrap();
    let due: Vec<bool> = runs.iter().map(|run| run["rate"].is_u64()).collect();
    let wanted = [false, true, false, true, false];
    assert_eq!(due, wanted, "what is done at most stands on both sides of each: {report}");
    for run in [&runs[0], &runs[2], &runs[4]] {
        assert!(run["refusals"] == serde_json::json!({}) && run["of_peak"].is_null(), "{run}");
    }
    has(&runs[1], &["of_peak", "refused_per_second", "refusals.too_many_transactions"]);
    has(&runs[1]["latency_us"], &PERCENTILES);
    has_resources(&runs[1]["resources"], &SERVER_AND_TWO);
    let hints = runs[1]["retry_after_ms"].as_array().unwrap();
    assert!(hints.iter().all(|ms| ms.as_u64() > Some(0)), "{hints:?}");
    // Those who come again are all done in the end.
    assert!(runs[3]["came_again"] == true && runs[3]["refusals"] == serde_json::json!({}));
    has(&runs[3], &["of_peak"]);
    assert!(runs[3]["refused_by_server"].as_u64() > Some(0), "{}", runs[3]);
}

#[test]
fn transactions_in_one_process() {
    let report = report("bench tx --in-process --concurrency 8 --seconds 1 --json");
    let run = &report["runs"][0];
    has(&run["latency_us"], &PERCENTILES);
    has_resources(&run["resources"], &["all in one"]);
}

#[test]
fn events_to_groups() {
    let published = report("bench events --in-flight 8 --groups 2 --seconds 1 --json");
    let run = &published["runs"][0];
    has(run, &["in_flight", "events", "events_per_second", "requests_per_second"]);
    has(&run["publish_latency_us"], &PERCENTILES);
    has_resources(&run["resources"], &["server", "consumer 1", "consumer 2", "publishers"]);
    let groups = run["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 2);
    groups.iter().for_each(|group| has(&group["delivery_latency_us"], &PERCENTILES));

    let in_tx = report(
        "bench events --in-tx --publishers 2 --in-flight 4 --groups 1 --size 100 --seconds 1 --json",
    );
    assert!(in_tx["runs"][0]["in_tx"] == true, "{in_tx}");
}

#[test]
fn transactions_over_databases_beside_the_same_by_hand() {
    let report = report("bench db --concurrency 2 --seconds 1 --json");
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 6, "six ways: {report}");
    for run in runs {
        has(run, &["way", "concurrency", "committed", "committed_per_second", "ratio"]);
        has(&run["latency_us"], &PERCENTILES);
    }
}

#[test]
fn the_journal_beside_a_bare_loop() {
    let report = report("bench journal --outstanding 16 --seconds 1 --json");
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(runs.iter().map(|run| &run["writer"]).collect::<Vec<_>>(), ["bare", "journal"]);
    for run in runs {
        has(run, &["outstanding", "records_per_second", "ratio", "records_per_group"]);
        has(&run["latency_us"], &PERCENTILES);
    }
}

#[test]
fn a_store_that_is_killed_and_started_again() {
    let report = report("bench restart --gib 0.1 --open 2000 --times 2 --json");
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    for run in runs {
        has(run, &["ready_seconds", "store_bytes", "peak_memory_bytes", "cpu_seconds"]);
        assert_eq!(run["open"], 2_000);
    }
}

#[test]
fn transactions_beside_idle_connections() {
    let report = report("bench idle --connections 50 --concurrency 4 --seconds 1 --json");
    let run = &report["runs"][0];
    has(run, &["peak_memory_before_bytes", "peak_memory_after_bytes", "idle_cpu", "rate_ratio"]);
    for when in ["before", "beside", "after"] {
        has(&run[when]["latency_us"], &PERCENTILES);
    }
    assert!(run["streams"].as_u64() >= Some(50), "{run}");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    for line in [
        "bench",
        "bench tx --in-process --server http://127.0.0.1:1",
        "bench tx --seconds 0",
        "bench tx --overload --rate 100",
        "bench db --postgres postgres://h/d",
        "bench idle --connections 0",
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        assert_eq!(run(&arguments).sentence().0, 2, "{line}");
    }
}
