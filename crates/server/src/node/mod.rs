//! A node: the core, its journal and the threads between them, behind a handle.
//!
//! Three kinds of thread: the pump owns the core, one writes the journal, a few read it. Streams
//! talk to the pump in batches; nothing here costs a task, a timer or a lock per transaction.

mod clock;
mod ended;
mod fetches;
mod needs;
mod pump;
mod readers;
mod requests;
mod retention;
mod session;
mod stall;
mod unread;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel as channel;
use handfast_core::Recovery;
use handfast_core::command::Command;
use handfast_core::event::StoredEvent;
use handfast_core::ids::{Lsn, Name, Offset, StoreId, TopicId, TransactionId};
use handfast_core::input::Input;
use handfast_core::limits::Limits;
use handfast_core::openings::Openings;
use handfast_core::output::{Fetch, Reply};
use handfast_core::refusal::Refusal;
use handfast_journal::files::{Directory, Files};
use handfast_journal::{Journal, Options as JournalOptions, Progress, Reader, Snapshot};
use handfast_wire::Homes;
use handfast_wire::transactions::About;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use clock::{Clock, Ids};
use pump::{Ends, Pump, ToPump};
use readers::ReadJob;
use requests::Requests;
use retention::Retention;
use session::SessionIds;
use unread::AllUnread;

use writer::Segments;

pub use clock::WallClock;
pub use pump::{DatabaseJob, NodeStats};
pub use requests::Queues;
pub use session::{Beside, Connection, Inbox, Item, QUIET, Sender};

/// How a node is opened.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct NodeOptions {
    /// Bounds of the core.
    pub limits: Limits,
    /// The journal's options.
    pub journal: JournalOptions,
    /// Bounds of what waits in memory.
    pub queues: Queues,
    /// What tells the time of day.
    pub wall_clock: WallClock,
}

impl NodeOptions {
    /// With other bounds.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// With other bounds of what waits in memory.
    #[must_use]
    pub fn with_queues(mut self, queues: Queues) -> Self {
        self.queues = queues;
        self
    }

    /// With another clock than the machine's: a test's.
    #[must_use]
    pub fn with_wall_clock(mut self, wall_clock: WallClock) -> Self {
        self.wall_clock = wall_clock;
        self
    }

    /// With other options for the journal.
    #[must_use]
    pub fn with_journal(mut self, journal: JournalOptions) -> Self {
        self.journal = journal;
        self
    }
}

/// The node has stopped: what was acknowledged is durable, the rest is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node has stopped")]
pub struct NodeStopped;

/// Why something was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// As [`NodeStopped`].
    #[error(transparent)]
    Stopped(#[from] NodeStopped),
    /// It is in a damaged place of the log.
    #[error("{}: {}", .0.code, .0.detail)]
    Refused(Refusal),
}

/// Why a store could not be opened. Nothing has changed on disk then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The data directory cannot be made or read.
    #[error("cannot use {} as the data directory: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Locked by another process, not a store, corrupt (with the place), or not readable.
    #[error(transparent)]
    Journal(#[from] handfast_journal::Error),
    /// A record that the checkpoint refers to is gone.
    #[error("the store is damaged: record {0}, which its checkpoint refers to, is missing")]
    Missing(Lsn),
    /// The system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The store.
    pub store: StoreId,
    /// Raised by every opening.
    pub epoch: u32,
    /// The openings that its log contains, this one last.
    pub openings: Arc<Openings>,
    /// The newest time that the log knew of before, Unix time in milliseconds; 0: none.
    pub newest_ms: u64,
    /// Where it stores; none: in memory, in a test.
    pub data_dir: Option<PathBuf>,
    /// Bytes of a torn last commit group that were cut off at the opening. On a disk that keeps what
    /// it was told to keep, none of them had been acknowledged.
    pub dropped_bytes: u64,
    /// How far the machine's clock was from log time at the opening, in milliseconds: negative if
    /// it was behind.
    pub clock_offset_ms: i64,
    /// By how much the opening was later than the newest time in the log, in milliseconds.
    pub away_ms: u64,
}

impl Info {
    /// What people are told of the machine's clock at the opening: nothing if it is near enough.
    pub fn clock_notices(&self) -> impl Iterator<Item = String> {
        clock::off(self.clock_offset_ms).into_iter().chain(clock::absence(self.away_ms))
    }
}

/// What the core wants of databases, by their names.
pub type DatabaseJobs = mpsc::UnboundedReceiver<(Name, DatabaseJob)>;

