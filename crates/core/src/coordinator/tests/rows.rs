//! Rows that need more than one step, each named after its row.

use alloc::vec;
use std::prelude::v1::*;

use super::bench::{
    Bench, CLIENT, SERVICE_A, SERVICE_B, STRANGER, X, begin, begin_local, commit, event, name, no,
    service, text, vote_for,
};
use crate::command::{Act, BeginRequest, BranchRequest, Command, CommitRequest, Vote, Wait};
use crate::event::EventRequest;
use crate::ids::{Began, Lsn, StateId, StoreId, TransactionId};
use crate::input::{BranchReport, Chain, Input, Resolution};
use crate::limits::{BATCH_ITEMS, BRANCHES, Limits, REASON_BYTES};
use crate::output::{Output, Reply, ToService};
use crate::record::{IdempotencyKey, Participant, ParticipantKind, Record};
use crate::view::TransactionView;

fn run_of(bench: &mut Bench, branches: &[&str]) -> Vec<Output> {
    let mut request = begin(X);
    request.branches = branches.iter().map(|b| super::bench::branch(b)).collect();
    request.commit = Some(commit(u32::try_from(branches.len()).unwrap(), 1));
    bench.command(CLIENT, Command::Begin(Box::new(request)))
}

/// C16 for each chain that a crash can leave.
#[test]
fn c16_a_restart_goes_on_by_what_the_chain_says() {
    // BEGIN without a decision: aborted, whatever the votes were.
    let mut w = Bench::new();
    w.command(CLIENT, Command::Begin(Box::new(begin(X))));
    w.settle();
    w.vote(SERVICE_A, Vote::Yes);
    w.vote(SERVICE_B, Vote::Yes);
    let (mut again, outputs) = w.restart();
    assert_eq!(text(&outputs), "append ABORT");
    assert_eq!(text(&again.settle()), "append END");
    assert_eq!(again.phase(), "-");

    // COMMIT: the updaters are told when they come back, and the client may ask.
    let mut w = Bench::new();
    run_of(&mut w, &["a", "b"]);
    w.accept();
    w.vote(SERVICE_A, Vote::Yes);
    w.vote(SERVICE_B, Vote::ReadOnly);
    w.accept();
    w.sync();
    let (mut again, outputs) = w.restart();
    assert_eq!(text(&outputs), "nothing");
    assert_eq!(again.phase(), "Committing");
    let attach = Command::Attach { service: name("a"), instance: name("x"), state_id: StateId(7) };
    assert_eq!(text(&again.command(SERVICE_A, attach)), "done, commit to a");
    let wait = Some(Wait::Finished);
    assert_eq!(text(&again.command(CLIENT, Command::Status { id: X, wait })), "nothing");
    let finished = Command::Finished { id: X, committed: true };
    assert_eq!(text(&again.command(SERVICE_A, finished)), "done, append END");
    assert_eq!(text(&again.settle()), "Committed");

    // A decision that is not durable is not there after the crash, and was told to nobody.
    let mut w = Bench::new();
    run_of(&mut w, &["a"]);
    w.settle();
    assert_eq!(text(&w.vote(SERVICE_A, Vote::Yes)), "done, append COMMIT");
    assert_eq!(text(&w.accept()), "nothing");
    let (_, outputs) = w.restart();
    assert_eq!(text(&outputs), "append ABORT");
}

/// C16, local: it has its whole deadline again, and nobody but its database says how it ended.
#[test]
fn c16_a_local_transaction_survives_the_restart() {
    let mut w = Bench::new();
    w.command(CLIENT, Command::Begin(Box::new(begin_local(X))));
    w.settle();
    w.pass(20_000);
    let (mut again, outputs) = w.restart();
    assert_eq!((text(&outputs).as_str(), again.phase().as_str()), ("nothing", "Local"));
    again.input(Input::Database { name: name("db"), up: true });
    assert_eq!(text(&again.pass(20_000)), "nothing");
    assert_eq!(text(&again.pass(10_000)), "resolve");
    let resolved = Input::Resolved { id: X, resolution: Resolution::Committed };
    assert_eq!(text(&again.input(resolved)), "append COMMIT");
    again.settle();
    let commits = again.log.iter().filter(|(_, r)| matches!(r, Record::Commit(_)));
    assert_eq!(commits.map(|(_, r)| r.events().len()).collect::<Vec<_>>(), [1]);
}

