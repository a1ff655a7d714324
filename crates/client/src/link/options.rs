//! On what terms a call waits for its answer.

use std::time::Duration;

use tokio::time::Instant;

/// On what terms a call waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallOptions {
    /// When it stops waiting.
    pub(crate) give_up: Instant,
    /// How long that is from the beginning, for people.
    pub(crate) limit: Duration,
    /// It may be sent again on another stream: whoever gets it twice knows it by its key.
    pub(crate) resend: bool,
    /// It makes sense on this stream only.
    pub(crate) only_on: Option<u64>,
    /// It begins something that nobody can have asked for before. What may be a repeat is for the
    /// server to answer, because it may have taken effect.
    pub(crate) is_new: bool,
}

impl CallOptions {
    pub(crate) fn within(limit: Duration) -> Self {
        Self { give_up: Instant::now() + limit, limit, resend: false, only_on: None, is_new: false }
    }

    pub(crate) fn resent(self) -> Self {
        Self { resend: true, ..self }
    }

    pub(crate) fn new_if(self, is_new: bool) -> Self {
        Self { is_new, ..self }
    }

    pub(crate) fn only_on(self, stream: Option<u64>) -> Self {
        Self { only_on: stream, ..self }
    }
}
