//! The connections that there are: not more than may be, and none that is silent for ever.
//!
//! When there are as many as may be, a newcomer takes the place of the one that has never asked for
//! anything and is the oldest of those, or else of one that has been without a stream for long.
//! Somebody with a stream or a call is never closed for a newcomer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use handfast_wire::MESSAGE_BYTES;
use tokio::sync::{Notify, Semaphore};

use super::options::Options;

/// A client that is between two calls is not closed for a newcomer.
const BETWEEN_CALLS_MS: u64 = 10_000;
/// Who has read so many bytes may be trusted to read more.
const HAS_READ: u64 = 256 << 10;
/// Connections that were told to close and have not, in milliseconds: then they are cut off.
const CLOSING: Duration = Duration::from_secs(2);

/// Counts of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Figures {
    /// Open now.
    pub open: u64,
    /// May be open at a time.
    pub most: u64,
    /// Not taken because there were as many as may be, since the start.
    pub refused: u64,
    /// Closed because they were silent, since the start.
    pub silent: u64,
    /// Cut off because they did not read and others waited, since the start.
    pub stalled: u64,
    /// Bytes of messages that arrive, or have arrived and wait to be handled.
    pub arriving_bytes: u64,
    /// Bytes of frames that were made and have not left.
    pub leaving_bytes: u64,
}

