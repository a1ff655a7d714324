//! The handfast commit protocol and event bus as a value.
//!
//! [`Core`] is a pure state machine for many transactions, topics and subscriptions. Its contract:
//!
//! 1. call `handle(now, input)` for everything that happens, one at a time, with a `now` of which
//!    neither part ever goes back;
//! 2. drain `poll_output()` and carry the outputs out in order;
//! 3. send [`Input::Tick`](input::Input::Tick) when `next_deadline()` is reached.
//!
//! The same inputs give the same outputs: there is no clock, no randomness, no file and no thread
//! in here, and nothing is told to anybody before what it reveals is durable.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod ages;
pub mod branch;
mod bus;
pub mod command;
mod coordinator;
mod effects;
pub mod event;
pub mod ids;
pub mod input;
pub mod limits;
pub mod log_time;
mod machine;
pub mod openings;
pub mod output;
pub mod owner;
pub mod participant;
pub mod reason;
pub mod record;
pub mod refusal;
pub mod silence;
mod state;
pub mod view;

pub use bus::Part;
pub use coordinator::{Counters, Resumed};
pub use machine::{Core, Recovery, Stats, TopicBounds};
