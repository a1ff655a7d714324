//! The tests of the journal, one binary: most of them on the crash-image disk.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod append;
mod codec;
mod crash;
mod damage;
mod ended;
mod faults;
mod golden;
mod holes;
mod reading;
mod snapshot;
mod support;
