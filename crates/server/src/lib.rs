//! The handfast server: a durable event bus and a two-phase-commit coordinator.
//!
//! [`Node`] is the server without its door: it opens a store and runs the protocol. [`Databases`] are
//! those that take part by name. [`door`] carries connections; [`grpc`] and [`http`] are what is spoken
//! on them, both on one port, see [`routes`]. No rule of the protocol is in here: commands are carried
//! to the core, what it says is carried back.
//!
//! The program `handfast` is another crate, `handfast-cli`; `handfast serve` is this library with a
//! command line, a configuration file and signals around it.

pub mod config;
pub mod databases;
pub mod door;
pub mod grpc;
pub mod health;
pub mod http;
pub mod node;
pub mod text;

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
