//! `handfast bench db`: transactions over PostgreSQL and MariaDB through handfast, beside the same
//! SQL without it, by turns in one run.

mod application;
mod args;
mod bank;
mod by_hand;
mod conductor;
mod databases;
mod local;
mod plan;
mod proof;
mod report;
mod transfer;

use crate::harness::PartError;

pub(crate) use args::Args;
pub(crate) use conductor::run;

/// The application's process.
pub(crate) fn run_application(plan: &str) -> Result<(), PartError> {
    application::run(&serde_json::from_str(plan)?)
}