/// C5, I1: a server that had stood still, or had only just started, decided to commit although another
/// life of the store had taken its place meanwhile and rolled the branch back. Now the database has
/// to confirm first; an answer to a question of before does not count.
#[test]
fn c5_a_commit_waits_until_its_databases_have_confirmed() {
    let database = || super::bench::database("db");
    let begun = |w: &mut Bench| {
        let request = BeginRequest { branches: vec![database()], events: vec![], ..begin(X) };
        w.command(CLIENT, Command::Begin(Box::new(request)));
        w.settle();
    };
    let request = CommitRequest { votes: vec![vote_for("db")], ..commit(1, 0) };
    let commit = || Command::Commit { id: X, request: request.clone() };
    let claimed = |asked_ms| Input::Claimed { name: name("db"), asked_ms };

    let mut w = Bench::new();
    begun(&mut w);
    w.pass(10);
    let asked_ms = w.now.mono_ms;
    w.pass(10);
    w.input(Input::Paused);
    assert_eq!(text(&w.command(CLIENT, commit())), "nothing");
    assert_eq!(text(&w.input(claimed(asked_ms))), "nothing", "asked before it stood still");
    assert_eq!(text(&w.input(claimed(w.now.mono_ms + 1))), "append COMMIT");
    assert_eq!(text(&w.settle()), "commit in database");

    // It is decided otherwise at its deadline, and the claim that comes later changes nothing.
    let mut w = Bench::new();
    begun(&mut w);
    w.input(Input::Paused);
    w.command(CLIENT, commit());
    assert_eq!(text(&w.pass(30_000)), "append ABORT");
    let outputs = w.settle();
    assert_eq!(text(&outputs), "Failed (deadline_passed), roll back in database");
    let detail = outputs.iter().find_map(|output| match output {
        Output::Reply { reply: Reply::Outcome(outcome), .. } => outcome.reason.clone(),
        _ => None,
    });
    assert!(detail.unwrap().detail.contains("had not confirmed"));
    assert_eq!(text(&w.input(claimed(w.now.mono_ms + 1))), "nothing");

    // After a restart nothing is confirmed yet; services do not wait for a database of others.
    let (mut w, _) = Bench::new().restart();
    w.input(Input::Database { name: name("db"), up: true });
    begun(&mut w);
    assert_eq!(text(&w.command(CLIENT, commit())), "nothing");
    assert_eq!(text(&w.input(claimed(0))), "append COMMIT");
}

/// C2, C5: everything in one call, with nobody to ask, is decided at once.
#[test]
fn c5_events_alone_commit_in_one_call() {
    let mut w = Bench::new();
    assert_eq!(text(&run_of(&mut w, &[])), "append BEGIN");
    assert_eq!(text(&w.accept()), "append COMMIT");
    // C10: nobody has to be told, so END goes with it.
    assert_eq!(text(&w.accept()), "append END");
    assert_eq!(text(&w.accept()), "nothing");
    assert_eq!(text(&w.sync()), "Committed");
    assert_eq!(text(&w.settle()), "nothing");
}

/// C5, C10: a decision is told only when it is durable, `Committed` only when END is; whoever asks is
/// told that all have finished as soon as they have.
#[test]
fn i6_nobody_is_told_before_it_is_durable() {
    let mut w = Bench::new();
    run_of(&mut w, &["a"]);
    w.accept();
    w.vote(SERVICE_A, Vote::Yes);
    assert_eq!(text(&w.accept()), "nothing");
    let status = Command::Status { id: X, wait: None };
    assert_eq!(text(&w.command(CLIENT, status.clone())), "Preparing");
    assert_eq!(text(&w.command(SERVICE_A, Command::Inquire { id: X })), "done, pending to a");
    assert_eq!(text(&w.sync()), "commit to a");
    assert_eq!(text(&w.command(CLIENT, status.clone())), "Committing");
    let finished = Command::Finished { id: X, committed: true };
    assert_eq!(text(&w.command(SERVICE_A, finished)), "done, append END");
    w.accept();
    assert_eq!(text(&w.command(CLIENT, status)), "Committing, finished");
    assert_eq!(text(&w.sync()), "Committed");
}

/// C5: `wait = decided` is answered at the decision, the default when all have finished or after
/// five seconds.
#[test]
fn c5_the_caller_chooses_how_long_it_waits() {
    let mut w = Bench::new();
    run_of(&mut w, &["a"]);
    w.accept();
    let decided = CommitRequest { wait: Wait::Decided, ..commit(1, 1) };
    w.command(CLIENT, Command::Commit { id: X, request: decided });
    w.vote(SERVICE_A, Vote::Yes);
    w.accept();
    assert_eq!(text(&w.sync()), "Committing, commit to a");
    assert_eq!(text(&w.pass(4_999)), "commit to a");
    assert!(text(&w.pass(1)).starts_with("Committing"), "the default wait is over");
    assert_eq!(w.phase(), "Committing");
}

/// C7: the silent are asked again, at the durable state that they were first asked at.
#[test]
fn c7_prepare_is_sent_again_to_the_same_state() {
    let mut w = Bench::new();
    w.command(CLIENT, Command::Begin(Box::new(begin(X))));
    w.accept();
    // Another instance with another durable state does not get it, one with the same does.
    let attach = |i: &str, state| Command::Attach {
        service: name("a"),
        instance: name(i),
        state_id: StateId(state),
    };
    w.command(STRANGER_2, attach("other", 70));
    let outputs = w.input(Input::SessionEnded { session: SERVICE_A });
    assert_eq!(text(&outputs), "nothing");
    assert_eq!(text(&w.pass(1_300)), "prepare to b");
    let outputs = w.command(SERVICE_A_2, attach("two", 7));
    assert_eq!(text(&outputs), "done, prepare to ?");
}

const STRANGER_2: crate::ids::SessionId = crate::ids::SessionId(40);
const SERVICE_A_2: crate::ids::SessionId = crate::ids::SessionId(41);

/// C11, C13: a commit is repeated with growing pauses until it is acknowledged, and asks for
/// attention after a minute.
#[test]
fn c11_commit_is_sent_until_it_is_acknowledged() {
    let mut w = Bench::new();
    run_of(&mut w, &["a"]);
    w.accept();
    w.vote(SERVICE_A, Vote::Yes);
    w.settle();
    let (mut sends, mut attention) = (0, 0);
    for _ in 0..1_000 {
        let outputs = w.pass(100);
        sends += outputs.iter().filter(|o| matches!(o, Output::ToService { .. })).count();
        attention += outputs.iter().filter(|o| matches!(o, Output::Attention { .. })).count();
    }
    assert!((8..=12).contains(&sends), "100 ms doubling to 30 s for 100 s, not {sends}");
    assert_eq!(attention, 1);
    assert_eq!(w.phase(), "Committing");
}

