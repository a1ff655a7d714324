//! Times as the wire has them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Unix time in milliseconds; before 1970 is 0.
pub(crate) fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, millis)
}

/// Milliseconds, rounded down.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A time of the server. One that this machine's clock cannot say is shown as 1970.
pub(crate) fn from_unix_ms(unix_ms: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms)).unwrap_or(UNIX_EPOCH)
}
