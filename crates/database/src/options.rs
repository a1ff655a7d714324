//! How the server's side talks to a database: bounds, because nothing may block for ever.

use std::time::Duration;

/// Bounds of one registered database.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Most connections that finish, list and look up branches.
    pub pool: u32,
    /// Most connections for resolutions, which may wait for a lock and must not hold up the rest.
    pub resolve_pool: u32,
    /// How long one call may take with everything in it. At least twice `lock_timeout`.
    pub call_timeout: Duration,
    /// How long a resolution waits for a local transaction that is still open, before it says
    /// that the outcome is unknown. Whole seconds on MariaDB.
    pub lock_timeout: Duration,
    /// How long to wait for a session that was killed to be gone (MY3).
    pub session_gone_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pool: 8,
            resolve_pool: 2,
            call_timeout: Duration::from_secs(10),
            lock_timeout: Duration::from_secs(1),
            session_gone_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(300),
        }
    }
}

impl Options {
    /// With at most this many connections for finishing, at least one.
    #[must_use]
    pub fn with_pool(mut self, connections: u32) -> Self {
        self.pool = connections.max(1);
        self
    }

    /// With this bound on every call.
    #[must_use]
    pub fn with_call_timeout(mut self, bound: Duration) -> Self {
        self.call_timeout = bound;
        self
    }
}
