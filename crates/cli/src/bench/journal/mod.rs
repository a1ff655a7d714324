//! `handfast bench journal`: the log alone, beside a bare loop of `write` and `fdatasync`.

mod args;
mod conductor;
mod outstanding;
mod part;

use crate::harness::PartError;

pub(crate) use args::Args;
pub(crate) use conductor::run;

/// The process that writes.
pub(crate) fn run_writer(plan: &str) -> Result<(), PartError> {
    part::run(serde_json::from_str(plan)?)
}
