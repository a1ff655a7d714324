//! Every pair of state and input of the specification's tables, against `table.txt` beside this
//! file. The file was read row by row against the specification; a change in it is a change of the
//! protocol. `HANDFAST_WRITE_TABLE=1` writes it anew.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use std::prelude::v1::*;

use super::bench::{
    Bench, CLIENT, SERVICE_A, SERVICE_B, STRANGER, X, begin, begin_local, branch, commit, database,
    event, name, no, text, vote_for,
};
use crate::command::{Act, BeginRequest, Command, CommitRequest, DatabaseVote, Vote, Wait};
use crate::ids::{Holder, SessionId, StateId};
use crate::input::{BranchReport, Chain, Found, Input, Resolution};
use crate::output::Output;

pub(super) type Setup = fn(&mut Bench);
type Step = fn(&mut Bench) -> Vec<Output>;

/// The states, each with the way into it. Branches are `a` and `b`, and there is one event.
pub(super) const STATES: &[(&str, &str, Setup)] = &[
    ("Absent", "-", |_| {}),
    ("Opening", "Opening", |w| {
        w.command(CLIENT, Command::Begin(Box::new(begin(X))));
    }),
    ("Collecting", "Collecting", |w| {
        w.command(CLIENT, Command::Begin(Box::new(begin(X))));
        w.accept();
    }),
    ("Collecting, a YES", "Collecting", |w| {
        w.command(CLIENT, Command::Begin(Box::new(begin(X))));
        w.accept();
        w.vote(SERVICE_A, Vote::Yes);
    }),
    ("Collecting, closed, a YES", "Collecting", closed),
    ("Deciding commit", "Deciding", deciding_commit),
    ("Deciding abort", "Deciding", |w| {
        closed(w);
        w.vote(SERVICE_B, no());
    }),
    ("Committing", "Committing", |w| {
        deciding_commit(w);
        w.accept();
        w.sync();
    }),
    ("Committing, a done", "Committing", |w| {
        deciding_commit(w);
        w.accept();
        w.sync();
        w.command(SERVICE_A, Command::Finished { id: X, committed: true });
    }),
    ("Ended, not durable", "Ended", |w| {
        deciding_commit(w);
        w.accept();
        w.sync();
        w.command(SERVICE_A, Command::Finished { id: X, committed: true });
        w.command(SERVICE_B, Command::Finished { id: X, committed: true });
        w.accept();
    }),
    ("Failed", "Failed", |w| {
        closed(w);
        w.vote(SERVICE_B, no());
        w.accept();
    }),
    ("Collecting, a database", "Collecting", database_open),
    ("Collecting, a database asked", "Collecting", |w| {
        database_open(w);
        let vote = DatabaseVote { vouched: false, ..vote_for("db") };
        w.command(CLIENT, Command::Commit { id: X, request: voting(vote) });
    }),
    ("Collecting, ready, a database unconfirmed", "Collecting", |w| {
        database_open(w);
        w.input(Input::Paused);
        w.command(CLIENT, Command::Commit { id: X, request: voting(vote_for("db")) });
    }),
    ("Committing, a database", "Committing", |w| {
        database_open(w);
        w.command(CLIENT, Command::Commit { id: X, request: voting(vote_for("db")) });
        w.settle();
    }),
    ("Committing, a database on its session", "Committing", |w| {
        database_open(w);
        w.command(CLIENT, Command::Commit { id: X, request: voting(held()) });
        w.settle();
    }),
    ("Failed, a database on its session", "Failed", |w| {
        database_open(w);
        w.command(CLIENT, Command::VoteFor { id: X, votes: vec![held()] });
        w.command(CLIENT, Command::Abort { id: X, detail: "changed my mind".into() });
        w.settle();
    }),
    ("Local opening", "Opening", |w| {
        w.command(CLIENT, Command::Begin(Box::new(begin_local(X))));
        w.accept();
    }),
    ("Local", "Local", local),
    ("Local, marker asked", "Local", |w| {
        local(w);
        let request = CommitRequest { vouched: false, ..commit(0, 1) };
        w.command(CLIENT, Command::Commit { id: X, request });
    }),
    ("Resolving", "Resolving", |w| {
        local(w);
        w.command(CLIENT, Command::Abort { id: X, detail: "not sure".into() });
    }),
    ("Local deciding commit", "Deciding", |w| {
        local(w);
        w.command(CLIENT, Command::Commit { id: X, request: commit(0, 1) });
        w.accept();
    }),
    ("Local deciding abort", "Deciding", |w| {
        local(w);
        w.command(CLIENT, Command::Abort { id: X, detail: "not sure".into() });
        w.input(Input::Resolved { id: X, resolution: Resolution::Tombstone });
    }),
];

