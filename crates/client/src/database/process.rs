//! Consume, write and publish, exactly once.
//!
//! An event's work and its row in the inbox are one transaction of the database. If the work
//! publishes, that is a local transaction which acknowledges the event too; if not, the server is
//! asked for nothing but the acknowledgement, and an acknowledgement that is lost brings the event
//! again, which then finds its row.

use std::fmt::Display;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sqlx::Pool;
use tokio::time::{Instant, timeout_at};

use super::home;
use super::inbox::Inbox;
use super::local::{LocalRun, check_name};
use super::{Error, LocalOptions, LocalTransaction, Participant};
use crate::connection::Handfast;
use crate::error::{Error as CallError, Fault, TransactionError};
use crate::subscribe::{Delivery, Gap, Item, Subscription};
use crate::transaction::Wait;

/// Old rows are looked for after so many events.
const PRUNE_EVERY: u32 = 1_000;
const DAY: Duration = Duration::from_secs(24 * 3_600);
const HOUR: Duration = Duration::from_secs(3_600);

/// How to process a subscription's events. See [`Subscription::process_with`].
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct ProcessOptions {
    at_once: usize,
    kept: Duration,
}

impl Default for ProcessOptions {
    fn default() -> Self {
        Self { at_once: 16, kept: DAY }
    }
}

impl ProcessOptions {
    /// As [`Subscription::process`].
    pub fn new() -> Self {
        Self::default()
    }

    /// How many events are processed at the same time, each on a connection of its own; default
    /// 16, at least 1. Events with the same key are processed one after the other, in order.
    pub fn with_at_once(mut self, most: usize) -> Self {
        self.at_once = most.max(1);
        self
    }

    /// How long the row of an acknowledged event stays in the inbox; default one day, at least one
    /// hour.
    ///
    /// An event may be processed by two subscribers at once, when the first has lost its lease
    /// without knowing; the row of the one that was faster stops the other. Its session in the
    /// database ends after the lease at the latest, so an hour, the longest lease, is enough.
    pub fn with_inbox_kept(mut self, kept: Duration) -> Self {
        self.kept = kept.max(HOUR);
        self
    }
}

impl Subscription {
    /// Processes events in one database, exactly once: what the closure writes, the events that it
    /// publishes and the acknowledgement take effect together or not at all, and once.
    ///
    /// ```no_run
    /// # #[cfg(feature = "postgres")]
    /// # async fn bill(hf: handfast::Handfast, pool: sqlx::PgPool) -> Result<(), handfast::Error> {
    /// handfast::database::create_inbox(&pool).await.expect("the database answers");
    /// let mut billing = hf.subscribe("billing").on("orders").open().await?;
    /// while let Some(gap) = billing
    ///     .process("billing", &pool, async |delivery, db, tx| {
    ///         let order = delivery.event.subject.as_deref();
    ///         sqlx::query("INSERT INTO bills (id) VALUES ($1)").bind(order).execute(db).await?;
    ///         tx.publish("bills", handfast::Event::new("bill.sent", "/billing"));
    ///         Ok::<_, sqlx::Error>(())
    ///     })
    ///     .await?
    /// {
    ///     eprintln!("retention overtook it: {gap:?}");
    ///     gap.acknowledge().await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// An error of the closure rolls back and rejects the delivery: it comes again after the
    /// back-off, up to the subscription's number of attempts. So does whatever else fails. What is
    /// left of the lease bounds the work.
    ///
    /// The table `handfast_inbox` has to be there ([`create_inbox`](super::create_inbox)). An
    /// event that has a row there is only acknowledged: also after the subscription was moved
    /// back, unless its rows are deleted first.
    ///
    /// Goes on until there is a gap, which is returned: acknowledge it and call again; or until
    /// the subscription is closed: none. While the connection is lost it waits.
    ///
    /// Cancel safety: what was under way when it is dropped is rolled back or takes effect, once.
    ///
    /// # Errors
    /// As [`Subscription::next`], except that a retryable one is not returned. `wrong_database`: the
    /// pool leads to another database than the registered one.
    pub async fn process<D, E, W>(
        &mut self,
        database: impl Into<String>,
        pool: &Pool<D>,
        work: W,
    ) -> Result<Option<Gap>, CallError>
    where
        D: Participant,
        E: Display,
        W: AsyncFnOnce(&Delivery, &mut D::Connection, &mut LocalTransaction) -> Result<(), E>
            + Clone,
    {
        self.process_with(database, pool, ProcessOptions::new(), work).await
    }

    /// As [`Subscription::process`], with options.
    ///
    /// # Errors
    /// As [`Subscription::process`].
    pub async fn process_with<D, E, W>(
        &mut self,
        database: impl Into<String>,
        pool: &Pool<D>,
        options: ProcessOptions,
        work: W,
    ) -> Result<Option<Gap>, CallError>
    where
        D: Participant,
        E: Display,
        W: AsyncFnOnce(&Delivery, &mut D::Connection, &mut LocalTransaction) -> Result<(), E>
            + Clone,
    {
        let database = database.into();
        if let Err(TransactionError::Refused(refusal)) = check_name(&database) {
            return Err(refusal.into());
        }
        let Some(store) = self.handfast.server().map(|server| server.store) else {
            return Err(Fault::Closed("it was never open").into());
        };
        home::check(&self.handfast, &database, pool).await?;
        let (handfast, name) = (self.handfast.clone(), self.name.clone());
        let consumer = Consumer { handfast, database, pool };
        let mut working = FuturesUnordered::new();
        let mut pruning = Pruning::default();
        let mut ended = None;
        loop {
            if let Some(end) = ended.take_if(|_| working.is_empty()) {
                return end;
            }
            tokio::select! {
                item = self.next(), if ended.is_none() && working.len() < options.at_once => {
                    match item {
                        Ok(Some(Item::Event(delivery))) => {
                            let inbox = Inbox::new(store, delivery.reference().subscription);
                            working.push(consumer.consume(inbox, delivery, work.clone()));
                        }
                        Ok(Some(Item::Gap(gap))) => ended = Some(Ok(Some(gap))),
                        Ok(None) => ended = Some(Ok(None)),
                        Err(error) if error.is_retryable() => {
                            tracing::warn!(%error, subscription = name, "still connecting");
                        }
                        Err(error) => ended = Some(Err(error)),
                    }
                }
                Some(inbox) = working.next(), if !working.is_empty() => {
                    if pruning.is_due() {
                        let handfast = consumer.handfast.clone();
                        let (name, pool) = (name.clone(), pool.clone());
                        pruning.start(prune(handfast, name, inbox, pool, options.kept));
                    }
                }
                () = pruning.under_way(), if pruning.is_under_way() => {}
            }
        }
    }
}

