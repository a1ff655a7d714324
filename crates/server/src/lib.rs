//! The handfast server: a durable event bus and a two-phase-commit coordinator.
//!
//! [`Node`] is the server without its door: it opens a store and runs the protocol. [`door`] carries
//! connections, [`grpc`] and [`http`] are what is spoken on them, both on one port; [`cli`] is the command `handfast`. No rule of the protocol
//! is in here: commands are carried to the core, what it says is carried back.

mod bench;
pub mod cli;
pub mod config;
pub mod databases;
mod demo;
pub mod door;
pub mod grpc;
pub mod health;
pub mod http;
pub mod node;
mod text;
mod torture;

use axum::Router;
use handfast_core::limits::Limits;

pub use databases::Databases;
pub use node::Node;

/// The version of the server.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Everything that is served on one port: gRPC and HTTP. `limits` are those of the node, to be
/// told to clients.
pub fn routes(
    node: &Node,
    databases: &Databases,
    health: &health::Health,
    limits: &Limits,
) -> Router {
    grpc::routes(node, databases, health, limits)
        .merge(http::routes(node, databases, health))
        .fallback(http::not_found)
}
