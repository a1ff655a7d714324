//! A first look at speed: transactions over two services that keep nothing, each in its own
//! process, against a running server.
//!
//! ```text
//! cargo run --release -- serve &
//! cargo run --release -p handfast --example load -- service east &
//! cargo run --release -p handfast --example load -- service west &
//! cargo run --release -p handfast --example load -- run 64 10
//! ```
//!
//! The server syncs every commit. The services do not: that is what a service with a database
//! adds on top.

#![expect(clippy::print_stdout, reason = "its figures are what it is for")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use handfast::service::{
    Branch, CommitError, Handler, HandlerError, No, OutcomeKey, Prepared, Recorded, ServiceStore,
    StoreStep,
};
use handfast::{Event, Handfast, StateId, TopicSettings, Transaction, TransactionId, Wait};
use handfast_core::participant::Synced;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let server = std::env::var("HANDFAST_SERVER");
    let hf = Handfast::connect(server.unwrap_or("http://127.0.0.1:7400".into())).await?;
    match words.as_slice() {
        ["service", name] => {
            let stop = async { tokio::signal::ctrl_c().await.unwrap_or(()) };
            hf.service(*name).store(Forgetful::default()).handler(Nothing).run(stop).await?;
        }
        ["run", concurrent, seconds] => run(hf, concurrent.parse()?, seconds.parse()?).await?,
        _ => return Err("say `service NAME` or `run CONCURRENT SECONDS`".into()),
    }
    Ok(())
}

async fn run(hf: Handfast, concurrent: u32, seconds: u64) -> Result<(), Box<dyn Error>> {
    hf.create_topic("load", TopicSettings::new()).await?;
    let over = Arc::new(AtomicBool::new(false));
    let start = Instant::now();
    let clients: Vec<_> =
        (0..concurrent).map(|_| tokio::spawn(client(hf.clone(), Arc::clone(&over)))).collect();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    over.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    for client in clients {
        times.extend(client.await?);
    }
    let elapsed = start.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "{concurrent} concurrent: {:.0} committed/s, p50 {:.2} ms, p99 {:.2} ms",
        times.len() as f64 / elapsed,
        at(0.5),
        at(0.99)
    );
    Ok(())
}

/// Commits one after the other; how long each took, as its caller sees it.
async fn client(hf: Handfast, over: Arc<AtomicBool>) -> Vec<Duration> {
    let mut times = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let mut tx = Transaction::new();
        tx.call("east", "work").call("west", "work").with_wait(Wait::Decided);
        tx.publish("load", Event::new("load", "/example").with_data(vec![0; 200]));
        let start = Instant::now();
        hf.run(tx).await.expect("nothing fails here");
        times.push(start.elapsed());
    }
    times
}

struct Nothing;

impl Handler<()> for Nothing {
    fn prepare(&self, (): &(), _: TransactionId, _: &[u8]) -> Result<Prepared, No> {
        Ok(Prepared::Yes)
    }

    fn commit(&self, (): &(), _: TransactionId, _: &[u8]) -> Result<(), HandlerError> {
        Ok(())
    }

    fn abort(&self, (): &(), _: TransactionId, _: &[u8]) -> Result<(), HandlerError> {
        Ok(())
    }
}

/// A store in memory: everything in it is lost with the process, so it proves nothing.
#[derive(Default)]
struct Forgetful {
    branches: BTreeMap<TransactionId, Branch>,
    horizon_ms: Option<u64>,
}

impl ServiceStore for Forgetful {
    type Db = ();
    type Error = Infallible;
    type Step<'a> = Step<'a>;

    fn state_id(&self) -> StateId {
        StateId(u128::from(std::process::id()))
    }

    fn open_step(&mut self) -> Result<Step<'_>, Infallible> {
        Ok(Step(self))
    }
}

struct Step<'a>(&'a mut Forgetful);

impl StoreStep for Step<'_> {
    type Db = ();
    type Error = Infallible;

    fn attempt<T, E>(
        &mut self,
        work: impl FnOnce(&()) -> Result<T, E>,
    ) -> Result<Result<T, E>, Infallible> {
        Ok(work(&()))
    }

    fn load(&mut self, id: TransactionId) -> Result<Option<Branch>, Infallible> {
        Ok(self.0.branches.get(&id).cloned())
    }

    fn save(&mut self, id: TransactionId, branch: &Branch) -> Result<(), Infallible> {
        self.0.branches.insert(id, branch.clone());
        Ok(())
    }

    fn forget(&mut self, id: TransactionId) -> Result<(), Infallible> {
        self.0.branches.remove(&id);
        Ok(())
    }

    fn horizon_ms(&mut self) -> Result<Option<u64>, Infallible> {
        Ok(self.0.horizon_ms)
    }

    fn raise_horizon(&mut self, began_unix_ms: u64) -> Result<(), Infallible> {
        self.0.horizon_ms = self.0.horizon_ms.max(Some(began_unix_ms));
        Ok(())
    }

    fn prepared(
        &mut self,
        after: Option<TransactionId>,
        limit: u32,
    ) -> Result<Vec<TransactionId>, Infallible> {
        let prepared = |b: &Branch| matches!(b.recorded, Recorded::Prepared { .. });
        let later = self.0.branches.iter().filter(|(id, _)| after.is_none_or(|a| **id > a));
        let ids = later.filter(|(_, b)| prepared(b)).map(|(id, _)| *id);
        Ok(ids.take(limit as usize).collect())
    }

    fn outcomes(
        &mut self,
        before_unix_ms: u64,
        after: Option<OutcomeKey>,
        limit: u32,
    ) -> Result<Vec<OutcomeKey>, Infallible> {
        let ended = |b: &&Branch| !matches!(b.recorded, Recorded::Prepared { .. });
        let branches = self.0.branches.iter().filter(|(_, b)| ended(b));
        let keys = branches.map(|(id, b)| OutcomeKey { at_unix_ms: b.at_unix_ms, id: *id });
        let mut keys: Vec<_> = keys
            .filter(|k| k.at_unix_ms < before_unix_ms && after.is_none_or(|after| *k > after))
            .collect();
        keys.sort_unstable();
        keys.truncate(limit as usize);
        Ok(keys)
    }

    fn commit(self) -> Result<Synced, CommitError<Infallible>> {
        Ok(Synced::now())
    }
}
