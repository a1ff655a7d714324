//! Transactions, call by call and on a Session.

use handfast_wire::bytes;
use handfast_wire::v1::TransactionState as State;
use handfast_wire::v1::transaction_reply::Result as Answer;
use handfast_wire::v1::transaction_request::Call;

use super::*;

fn begin() -> v1::BeginRequest {
    v1::BeginRequest { deadline_ms: 60_000, ..v1::BeginRequest::default() }
}

fn commit(id: &bytes::Bytes, branches: u32, items: u32) -> v1::CommitRequest {
    v1::CommitRequest { transaction_id: id.clone(), branches, items, ..Default::default() }
}

fn abort(id: &bytes::Bytes) -> v1::AbortRequest {
    v1::AbortRequest { transaction_id: id.clone(), detail: "changed my mind".into() }
}

#[tokio::test]
async fn a_transaction_call_by_call() {
    let world = World::new().await;
    world.topic("orders").await;
    let mut client = world.transactions();

    let begun = client.begin(begin()).await.unwrap().into_inner();
    let id = begun.transaction_id;
    assert!(!begun.repeated && begun.remaining_ms <= 60_000);
    let staged = v1::StageRequest {
        transaction_id: id.clone(),
        events: vec![new_event("orders", "a"), new_event("orders", "b")],
        acknowledgements: Vec::new(),
    };
    let counted = client.stage(staged).await.unwrap().into_inner();
    assert_eq!((counted.branches, counted.items), (0, 2));
    let extend = v1::ExtendRequest { transaction_id: id.clone(), deadline_ms: 120_000 };
    assert!(client.extend(extend).await.unwrap().into_inner().remaining_ms > 60_000);

    let get = || v1::GetRequest { transaction_id: id.clone(), wait: 0 };
    assert_eq!(client.get(get()).await.unwrap().into_inner().state(), State::Preparing);
    let list = v1::ListTransactionsRequest::default();
    let open = client.list(list.clone()).await.unwrap().into_inner().transactions;
    assert_eq!(open.len(), 1);
    assert_eq!((&open[0].transaction_id, open[0].events), (&id, 2));

    let outcome = client.commit(commit(&id, 0, 2)).await.unwrap().into_inner();
    assert_eq!((outcome.state(), outcome.transaction_id.clone()), (State::Committed, id.clone()));
    let show = v1::ShowRequest { transaction_id: id.clone() };
    let shown = client.show(show).await.unwrap().into_inner();
    assert_eq!(shown.state(), State::Committed);
    assert!(client.list(list).await.unwrap().into_inner().transactions.is_empty());
    let again = client.commit(commit(&id, 0, 2)).await.unwrap().into_inner();
    assert_eq!(again.state(), State::Committed);
}

#[tokio::test]
async fn run_abort_and_incomplete() {
    let world = World::new().await;
    world.topic("orders").await;
    let mut client = world.transactions();
    let run = v1::RunRequest {
        idempotency_key: "once".into(),
        events: vec![new_event("orders", "a")],
        ..v1::RunRequest::default()
    };
    let first = client.run(run.clone()).await.unwrap().into_inner();
    assert_eq!(first.state(), State::Committed);
    assert_eq!(client.run(run.clone()).await.unwrap().into_inner(), first);
    let other = v1::RunRequest { events: vec![new_event("orders", "b")], ..run };
    let expected = (tonic::Code::AlreadyExists, "key_conflict".into());
    assert_eq!(refused(client.run(other).await), expected);

    let id = client.begin(begin()).await.unwrap().into_inner().transaction_id;
    let outcome = client.abort(abort(&id)).await.unwrap().into_inner();
    assert_eq!(outcome.state(), State::Failed);
    assert_eq!(outcome.reason.unwrap().code, "aborted");

    let id = client.begin(begin()).await.unwrap().into_inner().transaction_id;
    let outcome = client.commit(commit(&id, 0, 1)).await.unwrap().into_inner();
    assert_eq!(outcome.reason.unwrap().code, "incomplete");
}

#[tokio::test]
async fn refusals_are_typed() {
    let world = World::new().await;
    let mut client = world.transactions();
    let short = v1::GetRequest { transaction_id: vec![1, 2].into(), wait: 0 };
    let expected = (tonic::Code::InvalidArgument, "invalid_argument".into());
    assert_eq!(refused(client.get(short).await), expected);
    let unknown = v1::GetRequest { transaction_id: vec![1; 16].into(), wait: 0 };
    let expected = (tonic::Code::NotFound, "unknown_transaction".into());
    assert_eq!(refused(client.get(unknown).await), expected);
    let local = v1::BeginLocalRequest { database: "orders".into(), ..Default::default() };
    let expected = (tonic::Code::NotFound, "unknown_database".into());
    assert_eq!(refused(client.begin_local(local).await), expected);
    let nowhere = v1::RunRequest { events: vec![new_event("nope", "a")], ..Default::default() };
    let expected = (tonic::Code::NotFound, "unknown_topic".into());
    assert_eq!(refused(client.run(nowhere).await), expected);
    let long = v1::BeginRequest { deadline_ms: 3_600_001, ..begin() };
    let expected = (tonic::Code::InvalidArgument, "invalid_deadline".into());
    assert_eq!(refused(client.begin(long).await), expected);
    let branch = v1::Branch { participant: "p".into(), kind: 0, work: None };
    let enlist = v1::EnlistRequest { transaction_id: vec![1; 16].into(), branches: vec![branch] };
    let expected = (tonic::Code::NotFound, "unknown_transaction".into());
    assert_eq!(refused(client.enlist(enlist).await), expected);
}

