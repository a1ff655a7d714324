//! A server that does what the test says: each stream that a client opens is handed to the test,
//! which reads its frames and answers, or does not.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use handfast::{Builder, Handfast};
use handfast_wire::raw::transaction_request::Call;
use handfast_wire::v1::transaction_reply::Result as Answer;
use handfast_wire::{raw, server, status, v1};
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::codegen::{Service, http::Uri};
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

type Replies<T> = ReceiverStream<Result<T, Status>>;
type Reply<T> = Result<Response<T>, Status>;

/// One stream of a client.
pub(crate) struct Stream<In, Out> {
    incoming: Streaming<In>,
    outgoing: mpsc::Sender<Result<Out, Status>>,
}

impl<In, Out> Stream<In, Out> {
    /// The client's next frame.
    pub(crate) async fn frame(&mut self) -> In {
        self.incoming.message().await.expect("the client lives").expect("the client goes on")
    }

    /// Waits for the end of the client's side.
    pub(crate) async fn end(&mut self) {
        while let Ok(Some(_)) = self.incoming.message().await {}
    }

    pub(crate) async fn send(&self, frame: Out) {
        self.outgoing.send(Ok(frame)).await.expect("the client lives");
    }

    /// Ends the stream as a broken connection does.
    pub(crate) async fn cut(self) {
        self.end_with(Status::unavailable("cut")).await;
    }

    /// Ends the stream as a server does that says why.
    pub(crate) async fn end_with(self, status: Status) {
        drop(self.outgoing.send(Err(status)).await);
    }
}

pub(crate) type Session = Stream<raw::TransactionFrame, v1::TransactionReplyFrame>;
pub(crate) type Publishing = Stream<raw::PublishFrame, v1::PublishReplyFrame>;
pub(crate) type Subscribing = Stream<v1::FromSubscriberFrame, raw::ToSubscriberFrame>;
pub(crate) type Attaching = Stream<v1::FromParticipantFrame, v1::ToParticipantFrame>;

impl Session {
    /// The next frame's calls, with their numbers.
    pub(crate) async fn calls(&mut self) -> Vec<(u64, Call)> {
        let requests = self.frame().await.requests;
        requests.into_iter().map(|r| (r.request, r.call.expect("a call"))).collect()
    }

    /// The next call; it has to come alone.
    pub(crate) async fn call(&mut self) -> (u64, Call) {
        let mut calls = self.calls().await;
        assert_eq!(calls.len(), 1, "{calls:?}");
        calls.remove(0)
    }

    pub(crate) async fn answer(&self, request: u64, answer: Answer) {
        let replies = vec![v1::TransactionReply { request, result: Some(answer) }];
        self.send(v1::TransactionReplyFrame { replies }).await;
    }
}

pub(crate) struct Fake {
    pub(crate) sessions: mpsc::UnboundedReceiver<Session>,
    pub(crate) publishes: mpsc::UnboundedReceiver<Publishing>,
    pub(crate) subscribes: mpsc::UnboundedReceiver<Subscribing>,
    #[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "services need a store"))]
    pub(crate) attaches: mpsc::UnboundedReceiver<Attaching>,
    pub(crate) reads:
        mpsc::UnboundedReceiver<(v1::ReadRequest, mpsc::Sender<Result<raw::ReadFrame, Status>>)>,
    behaviour: Arc<Behaviour>,
    endpoint: tonic::transport::Channel,
}

pub(crate) struct Behaviour {
    down: AtomicBool,
    store: Mutex<u128>,
    protocol: Mutex<u32>,
    subscription: Mutex<Option<v1::Subscription>>,
}

impl Fake {
    pub(crate) fn start() -> Self {
        let (sessions_in, sessions) = mpsc::unbounded_channel();
        let (publishes_in, publishes) = mpsc::unbounded_channel();
        let (subscribes_in, subscribes) = mpsc::unbounded_channel();
        let (attaches_in, attaches) = mpsc::unbounded_channel();
        let (reads_in, reads) = mpsc::unbounded_channel();
        let (sockets, incoming) = mpsc::unbounded_channel::<Result<DuplexStream, std::io::Error>>();
        let behaviour = Arc::new(Behaviour {
            down: AtomicBool::new(false),
            store: Mutex::new(7),
            protocol: Mutex::new(1),
            subscription: Mutex::new(None),
        });
        let router = Server::builder()
            .add_service(raw::transactions_server::TransactionsServer::new(Sessions(sessions_in)))
            .add_service(raw::events_server::EventsServer::new(Bus {
                publishes: publishes_in,
                subscribes: subscribes_in,
                reads: reads_in,
                behaviour: Arc::clone(&behaviour),
            }))
            .add_service(raw::participants_server::ParticipantsServer::new(Services(attaches_in)))
            .add_service(raw::server_server::ServerServer::new(Hello(Arc::clone(&behaviour))));
        tokio::spawn(router.serve_with_incoming(UnboundedReceiverStream::new(incoming)));
        let connector = Connector { sockets, behaviour: Arc::clone(&behaviour) };
        let endpoint =
            Endpoint::from_static("http://fake:7400").connect_with_connector_lazy(connector);
        Self { sessions, publishes, subscribes, attaches, reads, behaviour, endpoint }
    }

