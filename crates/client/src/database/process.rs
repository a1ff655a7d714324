//! Consume, write and publish, exactly once.
//!
//! An event's work and its row in the inbox are one transaction of the database. If the work
//! publishes, that is a local transaction which acknowledges the event too; if not, the server is
//! asked for nothing but the acknowledgement, and an acknowledgement that is lost brings the event
//! again, which then finds its row.

use std::fmt::{self, Display};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sqlx::Pool;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::engine::UNDO;
use super::home;
use super::inbox::Inbox;
use super::lease::Lease;
use super::local::{LocalRun, check_name};
use super::{Error, LocalOptions, LocalTransaction, Participant};
use crate::backoff::Backoff;
use crate::client::Handfast;
use crate::error::{Error as CallError, Fault, TransactionError};
use crate::subscribe::{Delivery, Gap, Item, Subscription};
use crate::transaction::Wait;

/// Old rows are looked for after so many events.
const PRUNE_EVERY: u32 = 1_000;
/// Between two looks whether the database is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const DAY: Duration = Duration::from_secs(24 * 3_600);
const HOUR: Duration = Duration::from_secs(3_600);

/// Why an event was not processed. See [`ProcessOptions::with_on_failure`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessFailure {
    /// The event's place in its topic.
    pub offset: u64,
    /// The attempt: one more than have counted before.
    pub attempt: u32,
    /// What failed, in its own words.
    pub error: String,
    /// True: the event was rejected, and this attempt counts. False: it is nobody's judgement of
    /// the event. Processing pauses and tries the same event again.
    pub is_rejected: bool,
}

type OnFailure = Arc<dyn Fn(&ProcessFailure) + Send + Sync>;

/// How to process a subscription's events. See [`Subscription::process_with`].
#[derive(Clone)]
#[must_use]
pub struct ProcessOptions {
    at_once: usize,
    kept: Duration,
    on_failure: Option<OnFailure>,
}

impl Default for ProcessOptions {
    fn default() -> Self {
        Self { at_once: 16, kept: DAY, on_failure: None }
    }
}