/// What is the same for all events.
struct Consumer<'a, D: Participant> {
    handfast: Handfast,
    database: String,
    pool: &'a Pool<D>,
}

impl<D: Participant> Consumer<'_, D> {
    /// One event, to its end. Gives its inbox back.
    async fn consume<E, W>(&self, inbox: Inbox, delivery: Delivery, work: W) -> Inbox
    where
        E: Display,
        W: AsyncFnOnce(&Delivery, &mut D::Connection, &mut LocalTransaction) -> Result<(), E>
            + Clone,
    {
        let offset = delivery.offset;
        let answered = match self.attempt(&inbox, &delivery, work).await {
            Ok(Done::Processed) => delivery.acknowledge().await,
            Ok(Done::WithIt) => Ok(()),
            Err(error) => {
                tracing::debug!(offset, %error, "an event was not processed");
                delivery.reject(error.to_string()).await
            }
        };
        if let Err(error) = answered {
            // It comes again, and its row says what to do.
            tracing::debug!(offset, %error, "the answer to a delivery was lost");
        }
        inbox
    }

    async fn attempt<E, W>(
        &self,
        inbox: &Inbox,
        delivery: &Delivery,
        work: W,
    ) -> Result<Done, Error<E>>
    where
        E: Display,
        W: AsyncFnOnce(&Delivery, &mut D::Connection, &mut LocalTransaction) -> Result<(), E>
            + Clone,
    {
        let leased = || delivery.expires.saturating_duration_since(Instant::now());
        let options = LocalOptions::new().with_deadline(leased()).with_wait(Wait::Decided);
        let run = LocalRun::new(&self.handfast, self.database.clone(), options)?;
        let mut lease = run.begin(self.pool).await?;
        // Looked at after BEGIN: from here on the database ends a session that sits idle for
        // longer than what was left of the lease, however long this process is stopped.
        if leased().is_zero() {
            lease.undo().await;
            return Err(run.too_late());
        }
        let noted = inbox.note::<D>(&mut lease, &self.database, delivery.offset);
        match timeout_at(run.give_up, noted).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => {
                lease.undo().await;
                return Ok(Done::Processed);
            }
            Ok(Err(failure)) => return Err(Error::Database(failure)),
            Err(_) => return Err(run.too_late()),
        }
        let mut tx = LocalTransaction::default();
        match timeout_at(run.give_up, work(delivery, &mut lease, &mut tx)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                lease.undo().await;
                return Err(Error::Work(error));
            }
            Err(_) => return Err(run.too_late()),
        }
        let publishes = !tx.is_empty();
        if publishes && !tx.acknowledges(delivery) {
            tx.acknowledge(delivery);
        }
        run.end(lease, tx).await?;
        Ok(if publishes { Done::WithIt } else { Done::Processed })
    }
}

/// An event is processed.
enum Done {
    /// It is to be acknowledged.
    Processed,
    /// Its transaction has acknowledged it.
    WithIt,
}

/// Deleting old rows, now and then.
struct Pruning {
    due_in: u32,
    under_way: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Default for Pruning {
    fn default() -> Self {
        Self { due_in: 1, under_way: None }
    }
}

impl Pruning {
    fn is_due(&mut self) -> bool {
        self.due_in = self.due_in.saturating_sub(1);
        self.due_in == 0 && self.under_way.is_none()
    }

    fn start(&mut self, prune: impl Future<Output = ()> + Send + 'static) {
        self.due_in = PRUNE_EVERY;
        self.under_way = Some(Box::pin(prune));
    }

    fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Cancel safe: it goes on where it was.
    async fn under_way(&mut self) {
        if let Some(prune) = &mut self.under_way {
            prune.await;
        }
        self.under_way = None;
    }
}

/// Deletes the rows of events that nobody will deliver again.
async fn prune<D: Participant>(
    handfast: Handfast,
    name: String,
    inbox: Inbox,
    pool: Pool<D>,
    kept: Duration,
) {
    let Some(store) = handfast.server().map(|server| server.store) else { return };
    let view = match handfast.subscription(&name).await {
        // Of another one that was made anew under this name nothing follows.
        Ok(view) if Inbox::new(store, view.subscription) == inbox => view,
        Ok(_) => return,
        Err(error) => {
            tracing::debug!(%error, subscription = name, "the inbox is not pruned");
            return;
        }
    };
    match inbox.prune(&pool, view.acknowledged_below.0, kept).await {
        Ok(pruned) => tracing::debug!(pruned, subscription = name, "old rows of the inbox"),
        Err(error) => tracing::debug!(%error, subscription = name, "the inbox is not pruned"),
    }
}
