//! What commands say: the one place that prints. Results go to stdout, everything else to stderr.
//!
//! For people: text and tables. For programs (`--json`): exactly one JSON document on stdout, or one
//! for each line where a command's help says so. Unknown is null and never 0. An error is one
//! document on stderr, of the same shape for every command: see [`Failure`].

use std::fmt;
use std::io::{self, ErrorKind, Write};

use anstream::AutoStream;
use serde::Serialize;

use super::{Exit, Failure};
pub(super) use crate::terminal::{
    Column, bold, counted, duration, error_line, painted, question, rfc3339, size, table, time,
    visible, wrapped,
};

/// How a command says what it has to say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// For programs.
    pub(crate) is_json: bool,
    /// Nothing but results and errors.
    pub(crate) is_quiet: bool,
}

impl Output {
    /// A result: `document` for programs, `text` for people.
    pub(crate) fn result(
        self,
        document: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if self.is_json { self.json(document) } else { self.text(&text()) }
    }

    /// One JSON document, on a line of its own.
    pub(crate) fn json(self, document: &impl Serialize) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(document)
            .map_err(|error| Failure::new(Exit::Failed, format!("no JSON: {error}")))?;
        line.push(b'\n');
        let mut stdout = io::stdout().lock();
        stdout.write_all(&line).and_then(|()| stdout.flush()).map_err(|error| unwritten(&error))
    }

    /// Lines for people; the last one need not end.
    pub(crate) fn text(self, text: &str) -> Result<(), Failure> {
        let mut stdout = AutoStream::auto(io::stdout().lock());
        let end = if text.ends_with('\n') { "" } else { "\n" };
        write!(stdout, "{text}{end}")
            .and_then(|()| stdout.flush())
            .map_err(|error| unwritten(&error))
    }

    /// Something beside the result that a person may want to know.
    pub(crate) fn note(self, text: impl fmt::Display) {
        if !self.is_json && !self.is_quiet {
            error_line(text);
        }
    }

    /// Something beside the result that must not be missed: on stderr, and as JSON for programs.
    pub(crate) fn notice(self, document: &impl Serialize, text: impl fmt::Display) {
        match serde_json::to_string(document) {
            Ok(line) if self.is_json => error_line(line),
            _ => error_line(text),
        }
    }
}

/// A reader that has closed its end has what it wanted.
fn unwritten(error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure::new(Exit::Done, "stdout was closed"),
        _ => Failure::new(Exit::Failed, format!("cannot write to stdout: {error}")),
    }
}
