//! What the demo shows while it runs, on standard error: on a terminal one line that moves and
//! lines that stay, elsewhere plain lines.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::watch::Open;

/// Time between two lines of progress where nothing moves.
const EVERY: Duration = Duration::from_secs(2);
/// Time between two changes of what moves.
const REFRESH: Duration = Duration::from_millis(100);

/// How far everything is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    pub(super) committed: u32,
    pub(super) failed: u32,
    pub(super) events: u64,
    /// None: the server does not answer.
    pub(super) open: Option<Open>,
}

/// The screen.
#[derive(Debug)]
pub(super) struct Show {
    since: Instant,
    /// None: not a terminal.
    bar: Option<ProgressBar>,
    last: Option<Instant>,
    transfers: u32,
    /// Transfers that have ended, and when the last of them had.
    done: (u32, f64),
}

impl Show {
    pub(super) fn new(transfers: u32) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("  {bar:30} {msg}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            let target = ProgressDrawTarget::stderr();
            ProgressBar::with_draw_target(Some(transfers.into()), target).with_style(style)
        });
        Self { since: Instant::now(), bar, last: None, transfers, done: (0, 0.0) }
    }

    pub(super) fn seconds(&self) -> f64 {
        self.since.elapsed().as_secs_f64()
    }

    /// A line that stays.
    pub(super) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            // If standard error is closed nobody wants to read it.
            None => drop(writeln!(io::stderr().lock(), "{text}")),
        }
    }

    /// A line that stays, with the time since the start.
    pub(super) fn happened(&self, text: &str) {
        self.say(&format!("  {:7.2} s  {text}", self.seconds()));
    }

    /// How far everything is; often called, seldom shown.
    pub(super) fn progress(&mut self, progress: &Progress) {
        let done = progress.committed + progress.failed;
        if done > self.done.0 {
            self.done = (done, self.seconds());
        }
        let pause = if self.bar.is_some() { REFRESH } else { EVERY };
        if self.last.is_some_and(|last| last.elapsed() < pause) {
            return;
        }
        self.last = Some(Instant::now());
        let Progress { committed, failed, events, open } = *progress;
        // While nothing is left to do the rate stays what it was.
        let seconds = if done < self.transfers { self.seconds() } else { self.done.1 };
        let rate = f64::from(done) / seconds.max(0.001);
        let counts = format!(
            "{done} of {} transfers, {rate:.0} per second, {events} events",
            self.transfers
        );
        let now = match open {
            Some(open) => {
                format!("{} Preparing, {} Committing", open.preparing, open.committing)
            }
            None => "the server does not answer".to_owned(),
        };
        let states = format!("now {now}; so far {committed} Committed, {failed} Failed");
        match &self.bar {
            Some(bar) => {
                bar.set_position(done.into());
                bar.set_message(format!("{counts}\n  {states}"));
            }
            None => self.happened(&format!("{counts}; {states}")),
        }
    }

    /// Nothing moves any more.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
