//! Every call of the contract, over a real node and a connection in memory.
#![expect(clippy::unwrap_used, reason = "in a test that is how a failure is told")]

mod events;
mod overload;
mod participants;
mod refusals;
mod server;
mod subscribe;
mod transactions;

use std::time::Duration;

use handfast_core::limits::Limits;
use handfast_server::Databases;
use handfast_server::grpc::Memory;
use handfast_server::health::Health;
use handfast_server::node::{Node, NodeOptions, Queues};
use handfast_wire::edge::Edge;
use handfast_wire::v1::events_client::EventsClient;
use handfast_wire::v1::participants_client::ParticipantsClient;
use handfast_wire::v1::transactions_client::TransactionsClient;
use handfast_wire::{status, v1};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

/// What has not come by then never will.
const NEVER: Duration = Duration::from_secs(60);

/// A node with its door, and a client.
struct World {
    node: Node,
    databases: Databases,
    health: Health,
    memory: Memory,
    channel: Channel,
    _dir: TempDir,
}

impl World {
    async fn new() -> Self {
        Self::with_limits(Limits::default()).await
    }

    async fn with_limits(limits: Limits) -> Self {
        Self::with(limits, Queues::default()).await
    }

    async fn with(limits: Limits, queues: Queues) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = NodeOptions::default().with_limits(limits.clone()).with_queues(queues);
        let node = Node::open(&dir.path().join("store"), options, &mut |_| {}).unwrap();
        let health = Health::serving().await;
        let databases = Databases::start(&node, &[]).unwrap();
        let memory = Memory::serve(handfast_server::routes(&node, &databases, &health, &limits));
        let connecting = memory.clone();
        let channel = Endpoint::from_static("http://memory").connect_with_connector_lazy(
            tower::service_fn(move |_| {
                let connection = connecting.connect();
                async move { Ok::<_, std::io::Error>(TokioIo::new(connection)) }
            }),
        );
        Self { node, databases, health, memory, channel, _dir: dir }
    }

    fn transactions(&self) -> TransactionsClient<Channel> {
        TransactionsClient::new(self.channel.clone())
    }

    fn participants(&self) -> ParticipantsClient<Channel> {
        ParticipantsClient::new(self.channel.clone())
    }

    fn events(&self) -> EventsClient<Channel> {
        EventsClient::new(self.channel.clone())
    }

    async fn topic(&self, name: &str) {
        let request = v1::CreateTopicRequest { name: name.into(), settings: None };
        assert!(self.events().create_topic(request).await.unwrap().into_inner().created);
    }

    /// Publishes events with these ids, each alone.
    async fn publish(&self, topic: &str, sequence: u64, ids: &[&str]) -> Vec<u64> {
        let request = publish(topic, sequence, ids);
        self.events().publish(request).await.unwrap().into_inner().offsets
    }
}

fn publish(topic: &str, sequence: u64, ids: &[&str]) -> v1::PublishRequest {
    v1::PublishRequest {
        producer_id: vec![7; 16].into(),
        sequence,
        events: ids.iter().map(|id| new_event(topic, id)).collect(),
    }
}

fn new_event(topic: &str, id: &str) -> v1::NewEvent {
    v1::NewEvent { topic: topic.into(), event: Some(event(id)) }
}

fn event(id: &str) -> v1::Event {
    v1::Event {
        id: id.into(),
        source: "/test".into(),
        spec_version: "1.0".into(),
        r#type: "test.happened".into(),
        data: Some(v1::event::Data::TextData("data".into())),
        ..v1::Event::default()
    }
}

/// The stable code of a call that was refused.
fn refused<T: std::fmt::Debug>(result: Result<T, Status>) -> (tonic::Code, String) {
    let status = result.expect_err("it is refused");
    let refusal = status::refusal(&status).unwrap_or_else(|| panic!("no refusal: {status:?}"));
    (status.code(), refusal.code)
}

/// The client's sending half of a stream.
struct Sending<F>(mpsc::Sender<F>);

impl<F> Sending<F> {
    fn new() -> (Self, ReceiverStream<F>) {
        let (sender, receiver) = mpsc::channel(64);
        (Self(sender), ReceiverStream::new(receiver))
    }

    async fn send(&self, frame: F) {
        assert!(self.0.send(frame).await.is_ok(), "the stream is over");
    }
}

/// Frames of a stream until they held `count` messages.
async fn collect<F, M>(
    frames: &mut Streaming<F>,
    count: usize,
    messages: impl Fn(F) -> Vec<M>,
) -> Vec<M> {
    let mut found = Vec::new();
    while found.len() < count {
        // No assertion about time: without this a message that never comes would hang the tests.
        let frame = tokio::time::timeout(NEVER, frames.message()).await;
        let frame = frame.expect("nothing came").unwrap().expect("the stream goes on");
        found.extend(messages(frame));
    }
    found
}