/// C12: a service that lost its branch is for a person; the transaction is never failed by it.
#[test]
fn c12_a_lost_branch_is_heuristic_and_never_failed() {
    let mut w = Bench::new();
    run_of(&mut w, &["a"]);
    w.accept();
    w.vote(SERVICE_A, Vote::Yes);
    w.settle();
    let outputs = w.command(SERVICE_A, Command::NotKnown { id: X });
    assert_eq!(text(&outputs), "done, attention, append END");
    let outputs = w.settle();
    assert_eq!(text(&outputs), "Committed");
    let heuristic = |o: &Output| matches!(o, Output::Reply { reply: Reply::Outcome(outcome), .. } if outcome.heuristic);
    assert!(outputs.iter().any(heuristic), "{outputs:?}");
}

/// C5, C19: the first commit closes the transaction, so its count stands. (A stale repeat with
/// another count aborted a transaction that waited for its last vote: the table had that row, and
/// nobody had asked whether it was right.)
#[test]
fn c19_a_stale_repeat_of_commit_changes_nothing() {
    for first in [commit(2, 1), commit(3, 1)] {
        for repeat in [commit(1, 1), commit(2, 0), commit(2, 1), commit(64, 1_000)] {
            let mut w = Bench::new();
            w.command(CLIENT, Command::Begin(Box::new(begin(X))));
            // Before BEGIN is accepted as after it.
            w.command(CLIENT, Command::Commit { id: X, request: first.clone() });
            let outputs = w.command(STRANGER, Command::Commit { id: X, request: repeat.clone() });
            assert_eq!(text(&outputs), "nothing");
            w.accept();
            let outputs = w.command(STRANGER, Command::Commit { id: X, request: repeat });
            if first.branches == 3 {
                assert_eq!(w.phase(), "Deciding", "the first count was wrong, and stays so");
                assert_eq!(text(&w.settle()).matches("Failed (incomplete)").count(), 3);
                continue;
            }
            assert_eq!((text(&outputs).as_str(), w.phase().as_str()), ("nothing", "Collecting"));
            w.vote(SERVICE_A, Vote::Yes);
            assert_eq!(text(&w.vote(SERVICE_B, Vote::Yes)), "done, append COMMIT");
            w.settle();
            w.command(SERVICE_A, Command::Finished { id: X, committed: true });
            w.command(SERVICE_B, Command::Finished { id: X, committed: true });
            assert_eq!(text(&w.settle()).matches("Committed").count(), 3, "they all hear the same");
        }
    }
}

/// Nothing begins in a database of which nobody knows yet whether it may be trusted; one that has
/// answered and is silent refuses nothing. (Every bench told the core at once that its database is
/// up, so no test had one that has not said a word.)
#[test]
fn c1_nothing_begins_in_a_database_that_has_never_answered() {
    let mut w = Bench::new();
    let is = |up| Input::Database { name: name("new"), up };
    let said = |local: Option<&str>| Input::DatabaseRefused {
        name: name("new"),
        local: local.map(Into::into),
        distributed: local.map(Into::into),
    };
    let try_both = |w: &mut Bench, id: u128| {
        let mut local = begin_local(TransactionId(id));
        local.local = Some(name("new"));
        let mut distributed = begin(TransactionId(id + 1));
        distributed.branches = vec![super::bench::database("new")];
        [local, distributed].map(|r| text(&w.command(CLIENT, Command::Begin(Box::new(r)))))
    };
    let refused = ["refused database_refused", "refused database_refused"];
    let begun = ["append BEGIN", "append BEGIN"];
    w.input(is(false));
    assert_eq!(try_both(&mut w, 100), refused);
    // What it may be used for is told before it is up.
    w.input(said(None));
    assert_eq!(try_both(&mut w, 102), refused);
    w.input(is(true));
    assert_eq!(try_both(&mut w, 104), begun);
    w.input(is(false));
    assert_eq!(try_both(&mut w, 106), begun);
    w.input(said(Some("it is a copy")));
    assert_eq!(try_both(&mut w, 108), refused);
    // Registered anew, with another URL: nothing that was known of it counts.
    w.input(Input::DatabaseGone { name: name("new") });
    w.input(is(false));
    assert_eq!(try_both(&mut w, 110), refused);
    w.settle();
    let more =
        Command::Enlist { id: TransactionId(105), branches: vec![super::bench::database("db")] };
    assert_eq!(text(&w.command(CLIENT, more)), "counted 2+1");
    w.command(CLIENT, Command::Begin(Box::new(begin(X))));
    w.accept();
    let more = Command::Enlist { id: X, branches: vec![super::bench::database("new")] };
    assert_eq!(text(&w.command(CLIENT, more)), "refused database_refused");
}

