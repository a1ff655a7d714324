//! The model check of the tiny world, and that it finds planted bugs.
#![expect(clippy::print_stderr, reason = "the figures of a run are for people")]

use handfast_sim::fault::Fault;
use handfast_sim::model::{Budget, Explored, explore};

const NONE: Budget = Budget { crashes: 0, restarts: 0, breaks: 0, repeats: 0, ticks: 0, aborts: 0 };

fn most() -> usize {
    let text = std::env::var("HANDFAST_STATES").ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(130_000)
}

fn holds(what: &str, budget: Budget) -> Explored {
    let explored = explore(budget, None, most()).unwrap_or_else(|found| panic!("{found:#?}"));
    eprintln!("{what}: {explored:?}");
    explored
}

#[test]
fn without_faults_every_schedule_is_visited() {
    assert!(holds("no faults", Budget { aborts: 1, ..NONE }).complete);
}

#[test]
fn with_a_crash_of_the_coordinator() {
    assert!(holds("crash", Budget { crashes: 1, aborts: 1, ..NONE }).complete);
}

#[test]
fn with_broken_streams_and_restarted_services() {
    holds("streams", Budget { breaks: 1, restarts: 1, ticks: 1, ..NONE });
}

#[test]
fn with_everything_once() {
    let one = Budget { crashes: 1, restarts: 1, breaks: 1, repeats: 1, ticks: 2, aborts: 1 };
    holds("everything", one);
}

#[test]
fn planted_bugs_are_found() {
    let budget = Budget { crashes: 1, breaks: 1, ..NONE };
    let faults = [
        (Fault::SyncNotWaitedFor, "I6"),
        (Fault::AbortSentAfterCommit, "I1"),
        (Fault::VoteBeforeRecord, "I2"),
        (Fault::CommitLostInCrash, "I"),
    ];
    for (fault, by) in faults {
        let found = explore(budget, Some(fault), 100_000).expect_err("a planted bug is found");
        eprintln!("{fault:?}: {} by {:?}", found.what, found.schedule);
        assert!(found.what.starts_with(by), "{fault:?}: {}", found.what);
    }
}
