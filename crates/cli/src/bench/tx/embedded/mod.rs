//! Server, participants and client in one process: the node itself, without gRPC or sockets, and
//! tasks that talk to it in batches as a session does. What is left is the protocol, the journal
//! and the disk. Bodies of events are the bare data here, because nobody reads them as CloudEvents.

mod client;
mod service;

use std::path::Path;
use std::time::{Duration, Instant};

use handfast_core::command::Command;
use handfast_core::ids::Offset;
use handfast_core::output::{Fetch, Reply, Wanted};
use handfast_core::record::TopicSettings;
use handfast_core::view::TopicView;
use handfast_server::node::{Node, NodeOptions, NodeStats};
use serde::{Deserialize, Serialize};

use super::fates::Reading;
use super::plan::{EmbeddedPlan, Load, event_of};
use super::tally::{Found, Tally};
use crate::bench::metrics::Counters;
use crate::bench::part::Said;
use crate::bench::resources::{Process, Resources};
use crate::bench::usage::Usage;
use crate::bench::{WARM_UP, runtime};
use crate::harness::{PartError, exit_with_stdin};
use client::Client;

/// Transactions that are to finish may take this long after the end.
const SETTLING: Duration = Duration::from_secs(60);
/// Events that are read at once.
const PAGE: u32 = 10_000;

/// What the node's journal did while it counted.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Journal {
    groups: u64,
    records: u64,
    write_seconds: f64,
}

impl Journal {
    fn between(before: NodeStats, after: NodeStats) -> Self {
        Self {
            groups: after.groups - before.groups,
            records: after.records - before.records,
            write_seconds: (after.sync_nanos - before.sync_nanos) as f64 / 1e9,
        }
    }

    /// With what the whole process has used.
    pub(super) fn resources(self, used: Usage, units: u64) -> Resources {
        let Self { groups, records, write_seconds } = self;
        let counted = Counters { groups, records, write_seconds, ..Counters::default() };
        let process = Process::new("all in one", used, units);
        Resources::new(vec![process], counted, Some(used.written_bytes), units)
    }
}

/// Runs the load in this process, and says what it found.
pub(super) fn run(plan: EmbeddedPlan) -> Result<(), PartError> {
    exit_with_stdin();
    let found = runtime(plan.threads)?.block_on(load(plan))?;
    match Said::say_found_and_stay(&found)? {}
}

async fn load(plan: EmbeddedPlan) -> Result<(Found, Journal), PartError> {
    let EmbeddedPlan { store, load, .. } = plan;
    let node = Node::open(Path::new(&store), NodeOptions::default(), &mut |_| {})?;
    let client = Client::new(&node, &load)?;
    let settings = TopicSettings::default();
    node.call(Command::CreateTopic { name: client.topic(), settings }).await?;
    let services = load.participants.iter().map(|name| service::start(&node, name));
    let services = services.collect::<Result<Vec<_>, _>>()?;

    let counted = Duration::from_secs(load.seconds.into());
    let from = Instant::now() + WARM_UP;
    let running = tokio::spawn(client.run(Tally::new(from, counted), from + counted));
    tokio::time::sleep_until(from.into()).await;
    let before = node.stats().await?;
    Said::Measuring.say()?;
    tokio::time::sleep_until((from + counted).into()).await;
    let journal = Journal::between(before, node.stats().await?);
    Said::Measured.say()?;
    let mut tally = running.await??;

    settle(&node, &mut tally).await?;
    let read = read_back(&node, &load, &mut tally).await?;
    node.shutdown(SETTLING).await;
    let found = tally.found(read);
    for service in services {
        let done = service.await?;
        if done.committed != found.all_committed {
            tally.problem(format!(
                "{} committed, and a participant did {done:?}",
                found.all_committed
            ));
        }
    }
    Ok((tally.found(read), journal))
}

/// Waits until no transaction is open.
async fn settle(node: &Node, tally: &mut Tally) -> Result<(), PartError> {
    let give_up = Instant::now() + SETTLING;
    loop {
        let open = node.stats().await?.core.open;
        if open == 0 {
            return Ok(());
        }
        if Instant::now() > give_up {
            tally.problem(format!("{open} transactions have not ended"));
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Compares what the topic holds with how the transactions ended.
async fn read_back(node: &Node, load: &Load, tally: &mut Tally) -> Result<u64, PartError> {
    let Reply::Topics(topics) = node.call(Command::ListTopics).await? else {
        return Err("topics are listed by another answer".into());
    };
    let fates = std::mem::take(&mut tally.fates);
    let mut reading = Reading::new(&fates, load.events);
    for TopicView { topic, start, end, .. } in topics {
        let mut from = start;
        while from < end {
            let wanted = Wanted::Range { from, to: end, max_events: PAGE };
            let fetch = Fetch { fetch: 0, topic, wanted, max_bytes: 16 << 20 };
            let (events, next): (_, Offset) = node.fetch(fetch).await?;
            events.iter().for_each(|event| reading.event(event_of(&event.body)));
            from = next;
        }
    }
    let (read, problems) = reading.end();
    problems.into_iter().for_each(|problem| tally.problem(problem));
    tally.fates = fates;
    Ok(read)
}
