//! The real server over real PostgreSQL and MariaDB, spoken to by callers without the client
//! crate: they run their own SQL under the ids that they are given, and the server finishes it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod audit;
mod distributed;
mod faults;
mod local;
mod world;
