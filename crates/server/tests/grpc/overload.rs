//! More than the server takes: refused with a stable code and when to come again, on a stream and in
//! calls of their own, while what was taken before goes on to its end.

use handfast_wire::bytes::Bytes;
use handfast_wire::v1::TransactionState as State;
use handfast_wire::v1::transaction_reply::Result as Answer;
use handfast_wire::v1::transaction_request::Call;

use super::*;

/// What the server takes at once.
const OPEN: usize = 8;
const ASKED: usize = 100;

struct Session {
    sending: Sending<v1::TransactionFrame>,
    replies: Streaming<v1::TransactionReplyFrame>,
}

impl Session {
    async fn open(world: &World) -> Self {
        let (sending, stream) = Sending::new();
        let replies = world.transactions().session(stream).await.unwrap().into_inner();
        Self { sending, replies }
    }

    /// Asks all of it in one frame; the answers, in the order of the questions.
    async fn ask(&mut self, calls: Vec<Call>) -> Vec<Answer> {
        let count = calls.len();
        let requests = calls
            .into_iter()
            .zip(1..)
            .map(|(call, request)| v1::TransactionRequest { request, call: Some(call) });
        self.sending.send(v1::TransactionFrame { requests: requests.collect() }).await;
        let mut answers = collect(&mut self.replies, count, |frame| frame.replies).await;
        answers.sort_by_key(|answer| answer.request);
        answers.into_iter().map(|answer| answer.result.unwrap()).collect()
    }

    /// Begins so many; the ids of those that were taken. The others were refused as they should be.
    async fn begin(&mut self, count: usize) -> Vec<Bytes> {
        let begin = v1::BeginRequest { deadline_ms: 600_000, ..Default::default() };
        let mut begun = Vec::new();
        for answer in self.ask(vec![Call::Begin(begin); count]).await {
            match answer {
                Answer::Begun(answer) => begun.push(answer.transaction_id),
                Answer::Refusal(refusal) => {
                    assert_eq!(refusal.code, "too_many_transactions");
                    assert!(refusal.retryable && refusal.retry_after_ms > 0, "{refusal:?}");
                }
                other => panic!("{other:?}"),
            }
        }
        begun
    }

    async fn commit(&mut self, ids: &[Bytes]) {
        let commit = |id: &Bytes| {
            Call::Commit(v1::CommitRequest { transaction_id: id.clone(), ..Default::default() })
        };
        for answer in self.ask(ids.iter().map(commit).collect()).await {
            let Answer::Outcome(outcome) = answer else { panic!("{answer:?}") };
            assert_eq!(outcome.state(), State::Committed);
        }
    }
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.open_transactions = OPEN;
    limits
}

/// The refusal of a call of its own: its code, and in how many milliseconds to come again.
fn hint<T: std::fmt::Debug>(result: Result<T, Status>) -> (String, u64) {
    let status = result.expect_err("it is refused");
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    let refusal = status::refusal(&status).unwrap();
    assert!(refusal.retryable);
    (refusal.code, refusal.retry_after_ms)
}

#[tokio::test]
async fn transactions_beyond_the_limit_are_refused_with_a_hint_and_those_taken_end() {
    let world = World::with_limits(limits()).await;
    let mut session = Session::open(&world).await;
    for _ in 0..3 {
        let taken = session.begin(ASKED).await;
        assert_eq!(taken.len(), OPEN);
        // On another stream, and in calls of their own, it is the same limit.
        assert_eq!(Session::open(&world).await.begin(1).await.len(), 0);
        let (code, after_ms) = hint(world.transactions().begin(v1::BeginRequest::default()).await);
        assert!(code == "too_many_transactions" && after_ms > 0, "{code}, {after_ms}");
        session.commit(&taken).await;
    }
    // As soon as there is room, and exactly as much as there is.
    assert_eq!(session.begin(OPEN).await.len(), OPEN);
}

#[tokio::test]
async fn work_and_events_beyond_their_bytes_are_refused_with_a_hint() {
    let mut limits = Limits::default();
    (limits.staged_bytes, limits.work_bytes) = (10_000, 10_000);
    let world = World::with_limits(limits).await;
    world.topic("orders").await;
    let mut client = world.transactions();
    let event = |bytes: usize| {
        let mut event = event("large");
        event.data = Some(v1::event::Data::TextData("x".repeat(bytes)));
        v1::NewEvent { topic: "orders".into(), event: Some(event) }
    };
    let branch = |bytes: usize| v1::Branch {
        participant: "payments".into(),
        kind: 0,
        work: Some(vec![7; bytes].into()),
    };
    let begin = |events, branches| v1::BeginRequest { events, branches, ..Default::default() };
    let staged = client.begin(begin(vec![event(6_000)], vec![])).await.unwrap().into_inner();
    let working = client.begin(begin(vec![], vec![branch(6_000)])).await.unwrap().into_inner();
    for request in [begin(vec![event(6_000)], vec![]), begin(vec![], vec![branch(6_000)])] {
        let (code, after_ms) = hint(client.begin(request).await);
        assert!(code == "staged_bytes_full" && after_ms > 0, "{code}, {after_ms}");
    }
    for begun in [staged, working] {
        let abort = v1::AbortRequest { transaction_id: begun.transaction_id, ..Default::default() };
        client.abort(abort).await.unwrap();
    }
    for request in [begin(vec![event(6_000)], vec![]), begin(vec![], vec![branch(6_000)])] {
        client.begin(request).await.unwrap();
    }
}

#[tokio::test]
async fn calls_beyond_the_limit_are_refused_with_a_hint_and_streams_go_on() {
    let mut limits = limits();
    limits.finish_wait_ms = 600_000;
    let mut queues = Queues::default();
    queues.calls = 1;
    let world = World::with(limits, queues).await;
    let mut session = Session::open(&world).await;
    let id = session.begin(1).await.remove(0);
    let get = |wait: v1::Wait| v1::GetRequest { transaction_id: id.clone(), wait: wait.into() };
    let mut client = world.transactions();
    let waiting = tokio::spawn({
        let (mut client, get) = (client.clone(), get(v1::Wait::Finished));
        async move {
            loop {
                match client.get(get.clone()).await {
                    // The other one was here first.
                    Err(status) if status.code() == tonic::Code::ResourceExhausted => {}
                    answered => return answered,
                }
            }
        }
    });
    // It waits for the end of the transaction, and has the only place as soon as it has it.
    let list = v1::ListTransactionsRequest::default();
    let refused = async {
        loop {
            let listed = client.list(list.clone()).await;
            if listed.is_err() {
                return hint(listed);
            }
        }
    };
    let (code, after_ms) = tokio::time::timeout(NEVER, refused).await.expect("it is refused");
    assert!(code == "too_many_calls" && after_ms > 0, "{code}, {after_ms}");
    // The stream needs no place.
    session.commit(&[id]).await;
    let outcome = waiting.await.unwrap().unwrap().into_inner();
    assert_eq!(outcome.state(), State::Committed);
    client.list(list).await.unwrap();
}
