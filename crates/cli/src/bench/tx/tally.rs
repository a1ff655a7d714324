//! How the transactions of a run ended, and how long those took that count.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::fates::{Fate, Fates};
use super::plan::Load;
use crate::bench::latency::Latencies;

/// Different problems that are told; more are only counted.
const TOLD: usize = 20;

/// What counts, and what was found.
#[derive(Debug)]
pub(super) struct Tally {
    from: Instant,
    to: Instant,
    latencies: Latencies,
    /// Within the time that counts.
    committed: u64,
    failed: u64,
    refused: u64,
    pub(super) fates: Fates,
    refusals: BTreeMap<String, u64>,
    /// The shortest and the longest pause that a refusal asked for.
    retry_after: Option<(Duration, Duration)>,
    problems: BTreeMap<String, u64>,
}

/// How one transaction ended.
#[derive(Clone, Debug)]
pub(super) enum End {
    Committed,
    /// Because a participant refused.
    VotedNo,
    /// Never accepted, for a reason that passes: this code, and when to come again.
    Refused {
        code: String,
        after: Duration,
    },
    /// Any other way.
    Wrong(String),
}

/// What the client found, for whoever conducts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Found {
    pub(super) seconds: f64,
    /// Within the time that counts.
    pub(super) committed: u64,
    pub(super) failed: u64,
    pub(super) refused: u64,
    pub(super) latencies: Vec<(u64, u64)>,
    /// Over the whole run, also before and after what counts.
    pub(super) all_committed: u64,
    pub(super) all_failed: u64,
    /// Refusals of work that a server with too much of it does not accept, by code.
    pub(super) refusals: BTreeMap<String, u64>,
    /// The shortest and the longest pause that a refusal asked for, in milliseconds.
    pub(super) retry_after_ms: Option<(u64, u64)>,
    pub(super) problems: Vec<String>,
    /// Events that were read back.
    pub(super) events_read: u64,
}

impl Tally {
    pub(super) fn new(from: Instant, counted: Duration) -> Self {
        Self {
            from,
            to: from + counted,
            latencies: Latencies::new(),
            committed: 0,
            failed: 0,
            refused: 0,
            fates: Fates::default(),
            refusals: BTreeMap::new(),
            retry_after: None,
            problems: BTreeMap::new(),
        }
    }

    /// Transaction `number` was due at `due` and has ended now.
    pub(super) fn ended(&mut self, load: &Load, number: u64, due: Instant, end: End) {
        let now = Instant::now();
        let counts = |at: Instant| at >= self.from && at < self.to;
        let was_done = matches!(end, End::Committed | End::VotedNo);
        // In an open loop those count that were due, whenever they end: the slow ones too.
        let is_counted = if load.rate.is_some() { counts(due) } else { counts(now) };
        if was_done && is_counted {
            self.latencies.record(now - due);
        }
        let one = u64::from(counts(now));
        match &end {
            End::Committed => self.committed += one,
            End::VotedNo => self.failed += one,
            End::Refused { .. } => self.refused += one,
            End::Wrong(_) => {}
        }
        let is_to_fail = load.is_to_fail(number);
        let fate = match end {
            End::Committed if is_to_fail => {
                self.problem("a transaction committed that a participant refused".to_owned());
                Fate::Committed
            }
            End::Committed => Fate::Committed,
            End::VotedNo if !is_to_fail => {
                self.problem("a transaction failed as refused that nobody refused".to_owned());
                Fate::Failed
            }
            End::VotedNo => Fate::Failed,
            End::Refused { code, after } => {
                if after.is_zero() {
                    self.problem(format!("a refusal, {code}, does not say when to come again"));
                }
                let (shortest, longest) = self.retry_after.unwrap_or((after, after));
                self.retry_after = Some((shortest.min(after), longest.max(after)));
                *self.refusals.entry(code).or_default() += 1;
                Fate::Refused
            }
            End::Wrong(problem) => {
                self.problem(problem);
                Fate::Unknown
            }
        };
        self.fates.set(number, fate);
    }

    /// So many have ended.
    pub(super) fn done(&self) -> u64 {
        self.committed + self.failed
    }

    pub(super) fn problem(&mut self, problem: String) {
        if self.problems.len() < TOLD || self.problems.contains_key(&problem) {
            *self.problems.entry(problem).or_default() += 1;
        }
    }

    pub(super) fn found(&self, events_read: u64) -> Found {
        let times = |(problem, times): (&String, &u64)| match times {
            1 => problem.clone(),
            _ => format!("{times} times: {problem}"),
        };
        Found {
            seconds: (self.to - self.from).as_secs_f64(),
            committed: self.committed,
            failed: self.failed,
            refused: self.refused,
            latencies: self.latencies.counts(),
            all_committed: self.fates.count(Fate::Committed),
            all_failed: self.fates.count(Fate::Failed),
            refusals: self.refusals.clone(),
            retry_after_ms: self.retry_after.map(|(short, long)| (millis(short), millis(long))),
            problems: self.problems.iter().map(times).collect(),
            events_read,
        }
    }
}

fn millis(pause: Duration) -> u64 {
    u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)
}
