//! Why a command failed, for people and for programs, and with which status the process ends.
//!
//! For people one line on stderr: what is wrong, and what to do about it. With `--json` one
//! document on stderr, of the same shape for every command:
//!
//! ```json
//! {"error": {"code": "unknown_topic", "message": "..", "retryable": false, "hint": "..",
//!            "exit_status": 1}}
//! ```
//!
//! `code` is stable: that of a refusal, or a word for what is not the server's answer, such as
//! `unreachable` or `usage`. `retryable`: the same command may succeed later, and nothing of this
//! attempt has happened. `hint` is null where there is nothing to say.

use std::fmt;

use serde_json::json;

use super::output;
use super::reach::Reach;

/// How a process ends that did not do what it was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Whoever read the result has closed its end: it has what it wanted.
    Done = 0,
    Failed = 1,
    Usage = 2,
    Store = 3,
    Unreachable = 4,
    Fault = 70,
    Interrupted = 130,
}

impl Exit {
    /// Every status.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 7] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::Store,
        Self::Unreachable,
        Self::Fault,
        Self::Interrupted,
    ];

    /// The code of a failure that names no other.
    fn code(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Store => "store_refused",
            Self::Unreachable => "unreachable",
            Self::Fault => "fault",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    code: Option<String>,
    message: String,
    pub(crate) retryable: bool,
    hint: Option<String>,
    is_json: bool,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        let message = message.to_string();
        Self { exit, code: None, message, retryable: false, hint: None, is_json: false }
    }

    /// With a stable code of its own.
    pub(crate) fn with_code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// The same command may succeed later, and nothing of this attempt has happened.
    pub(crate) fn with_retryable(mut self, retryable: bool) -> Self {
        self.retryable = retryable;
        self
    }

    /// With what to do about it.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With what had happened before.
    pub(crate) fn with_history(mut self, history: &str) -> Self {
        self.message = format!("{}; {history}", self.message);
        self
    }

    /// With commands that ask the same server.
    pub(super) fn with_reach(mut self, reach: &Reach) -> Self {
        self.message = reach.commands(&self.message).into_owned();
        self.hint = self.hint.map(|hint| reach.commands(&hint).into_owned());
        self
    }

    /// Told as JSON, as the result would have been.
    pub(crate) fn with_json(mut self, is_json: bool) -> Self {
        self.is_json = is_json;
        self
    }

    /// Says it, unless nobody needs to hear it.
    pub(crate) fn tell(&self) {
        if self.exit == Exit::Done {
            return;
        }
        if !self.is_json {
            return output::error_line(self);
        }
        let code = self.code.as_deref().unwrap_or_else(|| self.exit.code());
        let error = json!({
            "code": code,
            "message": self.message,
            "retryable": self.retryable,
            "hint": self.hint,
            "exit_status": self.exit as u8,
        });
        output::error_line(json!({ "error": error }));
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "handfast: {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, ": {hint}"),
            None => Ok(()),
        }
    }
}
