//! The real server as a process of its own, spoken to by the real client.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod descriptors;
mod kill;
mod million;
mod overload;
mod participant;
mod server;
mod slow;
mod strangers;
mod together;
