//! The parts that the demo is made of, each the main function of a process of its own: a service's
//! instance, the subscriber, the client. The server is `handfast serve` itself.
//!
//! A part knows an address and a directory, and nothing of the other parts. It ends when its
//! standard input does: that is how it is told to leave, and how it notices that the demo is gone.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use handfast::service::SqliteStore;
use handfast::service::sql::{MariaDbStore, PostgresStore};
use handfast::{
    Code, Delivery, Event, Handfast, Item, SubscriptionSettings, Transaction, TransactionError,
};
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;
use tracing_subscriber::EnvFilter;

use super::bank::{self, Bank, Change, Home, Work};
use super::ledger::{Arrived, KIND, Ledger, SUBSCRIPTION, TOPIC, Transferred};
use super::plan::{Plan, Side, Transfer};
use super::results::{self, Ended, Results};
use crate::harness::{PartError, leave_with_stdin};

/// A server that is being started again is waited for this long.
const SERVER: Duration = Duration::from_secs(60);
/// Deadline of a transfer: short, so that what waits for a part that was killed ends soon.
const DEADLINE: Duration = Duration::from_secs(10);
/// Events that are written down in one step.
const BATCH: usize = 256;
/// The longest pause before a transfer is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// A part to run.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    Service { side: Side, instance: String, home: Home },
    Subscriber,
    Client { in_flight: usize },
}

/// Runs one part until its standard input ends.
///
/// # Errors
/// Whatever it cannot go on with.
pub(crate) fn run(part: Part, server: &str, dir: PathBuf) -> Result<(), PartError> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("info"))
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
    let leave = leave_with_stdin();
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let hf = Handfast::builder(server).with_wait_for_server(SERVER).connect().await?;
        match part {
            Part::Service { side, instance, home } => {
                service(hf, home, side, instance, leave).await
            }
            Part::Subscriber => subscriber(hf, dir, leave).await,
            Part::Client { in_flight } => client(hf, dir, in_flight, leave).await,
        }
    })
}

/// An instance of an account service.
async fn service(
    hf: Handfast,
    home: Home,
    side: Side,
    instance: String,
    leave: oneshot::Receiver<()>,
) -> Result<(), PartError> {
    let service = hf.service(side.name()).instance(instance).handler(Bank);
    let leave = leave.map(drop);
    let state = bank::state_name(side);
    match home {
        Home::File(path) => service.store(SqliteStore::open(path)?).run(leave).await?,
        Home::Postgres(url) => {
            service.store(PostgresStore::open(&url, &state).await?).run(leave).await?;
        }
        Home::MariaDb(url) => {
            service.store(MariaDbStore::open(&url, &state).await?).run(leave).await?;
        }
    }
    Ok(())
}

/// The subscriber.
async fn subscriber(
    hf: Handfast,
    dir: PathBuf,
    mut leave: oneshot::Receiver<()>,
) -> Result<(), PartError> {
    let mut ledger = Ledger::open(&dir)?;
    let mut events = hf
        .subscribe(SUBSCRIPTION)
        .on(TOPIC)
        .with_settings(SubscriptionSettings::new().with_max_attempts(None))
        .open()
        .await?;
    loop {
        let mut next = tokio::select! {
            item = events.next() => Some(item),
            _ = &mut leave => return Ok(()),
        };
        // What has arrived meanwhile is written down in the same step.
        let mut deliveries = Vec::new();
        while let Some(item) = next.take() {
            match item {
                Ok(Some(Item::Event(delivery))) => deliveries.push(delivery),
                Ok(Some(Item::Gap(gap))) => {
                    return Err(format!("events from {} to {} are gone", gap.from, gap.to).into());
                }
                Ok(None) => return Err("the subscription is closed".into()),
                Err(error) if error.is_retryable() => tracing::warn!("{error}"),
                Err(error) => return Err(error.into()),
            }
            if deliveries.len() < BATCH {
                next = events.next().now_or_never();
            }
        }
        if deliveries.is_empty() {
            continue;
        }
        let arrived = deliveries.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let written;
        (ledger, written) = spawn_blocking(move || {
            let written = ledger.write(&arrived);
            (ledger, written)
        })
        .await?;
        written?;
        for answering in deliveries.into_iter().map(Delivery::acknowledge).collect::<Vec<_>>() {
            // Refused, or lost with the connection: the event comes again and is ignored.
            if let Err(error) = answering.await {
                tracing::info!("an acknowledgement was not taken: {error}");
            }
        }
    }
}

fn read(delivery: &Delivery) -> Result<Arrived, PartError> {
    let transferred: Transferred = serde_json::from_slice(delivery.event.data.as_bytes())?;
    let transaction = delivery.transaction.map(|id| id.to_string()).unwrap_or_default();
    Ok(Arrived { offset: delivery.offset.try_into()?, transaction, transferred })
}