fn closed(w: &mut Bench) {
    w.command(CLIENT, Command::Begin(Box::new(begin(X))));
    w.accept();
    w.vote(SERVICE_A, Vote::Yes);
    w.command(CLIENT, Command::Commit { id: X, request: commit(2, 1) });
}

/// One branch, in the database `db`, and an event.
fn database_open(w: &mut Bench) {
    let request = BeginRequest { branches: vec![database("db")], ..begin(X) };
    w.command(CLIENT, Command::Begin(Box::new(request)));
    w.accept();
}

fn voting(vote: DatabaseVote) -> CommitRequest {
    CommitRequest { votes: vec![vote], ..commit(1, 1) }
}

/// A vote by a client that keeps the session.
fn held() -> DatabaseVote {
    let holder = Some(Holder { connection: 5, server_start: 6 });
    DatabaseVote { holder, finishes: true, ..vote_for("db") }
}

fn deciding_commit(w: &mut Bench) {
    closed(w);
    w.vote(SERVICE_B, Vote::Yes);
}

fn local(w: &mut Bench) {
    w.command(CLIENT, Command::Begin(Box::new(begin_local(X))));
    w.accept();
    w.sync();
}

/// The inputs.
const INPUTS: &[(&str, Step)] = &[
    ("begin again", |w| w.command(CLIENT, Command::Begin(Box::new(begin(X))))),
    ("enlist c", |w| w.command(CLIENT, Command::Enlist { id: X, branches: vec![branch("c")] })),
    ("enlist a again", |w| {
        w.command(CLIENT, Command::Enlist { id: X, branches: vec![branch("a")] })
    }),
    ("stage an event", |w| {
        let events = vec![event()];
        w.command(CLIENT, Command::Stage { id: X, events, acknowledgements: vec![] })
    }),
    ("commit", |w| w.command(CLIENT, Command::Commit { id: X, request: commit(2, 1) })),
    ("commit, other count", |w| {
        w.command(CLIENT, Command::Commit { id: X, request: commit(1, 1) })
    }),
    ("abort", |w| w.command(CLIENT, Command::Abort { id: X, detail: "changed my mind".into() })),
    ("extend", |w| w.command(CLIENT, Command::Extend { id: X, deadline_ms: 60_000 })),
    ("status", |w| w.command(CLIENT, Command::Status { id: X, wait: None })),
    ("status, wait", |w| w.command(CLIENT, Command::Status { id: X, wait: Some(Wait::Decided) })),
    ("show", |w| w.command(CLIENT, Command::Show { id: X })),
    ("a votes YES", |w| w.vote(SERVICE_A, Vote::Yes)),
    ("a votes READ-ONLY", |w| w.vote(SERVICE_A, Vote::ReadOnly)),
    ("a votes NO", |w| w.vote(SERVICE_A, no())),
    ("b votes YES", |w| w.vote(SERVICE_B, Vote::Yes)),
    ("b votes READ-ONLY", |w| w.vote(SERVICE_B, Vote::ReadOnly)),
    ("b votes NO", |w| w.vote(SERVICE_B, no())),
    ("c votes YES", |w| w.vote(STRANGER, Vote::Yes)),
    ("a client votes", |w| w.vote(CLIENT, Vote::Yes)),
    ("a finished, committed", |w| {
        w.command(SERVICE_A, Command::Finished { id: X, committed: true })
    }),
    ("a finished, aborted", |w| {
        w.command(SERVICE_A, Command::Finished { id: X, committed: false })
    }),
    ("c finished, committed", |w| {
        w.command(STRANGER, Command::Finished { id: X, committed: true })
    }),
    ("a does not know it", |w| w.command(SERVICE_A, Command::NotKnown { id: X })),
    ("a could not finish", |w| {
        w.command(SERVICE_A, Command::NotFinished { id: X, reason: "no room".into() })
    }),
    ("another state of a votes YES", |w| w.impostor("a", Command::Vote { id: X, vote: Vote::Yes })),
    ("another state of a votes READ-ONLY", |w| {
        w.impostor("a", Command::Vote { id: X, vote: Vote::ReadOnly })
    }),
    ("another state of a votes NO", |w| w.impostor("a", Command::Vote { id: X, vote: no() })),
    ("another state of a finished, committed", |w| {
        w.impostor("a", Command::Finished { id: X, committed: true })
    }),
    ("another state of a finished, aborted", |w| {
        w.impostor("a", Command::Finished { id: X, committed: false })
    }),
    ("another state of a does not know it", |w| w.impostor("a", Command::NotKnown { id: X })),
    ("another state of a inquires", |w| w.impostor("a", Command::Inquire { id: X })),
    ("a service named db votes YES", |w| {
        w.impostor("db", Command::Vote { id: X, vote: Vote::Yes })
    }),
    ("a service named db votes NO", |w| w.impostor("db", Command::Vote { id: X, vote: no() })),
    ("a service named db finished, committed", |w| {
        w.impostor("db", Command::Finished { id: X, committed: true })
    }),
    ("a service named db finished, aborted", |w| {
        w.impostor("db", Command::Finished { id: X, committed: false })
    }),
    ("a service named db does not know it", |w| w.impostor("db", Command::NotKnown { id: X })),
    ("a service named db inquires", |w| w.impostor("db", Command::Inquire { id: X })),
    ("a inquires", |w| w.command(SERVICE_A, Command::Inquire { id: X })),
    ("c inquires", |w| w.command(STRANGER, Command::Inquire { id: X })),
    ("a may forget", |w| w.command(SERVICE_A, Command::MayForget { outcomes: vec![(X, None)] })),
    ("another instance of a", |w| {
        let attach =
            Command::Attach { service: name("a"), instance: name("two"), state_id: StateId(7) };
        w.command(SessionId(11), attach)
    }),
    ("the stream of a ends", |w| w.input(Input::SessionEnded { session: SERVICE_A })),
    ("the client's stream ends", |w| w.input(Input::SessionEnded { session: CLIENT })),
    ("the log accepts", Bench::accept),
    ("the log is synced", |w| {
        let mut outputs = w.accept();
        outputs.extend(w.sync());
        outputs
    }),
    ("the append is lost", |w| w.input(Input::Lost { lsn: w.core.last() })),
    ("the append is unknown", |w| w.input(Input::Unknown { lsn: w.core.last() })),
    ("the log has nothing", |w| chain(w, 0)),
    ("the log has BEGIN alone", |w| chain(w, 1)),
    ("the log has all that was appended", |w| chain(w, usize::MAX)),
    ("time to send again", |w| w.pass(1_300)),
    ("the deadline passes", |w| w.pass(30_000)),
    ("the database did it", |w| {
        let database = name("db");
        w.input(Input::BranchFinished { id: X, database, report: BranchReport::Done })
    }),
    ("the database comes back", |w| {
        w.input(Input::Database { name: name("db"), up: false });
        w.input(Input::Database { name: name("db"), up: true })
    }),
    ("the database confirms that it is ours", |w| {
        w.input(Input::Claimed { name: name("db"), asked_ms: 1_000_000 })
    }),
    ("the server stood still", |w| w.input(Input::Paused)),
    ("a vote for the database", |w| {
        w.command(CLIENT, Command::VoteFor { id: X, votes: vec![vote_for("db")] })
    }),
    ("a vote for the database, not vouched", |w| {
        let vote = DatabaseVote { vouched: false, ..vote_for("db") };
        w.command(CLIENT, Command::VoteFor { id: X, votes: vec![vote] })
    }),
    ("a vote for a", |w| w.command(CLIENT, Command::VoteFor { id: X, votes: vec![vote_for("a")] })),
    ("commit, not vouched", |w| {
        let request = CommitRequest { vouched: false, ..commit(1, 1) };
        w.command(CLIENT, Command::Commit { id: X, request })
    }),
    ("the database has it", |w| verified(w, Found::Yes)),
    ("the database does not have it", |w| verified(w, Found::No)),
    ("the database does not say", |w| verified(w, Found::Unknown)),
    ("the client finished it", |w| ended(w, CLIENT, true)),
    ("the client could not finish it", |w| ended(w, CLIENT, false)),
    ("another client finished it", |w| ended(w, SessionId(2), true)),
    ("the database holds on to it", |w| report(w, BranchReport::Held("held".into()))),
    ("the database ended it otherwise", |w| {
        report(w, BranchReport::Heuristic("rolled back".into()))
    }),
    ("the branch is asked about", |w| {
        w.command(STRANGER, Command::InquireBranch { id: X, database: name("db") })
    }),
    ("an operator aborts", |w| operate(w, Act::Abort)),
    ("an operator releases the database", |w| operate(w, Act::Release(name("db")))),
    ("an operator takes note", |w| operate(w, Act::Note)),
    ("resolved: tombstone", |w| resolved(w, Resolution::Tombstone)),
    ("resolved: committed", |w| resolved(w, Resolution::Committed)),
    ("resolved: aborted before", |w| resolved(w, Resolution::Aborted)),
    ("resolved: unknown", |w| resolved(w, Resolution::Unknown)),
];

