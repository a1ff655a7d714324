//! Which rows of the protocol were gone through, found from what is seen outside of the core.
//!
//! C3 and C9 need a log that loses appends: they are counted by [`crate::cluster`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use handfast_core::command::{Command, Vote};
use handfast_core::ids::{SessionId, TransactionId};
use handfast_core::input::{Input, Resolution};
use handfast_core::output::{Output, PublicState, Reply, ToService};
use handfast_core::participant::Row;
use handfast_core::record::{ReasonCode, Record};
use handfast_core::refusal::Code;

use crate::invariants::Seen;
use crate::invariants::facts::{Asked, Facts};

/// Every row of the specification.
pub const ALL: [&str; 43] = [
    "C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C9", "C10", "C11", "C12", "C13", "C14", "C15",
    "C16", "C17", "C18", "C19", "C20", "C21", "L1", "L2", "L3", "L4", "L5", "L6", "L7", "L8", "L9",
    "P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "P9", "P10", "P11", "P12", "P13",
];

/// How often each row was gone through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    counts: BTreeMap<&'static str, u64>,
    sent: BTreeSet<(SessionId, TransactionId, u8)>,
    resolved: BTreeSet<TransactionId>,
    asked: Option<TransactionId>,
    /// The present input asks for a transaction.
    begins: bool,
}

impl Rows {
    /// Counts one more.
    pub fn hit(&mut self, row: &'static str) {
        *self.counts.entry(row).or_default() += 1;
    }

    /// How often.
    #[must_use]
    pub fn count(&self, row: &str) -> u64 {
        self.counts.get(row).copied().unwrap_or_default()
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        for (row, count) in &other.counts {
            *self.counts.entry(row).or_default() += count;
        }
    }

    /// A participant has followed a row.
    pub fn participant(&mut self, row: Row) {
        let row = match row {
            Row::P1 => "P1",
            Row::P2 => "P2",
            Row::P3 => "P3",
            Row::P4 => "P4",
            Row::P5 => "P5",
            Row::P6 => "P6",
            Row::P7 => "P7",
            Row::P8 => "P8",
            Row::P9 => "P9",
            Row::P10 => "P10",
            Row::P11 => "P11",
            Row::P12 => "P12",
            Row::P13 => "P13",
            Row::Forget | Row::Ignored(_) => return,
        };
        self.hit(row);
    }

    /// Something happened.
    pub fn see(&mut self, facts: &Facts, seen: &Seen<'_>) {
        match seen {
            Seen::Appended(_, record) => self.appended(facts, record),
            Seen::Input(input) => self.input(facts, input),
            Seen::Output(output, asked) => self.output(facts, output, *asked),
            Seen::Handled => {
                let Some(id) = self.asked.take() else { return };
                let chain = facts.chains.get(&id);
                let open = |c: &crate::invariants::facts::Chain| {
                    c.begin.is_some_and(|lsn| lsn.0 <= facts.accepted) && !c.local
                };
                if chain.is_some_and(|c| open(c) && c.decision.is_none()) {
                    self.hit("C19");
                }
            }
            Seen::Crash => {
                self.sent.clear();
                for _ in facts.chains.values().filter(|c| c.begin.is_some() && c.end.is_none()) {
                    self.hit("C16");
                }
            }
            _ => {}
        }
    }

    fn appended(&mut self, facts: &Facts, record: &Record) {
        let local = |id| facts.chains.get(&id).is_some_and(|c| c.local);
        match record {
            Record::Begin(begin) => {
                self.hit(if begin.local.is_some() { "L1" } else { "C1" });
                if !self.begins {
                    self.hit("C21");
                }
            }
            Record::Commit(commit) if !local(commit.id) => self.hit("C5"),
            Record::Commit(commit) if !self.resolved.contains(&commit.id) => self.hit("L3"),
            Record::Abort(abort) if local(abort.id) => self.hit("L5"),
            Record::Abort(abort) => match abort.reason.code {
                ReasonCode::ClientGone => self.hit("C20"),
                ReasonCode::CoordinatorRestarted => {}
                _ => self.hit("C6"),
            },
            Record::End(end) if end.committed => self.hit("C10"),
            Record::End(_) => self.hit("C14"),
            _ => {}
        }
    }

    fn input(&mut self, facts: &Facts, input: &Input) {
        self.begins = matches!(input, Input::Command { command: Command::Begin(_), .. });
        let command = match input {
            Input::Command { command, .. } => command,
            Input::Resolved { resolution, .. } => {
                match resolution {
                    Resolution::Committed | Resolution::Aborted => self.hit("L6"),
                    Resolution::Unknown => self.hit("L7"),
                    Resolution::Tombstone => {}
                }
                return;
            }
            _ => return,
        };
        let decided = |id: &TransactionId| facts.decision(*id).is_some();
        match command {
            Command::Vote { id, .. } | Command::Abort { id, .. } if decided(id) => self.hit("C13"),
            Command::Commit { id, .. } if decided(id) => self.hit("C13"),
            Command::Vote { vote: Vote::Yes | Vote::ReadOnly, id }
                if facts.chains.contains_key(id) =>
            {
                self.hit("C4");
            }
            Command::Commit { id, .. } => self.asked = Some(*id),
            Command::NotKnown { id } => {
                let open = facts.chains.get(id).is_some_and(|c| c.end.is_none());
                if open && facts.durable_decision(*id) == Some(true) {
                    self.hit("C12");
                }
            }
            Command::Inquire { .. } => self.hit("C15"),
            Command::Status { .. } => self.hit("C17"),
            _ => {}
        }
    }

    fn output(&mut self, facts: &Facts, output: &Output, asked: Option<&Asked>) {
        match output {
            Output::ToService { session, message } => {
                let (id, kind, first, again) = match message {
                    ToService::Prepare { id, .. } => (*id, 0, "C2", "C7"),
                    ToService::Commit { id, .. } => (*id, 1, "C8", "C11"),
                    ToService::Abort { id } => (*id, 2, "C8", "C14"),
                    ToService::Pending { .. } | ToService::Forget { .. } => return,
                };
                let new = self.sent.insert((*session, id, kind));
                self.hit(if new { first } else { again });
            }
            Output::Resolve { id, .. } if self.resolved.insert(*id) => self.hit("L4"),
            Output::Reply { reply, .. } => match (asked, reply) {
                (Some(Asked::Begin(_, _, local)), Reply::Begun { .. }) => {
                    self.hit(if *local { "L2" } else { "C2" });
                }
                (_, Reply::Counted { .. }) => self.hit("C18"),
                (Some(Asked::About(id)), reply) if self.resolved.contains(id) => {
                    let pending = match reply {
                        Reply::Outcome(outcome) => outcome.state == PublicState::Preparing,
                        Reply::Refused(refusal) => refusal.code == Code::Pending,
                        _ => false,
                    };
                    if pending && facts.decision(*id).is_none() {
                        self.hit("L8");
                    }
                    if matches!(reply, Reply::Refused(r) if r.code == Code::MarkerNotWritten) {
                        self.hit("L9");
                    }
                }
                _ => {}
            },
            _ => {}
        }
    }
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in ALL.chunks(7) {
            for row in line {
                write!(f, "{row:>5} {:>8}", self.count(row))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
