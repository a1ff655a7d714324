//! A consumer group: takes every event of its topics, acknowledges it, and proves that each came
//! once and in the order of its key.

use std::time::Instant;

use handfast::{Handfast, Item};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::message::Message;
use super::order::Order;
use super::plan::{Consumed, ConsumerPlan, subscription};
use crate::bench::latency::Latencies;
use crate::bench::part::Said;
use crate::bench::runtime;
use crate::harness::{PartError, leave_with_stdin};

/// Consumes until standard input ends; then says what it found.
pub(super) fn run(plan: &ConsumerPlan) -> Result<(), PartError> {
    let leave = leave_with_stdin();
    runtime(plan.threads)?.block_on(async {
        let hf = Handfast::connect(&plan.server).await?;
        let (over, is_over) = watch::channel(false);
        let mut topics = JoinSet::new();
        for (at, topic) in plan.topics.iter().enumerate() {
            let name = subscription(&plan.group, topic);
            let subscription = hf.subscribe(name).on(topic).with_credit(plan.credit).open().await?;
            let is_over = is_over.clone();
            topics
                .spawn(async move { consume(subscription, is_over).await.map(|seen| (at, seen)) });
        }
        Said::Ready.say()?;
        // Both ends of it mean the same.
        drop(leave.await);
        over.send_replace(true);
        let mut seen = Vec::new();
        while let Some(topic) = topics.join_next().await {
            seen.push(topic??);
        }
        seen.sort_by_key(|(at, _)| *at);
        Said::say_found(&consumed(seen.into_iter().map(|(_, seen)| seen)))?;
        Ok(())
    })
}

/// What came of one topic.
struct Seen {
    order: Order,
    latencies: Latencies,
    events: u64,
    /// When the first and the last of those came that count.
    span: Option<(Instant, Instant)>,
}

async fn consume(
    mut subscription: handfast::Subscription,
    mut is_over: watch::Receiver<bool>,
) -> Result<Seen, PartError> {
    let (order, latencies) = (Order::default(), Latencies::new());
    let mut seen = Seen { order, latencies, events: 0, span: None };
    loop {
        let item = tokio::select! {
            item = subscription.next() => item?,
            _ = is_over.wait_for(|over| *over) => return Ok(seen),
        };
        let Some(Item::Event(delivery)) = item else {
            return Err("events are gone before they were read".into());
        };
        let message = Message::read(delivery.event.data.as_bytes());
        seen.order.came(message);
        if delivery.attempt > 1 {
            seen.order.is_redelivered();
        }
        if let Some(message) = message.filter(|message| message.counts) {
            let now = Instant::now();
            seen.latencies.record(message.age());
            seen.events += 1;
            seen.span = Some((seen.span.map_or(now, |(first, _)| first), now));
        }
        // Not waited for: the answers of many are one frame. That all were taken is seen at the end
        // by whoever conducts: nothing is left to deliver.
        drop(delivery.acknowledge());
    }
}

fn consumed(topics: impl Iterator<Item = Seen>) -> Consumed {
    let mut all = Consumed::default();
    let mut latencies = Latencies::new();
    let mut span: Option<(Instant, Instant)> = None;
    for seen in topics {
        all.events += seen.events;
        latencies.add(&seen.latencies.counts());
        span = match (span, seen.span) {
            (Some((first, last)), Some(more)) => Some((first.min(more.0), last.max(more.1))),
            (one, other) => one.or(other),
        };
        let (came, problems) = seen.order.end();
        all.by_topic.push(came);
        all.problems.extend(problems);
    }
    all.latencies = latencies.counts();
    all.seconds = span.map_or(0.0, |(first, last)| (last - first).as_secs_f64());
    all
}