/// C12, C16: what ended otherwise than decided was listed nowhere once it had ended, so that a
/// person found it only by asking for that very transaction. It stays in attention, also over
/// restarts and from checkpoints, until somebody takes note; and that is the last word of its chain.
#[test]
fn c12_a_heuristic_end_is_in_attention_until_somebody_has_seen_it() {
    let mut w = Bench::new();
    run_of(&mut w, &["a"]);
    w.accept();
    w.vote(SERVICE_A, Vote::Yes);
    w.settle();
    w.command(SERVICE_A, Command::NotKnown { id: X });
    w.settle();
    assert_eq!(w.phase(), "-");
    let listed = |w: &mut Bench| {
        let list = Command::ListTransactions { after: None, limit: 10, attention: true };
        let outputs = w.command(STRANGER, list);
        let views = outputs.iter().find_map(|o| match o {
            Output::Reply { reply: Reply::Transactions(views), .. } => Some(views.clone()),
            _ => None,
        });
        views.unwrap()
    };
    let views = listed(&mut w);
    assert_eq!((views.len(), views[0].id, views[0].heuristic), (1, X, true));
    assert!(views[0].attention.as_ref().unwrap().contains("a has lost its branch"), "{views:?}");
    // Its records alone say the same, also once it is noted.
    let of_log = |w: &Bench, last: Option<(Lsn, Record)>| {
        let ours = |(_, record): &&(Lsn, Record)| record.transaction() == Some(X);
        let records = w.log.iter().filter(ours).cloned().chain(last).collect();
        TransactionView::of_ended(X, &Chain { records, whole: true })
    };
    let alone = of_log(&w, None).unwrap();
    assert_eq!((&alone.attention, alone.heuristic), (&views[0].attention, true));

    // From the log, and from a checkpoint alone.
    let (mut again, _) = w.restart();
    assert_eq!(listed(&mut again), views);
    let before = again.log.len();
    again.core.checkpoint(vec![1]);
    again.settle();
    again.log.drain(..before);
    let (mut again, _) = again.restart();
    assert_eq!(listed(&mut again), views);
    assert_eq!(again.core.stats().unseen, 1);

    let note = Command::Operate { id: X, act: Act::Note, detail: "me".into() };
    assert_eq!(text(&again.command(STRANGER, note.clone())), "append OPERATED");
    assert_eq!(text(&again.settle()), "done");
    assert_eq!(listed(&mut again), []);
    let noted = of_log(&w, again.log.last().cloned()).unwrap();
    assert_eq!((noted.attention, noted.heuristic, noted.notes.len()), (None, true, 1));
    assert_eq!(text(&again.command(STRANGER, note)), "read chain", "it is noted once");
    let (mut again, _) = again.restart();
    assert_eq!(listed(&mut again), []);
}

/// C16: a database that came back without a commit was believed to have it. What it has lost is in
/// attention as a heuristic end is, also when it had been seen to end well; it is said once for each
/// database, and a note is the last word until another one has lost it.
#[test]
fn c16_a_commit_that_a_database_has_lost_is_in_attention() {
    let mut w = Bench::new();
    run_of(&mut w, &["a"]);
    w.accept();
    w.vote(SERVICE_A, Vote::Yes);
    w.settle();
    let gone = |database: &str| Input::CommitGone { id: X, database: name(database) };
    assert_eq!(text(&w.input(gone("db"))), "nothing", "it is open, and finished again");
    w.command(SERVICE_A, Command::Finished { id: X, committed: true });
    w.settle();
    let chain = |w: &Bench| {
        let of_x = w.log.iter().filter(|(_, r)| r.transaction() == Some(X)).cloned();
        Input::Chain { id: X, chain: Chain { records: of_x.collect(), whole: true } }
    };
    // Both are said in one chain, and what is not durable yet is not said again.
    let ended = chain(&w);
    assert_eq!(text(&w.input(gone("db"))), "read chain");
    assert_eq!(text(&w.input(gone("two"))), "nothing", "one reading serves both");
    let said = "append OPERATED, attention, append OPERATED, attention";
    assert_eq!(text(&w.input(ended.clone())), said);
    w.input(gone("two"));
    assert_eq!(text(&w.input(ended)), "nothing");
    w.settle();
    w.input(gone("db"));
    let all = chain(&w);
    assert_eq!(text(&w.input(all)), "nothing");
    let previous: Vec<Lsn> = w
        .log
        .iter()
        .filter_map(|(_, r)| match r {
            Record::Operated(operated) => Some(operated.previous),
            _ => None,
        })
        .collect();
    let lsns: Vec<Lsn> = w.log.iter().rev().map(|(lsn, _)| *lsn).take(3).collect();
    assert_eq!(previous, [lsns[2], lsns[1]], "one chain");

    let (mut again, _) = w.restart();
    assert_eq!(again.core.stats().unseen, 1);
    let before = again.log.len();
    again.core.checkpoint(vec![1]);
    again.settle();
    again.log.drain(..before);
    let (mut again, _) = again.restart();
    assert_eq!(again.core.stats().unseen, 1);
    let note = Command::Operate { id: X, act: Act::Note, detail: "me".into() };
    again.command(STRANGER, note);
    again.settle();
    assert_eq!(again.core.stats().unseen, 0);
}

