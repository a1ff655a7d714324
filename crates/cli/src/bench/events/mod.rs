//! `handfast bench events`: durable publishing, and delivery to consumer groups that read along.

mod args;
mod conductor;
mod consumer;
mod message;
mod order;
mod plan;
mod publisher;
mod report;

use crate::harness::PartError;

pub(crate) use args::Args;
pub(crate) use conductor::run;

/// The publishers' process.
pub(crate) fn run_publisher(plan: &str) -> Result<(), PartError> {
    publisher::run(serde_json::from_str(plan)?)
}

/// The process of a consumer group.
pub(crate) fn run_consumer(plan: &str) -> Result<(), PartError> {
    consumer::run(&serde_json::from_str(plan)?)
}
