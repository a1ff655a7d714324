//! `handfast bench idle`: what connections cost that do next to nothing, and whether those that
//! work notice them.

mod args;
mod conductor;
mod crowd;

use crate::harness::PartError;

pub(crate) use args::Args;
pub(crate) use conductor::run;

/// The process that has all the idle connections.
pub(crate) fn run_crowd(plan: &str) -> Result<(), PartError> {
    crowd::run(&serde_json::from_str(plan)?)
}
