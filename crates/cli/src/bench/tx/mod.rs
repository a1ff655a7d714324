//! `handfast bench tx`: transactions over services in processes of their own.

mod args;
mod client;
mod conductor;
mod embedded;
mod fates;
mod memory;
mod others;
mod participant;
mod plan;
mod report;
mod stage;
mod tally;

use crate::harness::PartError;

pub(crate) use args::Args;
pub(super) use args::WaitFor;
pub(crate) use conductor::run;
pub(super) use memory::Memory;
pub(super) use participant::Idle;
pub(super) use plan::Load;
pub(super) use report::{Run, table};
pub(super) use stage::Stage;

/// The client's process.
pub(crate) fn run_client(plan: &str) -> Result<(), PartError> {
    client::run(serde_json::from_str(plan)?)
}

/// A participant's process.
pub(crate) fn run_participant(plan: &str) -> Result<(), PartError> {
    participant::run(serde_json::from_str(plan)?)
}

/// The process that is server, participants and client in one.
pub(crate) fn run_embedded(plan: &str) -> Result<(), PartError> {
    embedded::run(serde_json::from_str(plan)?)
}