fn verified(w: &mut Bench, found: Found) -> Vec<Output> {
    w.input(Input::Verified { id: X, database: name("db"), found })
}

fn ended(w: &mut Bench, session: SessionId, done: bool) -> Vec<Output> {
    w.command(session, Command::BranchEnded { id: X, database: name("db"), done })
}

fn report(w: &mut Bench, report: BranchReport) -> Vec<Output> {
    w.input(Input::BranchFinished { id: X, database: name("db"), report })
}

fn operate(w: &mut Bench, act: Act) -> Vec<Output> {
    w.command(STRANGER, Command::Operate { id: X, act, detail: "by hand".into() })
}

fn resolved(w: &mut Bench, resolution: Resolution) -> Vec<Output> {
    w.input(Input::Resolved { id: X, resolution })
}

fn chain(w: &mut Bench, most: usize) -> Vec<Output> {
    let of_x = w.log.iter().filter(|(_, r)| r.transaction() == Some(X));
    let records = of_x.take(most).cloned().collect();
    let lost = w.input(Input::Lost { lsn: w.core.last() });
    let mut outputs = w.input(Input::Chain { id: X, chain: Chain { records, whole: true } });
    outputs.splice(0..0, lost);
    outputs
}

fn row(setup: Setup, step: Step) -> String {
    let mut bench = Bench::new();
    setup(&mut bench);
    let outputs = step(&mut bench);
    format!("{} | {}", bench.phase(), text(&outputs))
}

