//! gRPC: every service of `handfast.v1` in front of a [`Node`], with health and reflection.
//!
//! A unary call is one command and its reply. A stream is one session of the node: frames become
//! batches of commands, whatever is queued for the stream becomes one frame. No task is made per
//! transaction, and no rule of the protocol is in here.

mod backup;
mod databases;
mod events;
mod memory;
mod participants;
mod publish;
mod read;
mod server;
mod session;
mod stream;
mod subscribe;
mod topics;
mod transactions;

use axum::Router;
use handfast_core::command::Command;
use handfast_core::limits::Limits;
use handfast_core::output::Reply;
use handfast_core::refusal::Refusal;
use handfast_wire::edge::Edge;
use handfast_wire::prost::Message;
use handfast_wire::raw::databases_server::DatabasesServer;
use handfast_wire::raw::events_server::EventsServer;
use handfast_wire::raw::participants_server::ParticipantsServer;
use handfast_wire::raw::server_server::ServerServer;
use handfast_wire::raw::transactions_server::TransactionsServer;
use handfast_wire::{FILE_DESCRIPTOR_SET, MESSAGE_BYTES, status};
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::{Response, Status};
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::HealthService;

use crate::databases::Databases;
use crate::door::Way;
use crate::health::Health;
use crate::node::{Node, NodeStopped, ReadError};

pub use memory::Memory;

/// Full names of the services of the contract.
pub const SERVICES: [&str; 5] = [
    TransactionsServer::<transactions::Service>::NAME,
    ParticipantsServer::<participants::Service>::NAME,
    EventsServer::<events::Service>::NAME,
    DatabasesServer::<databases::Service>::NAME,
    ServerServer::<server::Service>::NAME,
];

/// All gRPC services over a node, to be merged with other routes and served by a
/// [`Door`](crate::door::Door). `limits` are those of the node, to be told to clients.
pub fn routes(node: &Node, databases: &Databases, health: &Health, limits: &Limits) -> Router {
    macro_rules! sized {
        ($server:ident, $service:expr) => {
            $server::new($service)
                .max_decoding_message_size(MESSAGE_BYTES)
                .max_encoding_message_size(MESSAGE_BYTES)
        };
    }
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let sound = "the descriptors were encoded by the build of this server";
    Routes::new(sized!(TransactionsServer, transactions::Service(node.clone())))
        .add_service(sized!(ParticipantsServer, participants::Service(node.clone())))
        .add_service(sized!(EventsServer, events::Service(node.clone())))
        .add_service(sized!(DatabasesServer, databases::Service(databases.clone())))
        .add_service(sized!(ServerServer, server::Service::new(node, health, limits)))
        .add_service(HealthServer::new(HealthService::from_health_reporter(health.reporter())))
        .add_service(reflection().build_v1().expect(sound))
        .add_service(reflection().build_v1alpha().expect(sound))
        .prepare()
        .into_axum_router()
}

/// A unary call: its command, or the refusal of what could not become one.
async fn call(node: &Node, command: Result<Command, Refusal>) -> Result<Reply, Status> {
    let command = command.map_err(status::status)?;
    node.call(command).await.map_err(stopped)
}

/// What the answer of a list may have.
const LIST_BYTES: usize = 4 << 20;

/// A call whose answer may be long: it is made when there is room for it.
async fn list<R: Message>(
    way: Way,
    reply: impl Future<Output = Result<R, Status>>,
) -> Result<Response<R>, Status> {
    let room = way.room_for(LIST_BYTES).await;
    let reply = reply.await?;
    room.made(reply.encoded_len());
    Ok(Response::new(reply))
}

/// Something could not be read.
fn not_read(error: ReadError) -> Status {
    match error {
        ReadError::Stopped(error) => stopped(error),
        ReadError::Refused(refusal) => status::status(refusal),
    }
}

/// The node has stopped. This is no refusal: whether the call had an effect is unknown.
fn stopped(_: NodeStopped) -> Status {
    Edge::Stopped.status("the server has stopped; whether this had an effect is unknown")
}