/// C11: a service that could not finish said so to its own log alone, and the operator of the
/// server saw one that is silent. Its words are in the view and in what is waited for, are said
/// once, and go when it has finished; they change nothing else.
#[test]
fn c11_a_service_says_why_it_could_not_finish() {
    let mut w = Bench::new();
    run_of(&mut w, &["a"]);
    w.accept();
    let could_not = |w: &mut Bench, why: &str| {
        text(&w.command(SERVICE_A, Command::NotFinished { id: X, reason: why.into() }))
    };
    let trouble = |w: &mut Bench| {
        let outputs = w.command(STRANGER, Command::Show { id: X });
        let found = outputs.iter().find_map(|o| match o {
            Output::Reply { reply: Reply::Transaction(view), .. } => Some(view.clone()),
            _ => None,
        });
        let view = found.unwrap();
        (view.branches[0].trouble.clone(), view.attention.clone())
    };
    assert_eq!(could_not(&mut w, "too early"), "done", "it was told nothing yet");
    assert_eq!(trouble(&mut w), (None, None));
    w.vote(SERVICE_A, Vote::Yes);
    w.settle();
    assert_eq!(could_not(&mut w, "no room"), "done, trouble");
    assert_eq!(could_not(&mut w, "no room"), "done");
    assert_eq!(could_not(&mut w, &"x".repeat(5_000)), "done, trouble");
    assert_eq!(trouble(&mut w).0.unwrap().len(), REASON_BYTES);
    assert_eq!(could_not(&mut w, "the disk is full"), "done, trouble");
    w.pass(100_000);
    let (said, attention) = trouble(&mut w);
    assert_eq!(said.as_deref(), Some("the disk is full"));
    let attention = attention.unwrap();
    assert!(attention.contains("service a could not do it: the disk is full"), "{attention}");
    w.command(SERVICE_A, Command::Finished { id: X, committed: true });
    assert_eq!(could_not(&mut w, "a late word"), "done");
    w.settle();
    assert_eq!(w.phase(), "-");
}

/// C11, C16: what an operator had noted of an open transaction was in memory alone, so that each
/// restart raised it again. The log says it, and a checkpoint; but what is found later nobody has seen.
#[test]
fn c11_what_was_noted_stays_noted() {
    let mut w = Bench::new();
    run_of(&mut w, &["a", "b", "c"]);
    w.accept();
    for session in [SERVICE_A, SERVICE_B, STRANGER] {
        w.vote(session, Vote::Yes);
    }
    w.settle();
    w.pass(100_000);
    let attention = |w: &Bench| w.core.stats().attention;
    assert_eq!(attention(&w), 1);
    let note = || Command::Operate { id: X, act: Act::Note, detail: "me".into() };
    w.command(CLIENT, note());
    assert_eq!(text(&w.settle()), "done");
    assert_eq!(attention(&w), 0);

    let (mut again, _) = w.restart();
    again.pass(100_000);
    assert_eq!(attention(&again), 0, "it takes as long as before, and that was seen");
    let before = again.log.len();
    again.core.checkpoint(vec![1]);
    again.settle();
    again.log.drain(..before);
    let (mut again, _) = again.restart();
    again.pass(100_000);
    assert_eq!(attention(&again), 0);

    // A branch that is lost is something else.
    let mut lost = |session, service: &str, state| {
        let (service, instance, state_id) = (name(service), name("x"), StateId(state));
        again.command(session, Command::Attach { service, instance, state_id });
        again.command(session, Command::NotKnown { id: X });
        let before = attention(&again);
        // The note is accepted only after the next one is lost.
        again.command(CLIENT, note());
        (before, attention(&again))
    };
    assert_eq!(lost(SERVICE_A, "a", 7), (1, 0));
    assert_eq!(lost(SERVICE_B, "b", 8), (1, 0));
    again.settle();
    assert_eq!((again.phase().as_str(), attention(&again)), ("Committing", 0));
    let (mut again, _) = again.restart();
    again.pass(100_000);
    assert_eq!(attention(&again), 0);
}

/// C12: a note that is accepted only after something else was found says nothing about that.
#[test]
fn c12_a_note_is_of_what_was_there() {
    let mut w = Bench::new();
    run_of(&mut w, &["a", "b"]);
    w.accept();
    w.vote(SERVICE_A, Vote::Yes);
    w.vote(SERVICE_B, Vote::Yes);
    w.settle();
    w.pass(100_000);
    w.command(CLIENT, Command::Operate { id: X, act: Act::Note, detail: "me".into() });
    w.command(SERVICE_A, Command::NotKnown { id: X });
    w.settle();
    assert_eq!((w.phase().as_str(), w.core.stats().attention), ("Committing", 1));
}

/// P13: whoever had noted that a transaction takes long was not told that a participant had ended its
/// branch against the decision.
#[test]
fn p13_is_told_to_whoever_has_noted_a_delay() {
    let mut w = Bench::new();
    run_of(&mut w, &["a", "b"]);
    w.accept();
    w.vote(SERVICE_A, Vote::Yes);
    w.vote(SERVICE_B, Vote::Yes);
    w.settle();
    w.pass(100_000);
    w.command(STRANGER, Command::Operate { id: X, act: Act::Note, detail: "me".into() });
    w.settle();
    assert_eq!(w.core.stats().attention, 0);
    w.command(SERVICE_A, Command::Finished { id: X, committed: false });
    assert_eq!(w.core.stats().attention, 1);
}

/// L4: an abort of a local transaction waited without end for a database that was gone.
#[test]
fn l4_an_abort_is_answered_in_time_whatever_its_database_does() {
    let mut w = Bench::new();
    w.command(CLIENT, Command::Begin(Box::new(begin_local(X))));
    w.settle();
    let abort = Command::Abort { id: X, detail: "mine".into() };
    assert_eq!(text(&w.command(STRANGER, abort)), "resolve");
    w.input(Input::Resolved { id: X, resolution: Resolution::Unknown });
    let answers =
        |outputs: Vec<Output>| outputs.iter().filter(|o| matches!(o, Output::Reply { .. })).count();
    let mut answered = 0;
    for _ in 0..60 {
        answered += answers(w.pass(100));
    }
    assert_eq!((answered, w.phase().as_str()), (1, "Resolving"));
}

