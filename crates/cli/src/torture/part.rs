//! The application: a process of its own with many clients, each making one transfer after the
//! other. It is killed like everybody else, so it keeps nothing; it says on standard output how
//! each transfer ended as far as it knows.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use handfast::database::{Error, LocalOptions};
use handfast::{BeginOptions, Event, Handfast, TransactionError};
use serde::{Deserialize, Serialize};
use sqlx::mysql::MySqlPoolOptions;
use sqlx::postgres::PgPoolOptions;
use sqlx::{MySqlPool, PgPool};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::bank::{self, ACCOUNTS, Kind, LEDGER, ORDERS, TOPIC, Transfer};
use crate::harness::{Random, wait_for_stdin};

/// Deadline of every transfer.
pub(super) const DEADLINE: Duration = Duration::from_secs(3);
/// Pause of a client whose transfer failed, so that an outage does not use up all transfers.
const PAUSE: Duration = Duration::from_millis(100);

/// What the process is told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    server: String,
    #[arg(long)]
    postgres: String,
    #[arg(long)]
    mariadb: String,
    #[arg(long)]
    clients: usize,
    #[arg(long)]
    seed: u64,
    /// The number before the first transfer's.
    #[arg(long)]
    after: i64,
}

/// How a transfer ended, as far as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum End {
    Committed,
    Failed,
    Unknown,
}

/// One line of the process.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) transfer: i64,
    pub(super) end: End,
}

/// Makes transfers until standard input ends; then those that are under way end, and so does it.
///
/// # Errors
/// What it cannot go on with.
pub(crate) fn run(args: &Args) -> Result<(), String> {
    let over = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&over);
    std::thread::spawn(move || {
        wait_for_stdin();
        told.store(true, Ordering::Relaxed);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(clients(args, &over))
}

async fn clients(args: &Args, over: &Arc<AtomicBool>) -> Result<(), String> {
    let hf = Handfast::builder(&args.server)
        .with_wait_for_server(Duration::from_secs(60))
        .with_time_limit(Duration::from_secs(10))
        .connect()
        .await
        .map_err(|error| error.to_string())?;
    let most = u32::try_from(args.clients).unwrap_or(64);
    let wait = Duration::from_secs(2);
    let text = |error: sqlx::Error| error.to_string();
    let postgres = PgPoolOptions::new().max_connections(most).acquire_timeout(wait);
    let mariadb = MySqlPoolOptions::new().max_connections(most).acquire_timeout(wait);
    let bank = Bank {
        hf,
        postgres: postgres.connect_lazy(&args.postgres).map_err(text)?,
        mariadb: mariadb.connect_lazy(&args.mariadb).map_err(text)?,
    };
    let next = Arc::new(AtomicI64::new(args.after + 1));
    let mut clients = JoinSet::new();
    for client in 0..args.clients {
        let (bank, next, over) = (bank.clone(), Arc::clone(&next), Arc::clone(over));
        let seed = args.seed.wrapping_add(client as u64);
        clients.spawn(async move {
            let mut random = Random::new(seed);
            while !over.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let end = bank.transfer(&made_up(&mut random, number)).await;
                if say(Ended { transfer: number, end }).is_err() {
                    return;
                }
                if end != End::Committed {
                    sleep(PAUSE).await;
                }
            }
        });
    }
    while clients.join_next().await.is_some() {}
    Ok(())
}

fn say(ended: Ended) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let line = serde_json::to_string(&ended).map_err(io::Error::other)?;
    writeln!(out, "{line}")?;
    out.flush()
}

fn made_up(random: &mut Random, number: i64) -> Transfer {
    let below = |random: &mut Random, end: i64| random.below(end.unsigned_abs()).cast_signed();
    let kind = match random.below(4) {
        0 => Kind::Orders,
        1 => Kind::Ledger,
        _ => Kind::Distributed,
    };
    let first = below(random, ACCOUNTS);
    let other = (first + 1 + below(random, ACCOUNTS - 1)) % ACCOUNTS;
    let second = if kind == Kind::Distributed { below(random, ACCOUNTS) } else { other };
    let amount = 1 + below(random, 100);
    let amount = if random.below(2) == 0 { amount } else { -amount };
    Transfer { number, kind, accounts: (first, second), amount }
}

#[derive(Clone)]
struct Bank {
    hf: Handfast,
    postgres: PgPool,
    mariadb: MySqlPool,
}

impl Bank {
    async fn transfer(&self, transfer: &Transfer) -> End {
        let options = LocalOptions::new().with_deadline(DEADLINE);
        match transfer.kind {
            Kind::Distributed => self.distributed(transfer).await,
            Kind::Orders => {
                let local = self.hf.local_with(ORDERS, &self.postgres, options, async |db, tx| {
                    bank::in_postgres(db, transfer).await?;
                    tx.publish(TOPIC, event(transfer));
                    Ok::<_, sqlx::Error>(())
                });
                end(local.await)
            }
            Kind::Ledger => {
                let local = self.hf.local_with(LEDGER, &self.mariadb, options, async |db, tx| {
                    bank::in_mariadb(db, transfer).await?;
                    tx.publish(TOPIC, event(transfer));
                    Ok::<_, sqlx::Error>(())
                });
                end(local.await)
            }
        }
    }

    async fn distributed(&self, transfer: &Transfer) -> End {
        let begun = self.hf.begin_with(BeginOptions::new().with_deadline(DEADLINE)).await;
        let mut tx = match begun {
            Ok(tx) => tx,
            Err(error) => return end_of(&error),
        };
        let joined = async {
            let work = async |db: &mut _| bank::in_postgres(db, transfer).await;
            tx.join(ORDERS, &self.postgres, work).await?;
            let work = async |db: &mut _| bank::in_mariadb(db, transfer).await;
            tx.join(LEDGER, &self.mariadb, work).await?;
            tx.publish(TOPIC, event(transfer)).await.map_err(Error::Transaction)
        };
        if let Err::<(), Error<sqlx::Error>>(error) = joined.await {
            // It was never asked to commit.
            tracing::debug!("transfer {}: {error}", transfer.number);
            return End::Failed;
        }
        match tx.commit().await {
            Ok(_) => End::Committed,
            Err(error) => end_of(&error),
        }
    }
}

fn event(transfer: &Transfer) -> Event {
    let kind = match transfer.kind {
        Kind::Distributed => "distributed",
        Kind::Orders => ORDERS,
        Kind::Ledger => LEDGER,
    };
    Event::new(kind, "/handfast/torture").with_id(transfer.number.to_string())
}

fn end<T>(ended: Result<T, Error<sqlx::Error>>) -> End {
    match ended {
        Ok(_) => End::Committed,
        Err(error) if error.has_no_side_effects() => End::Failed,
        Err(Error::Transaction(error)) => end_of(&error),
        Err(_) => End::Unknown,
    }
}

fn end_of(error: &TransactionError) -> End {
    if error.has_no_side_effects() || matches!(error, TransactionError::Failed { .. }) {
        return End::Failed;
    }
    End::Unknown
}
