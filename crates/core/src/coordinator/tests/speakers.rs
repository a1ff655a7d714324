//! Who may speak for a branch: the durable state of its service that holds it, and nobody else who
//! has the name in common. Messages of participants, all of them.

use alloc::vec;
use std::prelude::v1::*;

use super::bench::{
    Bench, CLIENT, IMPOSTOR, SERVICE_A, X, begin, branch, commit, database, name, no, text,
    vote_for,
};
use super::table::STATES;
use crate::command::{BeginRequest, Command, CommitRequest, Vote};
use crate::input::{BranchReport, Chain, Input};
use crate::output::{Output, Reply};

/// Whatever a stream says that does not speak for the branch leaves the transaction as it is, in
/// every state. (`not_known` of another durable state ended a branch that was alive, and a service
/// with the name of a database voted for it: no test let two that have one name in common speak.)
#[test]
fn nobody_speaks_for_the_branch_of_another() {
    let vote = |vote| Command::Vote { id: X, vote };
    let messages = [
        vote(Vote::Yes),
        vote(Vote::ReadOnly),
        vote(no()),
        Command::Finished { id: X, committed: true },
        Command::Finished { id: X, committed: false },
        Command::NotKnown { id: X },
        Command::NotFinished { id: X, reason: "no room".into() },
        Command::Inquire { id: X },
    ];
    for (state, _, setup) in STATES {
        for service in ["a", "db", "stranger"] {
            for message in &messages {
                let mut bench = Bench::new();
                setup(&mut bench);
                // Where nobody was asked yet, any state of `a` may be the first to speak for it.
                if service == "a" && !bench.is_bound("a") {
                    continue;
                }
                bench.attach_impostor(service);
                let (before, appended) = (bench.transaction(), bench.log.len());
                let outputs = bench.command(IMPOSTOR, message.clone());
                let what = format!("{state}: {service}: {message:?}: {}", text(&outputs));
                assert_eq!(bench.transaction(), before, "{what}");
                assert_eq!(bench.log.len(), appended, "{what}");
                let to_itself = |o: &Output| match o {
                    Output::Reply { to, .. } => to.session == IMPOSTOR,
                    Output::ToService { session, .. } => *session == IMPOSTOR,
                    Output::ReadChain { .. } => true,
                    _ => false,
                };
                assert!(outputs.iter().all(to_itself), "{what}");
                assert!(!text(&outputs).contains("commit to"), "{what}");
            }
        }
    }
}

/// C12: only the durable state that holds the branch can say that it has lost it. (A stream of
/// another state ended a live branch as lost: no test had two states of one service.)
#[test]
fn c12_another_state_of_the_service_has_not_lost_the_branch() {
    let mut w = Bench::new();
    let request =
        BeginRequest { branches: vec![branch("a")], commit: Some(commit(1, 1)), ..begin(X) };
    w.command(CLIENT, Command::Begin(Box::new(request)));
    w.accept();
    w.vote(SERVICE_A, Vote::Yes);
    w.settle();
    let outputs = w.impostor("a", Command::NotKnown { id: X });
    assert_eq!(
        (text(&outputs).as_str(), w.phase().as_str()),
        ("refused wrong_state", "Committing")
    );
    let outputs = w.command(SERVICE_A, Command::Finished { id: X, committed: true });
    assert_eq!(text(&outputs), "done, append END");
    let clean = |o: &Output| matches!(o, Output::Reply { reply: Reply::Outcome(outcome), .. } if !outcome.heuristic);
    assert!(w.settle().iter().any(clean));
}

/// C15: of two participants with one name, the log's answer is to the one that voted.
#[test]
fn c15_a_service_is_not_told_the_decision_of_a_database() {
    let mut w = Bench::new();
    let request = BeginRequest { branches: vec![database("db")], ..begin(X) };
    w.command(CLIENT, Command::Begin(Box::new(request)));
    w.accept();
    let request = CommitRequest { votes: vec![vote_for("db")], ..commit(1, 1) };
    w.command(CLIENT, Command::Commit { id: X, request });
    w.settle();
    let report = BranchReport::Done;
    w.input(Input::BranchFinished { id: X, database: name("db"), report });
    w.settle();
    assert_eq!(w.phase(), "-");
    let of_x = w.log.iter().filter(|(_, r)| r.transaction() == Some(X)).cloned();
    let chain = Chain { records: of_x.collect(), whole: true };
    w.impostor("db", Command::Inquire { id: X });
    assert_eq!(text(&w.input(Input::Chain { id: X, chain })), "abort to ?");
}