fn request(request: u64, call: Call) -> v1::TransactionRequest {
    v1::TransactionRequest { request, call: Some(call) }
}

fn frame(requests: Vec<v1::TransactionRequest>) -> v1::TransactionFrame {
    v1::TransactionFrame { requests }
}

async fn answers(
    replies: &mut Streaming<v1::TransactionReplyFrame>,
    count: usize,
) -> Vec<(u64, Answer)> {
    let found = collect(replies, count, |frame| frame.replies).await;
    let mut found: Vec<_> = found.into_iter().map(|r| (r.request, r.result.unwrap())).collect();
    found.sort_by_key(|(request, _)| *request);
    found
}

#[tokio::test]
async fn a_session_answers_each_request_once() {
    let world = World::new().await;
    world.topic("orders").await;
    let (sending, stream) = Sending::new();
    let mut replies = world.transactions().session(stream).await.unwrap().into_inner();

    let begins = (1..=2_000).map(|n| request(n, Call::Begin(begin()))).collect();
    sending.send(frame(begins)).await;
    let begun = answers(&mut replies, 2_000).await;
    let ids: Vec<_> = begun
        .iter()
        .map(|(_, answer)| match answer {
            Answer::Begun(begun) => begun.transaction_id.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    let commits = ids.iter().zip(1..).map(|(id, n)| request(n, Call::Commit(commit(id, 0, 0))));
    sending.send(frame(commits.collect())).await;
    let outcomes = answers(&mut replies, 2_000).await;
    for (n, (request, answer)) in (1..).zip(&outcomes) {
        assert_eq!(*request, n);
        assert!(matches!(answer, Answer::Outcome(o) if o.state() == State::Committed));
    }
    drop(sending);
    assert_eq!(replies.message().await.unwrap(), None, "everything is answered");
}

#[tokio::test]
async fn one_bad_request_does_not_spoil_its_frame() {
    let world = World::new().await;
    let (sending, stream) = Sending::new();
    let mut replies = world.transactions().session(stream).await.unwrap().into_inner();
    let unknown = vec![1; 16].into();
    sending
        .send(frame(vec![
            request(1, Call::Abort(abort(&bytes::Bytes::new()))),
            v1::TransactionRequest { request: 2, call: None },
            request(3, Call::Commit(commit(&unknown, 0, 0))),
            request(4, Call::Begin(begin())),
            request(5, Call::List(v1::ListTransactionsRequest::default())),
        ]))
        .await;
    // Replies that come after the client has said all are still sent.
    drop(sending);
    let answers = answers(&mut replies, 5).await;
    let code = |answer: &Answer| match answer {
        Answer::Refusal(refusal) => refusal.code.clone(),
        other => format!("{other:?}"),
    };
    assert_eq!(code(&answers[0].1), "invalid_argument");
    assert_eq!(code(&answers[1].1), "invalid_argument");
    assert_eq!(code(&answers[2].1), "unknown_transaction");
    assert!(matches!(answers[3].1, Answer::Begun(_)), "{answers:?}");
    assert!(matches!(answers[4].1, Answer::Transactions(_)), "{answers:?}");
    assert_eq!(replies.message().await.unwrap(), None);
}

#[tokio::test]
async fn what_a_session_began_fails_with_it_unless_detached() {
    let world = World::new().await;
    let (sending, stream) = Sending::new();
    let mut replies = world.transactions().session(stream).await.unwrap().into_inner();
    let detached = v1::BeginRequest { detached: true, ..begin() };
    let begins = vec![request(1, Call::Begin(begin())), request(2, Call::Begin(detached))];
    sending.send(frame(begins)).await;
    let ids: Vec<_> = answers(&mut replies, 2)
        .await
        .into_iter()
        .map(|(_, answer)| match answer {
            Answer::Begun(begun) => begun.transaction_id,
            other => panic!("{other:?}"),
        })
        .collect();
    let mut client = world.transactions();
    let unary = client.begin(begin()).await.unwrap().into_inner().transaction_id;
    drop((sending, replies));

    let wait = v1::Wait::Decided.into();
    let get = v1::GetRequest { transaction_id: ids[0].clone(), wait };
    let outcome = client.get(get).await.unwrap().into_inner();
    assert_eq!(outcome.state(), State::Failed);
    assert_eq!(outcome.reason.unwrap().code, "client_gone");
    for id in [ids[1].clone(), unary] {
        let get = v1::GetRequest { transaction_id: id, wait: 0 };
        assert_eq!(client.get(get).await.unwrap().into_inner().state(), State::Preparing);
    }
}

#[tokio::test]
async fn a_frame_that_is_no_protobuf_ends_the_stream() {
    // A message whose first field is a number, where the frame has messages.
    type Foreign = v1::Credit;
    let world = World::new().await;
    let mut client = tonic::client::Grpc::new(world.channel.clone());
    client.ready().await.unwrap();
    let path = axum::http::uri::PathAndQuery::from_static("/handfast.v1.Transactions/Session");
    let codec = tonic_prost::ProstCodec::<Foreign, v1::TransactionReplyFrame>::default();
    let (sending, stream) = Sending::new();
    let request = tonic::Request::new(stream);
    let mut replies = client.streaming(request, path, codec).await.unwrap().into_inner();
    sending.send(Foreign { more: 77 }).await;
    let status = replies.message().await.expect_err("it is not a frame");
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}");
    assert!(status.message().contains("not well-formed"), "{status:?}");
}
