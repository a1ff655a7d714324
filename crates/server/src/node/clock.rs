//! The only place where the node reads a clock or makes an id.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use handfast_core::ids::{Now, OpeningId, StoreId, TransactionId};

/// A monotonic clock beside the wall clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Now {
        Now { mono_ms: millis(self.0.elapsed()), wall_ms: wall_ms() }
    }

    /// How long until a monotonic time of this clock; zero if it has passed.
    pub(crate) fn until(self, mono_ms: u64) -> Duration {
        Duration::from_millis(mono_ms).saturating_sub(self.0.elapsed())
    }
}

/// Unix time in milliseconds; zero on a machine whose clock is before 1970.
pub(crate) fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A new transaction id: UUIDv7, rising within this process.
pub(crate) fn transaction_id() -> TransactionId {
    TransactionId(uuid::Uuid::now_v7().as_u128())
}

/// A name for a new store.
pub(crate) fn store_id() -> StoreId {
    StoreId(uuid::Uuid::now_v7().as_u128())
}

/// What this opening of a store is called: 122 random bits.
pub(crate) fn opening_id() -> OpeningId {
    OpeningId(uuid::Uuid::new_v4().as_u128())
}

/// A number for a claim: 62 random bits, below 2^63.
pub(crate) fn claim() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1 >> 1
}
