//! Room for what is under way: for messages before they are read, for frames before they are made.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Shared;
use super::connections::{Connection, Figures, Streaming};
use super::options::Options;

/// A frame of so many bytes or fewer, or for somebody who is known to read, is made also when others
/// hold all the room, if nothing of its connection waits to be read.
const SMALL_FRAME: usize = 64 << 10;
/// Chunks of fewer bytes are not counted: each stream has two of them at most.
const COUNTED: usize = 4 << 10;

/// What all connections have together.
#[derive(Debug)]
pub(super) struct Rooms {
    arriving: Arc<Semaphore>,
    leaving: Arc<Semaphore>,
    /// For those who read.
    leaving_reserve: Arc<Semaphore>,
    most_arriving: usize,
    most_leaving: usize,
    most_reserve: usize,
}

/// Room, until it is dropped: of all, and of the share of one connection.
#[derive(Debug, Default)]
pub(super) struct Room(Vec<OwnedSemaphorePermit>);

fn permits(bytes: usize) -> usize {
    bytes.clamp(1, Semaphore::MAX_PERMITS)
}

async fn take(semaphore: &Arc<Semaphore>, most: usize, bytes: usize) -> OwnedSemaphorePermit {
    let bytes = u32::try_from(bytes.min(most)).unwrap_or(u32::MAX);
    let permit = Arc::clone(semaphore).acquire_many_owned(bytes).await;
    permit.expect("it is never closed")
}

impl Rooms {
    pub(super) fn new(options: &Options) -> Self {
        let (most_arriving, all) =
            (permits(options.arriving_bytes), permits(options.leaving_bytes));
        let most_reserve = all / 4;
        let most_leaving = all - most_reserve;
        Self {
            arriving: Arc::new(Semaphore::new(most_arriving)),
            leaving: Arc::new(Semaphore::new(most_leaving)),
            leaving_reserve: Arc::new(Semaphore::new(most_reserve)),
            most_arriving,
            most_leaving,
            most_reserve,
        }
    }

    /// Waits until there is room for a message that arrives. Who asked first gets it first.
    ///
    /// Cancel safe.
    pub(super) async fn for_message(&self, connection: &Connection, bytes: usize) -> Room {
        let share = connection.arriving_most;
        let own = take(&connection.arriving, share, bytes).await;
        Room(vec![own, take(&self.arriving, share, bytes).await])
    }

    /// Waits until there is room for a frame that leaves.
    ///
    /// Cancel safe.
    async fn for_frame(&self, connection: &Connection, bytes: usize) -> Room {
        let share = connection.leaving_most.min(self.most_leaving);
        // A stream that is paused does not hold up the small answers of others on its connection.
        let own = match bytes > SMALL_FRAME {
            true => take(&connection.leaving, share, bytes).await,
            false => take(&connection.leaving, 0, 0).await,
        };
        let few = u32::try_from(bytes.clamp(1, share)).unwrap_or(u32::MAX);
        if let Ok(all) = Arc::clone(&self.leaving).try_acquire_many_owned(few) {
            return Room(vec![own, all]);
        }
        // Others have all of it: those who read need not wait until those who do not are gone.
        if connection.unread() == 0 && (bytes <= SMALL_FRAME || connection.has_read()) {
            return Room(vec![
                own,
                take(&self.leaving_reserve, self.most_reserve / 4, bytes).await,
            ]);
        }
        Room(vec![own, take(&self.leaving, share, bytes).await])
    }

    /// So little room for frames is left that somebody who does not read stands in the way.
    pub(super) fn is_short(&self) -> bool {
        self.leaving.available_permits() < self.most_leaving / 8
    }

    /// Bytes that messages on their way in and frames on their way out have taken.
    pub(super) fn taken(&self) -> (u64, u64) {
        let arriving = self.most_arriving - self.arriving.available_permits();
        let free = self.leaving.available_permits() + self.leaving_reserve.available_permits();
        (arriving as u64, (self.most_leaving + self.most_reserve - free) as u64)
    }
}

/// A stream or call at the door, for whoever answers it: it takes room before it makes a frame.
#[derive(Clone, Debug, Default)]
pub(crate) struct Way(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    streaming: Streaming,
    _place: Option<OwnedSemaphorePermit>,
    /// Room for what was made and is not in a chunk yet.
    made: Mutex<Room>,
}

impl Way {
    pub(super) fn new(
        shared: &Arc<Shared>,
        streaming: Streaming,
        place: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let (shared, made) = (Arc::clone(shared), Mutex::default());
        Self(Some(Arc::new(Inner { shared, streaming, _place: place, made })))
    }

    /// Closes the connection: it holds what it does not read.
    pub(crate) fn cut_off(&self) {
        if let Some(inner) = &self.0 {
            inner.streaming.cut_off();
        }
    }

    /// Figures of the door; none without one.
    pub(crate) fn figures(&self) -> Option<Figures> {
        self.0.as_ref().map(|inner| inner.shared.figures())
    }

    /// The way of a request; of one that came through no door, without bounds.
    pub(crate) fn of<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get().cloned().unwrap_or_default()
    }

    /// Waits until a frame of so many bytes may be made.
    ///
    /// Cancel safe.
    pub(crate) async fn room_for(&self, bytes: usize) -> Taken {
        match &self.0 {
            Some(inner) if bytes >= COUNTED => {
                let room = inner.shared.rooms.for_frame(&inner.streaming.connection, bytes).await;
                Taken(Some((room, Arc::clone(inner))))
            }
            _ => Taken(None),
        }
    }

    /// The same chunk, which gives back the room of what is in it when it has left.
    pub(super) fn leave(&self, chunk: Bytes) -> Bytes {
        let Some(inner) = &self.0 else { return chunk };
        let room = std::mem::take(&mut *inner.made.lock().unwrap_or_else(PoisonError::into_inner));
        if room.0.is_empty() && chunk.len() < COUNTED {
            return chunk;
        }
        inner.streaming.leaving(chunk.len());
        Bytes::from_owner(Leaving { chunk, inner: Arc::clone(inner), _room: room })
    }
}

/// Room for a frame that is about to be made.
#[derive(Debug)]
pub(crate) struct Taken(Option<(Room, Arc<Inner>)>);

impl Taken {
    /// A frame of so many bytes was made. Its room is given back when it has left, what is more than
    /// it needs now.
    pub(crate) fn made(self, bytes: usize) {
        let Some((mut room, inner)) = self.0 else { return };
        for permit in &mut room.0 {
            let more = permit.num_permits().saturating_sub(bytes);
            drop(permit.split(more));
        }
        let mut made = inner.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.0.extend(room.0);
    }
}

/// A chunk that was given to the transport.
struct Leaving {
    chunk: Bytes,
    inner: Arc<Inner>,
    _room: Room,
}

impl AsRef<[u8]> for Leaving {
    fn as_ref(&self) -> &[u8] {
        &self.chunk
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.inner.streaming.left(self.chunk.len());
    }
}