/// C14: an abort is sent five times, then the transaction ends; who missed it inquires.
#[test]
fn c14_abort_is_sent_at_most_five_times() {
    let mut w = Bench::new();
    w.command(CLIENT, Command::Begin(Box::new(begin(X))));
    w.accept();
    w.vote(SERVICE_A, Vote::Yes);
    w.command(CLIENT, Command::Abort { id: X, detail: String::new() });
    let mut aborts = text(&w.accept()).matches("abort to a").count();
    for _ in 0..200 {
        aborts += text(&w.pass(100)).matches("abort to a").count();
    }
    assert_eq!(aborts, 5);
    w.settle();
    assert_eq!(w.phase(), "-");
}

/// C15: what is not in memory is asked of the log; nothing there is an abort only if it is whole.
#[test]
fn c15_an_inquiry_is_answered_by_the_log() {
    let mut w = Bench::new();
    let inquire = Command::Inquire { id: X };
    for (whole, expected) in [(true, "abort to a"), (false, "pending to a")] {
        assert_eq!(text(&w.command(SERVICE_A, inquire.clone())), "done, read chain");
        let chain = Chain { records: vec![], whole };
        assert_eq!(text(&w.input(Input::Chain { id: X, chain })), expected);
    }
    // Committed with `a` as its only updater.
    run_of(&mut w, &["a", "b"]);
    w.accept();
    w.vote(SERVICE_A, Vote::Yes);
    w.vote(SERVICE_B, Vote::ReadOnly);
    w.settle();
    w.command(SERVICE_A, Command::Finished { id: X, committed: true });
    w.settle();
    assert_eq!(w.phase(), "-");
    let of_x = w.log.iter().filter(|(_, r)| r.transaction() == Some(X)).cloned();
    let chain = Chain { records: of_x.collect(), whole: true };
    for (session, expected) in [(SERVICE_A, "commit to a"), (SERVICE_B, "abort to b")] {
        w.command(session, inquire.clone());
        let answer = w.input(Input::Chain { id: X, chain: chain.clone() });
        assert_eq!(text(&answer), expected);
    }
    w.command(CLIENT, Command::Show { id: X });
    let shown = w.input(Input::Chain { id: X, chain });
    assert_eq!(text(&shown), "shown Committed [yes read-only]");
}

/// I10: the same key inside the window is the same transaction; another request is a conflict.
#[test]
fn i10_a_key_begins_one_transaction() {
    let mut w = Bench::new();
    let key = |digest| Some(IdempotencyKey { key: "order-17".into(), digest });
    let with = |id, digest| {
        let mut request = begin(TransactionId(id));
        request.key = key(digest);
        request.branches = vec![];
        Command::Begin(Box::new(request))
    };
    assert_eq!(text(&w.command(CLIENT, with(X.0, 1))), "append BEGIN");
    assert_eq!(text(&w.command(CLIENT, with(77, 1))), "nothing", "it waits like the first");
    assert_eq!(text(&w.accept()), "nothing", "a keyed begin is answered when it is durable");
    assert_eq!(text(&w.sync()), "begun, begun before");
    assert_eq!(text(&w.command(CLIENT, with(78, 2))), "refused key_conflict");
    w.command(CLIENT, Command::Commit { id: X, request: commit(0, 1) });
    w.settle();
    assert_eq!(text(&w.command(CLIENT, with(79, 1))), "begun before");
    // And after a restart, from the log.
    let (mut again, _) = w.restart();
    assert_eq!(text(&again.command(CLIENT, with(80, 1))), "begun before");
    assert_eq!(text(&again.command(CLIENT, with(81, 3))), "refused key_conflict");
}

/// L3, L6, L9 and the rule that nothing but L5 and L6 aborts a local transaction.
#[test]
fn l6_the_database_says_how_a_local_transaction_ended() {
    for (resolution, record) in [
        (Resolution::Committed, "append COMMIT"),
        (Resolution::Tombstone, "append ABORT"),
        (Resolution::Aborted, "append ABORT"),
    ] {
        let mut w = Bench::new();
        w.command(CLIENT, Command::Begin(Box::new(begin_local(X))));
        w.settle();
        let outputs = w.input(Input::SessionEnded { session: CLIENT });
        assert_eq!(text(&outputs), "resolve");
        // L8: never a second resolution at once.
        assert_eq!(text(&w.pass(60_000)), "nothing");
        // L7: unknown is asked again.
        w.input(Input::Resolved { id: X, resolution: Resolution::Unknown });
        assert_eq!(text(&w.pass(200)), "resolve, attention");
        let outputs = w.input(Input::Resolved { id: X, resolution });
        assert_eq!(text(&outputs), record);
        w.settle();
        assert_eq!(w.phase(), "-");
    }
}

/// Databases as branches of a distributed transaction: the server finishes them.
#[test]
fn c8_a_database_branch_is_finished_by_the_server() {
    let mut w = Bench::new();
    let mut request = begin(X);
    let database = Participant { name: name("db"), kind: ParticipantKind::Database };
    request.branches = vec![BranchRequest { participant: database, work: None }];
    w.command(CLIENT, Command::Begin(Box::new(request)));
    w.accept();
    let request = CommitRequest { votes: vec![vote_for("a")], ..commit(1, 1) };
    let outputs = w.command(CLIENT, Command::Commit { id: X, request });
    assert_eq!(text(&outputs), "refused not_a_participant");
    let request = CommitRequest { votes: vec![vote_for("db")], ..commit(1, 1) };
    let outputs = w.command(CLIENT, Command::Commit { id: X, request });
    assert_eq!(text(&outputs), "append COMMIT");
    w.accept();
    assert_eq!(text(&w.sync()), "commit in database");
    let report = |report| Input::BranchFinished { id: X, database: name("db"), report };
    assert_eq!(text(&w.input(report(BranchReport::Unknown))), "nothing");
    assert_eq!(text(&w.pass(200)), "commit in database");
    assert_eq!(text(&w.input(report(BranchReport::Done))), "append END");
}

