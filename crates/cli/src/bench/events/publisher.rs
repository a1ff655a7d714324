//! The publishers: callers that publish, wait until it is durable, and publish again.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use handfast::{Event, Handfast, Transaction};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::message::{Message, unix_ns};
use super::plan::{Published, PublisherPlan};
use crate::bench::latency::Latencies;
use crate::bench::part::Said;
use crate::bench::{WARM_UP, runtime};
use crate::harness::{PartError, exit_with_stdin};

/// Between two lines about progress.
const EVERY: Duration = Duration::from_millis(250);
/// What is under way at the end may take this long.
const DRAINING: Duration = Duration::from_secs(90);

/// Publishes, and says what it found.
pub(super) fn run(plan: PublisherPlan) -> Result<(), PartError> {
    exit_with_stdin();
    runtime(plan.threads)?.block_on(async {
        let mut connections = Vec::new();
        for _ in 0..plan.publishers {
            let builder = Handfast::builder(&plan.server);
            let in_flight = (plan.in_flight as usize).max(4_096);
            connections.push(builder.with_in_flight(in_flight).connect().await?);
        }
        Said::Ready.say()?;
        let found = publish(&connections, plan).await?;
        match Said::say_found_and_stay(&found)? {}
    })
}

struct Shared {
    plan: PublisherPlan,
    from: Instant,
    to: Instant,
    over: AtomicBool,
    tally: Mutex<Tally>,
}

struct Tally {
    events: u64,
    latencies: Latencies,
    by_topic: Vec<Vec<u64>>,
    problems: Vec<String>,
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn publish(connections: &[Handfast], plan: PublisherPlan) -> Result<Published, PartError> {
    let from = Instant::now() + WARM_UP;
    let to = from + Duration::from_secs(plan.seconds.into());
    let tally = Tally {
        events: 0,
        latencies: Latencies::new(),
        by_topic: vec![vec![0; plan.in_flight as usize * plan.keys as usize]; plan.topics.len()],
        problems: Vec::new(),
    };
    let (over, tally) = (AtomicBool::new(false), Mutex::new(tally));
    let shared = Arc::new(Shared { plan, from, to, over, tally });
    let mut callers = JoinSet::new();
    for number in 0..shared.plan.in_flight {
        let hf = connections[number as usize % connections.len()].clone();
        let next = vec![vec![0; shared.plan.keys as usize]; shared.plan.topics.len()];
        let caller = Caller { hf, number, next, turn: 0, shared: Arc::clone(&shared) };
        callers.spawn(caller.run());
    }
    sleep(from.saturating_duration_since(Instant::now())).await;
    Said::Measuring.say()?;
    while Instant::now() < to {
        sleep(EVERY.min(to.saturating_duration_since(Instant::now()))).await;
        Said::Progress(shared.tally().events).say()?;
    }
    Said::Measured.say()?;
    shared.over.store(true, Ordering::Relaxed);
    let drained = async { while callers.join_next().await.is_some() {} };
    let is_late = timeout(DRAINING, drained).await.is_err();
    let mut tally = shared.tally();
    if is_late {
        let problem = format!("publishes are still not answered {DRAINING:?} after the end");
        tally.problems.push(problem);
    }
    Ok(Published {
        events: tally.events,
        seconds: (to - from).as_secs_f64(),
        latencies: tally.latencies.counts(),
        by_topic: std::mem::take(&mut tally.by_topic),
        problems: std::mem::take(&mut tally.problems),
    })
}

/// One caller: its events have its keys by turns.
struct Caller {
    hf: Handfast,
    number: u32,
    /// By topic and key: the number of its next event there.
    next: Vec<Vec<u64>>,
    /// Which key is next.
    turn: usize,
    shared: Arc<Shared>,
}

impl Caller {
    async fn run(mut self) {
        while !self.shared.over.load(Ordering::Relaxed) {
            let start = Instant::now();
            let events = self.events(start);
            let result = if self.shared.plan.in_tx {
                let mut transaction = Transaction::new();
                for (topic, event) in events {
                    transaction.publish(topic, event);
                }
                self.hf.run(transaction).await.map(drop).map_err(|error| error.to_string())
            } else {
                self.hf.publish_all(events).await.map(drop).map_err(|error| error.to_string())
            };
            let end = Instant::now();
            let mut tally = self.shared.tally();
            if let Err(error) = result {
                // Whether it was published is not always known, so nothing can follow it.
                return tally.problems.push(format!("not published: {error}"));
            }
            let keys = self.keys();
            for (published, next) in tally.by_topic.iter_mut().zip(&self.next) {
                published[keys.clone()].copy_from_slice(next);
            }
            if end >= self.shared.from && end < self.shared.to {
                tally.events += u64::from(self.shared.plan.events);
                tally.latencies.record(end - start);
            }
        }
    }

    /// The numbers of its keys.
    fn keys(&self) -> Range<usize> {
        let keys = self.shared.plan.keys as usize;
        let first = self.number as usize * keys;
        first..first + keys
    }

    /// The next ones, by turns to each topic.
    fn events(&mut self, start: Instant) -> Vec<(String, Event)> {
        let PublisherPlan { topics, events, size, .. } = &self.shared.plan;
        let counts = start >= self.shared.from && start < self.shared.to;
        let sent_ns = unix_ns();
        let keys = self.keys();
        let event = |at: u16| {
            let topic = usize::from(at) % topics.len();
            if topic == 0 {
                self.turn = (self.turn + 1) % keys.len();
            }
            let number = self.next[topic][self.turn];
            self.next[topic][self.turn] += 1;
            let key = (keys.start + self.turn) as u32;
            let message = Message { key, number, sent_ns, counts };
            let event = Event::new("bench", "/handfast/bench")
                .with_key(key.to_string())
                .with_data(message.data(*size));
            (topics[topic].clone(), event)
        };
        (0..*events).map(event).collect()
    }
}
