//! `handfast bench tx`: transactions over services in processes of their own.

mod args;
pub(super) mod client;
mod conductor;
mod embedded;
mod fates;
mod memory;
mod participant;
mod plan;
mod report;
mod tally;

pub(crate) use args::Args;
pub(crate) use conductor::run;

use super::PartError;

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
