//! The idle ones: subscribers, and instances of services, each on a connection of its own.

use std::future::pending;

use handfast::{Handfast, Start};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::bench::part::Said;
use crate::bench::runtime;
use crate::bench::tx::{Idle, Memory};
use crate::harness::{PartError, exit_with_stdin};

/// Connections that are made at the same time.
const AT_ONCE: usize = 64;

/// What to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) server: String,
    pub(super) topic: String,
    pub(super) connections: u32,
}

/// Subscriptions, and services, that they share.
const SHARED: u32 = 100;

/// Connects them all, says so, and stays.
pub(super) fn run(plan: &Plan) -> Result<(), PartError> {
    exit_with_stdin();
    runtime(2)?.block_on(async {
        let mut connecting: JoinSet<Result<(), PartError>> = JoinSet::new();
        for number in 0..plan.connections {
            if connecting.len() == AT_ONCE
                && let Some(connected) = connecting.join_next().await
            {
                connected??;
            }
            connecting.spawn(one(plan.clone(), number));
            if number % 100 == 0 {
                Said::Progress(number.into()).say()?;
            }
        }
        while let Some(connected) = connecting.join_next().await {
            connected??;
        }
        Said::Ready.say()?;
        pending().await
    })
}

async fn one(plan: Plan, number: u32) -> Result<(), PartError> {
    let hf = Handfast::connect(&plan.server).await?;
    let name = format!("idle-{}", number / 2 % SHARED);
    if number.is_multiple_of(2) {
        let subscribe = hf.subscribe(name).on(&plan.topic).with_start(Start::Latest);
        let mut subscription = subscribe.open().await?;
        tokio::spawn(async move {
            // It ends with the process.
            while let Ok(Some(_)) = subscription.next().await {}
        });
    } else {
        let service = hf.service(name).instance(format!("instance-{number}"));
        let service = service.store(Memory::new()).handler(Idle);
        tokio::spawn(async move { service.run(pending()).await });
    }
    Ok(())
}
