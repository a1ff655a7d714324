//! What the application's own connection can hear when it ends its part.

use std::time::Duration;

use thiserror::Error;

use crate::Home;

/// A step in the application's connection failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ApplicationError {
    /// It did not happen and never will: vote NO, or abort. The work is rolled back.
    #[error("rolled back ({code}): {message}")]
    No {
        /// SQLSTATE, or MariaDB's error number; empty if the database said nothing.
        code: String,
        /// The database's own words.
        message: String,
        /// The same work may succeed in a new transaction.
        retryable: bool,
        /// The connection is not usable any more: close it, do not give it back to a pool.
        discard: bool,
    },
    /// It did not happen and never will: the connection leads to another database than the one in
    /// which the marker belongs, which has refused it.
    #[error("the connection leads to {here}")]
    Elsewhere {
        /// Where the connection leads.
        here: Home,
        /// As in `No`.
        discard: bool,
    },
    /// Nobody knows whether it happened. After `commit_local`: tell the server so, which resolves
    /// it (L4); never try again. The connection is not usable any more.
    #[error("outcome unknown ({code}): {message}")]
    Unknown {
        /// SQLSTATE, or MariaDB's error number; empty if the database said nothing.
        code: String,
        /// The database's own words.
        message: String,
    },
}

impl ApplicationError {
    /// It is certain that nothing happened.
    #[must_use]
    pub fn is_no(&self) -> bool {
        matches!(self, Self::No { .. } | Self::Elsewhere { .. })
    }

    /// The same work may succeed in a new transaction.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::No { retryable: true, .. })
    }

    /// The connection has to be closed and not given back to a pool.
    #[must_use]
    pub fn discards_connection(&self) -> bool {
        match self {
            Self::No { discard, .. } | Self::Elsewhere { discard, .. } => *discard,
            Self::Unknown { .. } => true,
        }
    }
}

/// A remaining deadline in milliseconds as the databases take it: never 0, which would mean
/// "without a limit".
pub(crate) fn milliseconds(remaining: Duration) -> u32 {
    u32::try_from(remaining.as_millis()).unwrap_or(u32::MAX).clamp(1, i32::MAX as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x4_a_deadline_that_has_passed_is_not_unlimited() {
        assert_eq!(milliseconds(Duration::ZERO), 1);
        assert_eq!(milliseconds(Duration::from_micros(10)), 1);
        assert_eq!(milliseconds(Duration::from_secs(2)), 2000);
        assert_eq!(milliseconds(Duration::MAX), i32::MAX as u32);
    }
}
