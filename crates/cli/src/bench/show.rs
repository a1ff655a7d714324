//! What a benchmark shows while it runs, on standard error: one line that moves, on a terminal
//! only, and notes.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::Common;
use crate::terminal;

/// The screen.
#[derive(Debug)]
pub(super) struct Show {
    /// Lines that stay are wanted.
    has_notes: bool,
    /// None: not a terminal, or nothing is wanted.
    bar: Option<ProgressBar>,
}

impl Show {
    pub(super) fn new(Common { is_quiet, is_json }: Common) -> Self {
        let bar = (!is_quiet && io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = ProgressBar::new_spinner().with_style(style);
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { has_notes: !is_quiet && !is_json, bar }
    }

    /// What is being done now.
    pub(super) fn doing(&self, text: impl Into<String>) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.into());
        }
    }

    /// A line that stays.
    pub(super) fn note(&self, text: &str) {
        match &self.bar {
            _ if !self.has_notes => {}
            Some(bar) => bar.println(text),
            None => terminal::error_line(text),
        }
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
