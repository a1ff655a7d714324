//! Every pair of a state and an input, written down as the specification has it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::BranchState::{Aborted, Committed, None, Prepared, Working};
use super::*;

const STATES: [BranchState; 5] = [None, Working, Prepared, Committed, Aborted];

/// An input as the table below writes it.
const INPUTS: [(&str, BranchInput); 15] = [
    ("start", BranchInput::Start),
    ("prepare", BranchInput::Prepare { has_work: false, maybe_forgotten: false }),
    ("prepare work", BranchInput::Prepare { has_work: true, maybe_forgotten: false }),
    ("old prepare", BranchInput::Prepare { has_work: false, maybe_forgotten: true }),
    ("old prepare work", BranchInput::Prepare { has_work: true, maybe_forgotten: true }),
    ("done", BranchInput::WorkDone),
    ("read-only", BranchInput::WorkReadOnly),
    ("failed", BranchInput::WorkFailed { reason: String::new(), retryable: false }),
    ("commit", BranchInput::Commit),
    ("abort", BranchInput::Abort),
    ("inquiry timer", BranchInput::InquiryTimer),
    ("restart", BranchInput::Restart),
    ("timeout", BranchInput::Timeout),
    ("disconnect", BranchInput::Disconnect),
    ("forget", BranchInput::Forget),
];

/// State, input, row, next state, outputs in the order in which they happen.
#[rustfmt::skip]
const TABLE: &[(BranchState, &str, &str, BranchState, &str)] = &[
    (None,      "start",            "P1",  Working,   ""),
    (None,      "prepare",          "P2",  Aborted,   "tombstone, NO"),
    (None,      "prepare work",     "P1",  Working,   "do the work"),
    (None,      "old prepare",      "P2",  None,      "NO"),
    (None,      "old prepare work", "P2",  None,      "NO"),
    (None,      "done",             "-",   None,      ""),
    (None,      "read-only",        "-",   None,      ""),
    (None,      "failed",           "-",   None,      ""),
    (None,      "commit",           "P10", None,      "unknown transaction"),
    (None,      "abort",            "P9",  Aborted,   "tombstone, acknowledge abort"),
    (None,      "inquiry timer",    "-",   None,      ""),
    (None,      "restart",          "-",   None,      ""),
    (None,      "timeout",          "-",   None,      ""),
    (None,      "disconnect",       "-",   None,      ""),
    (None,      "forget",           "-",   None,      ""),

    (Working,   "start",            "-",   Working,   ""),
    (Working,   "prepare",          "P3",  Working,   "finish the work"),
    (Working,   "prepare work",     "P3",  Working,   "finish the work"),
    (Working,   "old prepare",      "P3",  Working,   "finish the work"),
    (Working,   "old prepare work", "P3",  Working,   "finish the work"),
    (Working,   "done",             "P1",  Prepared,  "record with the work, YES"),
    (Working,   "read-only",        "P1",  None,      "READ-ONLY"),
    (Working,   "failed",           "P2",  Aborted,   "tombstone, NO"),
    (Working,   "commit",           "P10", Working,   "unknown transaction"),
    (Working,   "abort",            "P4",  Aborted,   "tombstone, acknowledge abort"),
    (Working,   "inquiry timer",    "-",   Working,   ""),
    (Working,   "restart",          "P4",  Aborted,   "tombstone"),
    (Working,   "timeout",          "P4",  Aborted,   "tombstone"),
    (Working,   "disconnect",       "P4",  Aborted,   "tombstone"),
    (Working,   "forget",           "-",   Working,   ""),

    (Prepared,  "start",            "-",   Prepared,  ""),
    (Prepared,  "prepare",          "P5",  Prepared,  "YES"),
    (Prepared,  "prepare work",     "P5",  Prepared,  "YES"),
    (Prepared,  "old prepare",      "P5",  Prepared,  "YES"),
    (Prepared,  "old prepare work", "P5",  Prepared,  "YES"),
    (Prepared,  "done",             "-",   Prepared,  ""),
    (Prepared,  "read-only",        "-",   Prepared,  ""),
    (Prepared,  "failed",           "-",   Prepared,  ""),
    (Prepared,  "commit",           "P6",  Committed, "apply, acknowledge commit"),
    (Prepared,  "abort",            "P7",  Aborted,   "undo, acknowledge abort"),
    (Prepared,  "inquiry timer",    "P8",  Prepared,  "inquire"),
    (Prepared,  "restart",          "P8",  Prepared,  "inquire"),
    (Prepared,  "timeout",          "-",   Prepared,  ""),
    (Prepared,  "disconnect",       "-",   Prepared,  ""),
    (Prepared,  "forget",           "-",   Prepared,  ""),

    (Committed, "start",            "-",   Committed, ""),
    (Committed, "prepare",          "P11", Committed, "YES"),
    (Committed, "prepare work",     "P11", Committed, "YES"),
    (Committed, "old prepare",      "P11", Committed, "YES"),
    (Committed, "old prepare work", "P11", Committed, "YES"),
    (Committed, "done",             "-",   Committed, ""),
    (Committed, "read-only",        "-",   Committed, ""),
    (Committed, "failed",           "-",   Committed, ""),
    (Committed, "commit",           "P11", Committed, "acknowledge commit"),
    (Committed, "abort",            "P13", Committed, "acknowledge commit, agreement violated"),
    (Committed, "inquiry timer",    "-",   Committed, ""),
    (Committed, "restart",          "-",   Committed, ""),
    (Committed, "timeout",          "-",   Committed, ""),
    (Committed, "disconnect",       "-",   Committed, ""),
    (Committed, "forget",           "F",   None,      "forget"),

    (Aborted,   "start",            "-",   Aborted,   ""),
    (Aborted,   "prepare",          "P12", Aborted,   "NO again"),
    (Aborted,   "prepare work",     "P12", Aborted,   "NO again"),
    (Aborted,   "old prepare",      "P12", Aborted,   "NO again"),
    (Aborted,   "old prepare work", "P12", Aborted,   "NO again"),
    (Aborted,   "done",             "-",   Aborted,   ""),
    (Aborted,   "read-only",        "-",   Aborted,   ""),
    (Aborted,   "failed",           "-",   Aborted,   ""),
    (Aborted,   "commit",           "P13", Aborted,   "acknowledge abort, agreement violated"),
    (Aborted,   "abort",            "P12", Aborted,   "acknowledge abort"),
    (Aborted,   "inquiry timer",    "-",   Aborted,   ""),
    (Aborted,   "restart",          "-",   Aborted,   ""),
    (Aborted,   "timeout",          "-",   Aborted,   ""),
    (Aborted,   "disconnect",       "-",   Aborted,   ""),
    (Aborted,   "forget",           "F",   None,      "forget"),
];

