//! A running service: the driver's messages over a stream that is opened again whenever it breaks.
//!
//! The driver has a thread of its own, because a store blocks. Whatever arrives while it works is
//! its next batch, and all answers of a batch are one frame. One timer serves the whole service.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use handfast_core::command::Command;
use handfast_core::ids::{Name, Now, StateId, StoreId};
use handfast_core::output::ToService;
use handfast_core::refusal::Code;
use handfast_wire::participants::{Received, attach, message};
use handfast_wire::{LIST_ITEMS, v1};
use thiserror::Error as ThisError;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Driver, Handler, Report, ServiceStore};
use crate::backoff::Backoff;
use crate::client::Handfast;
use crate::error::{Error, Fault, Refusal};
use crate::link::Connection;

/// Opening a stream may take this long.
const OPENING: Duration = Duration::from_secs(5);
/// After a shutdown was asked, the batch under way may take this long.
const CLOSING: Duration = Duration::from_secs(30);
/// Messages of one batch for the driver.
const BATCH: usize = 1_000;
/// Answers of one frame; a vote's reason has at most 512 bytes.
const FRAME: usize = 5_000;
/// Frames that wait for the connection to take them.
const FRAMES: usize = 4;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a service stopped running.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum ServiceError {
    /// The server refuses the service for good; or a newer stream of the same instance has
    /// replaced this one (`not_attached`): two processes use one instance name.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The server cannot be spoken to, and waiting does not help.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The names are none.
    #[error("{field} {text:?} is not a name: {problem}")]
    InvalidName {
        /// Of what.
        field: &'static str,
        /// What was given.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The driver's thread panicked or could not be started.
    #[error("the service's thread is gone: {0}")]
    Thread(String),
}

/// A service to run. See [`Handfast::service`].
#[must_use = "nothing happens before `run`"]
pub struct Service<S, H> {
    handfast: Handfast,
    service: String,
    instance: Option<String>,
    store: S,
    handler: H,
    report: Box<dyn FnMut(Report) + Send>,
}

impl Handfast {
    /// A service that takes part in transactions under this name. Give it a
    /// [`Service::store`] and a [`Service::handler`], then [`Service::run`] it.
    pub fn service(&self, name: impl Into<String>) -> Service<(), ()> {
        Service {
            handfast: self.clone(),
            service: name.into(),
            instance: None,
            store: (),
            handler: (),
            report: Box::new(|report| log(&report)),
        }
    }
}

fn log(report: &Report) {
    match report {
        Report::Attention { .. } => tracing::error!("{report}"),
        _ => tracing::warn!("{report}"),
    }
}

impl<S, H> Service<S, H> {
    /// This instance's name, unique within the service. Default: one at random. A newer stream of
    /// the same instance replaces the older one.
    pub fn instance(mut self, name: impl Into<String>) -> Self {
        self.instance = Some(name.into());
        self
    }

    /// Where branches are kept durably.
    pub fn store<T: ServiceStore>(self, store: T) -> Service<T, H> {
        let Self { handfast, service, instance, store: _, handler, report } = self;
        Service { handfast, service, instance, store, handler, report }
    }

    /// What the service does.
    pub fn handler<T>(self, handler: T) -> Service<S, T> {
        let Self { handfast, service, instance, store, handler: _, report } = self;
        Service { handfast, service, instance, store, handler, report }
    }

    /// Who takes what a person should know; default: it is logged with `tracing`.
    pub fn on_report(mut self, report: impl FnMut(Report) + Send + 'static) -> Self {
        self.report = Box::new(report);
        self
    }
}

impl<S, H> Service<S, H>
where
    S: ServiceStore + Send + 'static,
    H: Handler<S::Db> + Send + 'static,
{
    /// Runs until `shutdown` is ready.
    ///
    /// Connects again for as long as it takes, asks on each connection about everything that is
    /// in doubt, and never decides alone what it has voted YES for. When the store fails, the
    /// connection is ended and made again after a pause: nothing is answered that is not durable.
    ///
    /// On shutdown the batch under way is finished and answered; what is prepared stays
    /// prepared, and goes on when an instance with the same store runs again.
    ///
    /// Cancel safety: may be dropped at any time; a batch under way is then finished by its
    /// thread but not answered, which the coordinator's repeats make good.
    ///
    /// # Errors
    /// Only what waiting does not help against; see [`ServiceError`].
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), ServiceError> {
        let instance =
            self.instance.unwrap_or_else(|| format!("i-{}", uuid::Uuid::new_v4().simple()));
        let names = (name("the service", &self.service)?, name("the instance", &instance)?);
        let driver = Driver::new(self.store, self.handler, self.report);
        let state = driver.state_id();
        let thread = Thread::start(driver)?;
        let connection = Arc::clone(self.handfast.connection());
        let mut running = Running { connection, names, state, thread, next_request: 1 };
        tokio::pin!(shutdown);
        let mut backoff = Backoff::default();
        loop {
            let ended = tokio::select! {
                opened = running.open() => opened,
                () = &mut shutdown => return Ok(()),
            };
            let ended = match ended {
                Ok(open) => {
                    let since = Instant::now();
                    let ended = running.drive(open, shutdown.as_mut()).await?;
                    if since.elapsed() > OPENING {
                        backoff.reset();
                    }
                    match ended {
                        Some(ended) => ended,
                        None => return Ok(()),
                    }
                }
                Err(error) => error,
            };
            if ended.stays() {
                return Err(match ended {
                    Error::Refused(refusal) => refusal.into(),
                    Error::Fault(fault) => fault.into(),
                });
            }
            tracing::info!(service = %self.service, "connecting again: {ended}");
            tokio::select! {
                () = sleep(backoff.next()) => {}
                () = &mut shutdown => return Ok(()),
            }
        }
    }
}