#[derive(Debug)]
pub(super) struct Connections {
    most: usize,
    /// Sockets besides, of connections that are closing.
    closing: usize,
    first_request_ms: u64,
    idle_ms: u64,
    share_arriving: usize,
    share_leaving: usize,
    start: Instant,
    open: Mutex<HashMap<u64, Arc<Connection>>>,
    next: AtomicU64,
    /// Sockets that are open, with those that are closing.
    sockets: AtomicUsize,
    socket_closed: Notify,
    refused: AtomicU64,
    silent: AtomicU64,
    stalled: AtomicU64,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Connection {
    number: u64,
    close: Notify,
    close_gently: Notify,
    /// Streams and calls that are under way.
    streams: AtomicUsize,
    has_asked: AtomicBool,
    /// When it was opened or its last stream ended, in milliseconds since the start.
    quiet_since_ms: AtomicU64,
    /// Room that it may take of what all have.
    pub(super) arriving: Arc<Semaphore>,
    pub(super) arriving_most: usize,
    pub(super) leaving: Arc<Semaphore>,
    pub(super) leaving_most: usize,
    /// Bytes that were given to its transport and have not left.
    unread: AtomicUsize,
    /// Bytes that have left it since it was opened.
    read: AtomicU64,
    /// When the last of them left, or the first came.
    moved_ms: AtomicU64,
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    pub(super) connection: Arc<Connection>,
}

/// A stream or call that is under way.
#[derive(Debug)]
pub(super) struct Streaming {
    connections: Arc<Connections>,
    pub(super) connection: Arc<Connection>,
}

impl Connections {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            most: options.connections.max(1),
            closing: options.closing,
            first_request_ms: options.first_request_ms,
            idle_ms: options.idle_ms,
            // One message has to fit.
            share_arriving: share(options.arriving_bytes)
                .max(MESSAGE_BYTES.min(options.arriving_bytes)),
            share_leaving: share(options.leaving_bytes),
            start: Instant::now(),
            open: Mutex::default(),
            next: AtomicU64::new(0),
            sockets: AtomicUsize::new(0),
            socket_closed: Notify::new(),
            refused: AtomicU64::new(0),
            silent: AtomicU64::new(0),
            stalled: AtomicU64::new(0),
        }
    }

    pub(super) fn figures(&self) -> Figures {
        Figures {
            open: self.lock().len() as u64,
            most: self.most as u64,
            refused: self.refused.load(Ordering::Relaxed),
            silent: self.silent.load(Ordering::Relaxed),
            stalled: self.stalled.load(Ordering::Relaxed),
            ..Figures::default()
        }
    }

    /// Resolves when another socket may be accepted.
    pub(super) async fn may_accept(&self) {
        loop {
            let closed = self.socket_closed.notified();
            if self.sockets.load(Ordering::Acquire) < self.most + self.closing {
                return;
            }
            closed.await;
        }
    }

    /// A place for a newcomer; none when everybody who is there is at work.
    pub(super) fn admit(self: &Arc<Self>) -> Option<Place> {
        let now = self.now_ms();
        let mut open = self.lock();
        if open.len() >= self.most {
            let Some(silent) = longest_silent(&open, now) else {
                let refused = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
                // It may go on for hours: ever more rarely.
                if refused.is_power_of_two() {
                    let most = self.most;
                    tracing::warn!("a connection was refused ({refused} so far): {most} are open");
                }
                return None;
            };
            open.remove(&silent.number);
            self.silent.fetch_add(1, Ordering::Relaxed);
            silent.close.notify_one();
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection {
            number,
            close: Notify::new(),
            close_gently: Notify::new(),
            streams: AtomicUsize::new(0),
            has_asked: AtomicBool::new(false),
            quiet_since_ms: AtomicU64::new(now),
            arriving: Arc::new(Semaphore::new(self.share_arriving)),
            arriving_most: self.share_arriving,
            leaving: Arc::new(Semaphore::new(self.share_leaving)),
            leaving_most: self.share_leaving,
            unread: AtomicUsize::new(0),
            read: AtomicU64::new(0),
            moved_ms: AtomicU64::new(now),
        });
        open.insert(number, Arc::clone(&connection));
        self.sockets.fetch_add(1, Ordering::AcqRel);
        Some(Place { connections: Arc::clone(self), connection })
    }

    /// Closes who has been silent for too long.
    pub(super) fn close_silent(&self) {
        let now = self.now_ms();
        for connection in self.lock().values() {
            let Some(silent_ms) = connection.silent_ms(now) else { continue };
            let has_asked = connection.has_asked.load(Ordering::Acquire);
            if silent_ms >= if has_asked { self.idle_ms } else { self.first_request_ms } {
                self.silent.fetch_add(1, Ordering::Relaxed);
                // Not counted again while it closes: it may be asking for something just now.
                connection.quiet_since_ms.store(now, Ordering::Release);
                connection.close_gently.notify_one();
            }
        }
    }

    /// Cuts off those who have read nothing for so long, those with the most first, until so many
    /// bytes are free.
    pub(super) fn cut_off(&self, stalled_ms: u64, mut bytes: usize) {
        let now = self.now_ms();
        let open = self.lock();
        let mut stalled: Vec<_> = open
            .values()
            .filter(|c| now.saturating_sub(c.moved_ms.load(Ordering::Acquire)) >= stalled_ms)
            .map(|c| (c.unread.load(Ordering::Acquire), c))
            .filter(|(unread, _)| *unread > 0)
            .collect();
        stalled.sort_unstable_by_key(|(unread, _)| std::cmp::Reverse(*unread));
        for (unread, connection) in stalled {
            if bytes == 0 {
                break;
            }
            bytes = bytes.saturating_sub(unread);
            self.stalled.fetch_add(1, Ordering::Relaxed);
            connection.close.notify_one();
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        // Nothing in between can leave it half changed.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one connection may have of what all have.
fn share(bytes: usize) -> usize {
    (bytes / 4).clamp(1, Semaphore::MAX_PERMITS)
}

fn longest_silent(open: &HashMap<u64, Arc<Connection>>, now: u64) -> Option<Arc<Connection>> {
    let silent = open.values().filter_map(|connection| {
        let silent_ms = connection.silent_ms(now)?;
        let has_asked = connection.has_asked.load(Ordering::Acquire);
        let may_go = !has_asked || silent_ms >= BETWEEN_CALLS_MS;
        may_go.then_some(((has_asked, connection.number), connection))
    });
    silent.min_by_key(|(order, _)| *order).map(|(_, connection)| Arc::clone(connection))
}

impl Connection {
    /// How long it has had no stream; none: it has one.
    fn silent_ms(&self, now: u64) -> Option<u64> {
        let is_silent = self.streams.load(Ordering::Acquire) == 0;
        is_silent.then(|| now.saturating_sub(self.quiet_since_ms.load(Ordering::Acquire)))
    }

    /// Streams and calls that are under way.
    pub(super) fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// It has read so much that it is no stranger who only takes room.
    pub(super) fn has_read(&self) -> bool {
        self.read.load(Ordering::Relaxed) >= HAS_READ
    }

    /// Bytes that its transport has and the client has not read.
    pub(super) fn unread(&self) -> usize {
        self.unread.load(Ordering::Relaxed)
    }
}

impl Place {
    /// Resolves when the connection has to close; `true`: after what is under way.
    ///
    /// Cancel safe.
    pub(super) async fn closing(&self) -> bool {
        tokio::select! {
            () = self.connection.close.notified() => false,
            () = self.connection.close_gently.notified() => true,
        }
    }

    /// Time for a connection that closes gently.
    pub(super) fn closing_time() -> Duration {
        CLOSING
    }

    /// A stream or call has begun.
    pub(super) fn stream(&self) -> Streaming {
        self.connection.streams.fetch_add(1, Ordering::AcqRel);
        self.connection.has_asked.store(true, Ordering::Release);
        Streaming {
            connections: Arc::clone(&self.connections),
            connection: Arc::clone(&self.connection),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().remove(&self.connection.number);
        self.connections.sockets.fetch_sub(1, Ordering::AcqRel);
        self.connections.socket_closed.notify_waiters();
        self.connections.socket_closed.notify_one();
    }
}

impl Streaming {
    /// The connection reads nothing of what others need the room of.
    pub(super) fn cut_off(&self) {
        self.connections.stalled.fetch_add(1, Ordering::Relaxed);
        self.connection.close.notify_one();
    }

    /// So many bytes go to the transport.
    pub(super) fn leaving(&self, bytes: usize) {
        if self.connection.unread.fetch_add(bytes, Ordering::AcqRel) == 0 {
            self.connection.moved_ms.store(self.connections.now_ms(), Ordering::Release);
        }
    }

    /// So many bytes have left it.
    pub(super) fn left(&self, bytes: usize) {
        self.connection.moved_ms.store(self.connections.now_ms(), Ordering::Release);
        self.connection.read.fetch_add(bytes as u64, Ordering::Relaxed);
        self.connection.unread.fetch_sub(bytes, Ordering::AcqRel);
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.connection.quiet_since_ms.store(self.connections.now_ms(), Ordering::Release);
        self.connection.streams.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn connections(most: usize) -> Arc<Connections> {
        Arc::new(Connections::new(&Options { connections: most, ..Options::default() }))
    }

    fn is_closed(place: &Place) -> bool {
        place.closing().now_or_never().is_some()
    }

    #[test]
    fn a_newcomer_takes_the_place_of_the_oldest_who_has_asked_for_nothing() {
        let all = connections(3);
        let at_work = all.admit().expect("a place");
        let stream = at_work.stream();
        let between_calls = all.admit().expect("a place");
        drop(between_calls.stream());
        let silent = all.admit().expect("a place");
        let newcomer = all.admit().expect("a place of somebody silent");
        assert!(is_closed(&silent) && !is_closed(&at_work) && !is_closed(&between_calls));
        let _working = newcomer.stream();
        assert!(all.admit().is_none(), "everybody is at work, or was a moment ago");
        assert_eq!((all.figures().open, all.figures().refused, all.figures().silent), (3, 1, 1));
        drop(stream);
        drop(at_work);
        assert!(all.admit().is_some(), "somebody has gone");
    }

    #[test]
    fn as_many_sockets_as_may_be_are_accepted_until_those_that_close_have_gone() {
        let all = connections(1);
        let closing = all.closing;
        let mut places = Vec::new();
        while all.may_accept().now_or_never().is_some() {
            places.extend(all.admit());
            assert!(places.len() <= 1 + closing, "the bound has no effect");
        }
        assert_eq!(all.figures().open, 1, "the others were told to close");
        assert_eq!(places.iter().filter(|place| is_closed(place)).count(), closing);
        places.remove(0);
        assert!(all.may_accept().now_or_never().is_some(), "one has gone");
    }

    #[test]
    fn who_is_silent_is_closed_gently_and_who_is_at_work_is_not() {
        let options = Options { first_request_ms: 0, idle_ms: 0, ..Options::default() };
        let all = Arc::new(Connections::new(&options));
        let (silent, idle, busy) = (all.admit(), all.admit(), all.admit());
        let (silent, idle, busy) = (silent.expect("one"), idle.expect("two"), busy.expect("three"));
        drop(idle.stream());
        let _stream = busy.stream();
        all.close_silent();
        assert_eq!(silent.closing().now_or_never(), Some(true));
        assert_eq!(idle.closing().now_or_never(), Some(true));
        assert_eq!(busy.closing().now_or_never(), None);
    }
}