#[test]
fn every_pair_of_state_and_input() {
    let mut found = String::new();
    for (state, phase, setup) in STATES {
        let mut bench = Bench::new();
        setup(&mut bench);
        assert_eq!(bench.phase(), *phase, "{state} is not what its name says");
        found.push_str(&format!("## {state}\n"));
        for (input, step) in INPUTS {
            found.push_str(&format!("{input} | {}\n", row(*setup, *step)));
        }
        found.push('\n');
    }
    if std::env::var_os("HANDFAST_WRITE_TABLE").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/coordinator/tests/table.txt");
        std::fs::write(path, &found).unwrap();
    }
    let expected = rows(include_str!("table.txt"));
    let found = rows(&found);
    assert_eq!(expected.len(), STATES.len() * INPUTS.len(), "every pair stands in the table");
    for (pair, expect) in &expected {
        assert_eq!(found.get(pair), Some(expect), "{pair:?}");
    }
}

fn rows(text: &str) -> BTreeMap<(String, String), String> {
    let mut rows = BTreeMap::new();
    let mut state = String::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(name) = line.strip_prefix("## ") {
            state = name.to_string();
        } else {
            let (input, rest) = line.split_once(" | ").expect("input | next | effects");
            rows.insert((state.clone(), input.to_string()), rest.to_string());
        }
    }
    rows
}
