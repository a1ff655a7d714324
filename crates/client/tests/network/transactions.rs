//! Transactions over a stream that breaks, and what becomes of those under way.

use std::time::Duration;

use handfast::{
    BeginOptions, Code, Error, Event, Fault, Handfast, OpenTransaction, State, Transaction,
    TransactionError, TransactionId, Wait,
};
use handfast_core::refusal::Refusal;
use handfast_wire::raw::transaction_request::Call;
use handfast_wire::v1::transaction_reply::Result as Answer;
use handfast_wire::{ids, v1};

use crate::fake::{Fake, Session};

pub(crate) const X: TransactionId = TransactionId(0x0192_f0a1_b2c3_7d4e_8f90_a1b2_c3d4_e5f6);

fn outcome(state: v1::TransactionState) -> Answer {
    Answer::Outcome(v1::Outcome {
        keys_since_unix_ms: 0,
        transaction_id: ids::transaction_bytes(X),
        state: state.into(),
        reason: None,
        heuristic: false,
        finished: false,
    })
}

fn failed(code: &str, retryable: bool) -> Answer {
    let Answer::Outcome(mut message) = outcome(v1::TransactionState::Failed) else {
        unreachable!()
    };
    message.reason = Some(v1::Reason {
        code: code.into(),
        participant: "payments".into(),
        detail: "no money".into(),
        retryable,
    });
    Answer::Outcome(message)
}

pub(crate) fn refusal(code: Code) -> Answer {
    Answer::Refusal(Refusal::new(code, "why").into())
}

pub(crate) fn committed() -> Answer {
    outcome(v1::TransactionState::Committed)
}

pub(crate) fn transfer() -> Transaction {
    let mut transaction = Transaction::new();
    transaction.call("payments", "take 100").publish("transfers", Event::new("made", "/bank"));
    transaction
}

/// A transaction that was begun, with the stream that it lives on.
async fn begun(
    fake: &mut Fake,
    hf: &Handfast,
    options: BeginOptions,
) -> (OpenTransaction, Session) {
    let begin = tokio::spawn({
        let hf = hf.clone();
        async move { hf.begin_with(options).await }
    });
    let mut session = fake.sessions.recv().await.expect("a stream");
    let (request, call) = session.call().await;
    assert!(matches!(call, Call::Begin(_)), "{call:?}");
    let begun = v1::Begun {
        keys_since_unix_ms: 0,
        branch_ids: Vec::new(),
        transaction_id: ids::transaction_bytes(X),
        remaining_ms: 30_000,
        repeated: false,
    };
    session.answer(request, Answer::Begun(begun)).await;
    (begin.await.expect("no panic").expect("begun"), session)
}

#[tokio::test(start_paused = true)]
async fn one_call_commits() {
    let mut fake = Fake::start();
    let hf = fake.connect().await;
    let run = tokio::spawn({
        let hf = hf.clone();
        async move {
            hf.transaction(|tx| {
                tx.call("payments", "take 100");
                tx.publish("transfers", Event::new("made", "/bank").with_key("7"));
                tx.with_wait(Wait::Decided);
            })
            .await
        }
    });
    let mut session = fake.sessions.recv().await.expect("a stream");
    let (request, call) = session.call().await;
    let Call::Run(run_request) = call else { panic!("{call:?}") };
    assert!(!run_request.idempotency_key.is_empty(), "a lost answer can be asked for");
    assert_eq!(run_request.branches[0].participant, "payments");
    assert_eq!(run_request.branches[0].work.as_deref(), Some(&b"take 100"[..]));
    assert_eq!(run_request.events[0].topic, "transfers");
    assert_eq!(run_request.wait, i32::from(v1::Wait::Decided));
    session.answer(request, outcome(v1::TransactionState::Committing)).await;
    let committed = run.await.expect("no panic").expect("committing is decided");
    assert_eq!(committed.id, X);
    assert!(!committed.finished);
}

