//! The real server over real PostgreSQL and MariaDB. Most callers are without the client crate: they
//! run their own SQL under the ids that they are given, and the server finishes it. `client` and
//! `application` are with it; in `services` and `demo` the databases are the services' own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod application;
mod audit;
mod client;
mod copies;
mod demo;
mod distributed;
mod elsewhere;
mod faults;
mod local;
mod lost;
mod network;
mod services;
mod slow;
mod torture;
mod world;
