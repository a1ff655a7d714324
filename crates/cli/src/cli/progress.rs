//! How far a long reading of the journal is: a bar on a terminal, nothing in a log file.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use handfast_journal::Progress;
use indicatif::{ProgressBar, ProgressStyle};

/// What is over sooner shows nothing.
const AFTER: Duration = Duration::from_secs(1);

/// A bar on stderr. It goes when this is dropped.
pub(super) struct Bar {
    what: &'static str,
    since: Instant,
    is_wanted: bool,
    bar: Option<ProgressBar>,
}

impl Bar {
    /// `what` is done is said before the bar.
    pub(super) fn new(what: &'static str, quiet: bool) -> Self {
        let is_wanted = !quiet && io::stderr().is_terminal();
        Self { what, since: Instant::now(), is_wanted, bar: None }
    }

    pub(super) fn show(&mut self, progress: Progress) {
        if !self.is_wanted || self.since.elapsed() < AFTER {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{msg} {bar:40} {bytes} of {total_bytes}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(progress.total).with_style(style).with_message(self.what)
        });
        bar.set_position(progress.done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