#[tokio::test(start_paused = true)]
async fn the_answers_of_a_run() {
    let mut fake = Fake::start();
    let hf = fake.connect().await;
    let first = tokio::spawn({
        let hf = hf.clone();
        async move { hf.run(transfer()).await }
    });
    let mut session = fake.sessions.recv().await.expect("a stream");
    let (request, _) = session.call().await;
    session.answer(request, failed("voted_no", true)).await;
    let error = first.await.expect("no panic").expect_err("failed");
    assert!(error.is_retryable() && error.has_no_side_effects());
    assert_eq!(error.id(), Some(X));
    assert!(error.to_string().ends_with("failed: voted_no by payments: no money"), "{error}");

    let second = tokio::spawn(async move { hf.run(transfer()).await });
    let (request, _) = session.call().await;
    session.answer(request, refusal(Code::UnknownTopic)).await;
    let error = second.await.expect("no panic").expect_err("refused");
    let TransactionError::Refused(refused) = &error else { panic!("{error:?}") };
    assert_eq!(refused.known(), Some(Code::UnknownTopic));
    assert!(!error.is_retryable() && error.has_no_side_effects());
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_answer_is_lost_is_asked_again_with_its_key() {
    let mut fake = Fake::start();
    let hf = fake.connect().await;
    let run = tokio::spawn(async move { hf.run(transfer()).await });
    let mut session = fake.sessions.recv().await.expect("a stream");
    let (_, first) = session.call().await;
    session.cut().await;
    let mut session = fake.sessions.recv().await.expect("a stream");
    let (request, second) = session.call().await;
    assert_eq!(first, second, "the same call, with the same key");
    session.answer(request, committed()).await;
    assert!(run.await.expect("no panic").expect("committed").finished);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_nobody_answers_is_unknown_and_names_its_key() {
    let mut fake = Fake::start();
    let hf = fake.connect().await;
    let run = tokio::spawn(async move {
        let mut transaction = transfer();
        transaction.with_key("transfer-7").with_deadline(Duration::from_secs(5));
        hf.run(&transaction).await
    });
    let mut session = fake.sessions.recv().await.expect("a stream");
    session.call().await;
    fake.down(true);
    session.cut().await;
    let error = run.await.expect("no panic").expect_err("nobody says");
    let TransactionError::Unknown { id: None, key: Some(key), .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(key, "transfer-7");
    assert!(!error.is_retryable() && !error.has_no_side_effects());
}

#[tokio::test(start_paused = true)]
async fn a_run_that_was_never_sent_had_no_effect() {
    let fake = Fake::start();
    let hf = fake.connect().await;
    fake.down(true);
    let error = hf.run(transfer()).await.expect_err("nothing answers");
    assert!(matches!(error, TransactionError::Fault(Fault::Unreachable { .. })), "{error:?}");
    assert!(error.is_retryable() && error.has_no_side_effects());
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_still_preparing_is_asked_for() {
    let mut fake = Fake::start();
    let hf = fake.connect().await;
    let run = tokio::spawn(async move { hf.run(transfer()).await });
    let mut session = fake.sessions.recv().await.expect("a stream");
    let (request, _) = session.call().await;
    session.answer(request, outcome(v1::TransactionState::Preparing)).await;
    for state in [v1::TransactionState::Preparing, v1::TransactionState::Committed] {
        let (request, call) = session.call().await;
        assert!(matches!(&call, Call::Get(get) if get.transaction_id == ids::transaction_bytes(X)));
        session.answer(request, outcome(state)).await;
    }
    assert!(run.await.expect("no panic").expect("committed").finished);
}

#[tokio::test(start_paused = true)]
async fn another_store_is_asked_nothing() {
    let mut fake = Fake::start();
    let hf = fake.connect().await;
    let run = tokio::spawn(async move { hf.run(transfer()).await });
    let mut session = fake.sessions.recv().await.expect("a stream");
    session.call().await;
    fake.store(8);
    session.cut().await;
    let error = run.await.expect("no panic").expect_err("not found out");
    let TransactionError::Unknown { cause, .. } = error else { panic!("{error:?}") };
    assert!(matches!(*cause, Error::Fault(Fault::OtherStore { .. })), "{cause:?}");
    assert!(fake.sessions.try_recv().is_err(), "no stream was opened to it");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_is_waited_for() {
    let mut fake = Fake::start();
    let hf = fake.connect().await;
    let run = tokio::spawn(async move { hf.run(transfer()).await });
    let mut session = fake.sessions.recv().await.expect("a stream");
    let (request, first) = session.call().await;
    session.answer(request, refusal(Code::Draining)).await;
    let (_, again) = session.call().await;
    assert_eq!(first, again);
    session.cut().await;
    let mut session = fake.sessions.recv().await.expect("a stream");
    let (request, _) = session.call().await;
    session.answer(request, committed()).await;
    run.await.expect("no panic").expect("committed");
}

/// A repeat that is refused does not prove that the first had no effect: it may still be on its
/// way to the server on the connection that was lost.
#[tokio::test(start_paused = true)]
async fn a_refused_repeat_is_no_proof() {
    let mut fake = Fake::start();
    let hf = fake.builder().with_retry_when_busy(false).connect().await.expect("it answers");
    let run = tokio::spawn(async move { hf.run(transfer()).await });
    let mut session = fake.sessions.recv().await.expect("a stream");
    session.call().await;
    session.cut().await;
    let mut session = fake.sessions.recv().await.expect("a stream");
    let (request, _) = session.call().await;
    session.answer(request, refusal(Code::TooManyTransactions)).await;
    let error = run.await.expect("no panic").expect_err("refused");
    assert!(matches!(error, TransactionError::Unknown { key: Some(_), .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_nobody_waits_for_is_not_sent_later() {
    let mut fake = Fake::start();
    let hf = fake.connect().await;
    fake.down(true);
    let dropped = tokio::time::timeout(Duration::from_secs(1), hf.run(transfer())).await;
    assert!(dropped.is_err(), "{dropped:?}");
    fake.down(false);
    let status = tokio::spawn(async move { hf.status(X).await });
    let mut session = fake.sessions.recv().await.expect("a stream");
    let (request, call) = session.call().await;
    assert!(matches!(call, Call::Get(_)), "{call:?}");
    session.answer(request, committed()).await;
    status.await.expect("no panic").expect("answered");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_every_stream_is_asked_with_pauses() {
    let mut fake = Fake::start();
    let hf = fake.connect().await;
    let run = tokio::spawn(async move {
        let mut transaction = transfer();
        transaction.with_deadline(Duration::from_secs(1));
        hf.run(transaction).await
    });
    let mut streams = 0;
    while !run.is_finished() {
        tokio::select! {
            Some(session) = fake.sessions.recv() => {
                streams += 1;
                session.cut().await;
            }
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
    assert!(run.await.expect("no panic").is_err());
    assert!((5..40).contains(&streams), "{streams} streams in 31 s");
}

#[tokio::test(start_paused = true)]
async fn calls_at_one_time_share_a_frame_and_answers_come_in_any_order() {
    let mut fake = Fake::start();
    let hf = fake.connect().await;
    let runs: Vec<_> = (0..100)
        .map(|n| {
            let hf = hf.clone();
            tokio::spawn(async move {
                let mut transaction = Transaction::new();
                transaction.with_key(n.to_string()).call("payments", "w");
                hf.run(transaction).await
            })
        })
        .collect();
    let mut session = fake.sessions.recv().await.expect("a stream");
    let calls = session.calls().await;
    assert_eq!(calls.len(), 100);
    let replies = calls.into_iter().rev().map(|(request, call)| {
        let Call::Run(run) = call else { panic!("{call:?}") };
        let even = run.idempotency_key.parse::<u32>().unwrap() % 2 == 0;
        let answer = if even { committed() } else { failed("voted_no", false) };
        v1::TransactionReply { request, result: Some(answer) }
    });
    session.send(v1::TransactionReplyFrame { replies: replies.collect() }).await;
    for (n, run) in runs.into_iter().enumerate() {
        assert_eq!(run.await.expect("no panic").is_ok(), n % 2 == 0, "{n}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_calls_are_under_way_than_allowed() {
    let mut fake = Fake::start();
    let hf = fake.builder().with_in_flight(2).connect().await.expect("no panic");
    let runs: Vec<_> = (0..3)
        .map(|_| {
            let hf = hf.clone();
            tokio::spawn(async move { hf.run(transfer()).await })
        })
        .collect();
    let mut session = fake.sessions.recv().await.expect("a stream");
    let calls = session.calls().await;
    assert_eq!(calls.len(), 2);
    session.answer(calls[1].0, committed()).await;
    let (request, _) = session.call().await;
    session.answer(request, committed()).await;
    session.answer(calls[0].0, committed()).await;
    for run in runs {
        run.await.expect("no panic").expect("committed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_not_taken_for_another_call_s() {
    let mut fake = Fake::start();
    let hf =
        fake.builder().with_time_limit(Duration::from_secs(1)).connect().await.expect("no panic");
    let late = tokio::spawn({
        let hf = hf.clone();
        async move { hf.status(X).await }
    });
    let mut session = fake.sessions.recv().await.expect("a stream");
    let (request, _) = session.call().await;
    let error = late.await.expect("no panic").expect_err("too late");
    assert!(matches!(error, Error::Fault(Fault::TimedOut { sent: true, .. })), "{error:?}");
    session.answer(request, committed()).await;
    let next = tokio::spawn(async move { hf.status(X).await });
    let (request, _) = session.call().await;
    session.answer(request, failed("aborted", true)).await;
    let outcome = next.await.expect("no panic").expect("answered");
    assert_eq!(outcome.state, State::Failed);
    assert!(outcome.retryable);
}

#[tokio::test(start_paused = true)]
async fn what_would_break_the_frame_is_refused_here() {
    let fake = Fake::start();
    let hf = fake.connect().await;
    let large = vec![0; (1 << 20) + 1];
    let refused = |error: TransactionError| match error {
        TransactionError::Refused(refusal) => refusal.known(),
        other => panic!("{other:?}"),
    };
    let work = hf.transaction(|tx| {
        tx.call("payments", large.clone()).call("a", "b");
    });
    assert_eq!(refused(work.await.expect_err("work")), Some(Code::TooLarge));
    let event = Event::new("a", "/b").with_data(large.clone());
    let events = hf.transaction(|tx| {
        tx.publish("t", event);
    });
    assert_eq!(refused(events.await.expect_err("event")), Some(Code::TooLarge));
    let many = hf.transaction(|tx| {
        for n in 0..20 {
            tx.call(format!("s{n}"), vec![0; 1 << 20]);
        }
    });
    assert_eq!(refused(many.await.expect_err("all together")), Some(Code::TooLarge));
    let keyed = hf.transaction(|tx| {
        tx.with_key("x".repeat(129)).call("a", "b");
    });
    assert_eq!(refused(keyed.await.expect_err("key")), Some(Code::InvalidArgument));
}

#[tokio::test(start_paused = true)]
async fn step_by_step() {
    let mut fake = Fake::start();
    let hf = fake.connect().await;
    let (mut tx, mut session) = begun(&mut fake, &hf, BeginOptions::new()).await;
    assert_eq!(tx.id(), X);
    let steps = tokio::spawn(async move {
        tx.call("payments", "take 100").await.expect("enlisted");
        let refused = tx.publish("nowhere", Event::new("a", "/b")).await.expect_err("refused");
        assert!(matches!(refused, TransactionError::Refused(_)), "{refused:?}");
        tx.publish("transfers", Event::new("a", "/b")).await.expect("staged");
        tx.commit_with(Wait::Decided).await
    });
    let counted =
        |branches, items| Answer::Counted(v1::Counted { branches, items, branch_ids: Vec::new() });
    let (request, call) = session.call().await;
    assert!(matches!(call, Call::Enlist(_)), "{call:?}");
    session.answer(request, counted(1, 0)).await;
    let (request, call) = session.call().await;
    assert!(matches!(call, Call::Stage(_)), "{call:?}");
    session.answer(request, refusal(Code::UnknownTopic)).await;
    let (request, _) = session.call().await;
    session.answer(request, counted(1, 1)).await;
    let (request, call) = session.call().await;
    let Call::Commit(commit) = call else { panic!("{call:?}") };
    assert_eq!((commit.branches, commit.items), (1, 1), "the refused one does not count");
    session.answer(request, committed()).await;
    assert_eq!(steps.await.expect("no panic").expect("committed").id, X);
}

#[tokio::test(start_paused = true)]
async fn a_lost_commit_is_looked_up() {
    let unknown = || refusal(Code::UnknownTransaction);
    for (answer, expected) in [
        (committed(), Ok(())),
        (failed("client_gone", true), Err(("client_gone", true))),
        (unknown(), Err(("unknown_transaction", false))),
    ] {
        let mut fake = Fake::start();
        let hf = fake.connect().await;
        let (tx, mut session) = begun(&mut fake, &hf, BeginOptions::new()).await;
        let commit = tokio::spawn(tx.commit());
        let (_, call) = session.call().await;
        assert!(matches!(call, Call::Commit(_)), "{call:?}");
        session.cut().await;
        let mut session = fake.sessions.recv().await.expect("a stream");
        let (request, call) = session.call().await;
        assert!(matches!(call, Call::Get(_)), "asked, not committed again: {call:?}");
        session.answer(request, answer).await;
        match (commit.await.expect("no panic"), expected) {
            (Ok(committed), Ok(())) => assert_eq!(committed.id, X),
            (Err(TransactionError::Failed { id, reason, retryable }), Err(expected)) => {
                assert_eq!((id, reason.code.as_str(), retryable), (X, expected.0, expected.1));
            }
            (other, expected) => panic!("{other:?} is not {expected:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_commit_that_cannot_be_looked_up_is_unknown() {
    let mut fake = Fake::start();
    let hf = fake.connect().await;
    let (tx, mut session) = begun(&mut fake, &hf, BeginOptions::new()).await;
    let commit = tokio::spawn(tx.commit());
    session.call().await;
    fake.down(true);
    session.cut().await;
    let error = commit.await.expect("no panic").expect_err("nobody says");
    assert!(matches!(error, TransactionError::Unknown { id: Some(X), .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_transaction_whose_stream_is_lost_before_commit_has_failed() {
    let mut fake = Fake::start();
    let hf = fake.connect().await;
    let (mut tx, mut session) = begun(&mut fake, &hf, BeginOptions::new()).await;
    let step = tokio::spawn(async move {
        let result = tx.call("payments", "w").await;
        (tx, result)
    });
    session.call().await;
    session.cut().await;
    let (tx, result) = step.await.expect("no panic");
    let is_gone = |error: &TransactionError| {
        let TransactionError::Failed { id: X, reason, retryable: true } = error else {
            panic!("{error:?}")
        };
        assert_eq!(reason.code, "client_gone");
    };
    is_gone(&result.expect_err("its stream is gone"));
    drop(tx);

    // The same, when the stream is lost between two steps: nothing is asked on another stream.
    let (tx, session) = begun(&mut fake, &hf, BeginOptions::new()).await;
    session.cut().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    is_gone(&tx.commit().await.expect_err("its stream is gone"));
    assert!(fake.sessions.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_detached_transaction_outlives_its_stream() {
    let mut fake = Fake::start();
    let hf = fake.connect().await;
    let (tx, session) = begun(&mut fake, &hf, BeginOptions::new().detached()).await;
    session.cut().await;
    let commit = tokio::spawn(tx.commit());
    let mut session = fake.sessions.recv().await.expect("a stream");
    let (request, call) = session.call().await;
    assert!(matches!(call, Call::Commit(_)), "{call:?}");
    session.answer(request, committed()).await;
    commit.await.expect("no panic").expect("committed");
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_is_dropped_is_aborted() {
    let mut fake = Fake::start();
    let hf = fake.connect().await;
    let (tx, mut session) = begun(&mut fake, &hf, BeginOptions::new()).await;
    drop(tx);
    // The handle goes too: what was asked is sent all the same.
    drop(hf);
    let (request, call) = session.call().await;
    assert!(
        matches!(&call, Call::Abort(abort) if abort.transaction_id == ids::transaction_bytes(X))
    );
    session.answer(request, failed("aborted", true)).await;
    session.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_dropped_makes_the_commit_an_abort() {
    let mut fake = Fake::start();
    let hf = fake.connect().await;
    let (mut tx, mut session) = begun(&mut fake, &hf, BeginOptions::new()).await;
    let step = tokio::time::timeout(Duration::from_secs(1), tx.call("payments", "w"));
    step.await.expect_err("it is not answered");
    let (_, call) = session.call().await;
    assert!(matches!(call, Call::Enlist(_)), "{call:?}");
    let error = tx.commit().await.expect_err("what it has got is not known");
    assert!(
        matches!(&error, TransactionError::Failed { reason, .. } if reason.code == "incomplete")
    );
    let (_, call) = session.call().await;
    assert!(matches!(call, Call::Abort(_)), "never a commit: {call:?}");
}

#[tokio::test(start_paused = true)]
async fn abort_says_what_stands() {
    let mut fake = Fake::start();
    let hf = fake.connect().await;
    let (tx, mut session) = begun(&mut fake, &hf, BeginOptions::new()).await;
    let abort = tokio::spawn(tx.abort("changed my mind"));
    let (request, call) = session.call().await;
    assert!(matches!(&call, Call::Abort(abort) if abort.detail == "changed my mind"), "{call:?}");
    session.answer(request, failed("aborted", true)).await;
    assert_eq!(abort.await.expect("no panic").expect("answered").state, State::Failed);
}