    pub(crate) fn builder(&self) -> Builder {
        Handfast::builder("http://fake:7400").with_channel(self.endpoint.clone())
    }

    pub(crate) async fn connect(&self) -> Handfast {
        self.builder().connect().await.expect("the server answers")
    }

    /// From now on nothing answers: neither new connections nor handshakes on old ones.
    pub(crate) fn down(&self, down: bool) {
        self.behaviour.down.store(down, Ordering::SeqCst);
    }

    /// Another store answers.
    pub(crate) fn store(&self, store: u128) {
        *self.behaviour.store.lock().expect("no panic") = store;
    }

    /// The only subscription that it knows.
    pub(crate) fn subscription(&self, subscription: v1::Subscription) {
        *self.behaviour.subscription.lock().expect("no panic") = Some(subscription);
    }

    /// The only protocol that it speaks.
    pub(crate) fn protocol(&self, protocol: u32) {
        *self.behaviour.protocol.lock().expect("no panic") = protocol;
    }
}

#[derive(Clone)]
struct Connector {
    sockets: mpsc::UnboundedSender<Result<DuplexStream, std::io::Error>>,
    behaviour: Arc<Behaviour>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<DuplexStream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connected = if self.behaviour.down.load(Ordering::SeqCst) {
            Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused))
        } else {
            let (ours, theirs) = tokio::io::duplex(1 << 20);
            self.sockets.send(Ok(theirs)).expect("the server runs");
            Ok(TokioIo::new(ours))
        };
        Box::pin(async move { connected })
    }
}

fn open<In, Out>(
    request: Request<Streaming<In>>,
    streams: &mpsc::UnboundedSender<Stream<In, Out>>,
) -> Reply<Replies<Out>> {
    let (outgoing, replies) = mpsc::channel(64);
    let stream = Stream { incoming: request.into_inner(), outgoing };
    streams.send(stream).map_err(|_| Status::unavailable("the test is over"))?;
    Ok(Response::new(ReceiverStream::new(replies)))
}

macro_rules! unscripted {
    ($($name:ident($request:ty) -> $reply:ty;)*) => {
        $(fn $name<'life0, 'async_trait>(
            &'life0 self,
            _: Request<$request>,
        ) -> Pin<Box<dyn Future<Output = Reply<$reply>> + Send + 'async_trait>>
        where
            'life0: 'async_trait,
            Self: 'async_trait,
        {
            let status = Status::internal(concat!(stringify!($name), " is not scripted"));
            Box::pin(async move { Err(status) })
        })*
    };
}

struct Sessions(mpsc::UnboundedSender<Session>);

#[tonic::async_trait]
impl raw::transactions_server::Transactions for Sessions {
    type SessionStream = Replies<v1::TransactionReplyFrame>;

    async fn session(
        &self,
        request: Request<Streaming<raw::TransactionFrame>>,
    ) -> Reply<Self::SessionStream> {
        open(request, &self.0)
    }

    unscripted! {
        begin(raw::BeginRequest) -> v1::Begun;
        begin_local(raw::BeginLocalRequest) -> v1::Begun;
        enlist(v1::EnlistRequest) -> v1::Counted;
        stage(raw::StageRequest) -> v1::Counted;
        commit(v1::CommitRequest) -> v1::Outcome;
        vote(v1::VoteRequest) -> v1::Voted;
        resolve(v1::ResolveRequest) -> v1::Outcome;
        abort(v1::AbortRequest) -> v1::Outcome;
        extend(v1::ExtendRequest) -> v1::Remaining;
        run(raw::RunRequest) -> v1::Outcome;
        get(v1::GetRequest) -> v1::Outcome;
        show(v1::ShowRequest) -> v1::Transaction;
        list(v1::ListTransactionsRequest) -> v1::ListTransactionsReply;
        list_ended(v1::ListEndedRequest) -> v1::ListEndedReply;
    }
}

struct Bus {
    publishes: mpsc::UnboundedSender<Publishing>,
    subscribes: mpsc::UnboundedSender<Subscribing>,
    reads: mpsc::UnboundedSender<(v1::ReadRequest, mpsc::Sender<Result<raw::ReadFrame, Status>>)>,
    behaviour: Arc<Behaviour>,
}

