//! The client: asks for transactions, in a closed loop or at a rate, and proves afterwards that the
//! events that can be read are those of the transactions that it was told had committed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use handfast::{Event, Handfast, ReadItem, Start, Transaction, TransactionError};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::fates::Reading;
use super::plan::{ClientPlan, Load, event_of};
use super::tally::{End, Tally};
use crate::bench::part::Said;
use crate::bench::{WARM_UP, pace, runtime};
use crate::harness::{PartError, exit_with_stdin};

/// Between two lines about progress.
const EVERY: Duration = Duration::from_millis(250);
/// What is under way at the end may take this long.
const DRAINING: Duration = Duration::from_secs(90);

/// Runs the load, and says what it found.
pub(super) fn run(plan: ClientPlan) -> Result<(), PartError> {
    exit_with_stdin();
    runtime(plan.threads)?.block_on(async {
        let in_flight = (plan.load.concurrency as usize).max(4_096);
        let builder = Handfast::builder(plan.server).with_in_flight(in_flight);
        let hf = builder.with_retry_when_busy(plan.load.comes_again).connect().await?;
        let client = Client::new(hf, plan.load);
        Said::Ready.say()?;
        let read = client.load().await?;
        let found = client.tally().found(read);
        match Said::say_found_and_stay(&found)? {}
    })
}

#[derive(Clone)]
struct Client(Arc<Shared>);

struct Shared {
    hf: Handfast,
    load: Load,
    from: Instant,
    next: AtomicU64,
    over: AtomicBool,
    tally: Mutex<Tally>,
}

impl Client {
    fn new(hf: Handfast, load: Load) -> Self {
        let from = Instant::now() + WARM_UP;
        let counted = Duration::from_secs(load.seconds.into());
        let tally = Mutex::new(Tally::new(from, counted));
        let (next, over) = (AtomicU64::new(0), AtomicBool::new(false));
        Self(Arc::new(Shared { hf, load, from, next, over, tally }))
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.0.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs it all; says how many events were read back.
    async fn load(&self) -> Result<u64, PartError> {
        let to = self.0.from + Duration::from_secs(self.0.load.seconds.into());
        let mut callers = JoinSet::new();
        match self.0.load.rate {
            None => {
                for _ in 0..self.0.load.concurrency {
                    let caller = self.clone();
                    callers.spawn(async move { caller.closed_loop().await });
                }
            }
            Some(rate) => {
                let due = pace::due(Instant::now(), to, rate);
                let caller = self.clone();
                callers.spawn(async move { caller.open_loop(due).await });
            }
        }
        sleep(self.0.from.saturating_duration_since(Instant::now())).await;
        Said::Measuring.say()?;
        while Instant::now() < to {
            sleep(EVERY.min(to.saturating_duration_since(Instant::now()))).await;
            Said::Progress(self.tally().done()).say()?;
        }
        Said::Measured.say()?;
        self.0.over.store(true, Ordering::Relaxed);
        let drained = async { while callers.join_next().await.is_some() {} };
        if timeout(DRAINING, drained).await.is_err() {
            let problem = format!("transactions are still not answered {DRAINING:?} after the end");
            self.tally().problem(problem);
        }
        self.read_back().await
    }

    /// One caller: the next when the one before was answered.
    async fn closed_loop(&self) {
        while !self.0.over.load(Ordering::Relaxed) {
            self.one(Instant::now()).await;
        }
    }

    /// Everything that is due, as soon as it is and as few others are under way as may be.
    async fn open_loop(&self, mut due: pace::Due) {
        let concurrency = self.0.load.concurrency;
        let callers = Arc::new(Semaphore::new(concurrency as usize));
        while let Some(at) = due.next().await {
            let Ok(caller) = Arc::clone(&callers).acquire_owned().await else { return };
            let client = self.clone();
            // What ends at once, because it is refused without being sent, needs no task.
            let mut one = Box::pin(async move {
                client.one(at).await;
                drop(caller);
            });
            if (&mut one).now_or_never().is_none() {
                tokio::spawn(one);
            }
        }
        // All of them have come back.
        let _ = callers.acquire_many(concurrency).await;
    }

    async fn one(&self, due: Instant) {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let end = end(self.0.hf.run(self.transaction(number)).await);
        self.tally().ended(&self.0.load, number, due, end);
    }

    fn transaction(&self, number: u64) -> Transaction {
        let load = &self.0.load;
        let mut transaction = Transaction::new();
        transaction.with_wait(load.wait.into());
        for (at, participant) in load.participants.iter().enumerate() {
            transaction.call(participant, load.work(number, at));
        }
        for event in 0..load.events {
            let data = load.data(number, event);
            transaction
                .publish(&load.topic, Event::new("bench", "/handfast/bench").with_data(data));
        }
        transaction
    }

    /// Compares what the topic holds with how the transactions ended.
    async fn read_back(&self) -> Result<u64, PartError> {
        if self.0.load.events == 0 {
            return Ok(0);
        }
        let mut events = self.0.hf.read(&self.0.load.topic, Start::Earliest).open().await?;
        // Nobody else needs them any more: all transactions have ended.
        let fates = std::mem::take(&mut self.tally().fates);
        let mut reading = Reading::new(&fates, self.0.load.events);
        while let Some(item) = events.next().await? {
            match item {
                ReadItem::Event(stored) => reading.event(event_of(stored.event.data.as_bytes())),
                ReadItem::Gap { .. } => reading.event(None),
            }
        }
        let (read, problems) = reading.end();
        let mut tally = self.tally();
        problems.into_iter().for_each(|problem| tally.problem(problem));
        tally.fates = fates;
        Ok(read)
    }
}

fn end<T>(ended: Result<T, TransactionError>) -> End {
    match ended {
        Ok(_) => End::Committed,
        Err(TransactionError::Failed { reason, .. }) if reason.code == "voted_no" => End::VotedNo,
        Err(TransactionError::Refused(refusal)) if refusal.is_retryable() => {
            End::Refused { code: refusal.code, after: refusal.retry_after }
        }
        Err(TransactionError::Failed { reason, .. }) => {
            End::Wrong(format!("a transaction failed: {}", reason.code))
        }
        Err(TransactionError::Unknown { cause, .. }) => {
            End::Wrong(format!("the end of a transaction is not known: {cause}"))
        }
        Err(error) => End::Wrong(format!("a transaction was not accepted: {error}")),
    }
}
