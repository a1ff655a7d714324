//! What comes of a call: an answer, or why there is none.

use super::options::CallOptions;
use super::stream::BatchStream;
use crate::error::{Error, Fault};

/// An answer, and the number of the stream that it came on.
#[derive(Debug)]
pub(crate) struct Answered<T> {
    pub(crate) answer: T,
    pub(crate) stream: u64,
}

/// There is no answer.
#[derive(Debug)]
pub(crate) struct Unanswered {
    /// The call may have taken effect.
    pub(crate) sent: bool,
    pub(crate) error: Error,
}

impl Unanswered {
    /// The error, of which nobody may conclude that nothing happened unless that is so.
    pub(crate) fn into_error(self) -> Error {
        if self.sent && self.error.has_no_side_effects() {
            return lost(self.error.to_string());
        }
        self.error
    }
}

/// One or the other.
pub(super) type CallOutcome<L> = Result<Answered<<L as BatchStream>::Answer>, Unanswered>;

pub(super) fn closed(sent: bool) -> Unanswered {
    Unanswered { sent, error: Fault::Closed("the runtime is shutting down").into() }
}

pub(super) fn too_late(terms: &CallOptions, sent: bool) -> Unanswered {
    Unanswered { sent, error: Fault::TimedOut { after: terms.limit, sent }.into() }
}

pub(super) fn lost(problem: String) -> Error {
    Fault::Lost { problem }.into()
}