#[tonic::async_trait]
impl raw::events_server::Events for Bus {
    type PublishStreamStream = Replies<v1::PublishReplyFrame>;
    type ReadStream = Replies<raw::ReadFrame>;
    type SubscribeStream = Replies<raw::ToSubscriberFrame>;

    async fn publish_stream(
        &self,
        request: Request<Streaming<raw::PublishFrame>>,
    ) -> Reply<Self::PublishStreamStream> {
        open(request, &self.publishes)
    }

    async fn subscribe(
        &self,
        request: Request<Streaming<v1::FromSubscriberFrame>>,
    ) -> Reply<Self::SubscribeStream> {
        open(request, &self.subscribes)
    }

    async fn read(&self, request: Request<v1::ReadRequest>) -> Reply<Self::ReadStream> {
        let (outgoing, replies) = mpsc::channel(64);
        drop(self.reads.send((request.into_inner(), outgoing)));
        Ok(Response::new(ReceiverStream::new(replies)))
    }

    async fn get_subscription(
        &self,
        request: Request<v1::GetSubscriptionRequest>,
    ) -> Reply<v1::Subscription> {
        let name = request.into_inner().name;
        let known = self.behaviour.subscription.lock().expect("no panic").clone();
        match known.filter(|known| known.name == name) {
            Some(known) => Ok(Response::new(known)),
            None => {
                let code = handfast::Code::UnknownSubscription;
                Err(status::status(handfast_core::refusal::Refusal::new(code, name)))
            }
        }
    }

    /// The first topic of each name is new.
    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Reply<v1::TopicReply> {
        let v1::CreateTopicRequest { name, settings } = request.into_inner();
        Ok(Response::new(v1::TopicReply { name, settings, created: true }))
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Reply<v1::DeleteTopicReply> {
        let detail = format!("no topic has the name {}", request.into_inner().name);
        let code = handfast::Code::UnknownTopic;
        Err(status::status(handfast_core::refusal::Refusal::new(code, detail)))
    }

    unscripted! {
        alter_topic(v1::AlterTopicRequest) -> v1::TopicReply;
        list_topics(v1::ListTopicsRequest) -> v1::ListTopicsReply;
        publish(raw::PublishRequest) -> v1::Published;
        create_subscription(v1::CreateSubscriptionRequest) -> v1::SubscriptionReply;
        list_subscriptions(v1::ListSubscriptionsRequest) -> v1::ListSubscriptionsReply;
        seek_subscription(v1::SeekSubscriptionRequest) -> v1::SeekSubscriptionReply;
        delete_subscription(v1::DeleteSubscriptionRequest) -> v1::DeleteSubscriptionReply;
        list_dead_letters(v1::ListDeadLettersRequest) -> v1::ListDeadLettersReply;
        get_dead_letter(v1::GetDeadLetterRequest) -> raw::GetDeadLetterReply;
        retry_dead_letters(v1::TakeDeadLettersRequest) -> v1::TakeDeadLettersReply;
        drop_dead_letters(v1::TakeDeadLettersRequest) -> v1::TakeDeadLettersReply;
    }
}

struct Services(mpsc::UnboundedSender<Attaching>);

#[tonic::async_trait]
impl raw::participants_server::Participants for Services {
    type AttachStream = Replies<v1::ToParticipantFrame>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::FromParticipantFrame>>,
    ) -> Reply<Self::AttachStream> {
        open(request, &self.0)
    }

    unscripted! {
        list(v1::ListParticipantsRequest) -> v1::ListParticipantsReply;
    }
}

struct Hello(Arc<Behaviour>);

#[tonic::async_trait]
impl raw::server_server::Server for Hello {
    async fn hello(&self, request: Request<v1::HelloRequest>) -> Reply<v1::HelloReply> {
        if self.0.down.load(Ordering::SeqCst) {
            return Err(Status::unavailable("down"));
        }
        let only = *self.0.protocol.lock().expect("no panic");
        let request = request.into_inner();
        if !(request.protocol_min..=request.protocol_max).contains(&only) {
            let detail = format!("the server speaks protocol {only} only");
            let code = handfast::Code::NotSupported;
            let refusal = handfast_core::refusal::Refusal::new(code, detail);
            return Err(status::status(refusal));
        }
        let limits = handfast_core::limits::Limits::default();
        Ok(Response::new(v1::HelloReply {
            server_version: "0.1.0".into(),
            protocol: server::negotiate(&request).expect("a common protocol"),
            store_id: self.0.store.lock().expect("no panic").to_be_bytes().to_vec().into(),
            limits: Some((&limits).into()),
        }))
    }

    type BackupStream = Replies<v1::BackupProgress>;

    unscripted! {
        status(v1::StatusRequest) -> v1::StatusReply;
        backup(v1::BackupRequest) -> Self::BackupStream;
    }
}
