//! What a benchmark says at its end: figures for programs as one JSON document, for people as
//! tables; and what it found wrong.

use serde::Serialize;
use serde_json::Value;

use super::machine::Machine;

/// How it went.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Which benchmark.
    bench: &'static str,
    /// Nothing was wrong.
    pub(crate) ok: bool,
    /// What was wrong: then the figures are worth nothing.
    pub(crate) problems: Vec<String>,
    machine: Machine,
    settings: Value,
    runs: Value,
    #[serde(skip)]
    text: String,
}

impl Report {
    /// `runs` for programs and `text` for people say the same.
    ///
    /// # Errors
    /// The figures cannot be written as JSON.
    pub(super) fn new(
        bench: &'static str,
        settings: &impl Serialize,
        runs: &impl Serialize,
        problems: Vec<String>,
        text: String,
    ) -> Result<Self, super::Problem> {
        let value = |error: serde_json::Error| super::Problem::Io(error.into());
        Ok(Self {
            bench,
            ok: problems.is_empty(),
            problems,
            machine: Machine::look(),
            settings: serde_json::to_value(settings).map_err(value)?,
            runs: serde_json::to_value(runs).map_err(value)?,
            text,
        })
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        format!("{}\n\n{}", self.machine.text(), self.text)
    }
}