impl<S, H> fmt::Debug for Service<S, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("service", &self.service).finish_non_exhaustive()
    }
}

fn name(field: &'static str, text: &str) -> Result<Name, ServiceError> {
    Name::new(text).map_err(|problem| ServiceError::InvalidName {
        field,
        text: text.to_owned(),
        problem: problem.to_string(),
    })
}

/// What the driver is to do.
enum Job {
    /// A stream is up.
    Start,
    /// Take these in, and do what is due.
    Batch(Vec<ToService>),
}

/// What it answers.
struct Done {
    commands: Result<Vec<Command>, BoxError>,
    /// When something is due, counted from the end of the work.
    next: Duration,
}

/// The driver's thread. It ends when this value is dropped and its work is done.
struct Thread {
    jobs: mpsc::Sender<Job>,
    done: mpsc::Receiver<Done>,
}

impl Thread {
    fn start<S, H>(mut driver: Driver<S, H>) -> Result<Self, ServiceError>
    where
        S: ServiceStore + Send + 'static,
        H: Handler<S::Db> + Send + 'static,
    {
        let (jobs, mut inbox) = mpsc::channel(1);
        let (outbox, done) = mpsc::channel(1);
        let epoch = std::time::Instant::now();
        let work = move || {
            while let Some(job) = inbox.blocking_recv() {
                let commands = match job {
                    Job::Start => driver.start(now(epoch)),
                    Job::Batch(messages) => process(&mut driver, epoch, &messages),
                };
                let due = driver.next_deadline_ms().saturating_sub(now(epoch).mono_ms);
                let next = Duration::from_millis(due);
                let commands = commands.map_err(BoxError::from);
                if outbox.blocking_send(Done { commands, next }).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("handfast-service".to_owned())
            .spawn(work)
            .map_err(|error| ServiceError::Thread(error.to_string()))?;
        Ok(Self { jobs, done })
    }

    fn gone() -> ServiceError {
        ServiceError::Thread("it panicked".to_owned())
    }
}

fn process<S, H>(
    driver: &mut Driver<S, H>,
    epoch: std::time::Instant,
    messages: &[ToService],
) -> Result<Vec<Command>, S::Error>
where
    S: ServiceStore,
    H: Handler<S::Db>,
{
    let mut commands = driver.process(now(epoch), messages)?;
    let due = now(epoch);
    if driver.next_deadline_ms() <= due.mono_ms {
        commands.extend(driver.tick(due)?);
    }
    Ok(commands)
}

fn now(epoch: std::time::Instant) -> Now {
    Now {
        mono_ms: crate::time::millis(epoch.elapsed()),
        wall_ms: crate::time::unix_ms(SystemTime::now()),
    }
}

struct Running {
    connection: Arc<Connection>,
    /// Of the service and of the instance.
    names: (Name, Name),
    state: StateId,
    thread: Thread,
    next_request: u64,
}

/// A stream that is attached.
struct Open {
    /// Of the server.
    store: StoreId,
    frames: mpsc::Sender<v1::FromParticipantFrame>,
    messages: Streaming<v1::ToParticipantFrame>,
    /// What came with the first answer.
    early: Vec<ToService>,
}

impl Running {
    async fn open(&mut self) -> Result<Open, Error> {
        let connection = Arc::clone(&self.connection);
        connection.handshake().await?;
        let unreachable = |problem: &str| -> Error {
            Fault::Unreachable { url: connection.url.clone(), problem: problem.to_owned() }.into()
        };
        let broken = |status| Error::from_status(&status, &connection.url, false);
        let (service, instance) = &self.names;
        let first = attach(self.next_request, service, instance, self.state);
        self.next_request += 1;
        let opening = async {
            let (frames, outgoing) = mpsc::channel(FRAMES);
            let frame = v1::FromParticipantFrame { messages: vec![first] };
            frames.send(frame).await.map_err(|_| unreachable("the stream is closed"))?;
            let stream = connection.participants().attach(ReceiverStream::new(outgoing)).await;
            let mut messages = stream.map_err(broken)?.into_inner();
            loop {
                let Some(frame) = messages.message().await.map_err(broken)? else {
                    return Err(unreachable("the server ended the stream"));
                };
                let mut attached = None;
                let mut early = Vec::new();
                for message in frame.messages {
                    match Received::read(attached.unwrap_or_default(), message)? {
                        Received::Attached(store) => attached = Some(store),
                        // What comes before it is of no known store. It is repeated.
                        Received::Said(said) if attached.is_some() => early.push(said),
                        Received::Said(_) => {}
                        Received::Refused { refusal, .. } => {
                            return Err(Refusal::from(refusal).into());
                        }
                    }
                }
                if let Some(store) = attached {
                    return Ok(Open { store, frames, messages, early });
                }
            }
        };
        timeout(OPENING, opening)
            .await
            .unwrap_or_else(|_| Err(unreachable("the server does not answer `attach`")))
    }

    /// Drives an attached stream until it ends, and says why; none: shutdown.
    async fn drive(
        &mut self,
        open: Open,
        mut shutdown: std::pin::Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Option<Error>, ServiceError> {
        let Open { store, frames, mut messages, early } = open;
        let mut inbox = early;
        let mut next_due = Instant::now();
        let mut stopping: Option<Instant> = None;
        self.thread.jobs.send(Job::Start).await.map_err(|_| Thread::gone())?;
        let mut busy = true;
        loop {
            if !busy && stopping.is_some() {
                close(frames, messages).await;
                return Ok(None);
            }
            if !busy && (!inbox.is_empty() || next_due <= Instant::now()) {
                let rest = inbox.split_off(inbox.len().min(BATCH));
                let batch = std::mem::replace(&mut inbox, rest);
                self.thread.jobs.send(Job::Batch(batch)).await.map_err(|_| Thread::gone())?;
                busy = true;
            }
            let ended = tokio::select! {
                done = self.thread.done.recv(), if busy => {
                    let done = done.ok_or_else(Thread::gone)?;
                    busy = false;
                    next_due = Instant::now() + done.next;
                    match done.commands {
                        Ok(commands) => self.send(&frames, commands).await.err(),
                        Err(error) => {
                            tracing::error!("the service's store failed: {error}");
                            let problem = format!("the service's own store failed: {error}");
                            Some(Fault::Lost { problem }.into())
                        }
                    }
                }
                frame = messages.message(), if inbox.len() < LIST_ITEMS && stopping.is_none() => {
                    match frame {
                        Ok(Some(frame)) => take(store, frame, &mut inbox).err(),
                        Ok(None) => {
                            let problem = "the server ended the stream".to_owned();
                            Some(Fault::Lost { problem }.into())
                        }
                        Err(status) => Some(self.ended(&status)),
                    }
                }
                () = sleep_until(next_due), if !busy => None,
                () = shutdown.as_mut(), if stopping.is_none() => {
                    stopping = Some(Instant::now() + CLOSING);
                    None
                }
                () = sleep_until(stopping.unwrap_or(next_due)), if stopping.is_some() => {
                    return Ok(None);
                }
            };
            if let Some(error) = ended {
                // The thread finishes what it does before another stream is opened, so that no
                // answer is sent on a stream before that stream's first inquiries.
                if busy {
                    self.thread.done.recv().await.ok_or_else(Thread::gone)?;
                }
                return Ok(if stopping.is_some() { None } else { Some(error) });
            }
        }
    }

    /// Why the server ended the stream.
    fn ended(&self, status: &tonic::Status) -> Error {
        match Error::from_status(status, &self.connection.url, true) {
            Error::Refused(refusal) if !refusal.is(Code::NotAttached) && !refusal.retryable => {
                Fault::Lost { problem: refusal.to_string() }.into()
            }
            error => error,
        }
    }

    async fn send(
        &mut self,
        frames: &mpsc::Sender<v1::FromParticipantFrame>,
        commands: Vec<Command>,
    ) -> Result<(), Error> {
        let mut commands = commands.into_iter().peekable();
        while commands.peek().is_some() {
            let mut messages = Vec::with_capacity(commands.len().min(FRAME));
            for command in commands.by_ref().take(FRAME) {
                messages.extend(message(self.next_request, command));
                self.next_request += 1;
            }
            let sent = timeout(CLOSING, frames.send(v1::FromParticipantFrame { messages })).await;
            if !matches!(sent, Ok(Ok(()))) {
                let problem = "the connection takes nothing any more".to_owned();
                return Err(Fault::Lost { problem }.into());
            }
        }
        Ok(())
    }
}

fn take(
    store: StoreId,
    frame: v1::ToParticipantFrame,
    inbox: &mut Vec<ToService>,
) -> Result<(), Error> {
    for message in frame.messages {
        match Received::read(store, message) {
            Ok(Received::Said(said)) => inbox.push(said),
            Ok(Received::Attached(_)) => {}
            // A vote or report that the coordinator cannot use: it says what stands by itself.
            Ok(Received::Refused { id, refusal, .. }) => {
                let refusal = Refusal::from(refusal);
                match id {
                    Some(id) => tracing::warn!("transaction {id}: the coordinator {refusal}"),
                    None => tracing::warn!("the coordinator {refusal}"),
                }
            }
            // A message that only a newer server has, or a broken one: the coordinator repeats
            // what matters.
            Err(malformed) => tracing::warn!("a message of the server is ignored: {malformed}"),
        }
    }
    Ok(())
}

/// Lets the server read all that was sent: it ends its side when ours has ended.
async fn close(
    frames: mpsc::Sender<v1::FromParticipantFrame>,
    mut messages: Streaming<v1::ToParticipantFrame>,
) {
    drop(frames);
    let give_up = Instant::now() + OPENING;
    while let Ok(Ok(Some(_))) = timeout_at(give_up, messages.message()).await {}
}