impl fmt::Debug for ProcessOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessOptions")
            .field("at_once", &self.at_once)
            .field("kept", &self.kept)
            .finish_non_exhaustive()
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

    /// Is told of every event that was not processed, each time; default: nobody, and the log has
    /// it (`warn`). It shall not block.
    pub fn with_on_failure(
        mut self,
        tell: impl Fn(&ProcessFailure) + Send + Sync + 'static,
    ) -> Self {
        self.on_failure = Some(Arc::new(tell));
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
    /// back-off, up to the subscription's number of attempts. So does work that takes longer than
    /// what is left of the lease, and a COMMIT that the database refuses for good.
    ///
    /// While the database does not answer, nobody judges an event: nothing is rejected and nothing
    /// new is taken. The events at hand are held, in their order, and tried again after pauses of
    /// up to some seconds, for as long as it takes. The log has each failure, and whoever
    /// [`ProcessOptions::with_on_failure`] names.
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
        let consumer = Consumer {
            handfast,
            database,
            pool,
            name: name.clone(),
            on_failure: options.on_failure.clone(),
            in_trouble: AtomicUsize::new(0),
        };
        let mut working = FuturesUnordered::new();
        let mut pruning = Pruning::default();
        let mut ended = None;
        loop {
            if let Some(end) = ended.take_if(|_| working.is_empty()) {
                return end;
            }
            tokio::select! {
                item = self.next(), if ended.is_none()
                    && working.len() < options.at_once
                    && !consumer.is_in_trouble() =>
                {
                    match item {
                        Ok(Some(Item::Event(mut delivery))) => {
                            // If this ends before the work has, nobody has judged the event.
                            delivery.returns = true;
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
    /// The subscription's.
    name: String,
    on_failure: Option<OnFailure>,
    /// Events that are held because the database does not answer.
    in_trouble: AtomicUsize,
}

/// An event is held until its database answers again.
struct Trouble<'a>(&'a AtomicUsize);

impl<'a> Trouble<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Trouble<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An attempt that failed, and whether that is a judgement of the event.
struct Failed<E> {
    error: Error<E>,
    is_judged: bool,
}

impl<E> Failed<E> {
    /// Something else than the event is the reason.
    fn unjudged(error: impl Into<Error<E>>) -> Self {
        Self { error: error.into(), is_judged: false }
    }
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
        let mut expires = delivery.expires;
        let mut backoff = Backoff::default();
        let mut trouble = None;
        let answered = loop {
            match self.attempt(&inbox, &delivery, expires, work.clone()).await {
                Ok(Done::Processed) => break delivery.acknowledge().await,
                Ok(Done::WithIt) => {
                    delivery.is_answered();
                    break Ok(());
                }
                Err(Failed { error, is_judged: true }) => {
                    self.tell(&delivery, &error, true);
                    break delivery.reject(error.to_string()).await;
                }
                Err(Failed { error, is_judged: false }) => {
                    self.tell(&delivery, &error, false);
                    trouble.get_or_insert_with(|| Trouble::new(&self.in_trouble));
                    match hold(&delivery, expires, backoff.next()).await {
                        Ok(until) => expires = until,
                        Err(error) => {
                            // It has gone back by itself, or does so with its stream.
                            delivery.is_answered();
                            break Err(error);
                        }
                    }
                }
            }
        };
        drop(trouble);
        if let Err(error) = answered {
            // It comes again, and its row says what to do.
            tracing::debug!(offset, %error, "the answer to a delivery was lost");
        }
        inbox
    }

    fn is_in_trouble(&self) -> bool {
        self.in_trouble.load(Ordering::Relaxed) > 0
    }

    fn tell<E: Display>(&self, delivery: &Delivery, error: &Error<E>, is_rejected: bool) {
        let (offset, attempt, subscription) = (delivery.offset, delivery.attempt, &self.name);
        if is_rejected {
            tracing::warn!(subscription, offset, attempt, %error, "an event was rejected");
        } else {
            tracing::warn!(
                subscription, offset, attempt, %error,
                "an event is not processed yet; that is not held against it"
            );
        }
        if let Some(tell) = &self.on_failure {
            tell(&ProcessFailure { offset, attempt, error: error.to_string(), is_rejected });
        }
    }

    async fn attempt<E, W>(
        &self,
        inbox: &Inbox,
        delivery: &Delivery,
        expires: Instant,
        work: W,
    ) -> Result<Done, Failed<E>>
    where
        E: Display,
        W: AsyncFnOnce(&Delivery, &mut D::Connection, &mut LocalTransaction) -> Result<(), E>
            + Clone,
    {
        let leased = || expires.saturating_duration_since(Instant::now());
        let options = LocalOptions::new().with_deadline(leased()).with_wait(Wait::Decided);
        let run = LocalRun::new(&self.handfast, self.database.clone(), options)
            .map_err(Failed::unjudged)?;
        // Half of the lease is left to hold the event if there is no connection.
        let connecting = Instant::now() + leased() / 2;
        let mut lease = match timeout_at(connecting, run.begin(self.pool)).await {
            Ok(begun) => begun.map_err(Failed::unjudged)?,
            Err(_) => return Err(Failed::unjudged(run.too_late())),
        };
        // Looked at after BEGIN: from here on the database ends a session that sits idle for
        // longer than what was left of the lease, however long this process is stopped.
        if leased().is_zero() {
            lease.undo().await;
            return Err(Failed::unjudged(run.too_late()));
        }
        let noted = inbox.note::<D>(&mut lease, &self.database, delivery.offset);
        match timeout_at(run.give_up, noted).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => {
                lease.undo().await;
                return Ok(Done::Processed);
            }
            Ok(Err(failure)) => return Err(Failed::unjudged(Error::Database(failure))),
            Err(_) => return Err(Failed::unjudged(run.too_late())),
        }
        let mut tx = LocalTransaction::default();
        match timeout_at(run.give_up, work(delivery, &mut lease, &mut tx)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                // If the database has gone away meanwhile, that is what the closure has failed at.
                let is_judged = lease.undo().await;
                return Err(Failed { error: Error::Work(error), is_judged });
            }
            Err(_) => {
                let is_judged = answers(self.pool).await;
                return Err(Failed { error: run.too_late(), is_judged });
            }
        }
        let publishes = !tx.is_empty();
        if publishes && !tx.acknowledges(delivery) {
            tx.acknowledge(delivery);
        }
        match run.end(lease, tx).await {
            Ok(_) => Ok(if publishes { Done::WithIt } else { Done::Processed }),
            Err(error) => {
                let is_judged = match &error {
                    Error::Work(_) => true,
                    // Without a code no database has said so.
                    Error::Database(failure) => !failure.retryable && !failure.code.is_empty(),
                    Error::Unknown(_) => false,
                    Error::Transaction(error) => !error.is_retryable(),
                };
                Err(Failed { error, is_judged })
            }
        }
    }
}

/// Holds an event for a while: its lease starts anew. Says until when.
async fn hold(
    delivery: &Delivery,
    expires: Instant,
    pause: Duration,
) -> Result<Instant, CallError> {
    let asked = Instant::now();
    match timeout_at(expires, delivery.extend()).await {
        Ok(extended) => extended?,
        Err(_) => return Err(Fault::Closed("the lease is over").into()),
    }
    sleep(pause.min(LONGEST_PAUSE).min(delivery.lease / 4)).await;
    Ok(asked + delivery.lease)
}

/// Whether the database is there.
async fn answers<D: Participant>(pool: &Pool<D>) -> bool {
    let asking = async {
        let mut lease = Lease::new(pool).await?;
        D::execute(&mut lease, "SELECT 1".to_owned()).await?;
        lease.give_back();
        Ok::<(), sqlx::Error>(())
    };
    matches!(timeout(UNDO, asking).await, Ok(Ok(())))
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
