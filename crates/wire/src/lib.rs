//! The wire: protobuf types of `proto/handfast/v1`, conversions to and from the core's types, and
//! the one place that maps refusals to gRPC.
//!
//! There are no sockets here and no protocol rules: what is well-formed is converted, what is not
//! is refused with the field's name, everything else is the core's to judge. Nothing outside this
//! crate needs to know prost; what its users need of it is re-exported.
//!
//! [`v1`] is the contract as it stands. [`raw`] is the same contract with every event as the bytes
//! that it is on the wire, for whoever carries events without looking into them; use
//! [`event::check`] before such bytes are trusted.
//!
//! Two directions, two kinds of error: a *request* that is not well-formed is a
//! [`Refusal`](handfast_core::refusal::Refusal), a *reply* that is not well-formed is
//! [`Malformed`].

mod attributes;
pub mod bounded;
pub mod digest;
pub mod edge;
#[cfg(feature = "client")]
pub mod encoded;
pub mod ended;
pub mod event;
pub mod events;
pub mod hash;
mod homes;
pub mod ids;
mod malformed;
pub mod participants;
pub mod raw;
pub mod server;
pub mod status;
pub mod subscriptions;
pub mod transactions;
pub mod v1;
pub mod views;

pub use homes::{Home, Homes};
pub use malformed::Malformed;
pub use {bytes, prost, prost_types, tonic};

/// The descriptors of the whole contract, encoded, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

/// Largest message or frame, encoded, in bytes. Set it on clients and servers as the bound for
/// decoding and encoding: tonic's own default is less than one publish may have.
pub const MESSAGE_BYTES: usize = 16 << 20;

/// Most entries in a list of deliveries, transactions or offsets in one message.
pub const LIST_ITEMS: usize = 10_000;