/// P2: an outcome is kept as long as a transaction that began before its own may ask for a first
/// vote, which would be refused. When something began is said by the log and by no clock: the ids
/// here say the contrary, as they did when the clock had been set back between them.
#[test]
fn p2_outcomes_are_kept_for_transactions_that_began_before() {
    let mut w = Bench::new();
    let slow = TransactionId(X.0 + (1 << 100));
    let nobody_yet = BeginRequest { branches: Vec::new(), ..begin(slow) };
    w.command(CLIENT, Command::Begin(Box::new(nobody_yet)));
    run_of(&mut w, &["a"]);
    let began = began(&w.accept());
    w.vote(SERVICE_A, Vote::Yes);
    w.settle();
    w.command(SERVICE_A, Command::Finished { id: X, committed: true });
    w.settle();
    assert_eq!(text(&w.pass(3_000)), "nothing");
    let may_forget = |began| Command::MayForget { outcomes: vec![(X, began)] };
    let asked = |w: &mut Bench, began| text(&w.command(SERVICE_A, may_forget(began)));
    assert_eq!(asked(&mut w, Some(began)), "may forget 0");
    // What began in an earlier epoch was decided by this opening; of another store, or of a later
    // epoch of this one, nothing is known here.
    let of = |store, epoch| Some(Began { store: StoreId(store), epoch, lsn: Lsn(1 << 40) });
    let (store, epoch) = (began.store.0, began.epoch);
    assert!(epoch > 0);
    assert_eq!(asked(&mut w, of(store, epoch - 1)), "may forget 1");
    assert_eq!(asked(&mut w, of(store, epoch + 1)), "may forget 0");
    assert_eq!(asked(&mut w, of(store + 1, epoch - 1)), "may forget 0");
    assert_eq!(asked(&mut w, None), "may forget 1");
    w.command(CLIENT, Command::Abort { id: slow, detail: String::new() });
    w.settle();
    assert_eq!(text(&w.pass(200)), "forget to a");
    assert_eq!(asked(&mut w, Some(began)), "may forget 1");
}

/// P2: a participant whose prepare has not come knows from the commit when the transaction began,
/// whoever answers: the coordinator, the same after a restart, or the log after the end.
#[test]
fn p2_a_commit_says_when_its_transaction_began() {
    let mut w = Bench::new();
    run_of(&mut w, &["a"]);
    let when = began(&w.accept());
    w.vote(SERVICE_A, Vote::Yes);
    assert_eq!(began(&w.settle()), when);
    let inquire = Command::Inquire { id: X };
    assert_eq!(began(&w.command(SERVICE_A, inquire.clone())), when);
    let (mut again, _) = w.restart();
    let attach = Command::Attach { service: name("a"), instance: name("x"), state_id: StateId(7) };
    assert_eq!(began(&again.command(SERVICE_A, attach)), when);

    w.command(SERVICE_A, Command::Finished { id: X, committed: true });
    w.settle();
    w.command(SERVICE_A, inquire);
    let of_x = w.log.iter().filter(|(_, r)| r.transaction() == Some(X)).cloned();
    let mut chain = Chain { records: of_x.collect(), whole: true };
    assert_eq!(began(&w.input(Input::Chain { id: X, chain: chain.clone() })), when);
    // BEGIN may have gone with its segment: a later place is as good.
    chain.records.remove(0);
    w.command(SERVICE_A, Command::Inquire { id: X });
    assert!(began(&w.input(Input::Chain { id: X, chain })) > when);
}

/// When a transaction began, as its prepare says, or its commit.
fn began(outputs: &[Output]) -> Began {
    let said = outputs.iter().find_map(|output| match output {
        Output::ToService {
            message: ToService::Prepare { began, .. } | ToService::Commit { began, .. },
            ..
        } => Some(*began),
        _ => None,
    });
    said.expect("a prepare or a commit was sent")
}