fn row_name(row: Row) -> String {
    match row {
        Row::Ignored(reason) => {
            assert!(!reason.is_empty());
            "-".to_string()
        }
        Row::Forget => "F".to_string(),
        named => format!("{named:?}"),
    }
}

fn outputs(step: &Step) -> String {
    let mut all = Vec::new();
    all.extend(step.work.map(|work| match work {
        Work::Do => "do the work",
        Work::Finish => "finish the work",
    }));
    all.extend(step.durable.map(|durable| match durable {
        Durable::Prepare => "record with the work",
        Durable::Apply => "apply",
        Durable::Undo => "undo",
        Durable::Tombstone => "tombstone",
        Durable::Forget => "forget",
    }));
    all.extend(step.then.as_ref().map(|Held(answer)| match answer {
        Answer::Vote(Vote::Yes) => "YES",
        Answer::Vote(Vote::ReadOnly) => "READ-ONLY",
        Answer::Vote(Vote::No { .. }) => "NO",
        Answer::NoAsRecorded => "NO again",
        Answer::Finished { committed: true } => "acknowledge commit",
        Answer::Finished { committed: false } => "acknowledge abort",
        Answer::NotKnown => "unknown transaction",
        Answer::Inquire => "inquire",
    }));
    all.extend(step.attention);
    all.join(", ")
}

fn pairs() -> impl Iterator<Item = (BranchState, &'static str, Step)> {
    STATES.into_iter().flat_map(|state| {
        INPUTS.into_iter().map(move |(name, input)| (state, name, step(state, input)))
    })
}

#[test]
fn every_pair_follows_its_row() {
    assert_eq!(TABLE.len(), STATES.len() * INPUTS.len());
    for ((state, input, taken), line) in pairs().zip(TABLE) {
        let found = (state, input, &*row_name(taken.row), taken.next, &*outputs(&taken));
        assert_eq!(found, *line);
    }
}

#[test]
fn what_is_recorded_is_the_next_state() {
    for (state, input, taken) in pairs() {
        if let Some(durable) = taken.durable {
            assert_eq!(durable.records().unwrap_or(None), taken.next, "{state:?} {input}");
        } else {
            // A durable state never changes without a durable step.
            let is_durable = |s| matches!(s, Prepared | Committed | Aborted);
            assert!(taken.next == state || !is_durable(state), "{state:?} {input}");
            assert!(!is_durable(taken.next) || taken.next == state, "{state:?} {input}");
        }
    }
}

#[test]
fn answers_tell_the_state_that_stands() {
    for (state, input, taken) in pairs() {
        let Some(held) = taken.then else { continue };
        let stands = match held.release(&Synced::now()) {
            Answer::Vote(Vote::Yes) => matches!(taken.next, Prepared | Committed),
            Answer::Vote(Vote::ReadOnly) => taken.next == None,
            // An old transaction is refused without a record of its own.
            Answer::Vote(Vote::No { .. }) => {
                taken.next == Aborted || (taken.next == None && input.starts_with("old"))
            }
            Answer::NoAsRecorded => taken.next == Aborted,
            Answer::Finished { committed: true } => taken.next == Committed,
            Answer::Finished { committed: false } => taken.next == Aborted,
            Answer::NotKnown => matches!(taken.next, None | Working),
            Answer::Inquire => taken.next == Prepared,
        };
        assert!(stands, "{state:?} {input}");
    }
}

#[test]
fn nothing_but_a_decision_ends_a_prepared_branch_and_nothing_changes_an_outcome() {
    for (state, input, taken) in pairs() {
        match state {
            None | Working => {}
            Prepared => assert_eq!(taken.next != Prepared, matches!(input, "commit" | "abort")),
            Committed | Aborted => assert_eq!(taken.next != state, input == "forget"),
        }
        assert_eq!(taken.next == Committed, {
            (state == Prepared && input == "commit") || (state == Committed && input != "forget")
        });
    }
}

#[test]
fn the_reason_of_a_failed_work_is_voted() {
    let failed = BranchInput::WorkFailed { reason: "no such account".to_string(), retryable: true };
    let held = step(Working, failed).then.expect("a failed work is a NO");
    let no = Vote::No { reason: "no such account".to_string(), retryable: true };
    assert_eq!(held.release(&Synced::now()), Answer::Vote(no));
}