/// The client: runs every transfer that has not ended yet, says each end on standard output, and
/// ends when all have.
async fn client(
    hf: Handfast,
    dir: PathBuf,
    in_flight: usize,
    mut leave: oneshot::Receiver<()>,
) -> Result<(), PartError> {
    let plan: Plan = serde_json::from_reader(BufReader::new(File::open(plan_path(&dir))?))?;
    let mut results = Results::open(&dir)?;
    // Whoever listens may not have heard what was written before this process was started.
    let ended = results::read(&dir)?;
    say(&ended)?;
    let ended: BTreeSet<u32> = ended.iter().map(|ended| ended.transfer).collect();
    let plan = Arc::new(plan);
    let mut open =
        plan.transfers.iter().filter(|t| !ended.contains(&t.number)).map(|t| t.number as usize - 1);
    let mut running = JoinSet::new();
    loop {
        while running.len() < in_flight
            && let Some(at) = open.next()
        {
            let (hf, plan) = (hf.clone(), Arc::clone(&plan));
            running.spawn(async move { transfer(&hf, &plan, &plan.transfers[at]).await });
        }
        let first = tokio::select! {
            first = running.join_next() => first,
            _ = &mut leave => return Ok(()),
        };
        let Some(first) = first else { return Ok(()) };
        let mut ended = vec![first??];
        while let Some(next) = running.try_join_next() {
            ended.push(next??);
        }
        let lines;
        (results, lines) = spawn_blocking(move || {
            let written = results.write(&ended);
            (results, written.map(|()| ended))
        })
        .await?;
        say(&lines?)?;
    }
}

/// The file that the client takes its transfers from.
pub(super) fn plan_path(dir: &Path) -> PathBuf {
    dir.join("plan.json")
}

fn say(ended: &[Ended]) -> Result<(), PartError> {
    let mut out = io::stdout().lock();
    for ended in ended {
        writeln!(out, "{}", serde_json::to_string(ended)?)?;
    }
    Ok(out.flush()?)
}

/// One transfer, until it is known how it ended.
///
/// The same key means the same transaction, so asking again is safe. Only when one has failed for
/// certain, and for a reason that passes, is another one begun under the next key. A client that
/// was killed goes through the same keys and hears the same answers.
async fn transfer(hf: &Handfast, plan: &Plan, transfer: &Transfer) -> Result<Ended, PartError> {
    let number = transfer.number;
    let mut attempts = 1;
    let mut pause = Duration::from_millis(20);
    let ended = |committed, id: handfast::TransactionId, attempts, reason| Ended {
        transfer: number,
        committed,
        transaction: id.to_string(),
        attempts,
        reason,
    };
    loop {
        let error = match hf.run(transaction(plan, transfer, attempts)?).await {
            Ok(committed) => return Ok(ended(true, committed.id, attempts, None)),
            Err(error) => error,
        };
        match error {
            TransactionError::Failed { id, reason, retryable } => {
                if !retryable && reason.code == "voted_no" {
                    return Ok(ended(false, id, attempts, Some(reason.detail)));
                }
                tracing::info!("transfer {number}, attempt {attempts}: {reason}");
                attempts += 1;
            }
            TransactionError::Unknown { cause, .. } => {
                tracing::info!(
                    "transfer {number}, attempt {attempts}, is asked for again: {cause}"
                );
            }
            TransactionError::Refused(refusal)
                if refusal.is_retryable() || refusal.is(Code::UnknownTransaction) =>
            {
                tracing::info!("transfer {number}, attempt {attempts}: {refusal}");
            }
            TransactionError::Fault(fault) if fault.is_retryable() => {
                tracing::info!("transfer {number}, attempt {attempts}: {fault}");
            }
            error => return Err(format!("transfer {number}: {error}").into()),
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE);
    }
}

/// What an attempt asks for: the same for the same number, to the byte.
fn transaction(
    plan: &Plan,
    transfer: &Transfer,
    attempt: u32,
) -> Result<Transaction, serde_json::Error> {
    let Transfer { number, from, to, cents } = transfer;
    let mut transaction = Transaction::new();
    transaction.with_key(format!("transfer-{number}-{attempt}")).with_deadline(DEADLINE);
    let changes = [(from, -cents), (to, *cents)];
    for side in Side::BOTH {
        let here = changes.iter().filter(|(account, _)| plan.accounts[*account].side == side);
        let changes: Vec<_> = here
            .map(|(account, cents)| Change { account: (*account).clone(), cents: *cents })
            .collect();
        if !changes.is_empty() {
            let work = Work { transfer: *number, changes };
            transaction.call(side.name(), serde_json::to_vec(&work)?);
        }
    }
    let (from, to) = (from.clone(), to.clone());
    let key = from.clone();
    let data = Transferred { transfer: *number, from, to, cents: *cents };
    let event = Event::new(KIND, "/handfast/demo")
        .with_id(format!("transfer-{number}"))
        .with_key(key)
        .with_json(serde_json::to_string(&data)?);
    transaction.publish(TOPIC, event);
    Ok(transaction)
}
