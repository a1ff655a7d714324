//! A server with too much to do: what it refuses for that is asked for again when it says, and
//! everything else that is refused is handed on.

use std::time::Duration;

use handfast::{Code, State, TransactionError};
use handfast_wire::raw::transaction_request::Call;
use handfast_wire::v1::transaction_reply::Result as Answer;
use handfast_wire::{ids, v1};
use tokio::time::Instant;

use crate::fake::Fake;
use crate::transactions::{X, committed, refusal, transfer};

/// What the server asks for.
const PAUSE: Duration = Duration::from_millis(200);

#[tokio::test(start_paused = true)]
async fn the_same_is_asked_again_after_the_pause_that_the_refusal_names() {
    let mut fake = Fake::start();
    let hf = fake.connect().await;
    let run = tokio::spawn(async move { hf.run(transfer()).await });
    let mut session = fake.sessions.recv().await.expect("a stream");
    let (mut request, first) = session.call().await;
    for (code, pause) in [(Code::TooManyTransactions, PAUSE), (Code::StagedBytesFull, 2 * PAUSE)] {
        let refused = Instant::now();
        session.answer(request, refusal(code)).await;
        let (number, again) = session.call().await;
        assert_eq!(first, again, "with its key");
        // On the test's own clock.
        assert!(refused.elapsed() >= pause, "{:?}", refused.elapsed());
        request = number;
    }
    session.answer(request, committed()).await;
    run.await.expect("no panic").expect("committed");
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_holds_up_nobody_else() {
    let mut fake = Fake::start();
    let hf = fake.builder().with_in_flight(1).connect().await.expect("it answers");
    let run = tokio::spawn({
        let hf = hf.clone();
        async move { hf.run(transfer()).await }
    });
    let mut session = fake.sessions.recv().await.expect("a stream");
    let (request, _) = session.call().await;
    session.answer(request, refusal(Code::TooManyTransactions)).await;
    let status = tokio::spawn(async move { hf.status(X).await });
    let (request, call) = session.call().await;
    assert!(matches!(call, Call::Get(_)), "{call:?}");
    session.answer(request, committed()).await;
    assert_eq!(status.await.expect("no panic").expect("answered").state, State::Committed);
    let (request, _) = session.call().await;
    session.answer(request, committed()).await;
    run.await.expect("no panic").expect("committed");
}

#[tokio::test(start_paused = true)]
async fn a_transaction_step_by_step_waits_as_well() {
    let mut fake = Fake::start();
    let hf = fake.connect().await;
    let begin = tokio::spawn(async move { hf.begin().await.map(|tx| tx.id()) });
    let mut session = fake.sessions.recv().await.expect("a stream");
    let (request, _) = session.call().await;
    session.answer(request, refusal(Code::TooManyTransactions)).await;
    let (request, call) = session.call().await;
    assert!(matches!(call, Call::Begin(_)), "{call:?}");
    let transaction_id = ids::transaction_bytes(X);
    let begun = v1::Begun { transaction_id, remaining_ms: 30_000, ..Default::default() };
    session.answer(request, Answer::Begun(begun)).await;
    assert_eq!(begin.await.expect("no panic").expect("begun"), X);
}

#[tokio::test(start_paused = true)]
async fn its_time_limit_ends_with_the_refusal() {
    let mut fake = Fake::start();
    let limit = Duration::from_secs(10);
    let hf = fake.builder().with_time_limit(limit).connect().await.expect("it answers");
    let run = tokio::spawn({
        let hf = hf.clone();
        async move {
            let mut transaction = transfer();
            transaction.with_deadline(Duration::from_secs(1));
            hf.run(transaction).await
        }
    });
    let mut session = fake.sessions.recv().await.expect("a stream");
    let mut asked = 0;
    while !run.is_finished() {
        tokio::select! {
            (request, _) = session.call() => {
                asked += 1;
                session.answer(request, refusal(Code::TooManyTransactions)).await;
            }
            () = tokio::time::sleep(limit) => {}
        }
    }
    let error = run.await.expect("no panic").expect_err("refused");
    let TransactionError::Refused(refused) = &error else { panic!("{error:?}") };
    assert!(refused.is(Code::TooManyTransactions) && error.has_no_side_effects());
    assert!((3..10).contains(&asked), "asked {asked} times in 11 s, with longer and longer pauses");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_want_to_wait_is_told_when_to_come_again() {
    let mut fake = Fake::start();
    let hf = fake.builder().with_retry_when_busy(false).connect().await.expect("it answers");
    let run = tokio::spawn(async move { hf.run(transfer()).await });
    let mut session = fake.sessions.recv().await.expect("a stream");
    let (request, _) = session.call().await;
    session.answer(request, refusal(Code::TooManyTransactions)).await;
    let error = run.await.expect("no panic").expect_err("refused");
    let TransactionError::Refused(refused) = &error else { panic!("{error:?}") };
    assert_eq!((refused.known(), refused.retry_after), (Some(Code::TooManyTransactions), PAUSE));
    assert!(error.is_retryable() && error.has_no_side_effects());
}

#[tokio::test(start_paused = true)]
async fn most_of_what_would_be_refused_is_not_sent_but_a_repeat_always_is() {
    const MANY: usize = 500;
    let mut fake = Fake::start();
    let hf = fake.builder().with_retry_when_busy(false).connect().await.expect("it answers");
    let refusals = tokio::spawn(async move {
        for number in 0..2 * MANY {
            let mut transaction = transfer();
            if number >= MANY {
                transaction.with_key(format!("mine-{number}"));
            }
            let error = hf.run(transaction).await.expect_err("refused");
            let TransactionError::Refused(refused) = error else { panic!("{error:?}") };
            assert!(refused.is(Code::TooManyTransactions), "{refused}");
            assert_eq!(refused.retry_after, PAUSE);
        }
    });
    let mut session = fake.sessions.recv().await.expect("a stream");
    let (mut mine, mut others) = (0, 0);
    while mine < MANY {
        let (request, call) = session.call().await;
        let Call::Run(run) = call else { panic!("{call:?}") };
        let sent = if run.idempotency_key.starts_with("mine-") { &mut mine } else { &mut others };
        *sent += 1;
        session.answer(request, refusal(Code::TooManyTransactions)).await;
    }
    assert!((2..MANY / 4).contains(&others), "{others} of {MANY}");
    refusals.await.expect("no panic");
}

/// What was sent on a stream that was lost may have committed, which only the server can say.
#[tokio::test(start_paused = true)]
async fn what_may_have_taken_effect_is_never_held_back() {
    let mut fake = Fake::start();
    let hf = fake.connect().await;
    let run = || {
        let hf = hf.clone();
        tokio::spawn(async move { hf.run(transfer()).await })
    };
    let key_of = |call: &Call| match call {
        Call::Run(run) => run.idempotency_key.clone(),
        call => panic!("{call:?}"),
    };
    let lost = run();
    let mut session = fake.sessions.recv().await.expect("a stream");
    let (_, call) = session.call().await;
    let key = key_of(&call);
    session.cut().await;
    let mut session = fake.sessions.recv().await.expect("a stream");
    let (repeat, _) = session.call().await;

    // Very many others are refused, and all but a few of them held back when they come again.
    let others: Vec<_> = (0..1_000).map(|_| run()).collect();
    let refuse_others = async {
        loop {
            for (request, _) in session.calls().await {
                session.answer(request, refusal(Code::TooManyTransactions)).await;
            }
        }
    };
    tokio::time::timeout(4 * PAUSE, refuse_others).await.expect_err("they come again and again");
    session.answer(repeat, refusal(Code::TooManyTransactions)).await;
    let again = async {
        loop {
            for (request, call) in session.calls().await {
                if key_of(&call) == key {
                    return session.answer(request, committed()).await;
                }
                session.answer(request, refusal(Code::TooManyTransactions)).await;
            }
        }
    };
    tokio::time::timeout(2 * PAUSE, again).await.expect("it is asked after the first pause");
    lost.await.expect("no panic").expect("committed");
    others.iter().for_each(tokio::task::JoinHandle::abort);
}