/// A handle to a running node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Node(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    info: Info,
    pump: channel::Sender<ToPump>,
    readers: channel::Sender<ReadJob>,
    reader: Reader,
    /// Who may look for what has ended.
    ended: Arc<Semaphore>,
    /// Ends what goes through the sealed segments.
    is_over: Arc<AtomicBool>,
    sessions: SessionIds,
    ids: Ids,
    requests: Requests,
    all_unread: Arc<AllUnread>,
    durable: watch::Receiver<u64>,
    paused: watch::Receiver<u64>,
    started: Instant,
    keys_since_ms: Arc<AtomicU64>,
    homes: Homes,
    database_jobs: Mutex<Option<DatabaseJobs>>,
    stopped: watch::Receiver<Option<Result<(), String>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Node {
    /// Opens the store in a directory, or makes one in an empty or missing directory, and starts
    /// the node. Blocks until it is ready: seconds for a large store, which `progress` can show.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        data_dir: &Path,
        options: NodeOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, OpenError> {
        let directory = |source| OpenError::Directory { path: data_dir.to_path_buf(), source };
        let files = Arc::new(Directory::open(data_dir).map_err(directory)?);
        Self::open_files(files, Some(data_dir.to_path_buf()), options, progress)
    }

    /// The same over any files: a test's crash-image double.
    ///
    /// # Errors
    /// See [`Node::open`].
    pub fn open_on(files: Arc<dyn Files>, options: NodeOptions) -> Result<Self, OpenError> {
        Self::open_files(files, None, options, &mut |_| {})
    }

    fn open_files(
        files: Arc<dyn Files>,
        data_dir: Option<PathBuf>,
        options: NodeOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, OpenError> {
        let mut clock = Clock::start(options.wall_clock);
        let new_store = clock.store_id();
        let opening = clock::opening_id();
        let key_age_ms = options.limits.key_age_ms;
        let open_transactions = options.limits.open_transactions;
        let requests = Requests::new(&options.queues);
        let all_unread = Arc::new(AllUnread::new(&options.queues));
        let mut recovery = Recovery::new(options.limits);
        let (journal, recovered) = Journal::open(
            files,
            options.journal,
            &mut |newest_ms| clock.open(newest_ms),
            new_store,
            opening,
            progress,
            &mut |lsn, record| recovery.apply(lsn, &record),
        )?;
        let reader = journal.reader();
        for lsn in recovery.elsewhere() {
            let record = reader.record(lsn)?.ok_or(OpenError::Missing(lsn))?;
            recovery.recall(lsn, &record);
        }
        let away_ms = match recovered.newest_ms {
            0 => 0,
            newest_ms => recovered.wall_ms - newest_ms,
        };
        let clock_offset_ms = clock.offset_ms();
        let core = recovery.finish(clock.now());
        say_resumed(core.resumed());
        let ids = clock.ids(recovered.epoch, opening);
        let info = Info {
            store: recovered.store,
            epoch: recovered.epoch,
            openings: Arc::new(core.openings().clone()),
            newest_ms: recovered.newest_ms,
            data_dir,
            dropped_bytes: recovered.dropped_bytes,
            clock_offset_ms,
            away_ms,
        };

        let (to_pump, inbox) = channel::unbounded();
        let (durable, durable_seen) = watch::channel(core.durable().0);
        let (reader, is_over) = (journal.reader(), Arc::new(AtomicBool::new(false)));
        readers::start_check(reader.clone(), Arc::clone(&is_over)).map_err(OpenError::Thread)?;
        let (paused, paused_seen) = watch::channel(0);
        let (space, retention) =
            (journal.space(), Retention::new(Segments::of(&journal), key_age_ms));
        let (read_jobs, reader_threads) =
            readers::start(&journal.reader(), &to_pump).map_err(OpenError::Thread)?;
        let (write_jobs, writer_thread) =
            writer::start(journal, to_pump.clone()).map_err(OpenError::Thread)?;
        let (databases, database_jobs) = mpsc::unbounded_channel();
        let keys_since_ms = Arc::new(AtomicU64::new(core.keys_since_ms()));
        let ends = Ends {
            inbox,
            writer: write_jobs,
            readers: read_jobs.clone(),
            databases,
            durable,
            paused,
            keys_since_ms: Arc::clone(&keys_since_ms),
            space,
            open_transactions,
            all_unread: Arc::clone(&all_unread),
        };
        let started = clock.started();
        let pump = Pump::new(core, clock, ends, retention);
        let (stop, stopped) = watch::channel(None);
        let thread = thread::Builder::new().name("handfast-pump".into()).spawn(move || {
            let result = pump.run();
            // The pump's ends are dropped: the journal's thread finishes what it has and ends.
            let _ = writer_thread.join();
            drop(reader_threads);
            stop.send_replace(Some(result));
        });
        let thread = thread.map_err(OpenError::Thread)?;
        Ok(Self(Arc::new(Shared {
            info,
            pump: to_pump,
            readers: read_jobs,
            reader,
            ended: ended::turns(),
            is_over,
            sessions: SessionIds::new(),
            ids,
            requests,
            all_unread,
            durable: durable_seen,
            paused: paused_seen,
            started,
            keys_since_ms,
            homes: Homes::new(),
            database_jobs: Mutex::new(Some(database_jobs)),
            stopped,
            thread: Mutex::new(Some(thread)),
        })))
    }

    /// What it is.
    #[must_use]
    pub fn info(&self) -> &Info {
        &self.0.info
    }

    /// A new id for a transaction.
    #[must_use]
    pub fn new_transaction_id(&self) -> TransactionId {
        self.0.ids.next()
    }

    /// Log time, as it was within the last second, in Unix time in milliseconds: ages of what the
    /// store has done are reckoned by it, never by the machine's clock.
    #[must_use]
    pub fn log_time_ms(&self) -> u64 {
        self.0.ids.log_ms()
    }

    /// A new number for a claim of a database: random, below 2^63.
    #[must_use]
    pub fn new_claim(&self) -> u64 {
        clock::claim()
    }

    /// Opens a session for one stream.
    #[must_use]
    pub fn connect(&self) -> Connection {
        let Shared { sessions, pump, requests, all_unread, .. } = &*self.0;
        session::open(sessions.next(), pump, requests, all_unread)
    }

    /// One call on its own. A transaction that is begun this way has to be detached. Refused while
    /// too many such calls are unanswered.
    ///
    /// # Errors
    /// [`NodeStopped`]: whether the call had an effect is unknown.
    pub async fn call(&self, command: Command) -> Result<Reply, NodeStopped> {
        let (answer, reply) = oneshot::channel();
        let place = match self.0.requests.place() {
            Ok(place) => place,
            Err(refusal) => return Ok(Reply::Refused(refusal)),
        };
        let room = self.0.requests.room_for([&command].into_iter()).await?;
        let call = ToPump::Call { command, answer, room, place };
        self.0.pump.send(call).map_err(|_| NodeStopped)?;
        reply.await.map_err(|_| NodeStopped)
    }

    /// Reads durable events without a subscription: the events, and where to go on.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn fetch(&self, fetch: Fetch) -> Result<(Vec<StoredEvent>, Offset), ReadError> {
        let (answer, found) = oneshot::channel();
        self.0.readers.send(ReadJob::Events(fetch, answer)).map_err(|_| NodeStopped)?;
        found.await.map_err(|_| NodeStopped)?.map_err(ReadError::Refused)
    }

    /// Places of the log that are known to be damaged, in words, and the topic whose events are
    /// there, if it is of events.
    #[must_use]
    pub fn damage(&self) -> Vec<(Option<TopicId>, String)> {
        let all = self.0.reader.damage();
        all.iter().map(|d| (d.events.map(|lost| lost.topic), d.to_string())).collect()
    }

    /// The first event of a topic at or after a Unix time in milliseconds.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn offset_at(
        &self,
        topic: TopicId,
        wall_ms: u64,
    ) -> Result<Option<Offset>, ReadError> {
        let (answer, found) = oneshot::channel();
        let job = ReadJob::OffsetAt(topic, wall_ms, answer);
        self.0.readers.send(job).map_err(|_| NodeStopped)?;
        found.await.map_err(|_| NodeStopped)?.map_err(ReadError::Refused)
    }

    /// What answers say about the store.
    #[must_use]
    pub fn about(&self) -> About<'_> {
        // It only rises, and no other memory is read by it.
        let keys_since_ms = self.0.keys_since_ms.load(Ordering::Relaxed);
        About { store: self.0.info.store, keys_since_ms, homes: &self.0.homes }
    }

    /// Where the registered databases are; whoever looks at them says so.
    #[must_use]
    pub fn homes(&self) -> &Homes {
        &self.0.homes
    }

    /// What the core wants of databases, for whoever does it; once.
    #[must_use]
    pub fn database_jobs(&self) -> Option<DatabaseJobs> {
        self.0.database_jobs.lock().ok().and_then(|mut jobs| jobs.take())
    }

    /// What databases have said, and how they are.
    ///
    /// # Errors
    /// [`NodeStopped`].
    pub fn databases_said(&self, inputs: Vec<Input>) -> Result<(), NodeStopped> {
        self.0.pump.send(ToPump::Databases(inputs)).map_err(|_| NodeStopped)
    }

    /// Databases with branches that are not finished, and how many.
    ///
    /// # Errors
    /// [`NodeStopped`].
    pub async fn open_databases(&self) -> Result<Vec<(Name, usize)>, NodeStopped> {
        let (answer, open) = oneshot::channel();
        self.0.pump.send(ToPump::OpenDatabases(answer)).map_err(|_| NodeStopped)?;
        open.await.map_err(|_| NodeStopped)
    }

    /// Changes whenever more of the log has become durable; the value is its last LSN.
    #[must_use]
    pub fn durable_changed(&self) -> watch::Receiver<u64> {
        self.0.durable.clone()
    }

    /// Changes whenever the node finds that it stood still for a while ([`Input::Paused`]); the value
    /// is how often it has.
    #[must_use]
    pub fn paused(&self) -> watch::Receiver<u64> {
        self.0.paused.clone()
    }

    /// The monotonic time on which the core's deadlines are, in milliseconds.
    #[must_use]
    pub fn mono_ms(&self) -> u64 {
        clock::millis(self.0.started.elapsed())
    }

    /// Figures.
    ///
    /// # Errors
    /// [`NodeStopped`].
    pub async fn stats(&self) -> Result<NodeStats, NodeStopped> {
        let (answer, stats) = oneshot::channel();
        self.0.pump.send(ToPump::Stats(answer)).map_err(|_| NodeStopped)?;
        let stats = stats.await.map_err(|_| NodeStopped)?;
        Ok(NodeStats { damaged: self.0.reader.damage().len(), ..stats })
    }

    /// What is durable now, with everything that was acknowledged before: to be copied beside the
    /// running node, which waits for nothing of it. Or why it cannot be had: for want of descriptors.
    ///
    /// # Errors
    /// [`NodeStopped`].
    pub async fn snapshot(&self) -> Result<Result<Snapshot, String>, NodeStopped> {
        let (answer, snapshot) = oneshot::channel();
        self.0.pump.send(ToPump::Snapshot(answer)).map_err(|_| NodeStopped)?;
        snapshot.await.map_err(|_| NodeStopped)
    }

    /// Refuses new transactions, waits up to `grace` for those that are deciding, makes everything
    /// durable and stops.
    pub async fn shutdown(&self, grace: Duration) {
        let (answer, drained) = oneshot::channel();
        if self.0.pump.send(ToPump::Drain(answer)).is_ok() {
            // Out of grace, or out of node: in either case the log says what stands.
            let _ = tokio::time::timeout(grace, drained).await;
        }
        let _ = self.0.pump.send(ToPump::Stop);
        let _ = self.stopped().await;
    }

    /// Resolves when the node has stopped: by [`Node::shutdown`], or by itself with the fault.
    ///
    /// # Errors
    /// The fault, in words. The process has to end then; opening the store again recovers.
    pub async fn stopped(&self) -> Result<(), String> {
        let mut stopped = self.0.stopped.clone();
        let result = stopped.wait_for(Option::is_some).await;
        result.map_or_else(|_| Err("the pump has ended".into()), |r| r.clone().unwrap_or(Ok(())))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = self.pump.send(ToPump::Stop);
        let thread = self.thread.get_mut().ok().and_then(Option::take);
        if let Some(thread) = thread {
            // A panic of the pump was reported by its thread already.
            let _ = thread.join();
        }
    }
}

/// What a restart has done to transactions is nobody's own call, so it is said here.
fn say_resumed(resumed: handfast_core::Resumed) {
    let handfast_core::Resumed { aborted, decided, local } = resumed;
    if aborted + decided + local > 0 {
        tracing::warn!(
            "found open: {aborted} transactions that were not decided, which fail now \
             (coordinator_restarted); {decided} decided ones, whose participants are told again; \
             {local} local ones, whose databases decide"
        );
    }
}
