//! A client with the contract's messages calls a server that takes events as bytes. No sockets:
//! the server's service is the client's transport. Needs both features.
#![cfg(all(feature = "client", feature = "server"))]

use handfast_core::command::Command;
use handfast_core::ids::{Offset, TopicId, TransactionId};
use handfast_core::output::Reply;
use handfast_core::refusal::{Code, Refusal};
use handfast_wire::bytes::Bytes;
use handfast_wire::raw::transaction_request::Call;
use handfast_wire::raw::transactions_server::{Transactions, TransactionsServer};
use handfast_wire::tonic::{self, Request, Response, Status, Streaming, async_trait};
use handfast_wire::transactions::{About, Door};
use handfast_wire::v1::transactions_client::TransactionsClient;
use handfast_wire::{event, events, raw, status, transactions, v1};

/// Counts what is staged, and refuses everything else.
struct Counter;

fn counter(call: Call) -> Reply {
    match transactions::command(call, TransactionId(1), Door::Unary) {
        Ok(Command::Stage { events, .. }) => {
            let items = u32::try_from(events.len()).expect("a few");
            Reply::Counted { id: TransactionId(1), databases: vec![], branches: 0, items }
        }
        Ok(_) => Reply::Refused(Refusal::new(Code::Draining, "only counts")),
        Err(refusal) => Reply::Refused(refusal),
    }
}

static HOMES: handfast_wire::Homes = handfast_wire::Homes::new();
static ABOUT: About<'_> =
    About { store: handfast_core::ids::StoreId(2), keys_since_ms: 7, homes: &HOMES };

type Answer<T> = Result<Response<T>, Status>;

#[async_trait]
impl Transactions for Counter {
    type SessionStream = tonic_stream::Never;

    async fn begin(&self, request: Request<raw::BeginRequest>) -> Answer<v1::Begun> {
        transactions::begun(counter(Call::Begin(request.into_inner())), ABOUT).map(Response::new)
    }
    async fn begin_local(&self, request: Request<raw::BeginLocalRequest>) -> Answer<v1::Begun> {
        transactions::begun(counter(Call::BeginLocal(request.into_inner())), ABOUT)
            .map(Response::new)
    }
    async fn enlist(&self, request: Request<v1::EnlistRequest>) -> Answer<v1::Counted> {
        transactions::counted(counter(Call::Enlist(request.into_inner())), ABOUT).map(Response::new)
    }
    async fn stage(&self, request: Request<raw::StageRequest>) -> Answer<v1::Counted> {
        transactions::counted(counter(Call::Stage(request.into_inner())), ABOUT).map(Response::new)
    }
    async fn commit(&self, request: Request<v1::CommitRequest>) -> Answer<v1::Outcome> {
        transactions::outcome(counter(Call::Commit(request.into_inner())), ABOUT).map(Response::new)
    }
    async fn vote(&self, request: Request<v1::VoteRequest>) -> Answer<v1::Voted> {
        transactions::voted(counter(Call::Vote(request.into_inner())), ABOUT).map(Response::new)
    }
    async fn resolve(&self, _: Request<v1::ResolveRequest>) -> Answer<v1::Outcome> {
        Err(Status::unimplemented("only counts"))
    }
    async fn list_ended(&self, _: Request<v1::ListEndedRequest>) -> Answer<v1::ListEndedReply> {
        Err(Status::unimplemented("only counts"))
    }
    async fn abort(&self, request: Request<v1::AbortRequest>) -> Answer<v1::Outcome> {
        transactions::outcome(counter(Call::Abort(request.into_inner())), ABOUT).map(Response::new)
    }
    async fn extend(&self, request: Request<v1::ExtendRequest>) -> Answer<v1::Remaining> {
        transactions::remaining(counter(Call::Extend(request.into_inner())), ABOUT)
            .map(Response::new)
    }
    async fn run(&self, request: Request<raw::RunRequest>) -> Answer<v1::Outcome> {
        transactions::outcome(counter(Call::Run(request.into_inner())), ABOUT).map(Response::new)
    }
    async fn get(&self, request: Request<v1::GetRequest>) -> Answer<v1::Outcome> {
        transactions::outcome(counter(Call::Get(request.into_inner())), ABOUT).map(Response::new)
    }
    async fn show(&self, request: Request<v1::ShowRequest>) -> Answer<v1::Transaction> {
        transactions::transaction(counter(Call::Show(request.into_inner())), ABOUT)
            .map(Response::new)
    }
    async fn list(
        &self,
        request: Request<v1::ListTransactionsRequest>,
    ) -> Answer<v1::ListTransactionsReply> {
        transactions::transactions(counter(Call::List(request.into_inner())), ABOUT)
            .map(Response::new)
    }
    async fn session(
        &self,
        _: Request<Streaming<raw::TransactionFrame>>,
    ) -> Answer<Self::SessionStream> {
        Err(status::status(Refusal::new(Code::NotSupported, "only counts")))
    }
}

mod tonic_stream {
    //! A stream that is never made.
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use handfast_wire::tonic::Status;
    use handfast_wire::tonic::codegen::tokio_stream::Stream;
    use handfast_wire::v1::TransactionReplyFrame;

    pub(crate) enum Never {}

    impl Stream for Never {
        type Item = Result<TransactionReplyFrame, Status>;

        fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            match *self {}
        }
    }
}

#[test]
fn a_client_and_a_server_understand_each_other() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut client = TransactionsClient::new(TransactionsServer::new(Counter));
    let transaction_id = Bytes::from_static(&[1; 16]);
    let good = v1::Event {
        id: "1".into(),
        source: "/s".into(),
        spec_version: event::SPEC_VERSION.into(),
        r#type: "t".into(),
        ..v1::Event::default()
    };
    let stage = |event| v1::StageRequest {
        transaction_id: transaction_id.clone(),
        events: vec![v1::NewEvent { topic: "orders".into(), event: Some(event) }],
        acknowledgements: vec![],
    };
    runtime.block_on(async {
        let counted = client.stage(stage(good)).await.expect("it is well-formed").into_inner();
        assert_eq!(counted, v1::Counted { items: 1, ..v1::Counted::default() });

        let status = client.stage(stage(v1::Event::default())).await.expect_err("it has no id");
        let refusal = status::refusal(&status).expect("it says why");
        assert_eq!(refusal.code, "invalid_argument");
        assert!(!refusal.retryable && refusal.detail.contains("`id`"), "{refusal:?}");

        let show = v1::ShowRequest { transaction_id: transaction_id.clone() };
        let status = client.show(show).await.expect_err("it only counts");
        assert_eq!(status.code(), tonic::Code::Unavailable);
        let refusal = status::refusal(&status).expect("it says why");
        assert_eq!((refusal.retryable, refusal.retry_after_ms), (true, 1_000));
    });
}

#[test]
#[should_panic(expected = "another command's reply")]
fn a_reply_to_another_command_is_a_bug() {
    let places = vec![(TopicId(1), Offset(1))];
    let _ = events::topic(Reply::Published { places, repeated: false });
}
