//! `handfast bench restart`: how long a server with a large store takes until it is ready.

mod args;
mod conductor;
mod filler;

use crate::harness::PartError;

pub(crate) use args::Args;
pub(crate) use conductor::run;

/// The process that fills the store, and is killed then.
pub(crate) fn run_filler(plan: &str) -> Result<(), PartError> {
    filler::run(&serde_json::from_str(plan)?)
}