/// I15: over a limit a call is refused with a stable code, and what was accepted stays.
#[test]
fn i15_limits_refuse_and_keep_what_is_there() {
    let mut w = Bench::new();
    let refused = |outputs: Vec<Output>, code: &str| {
        assert_eq!(text(&outputs), format!("refused {code}"));
    };
    let with = |change: &dyn Fn(&mut BeginRequest)| {
        let mut request = begin(TransactionId(5));
        change(&mut request);
        Command::Begin(Box::new(request))
    };
    let many = (0..=BRANCHES)
        .map(|n| BranchRequest { participant: service(&format!("s{n}")), work: None });
    let many: Vec<_> = many.collect();
    refused(w.command(CLIENT, with(&|r| r.branches = many.clone())), "too_many");
    refused(w.command(CLIENT, with(&|r| r.deadline_ms = Some(0))), "invalid_deadline");
    refused(w.command(CLIENT, with(&|r| r.deadline_ms = Some(3_600_001))), "invalid_deadline");
    let twice = vec![super::bench::branch("a"), super::bench::branch("a")];
    refused(w.command(CLIENT, with(&|r| r.branches = twice.clone())), "already_enlisted");
    let events = vec![event(); BATCH_ITEMS + 1];
    refused(w.command(CLIENT, with(&|r| r.events = events.clone())), "too_many");
    let unknown = EventRequest { topic: name("nowhere"), ..event() };
    refused(w.command(CLIENT, with(&|r| r.events = vec![unknown.clone()])), "unknown_topic");
    refused(w.command(CLIENT, with(&|r| r.local = Some(name("db")))), "local_transaction");
    let local = |r: &mut BeginRequest| {
        r.local = Some(name("elsewhere"));
        r.branches = vec![];
    };
    refused(w.command(CLIENT, with(&local)), "unknown_database");
    w.command(CLIENT, Command::Begin(Box::new(begin(X))));
    w.accept();
    w.input(Input::Space { free: 1 << 30, low: true });
    refused(w.command(CLIENT, with(&|_| ())), "no_space");
    w.input(Input::Drain);
    refused(w.command(CLIENT, with(&|_| ())), "draining");
    // What was accepted goes on.
    w.vote(SERVICE_A, Vote::Yes);
    w.vote(SERVICE_B, Vote::Yes);
    let outputs = w.command(CLIENT, Command::Commit { id: X, request: commit(2, 1) });
    assert_eq!(text(&outputs), "append COMMIT");
}

/// C4: votes by strangers, from another state, and against an earlier vote.
#[test]
fn c4_votes_that_cannot_be_are_refused() {
    let mut w = Bench::new();
    w.command(CLIENT, Command::Begin(Box::new(begin(X))));
    w.accept();
    assert_eq!(text(&w.vote(STRANGER, Vote::Yes)), "refused not_a_participant");
    assert_eq!(text(&w.vote(CLIENT, Vote::Yes)), "refused not_attached");
    assert_eq!(text(&w.vote(SERVICE_A, Vote::Yes)), "done");
    assert_eq!(text(&w.vote(SERVICE_A, Vote::ReadOnly)), "refused contradicting_vote");
    let attach = Command::Attach { service: name("a"), instance: name("z"), state_id: StateId(99) };
    w.command(STRANGER_2, attach);
    assert_eq!(text(&w.vote(STRANGER_2, Vote::Yes)), "refused wrong_state");
    // A later NO while undecided overrides.
    assert_eq!(text(&w.vote(SERVICE_A, no())), "done, append ABORT");
    let _ = Lsn(0);
}

/// The checkpoint makes the same state again.
#[test]
fn i16_a_checkpoint_restates_what_is_open() {
    let mut w = Bench::new();
    run_of(&mut w, &["a", "b"]);
    w.accept();
    w.vote(SERVICE_A, Vote::Yes);
    w.vote(SERVICE_B, Vote::Yes);
    w.settle();
    let mut other = begin_local(TransactionId(9));
    other.detached = true;
    other.key = Some(IdempotencyKey { key: "k".into(), digest: 3 });
    w.command(CLIENT, Command::Begin(Box::new(other)));
    w.settle();
    let before = w.log.len();
    w.core.checkpoint(vec![1, 2]);
    w.settle();
    let mut again = Bench::new();
    again.log = w.log[before..].to_vec();
    let mut recovery = crate::Recovery::new(Limits::default());
    for (lsn, record) in &again.log {
        recovery.apply(*lsn, record);
    }
    let mut core = recovery.finish(w.now);
    assert_eq!(core.phase_of(X).as_deref(), Some("Committing"));
    assert_eq!(core.phase_of(TransactionId(9)).as_deref(), Some("Local"));
    assert!(core.poll_output().is_none());
    assert_eq!(core.stats().keys, 1);
}

/// I15: work is held until its service has voted, and no longer.
#[test]
fn c2_more_work_than_may_wait_for_votes_is_refused() {
    let limits = Limits { work_bytes: 10, ..Limits::default() };
    let mut w = Bench::with_limits(limits);
    let open = |w: &Bench| w.core.stats().work_bytes;
    // Two branches with four bytes each.
    w.command(CLIENT, Command::Begin(Box::new(begin(X))));
    w.accept();
    assert_eq!(open(&w), 8);
    let other = TransactionId(X.0 + 1);
    let refused = "refused staged_bytes_full";
    assert_eq!(text(&w.command(CLIENT, Command::Begin(Box::new(begin(other))))), refused);
    let more = Command::Enlist { id: X, branches: vec![super::bench::branch("c")] };
    assert_eq!(text(&w.command(CLIENT, more)), refused);
    assert_eq!((w.core.stats().open, open(&w)), (1, 8), "what is refused leaves nothing");

    w.vote(SERVICE_A, Vote::Yes);
    assert_eq!(open(&w), 4);
    w.vote(SERVICE_A, Vote::Yes);
    assert_eq!(open(&w), 4, "once");
    let mut smaller = begin(other);
    smaller.branches.pop();
    w.command(CLIENT, Command::Begin(Box::new(smaller)));
    assert_eq!(open(&w), 8);

    // It fails without the vote of `b`.
    w.command(CLIENT, Command::Abort { id: X, detail: String::new() });
    w.settle();
    for service in [SERVICE_A, SERVICE_B] {
        w.command(service, Command::Finished { id: X, committed: false });
    }
    w.settle();
    assert_eq!((w.phase().as_str(), open(&w)), ("-", 4));
}
