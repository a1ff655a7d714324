//! What has arrived on a subscription's stream and was not taken yet: how much of it there should
//! be, and how long it is good for.
//!
//! It never hands out a delivery whose lease may be over, and holds no more than is taken in half a
//! lease: the rest goes back, with its credit, and others may have it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use handfast_core::event::DeliveryRef;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::arrived::Arrived;
use super::question::{Ask, Question};
use crate::error::Error;

/// The credit that a subscription begins with. It doubles whenever all of it is used and nothing
/// waits here.
const FIRST: u32 = 32;

/// See the file's head.
pub(super) struct Buffer {
    inner: Mutex<Inner>,
    changed: Notify,
}

struct Inner {
    waiting: VecDeque<Result<Arrived, Error>>,
    is_closed: bool,
    /// The number of the stream that is open.
    stream: u64,
    /// The credit that the server has been granted, and the most that it may be.
    granted: u32,
    most: u32,
    /// How much of it was granted last, and deliveries that have arrived since: when as many have,
    /// all of it was used.
    step: u32,
    arrived: u32,
    /// Deliveries that were taken since the buffer was looked after.
    taken: usize,
    /// When the last answer was sent that the server has taken: what waited then waits anew.
    renewed: Option<Instant>,
}

/// What there is to take.
pub(super) enum Taken {
    /// Something, and when its lease is over as far as this side can tell.
    Arrived(Arrived, Instant),
    /// The subscription cannot go on, or not yet.
    Failed(Error),
    /// Nothing more comes.
    Closed,
    /// Nothing now.
    Nothing,
}

impl Buffer {
    pub(super) fn new(most: u32) -> Self {
        let inner = Inner {
            waiting: VecDeque::new(),
            is_closed: false,
            stream: 0,
            granted: most.min(FIRST),
            most,
            step: most.min(FIRST),
            arrived: 0,
            taken: 0,
            renewed: None,
        };
        Self { inner: Mutex::new(inner), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there may be something to take.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes what is first. Asks for more if there is nothing, and all credit is used.
    pub(super) fn take(&self, asks: &mpsc::UnboundedSender<Ask>) -> Taken {
        let mut inner = self.lock();
        let now = Instant::now();
        while let Some(first) = inner.waiting.pop_front() {
            match first {
                Err(error) => return Taken::Failed(error),
                Ok(arrived) => {
                    let since = inner.renewed.map_or(arrived.at, |at| at.max(arrived.at));
                    match arrived.lease() {
                        // It went back by itself; whoever has it now is another.
                        Some(lease) if since + lease <= now => {}
                        Some(lease) => {
                            inner.taken += 1;
                            return Taken::Arrived(arrived, since + lease);
                        }
                        None => return Taken::Arrived(arrived, now),
                    }
                }
            }
        }
        if inner.is_closed {
            return Taken::Closed;
        }
        if inner.granted < inner.most && inner.arrived >= inner.step.min(inner.granted) {
            let more = inner.granted.max(1).min(inner.most - inner.granted);
            inner.granted += more;
            (inner.step, inner.arrived) = (more, 0);
            let (stream, question) = (inner.stream, Question::Credit { more });
            // Fails when nothing more comes.
            drop(asks.send(Ask { stream, question, waiter: None }));
        }
        Taken::Nothing
    }

    /// Something arrived. `renewed`: when the last answer was sent that the server has taken.
    pub(super) fn put(&self, arrived: &mut Vec<Arrived>, renewed: Option<Instant>) {
        if arrived.is_empty() && renewed.is_none() {
            return;
        }
        let mut inner = self.lock();
        inner.renewed = inner.renewed.max(renewed);
        inner.arrived =
            inner.arrived.saturating_add(u32::try_from(arrived.len()).unwrap_or(u32::MAX));
        let is_news = !arrived.is_empty();
        inner.waiting.extend(arrived.drain(..).map(Ok));
        drop(inner);
        if is_news {
            self.changed.notify_one();
        }
    }

    /// The subscription cannot go on, or not yet.
    pub(super) fn fail(&self, error: Error) {
        self.lock().waiting.push_back(Err(error));
        self.changed.notify_one();
    }

    /// Nothing more comes.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }

    /// A stream is about to be opened: what has come on the one before is void. Says how much
    /// credit to begin with.
    pub(super) fn begin(&self) -> u32 {
        let mut inner = self.lock();
        inner.waiting.retain(Result::is_err);
        inner.granted = inner.granted.max(1);
        (inner.arrived, inner.taken, inner.renewed) = (0, 0, None);
        inner.step = inner.granted;
        inner.granted
    }

    /// A stream is open.
    pub(super) fn is_open(&self, stream: u64) {
        self.lock().stream = stream;
    }

    /// Looks after it, at every quarter of a lease: takes out what will not be taken in half a lease
    /// if it goes on like this. It goes back, with its credit.
    pub(super) fn excess(&self, lease: Duration) -> Vec<DeliveryRef> {
        let mut inner = self.lock();
        let keep = 2 * std::mem::take(&mut inner.taken);
        let is_old = match inner.waiting.front() {
            Some(Ok(first)) => first.at.elapsed() >= lease / 4,
            Some(Err(_)) | None => false,
        };
        let mut excess = Vec::new();
        while is_old && inner.waiting.len() > keep {
            let Some(Ok(last)) = inner.waiting.back() else { break };
            let Some(reference) = last.delivery() else { break };
            excess.push(reference);
            inner.waiting.pop_back();
        }
        inner.gives_back(excess.len());
        excess
    }

    /// Takes everything out: it may be over, or nobody wants it.
    pub(super) fn all(&self) -> Vec<DeliveryRef> {
        let mut inner = self.lock();
        let waiting = std::mem::take(&mut inner.waiting);
        let mut all = Vec::new();
        for one in waiting {
            match one.as_ref().ok().and_then(Arrived::delivery) {
                Some(reference) => all.push(reference),
                None => inner.waiting.push_back(one),
            }
        }
        inner.gives_back(all.len());
        drop(inner);
        // Whoever waits may have to ask for more.
        self.changed.notify_one();
        all
    }

    /// So many went back that never waited here.
    pub(super) fn given_back(&self, count: usize) {
        self.lock().gives_back(count);
        self.changed.notify_one();
    }

    /// So many had gone back by themselves: their credit is still granted.
    pub(super) fn were_over(&self, count: usize) {
        let mut inner = self.lock();
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        inner.granted = inner.granted.saturating_add(count).min(inner.most);
    }
}

impl Inner {
    fn gives_back(&mut self, count: usize) {
        self.granted = self.granted.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("waiting", &self.lock().waiting.len())
            .finish_non_exhaustive()
    }
}
