//! The application: callers that do the same in several ways, a slice of each way after the other,
//! over the same pools.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use handfast::Handfast;
use sqlx::mysql::MySqlPoolOptions;
use sqlx::postgres::PgPoolOptions;
use sqlx::{MySqlPool, PgPool};
use tokio::task::JoinSet;

use super::bank::Work;
use super::plan::{Found, Plan, Ran, Way};
use super::{by_hand, local, transfer};
use crate::bench::latency::Latencies;
use crate::bench::part::Said;
use crate::bench::runtime;
use crate::harness::{PartError, exit_with_stdin};

/// Each way has one of these first that does not count.
const WARM_UP: Duration = Duration::from_millis(500);
const SLICE: Duration = Duration::from_secs(1);
/// Problems that are told.
const TOLD: usize = 20;

/// Runs all ways, and says what it found.
pub(super) fn run(plan: &Plan) -> Result<(), PartError> {
    exit_with_stdin();
    runtime(1)?.block_on(async {
        let most = plan.concurrency.iter().copied().max().unwrap_or(1);
        let bank = Arc::new(Bank::connect(plan, u32::from(most)).await?);
        Said::Ready.say()?;
        let mut found = Found::default();
        let mut committed = BTreeMap::new();
        let mut problems = Vec::new();
        for concurrency in &plan.concurrency {
            for group in Way::GROUPS {
                let mut sums: BTreeMap<Way, (u64, f64, Latencies)> = BTreeMap::new();
                for slice in 0..=plan.slices {
                    for at in 0..group.len() {
                        // Nobody is always the first.
                        let way = group[(at + usize::from(slice)) % group.len()];
                        let is_warm_up = slice == 0;
                        let time = if is_warm_up { WARM_UP } else { SLICE };
                        let done = bank.slice(way, *concurrency, time).await?;
                        *committed.entry(way).or_default() += done.committed;
                        problems.extend(done.problems);
                        if is_warm_up {
                            continue;
                        }
                        let sum = sums.entry(way).or_insert((0, 0.0, Latencies::new()));
                        sum.0 += done.committed;
                        sum.1 += done.seconds;
                        sum.2.add(&done.latencies.counts());
                        Said::Progress(sum.0).say()?;
                    }
                }
                found.ran.extend(sums.into_iter().map(|(way, (committed, seconds, latencies))| {
                    let (concurrency, latencies) = (*concurrency, latencies.counts());
                    Ran { way, concurrency, committed, seconds, latencies }
                }));
            }
        }
        let count = problems.len();
        problems.truncate(TOLD);
        if count > TOLD {
            problems.push(format!("and {} more", count - TOLD));
        }
        found.problems = problems;
        found.committed = committed.into_iter().collect();
        match Said::say_found_and_stay(&found)? {}
    })
}

/// What a slice of one way did.
struct Done {
    committed: u64,
    seconds: f64,
    latencies: Latencies,
    problems: Vec<String>,
}

struct Bank {
    hf: Handfast,
    postgres: PgPool,
    mariadb: MySqlPool,
    next: AtomicI64,
}

impl Bank {
    async fn connect(plan: &Plan, callers: u32) -> Result<Self, PartError> {
        // A connection that is tested whenever it is taken costs everybody a round trip. Two for
        // each caller: nobody has to wait for one.
        let most = 2 * callers;
        let postgres = PgPoolOptions::new().max_connections(most).test_before_acquire(false);
        let mariadb = MySqlPoolOptions::new().max_connections(most).test_before_acquire(false);
        Ok(Self {
            hf: Handfast::connect(&plan.server).await?,
            postgres: postgres.connect(&plan.postgres).await?,
            mariadb: mariadb.connect(&plan.mariadb).await?,
            next: AtomicI64::new(1),
        })
    }

    async fn slice(
        self: &Arc<Self>,
        way: Way,
        callers: u16,
        time: Duration,
    ) -> Result<Done, PartError> {
        let start = Instant::now();
        let mut running = JoinSet::new();
        for _ in 0..callers {
            let bank = Arc::clone(self);
            running.spawn(async move { bank.caller(way, start + time).await });
        }
        let (mut latencies, mut problems) = (Latencies::new(), Vec::new());
        let mut committed = 0;
        while let Some(caller) = running.join_next().await {
            let (times, problem) = caller?;
            committed += times.len() as u64;
            times.into_iter().for_each(|time| latencies.record(time));
            problems.extend(problem.map(|problem| format!("{}: {problem}", way.title())));
        }
        let seconds = start.elapsed().as_secs_f64();
        Ok(Done { committed, seconds, latencies, problems })
    }

    /// One after the other until the slice is over, or one fails.
    async fn caller(&self, way: Way, until: Instant) -> (Vec<Duration>, Option<String>) {
        let mut times = Vec::new();
        while Instant::now() < until {
            let start = Instant::now();
            if let Err(problem) = self.one(way).await {
                return (times, Some(problem));
            }
            times.push(start.elapsed());
        }
        (times, None)
    }

    async fn one(&self, way: Way) -> Result<(), String> {
        let Self { hf, postgres, mariadb, next } = self;
        let work = Work { number: next.fetch_add(1, Ordering::Relaxed), way };
        let plain = |error: sqlx::Error| error.to_string();
        match way {
            Way::Transfer => transfer::handfast(hf, postgres, mariadb, work, false).await,
            Way::TransferServer => transfer::handfast(hf, postgres, mariadb, work, true).await,
            Way::TransferByHand => by_hand::transfer(postgres, mariadb, work).await.map_err(plain),
            Way::Local => local::handfast(hf, postgres, work).await,
            Way::LocalOutbox => local::outbox(postgres, work).await.map_err(plain),
            Way::LocalPlain => local::plain(postgres, work).await.map_err(plain),
        }
    }
}
