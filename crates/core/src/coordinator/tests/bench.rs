//! A core with two services and a database, driven by hand, whose effects read as text.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::command::{
    BeginRequest, BranchRequest, Caller, Command, CommitRequest, DatabaseVote, Vote, Wait,
};
use crate::event::EventRequest;
use crate::ids::{Lsn, Name, Now, OpeningId, SessionId, StateId, StoreId, TransactionId};
use crate::input::Input;
use crate::limits::Limits;
use crate::output::{Output, PublicState, Reply, ToService};
use crate::record::{Opened, Participant, ParticipantKind, Record, TopicSettings};
use crate::view::VoteKind;
use crate::{Core, Recovery};

pub(super) const X: TransactionId = TransactionId(0x0001_0000_0000_0000_0000_0000_0000_0001);
/// Some time after X began.
const START_MS: u64 = (X.0 >> 80) as u64 + 10_000;
pub(super) const CLIENT: SessionId = SessionId(1);
pub(super) const SERVICE_A: SessionId = SessionId(10);
pub(super) const SERVICE_B: SessionId = SessionId(20);
pub(super) const STRANGER: SessionId = SessionId(30);
/// A stream that has the name of a participant in common and nothing else.
pub(super) const IMPOSTOR: SessionId = SessionId(66);

/// See the module.
pub(super) struct Bench {
    pub(super) core: Core,
    pub(super) now: Now,
    request: u64,
    /// Records that were appended, as a log would hold them.
    pub(super) log: Vec<(Lsn, Record)>,
}

pub(super) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(super) fn service(text: &str) -> Participant {
    Participant { name: name(text), kind: ParticipantKind::Service }
}

pub(super) fn branch(text: &str) -> BranchRequest {
    BranchRequest { participant: service(text), work: Some(Bytes::from_static(b"work")) }
}

pub(super) fn event() -> EventRequest {
    EventRequest { topic: name("t"), key: None, body: Bytes::from_static(b"event") }
}

pub(super) fn begin(id: TransactionId) -> BeginRequest {
    BeginRequest {
        id,
        local: None,
        deadline_ms: None,
        key: None,
        detached: false,
        branches: vec![branch("a"), branch("b")],
        events: vec![event()],
        acknowledgements: vec![],
        commit: None,
    }
}

pub(super) fn begin_local(id: TransactionId) -> BeginRequest {
    BeginRequest { local: Some(name("db")), branches: vec![], ..begin(id) }
}

pub(super) fn commit(branches: u32, items: u32) -> CommitRequest {
    CommitRequest { branches, items, votes: vec![], vouched: true, wait: Wait::Finished }
}

/// A YES for a database by a caller that has seen the guarded prepare succeed.
pub(super) fn vote_for(text: &str) -> DatabaseVote {
    DatabaseVote { database: name(text), holder: None, finishes: false, vouched: true }
}

pub(super) fn database(text: &str) -> BranchRequest {
    let participant = Participant { name: name(text), kind: ParticipantKind::Database };
    BranchRequest { participant, work: None }
}

pub(super) fn no() -> Vote {
    Vote::No { reason: "no funds".into(), retryable: false }
}

impl Bench {
    /// Services `a` and `b`, a stranger that serves `c`, a database `db`, a topic `t`.
    pub(super) fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    pub(super) fn with_limits(limits: Limits) -> Self {
        let mut recovery = Recovery::new(limits);
        let opened = Opened {
            store: StoreId(5),
            epoch: 1,
            opening: OpeningId(1),
            wall_ms: START_MS,
            newest_ms: 0,
        };
        let log = vec![(Lsn(1), Record::Opened(opened))];
        recovery.apply(log[0].0, &log[0].1);
        let core = recovery.finish(Now { mono_ms: 0, wall_ms: START_MS });
        let now = Now { mono_ms: 1, wall_ms: START_MS + 1 };
        let mut bench = Self { core, now, request: 0, log };
        bench.input(Input::Space { free: 1 << 30, low: false });
        bench.input(Input::Database { name: name("db"), up: true });
        bench.input(Input::Claimed { name: name("db"), asked_ms: 1 });
        for (session, service, state) in
            [(SERVICE_A, "a", 7), (SERVICE_B, "b", 8), (STRANGER, "c", 9)]
        {
            let attach = Command::Attach {
                service: name(service),
                instance: name("one"),
                state_id: StateId(state),
            };
            bench.command(session, attach);
        }
        let settings = TopicSettings::default();
        bench.command(CLIENT, Command::CreateTopic { name: name("t"), settings });
        bench.settle();
        bench
    }

    pub(super) fn input(&mut self, input: Input) -> Vec<Output> {
        self.core.handle(self.now, input);
        let mut outputs = Vec::new();
        while let Some(output) = self.core.poll_output() {
            if let Output::Append { lsn, record } = &output {
                self.log.push((*lsn, (**record).clone()));
            }
            outputs.push(output);
        }
        outputs
    }

    pub(super) fn command(&mut self, session: SessionId, command: Command) -> Vec<Output> {
        self.request += 1;
        self.input(Input::Command { caller: Caller { session, request: self.request }, command })
    }

    /// A service attaches with a name of somebody's and a durable state of nobody's.
    pub(super) fn attach_impostor(&mut self, service: &str) {
        let attach = Command::Attach {
            service: name(service),
            instance: name("impostor"),
            state_id: StateId(0),
        };
        self.command(IMPOSTOR, attach);
    }

    /// What such a service says.
    pub(super) fn impostor(&mut self, service: &str, command: Command) -> Vec<Output> {
        self.attach_impostor(service);
        self.command(IMPOSTOR, command)
    }

    pub(super) fn vote(&mut self, session: SessionId, vote: Vote) -> Vec<Output> {
        self.command(session, Command::Vote { id: X, vote })
    }

    /// Everything appended so far gets its place.
    pub(super) fn accept(&mut self) -> Vec<Output> {
        self.input(Input::Accepted { through: self.core.last() })
    }

    /// Everything appended so far is durable.
    pub(super) fn sync(&mut self) -> Vec<Output> {
        self.input(Input::Durable { through: self.core.last() })
    }

    /// Accepts and syncs until nothing is appended any more.
    pub(super) fn settle(&mut self) -> Vec<Output> {
        let mut outputs = Vec::new();
        while self.core.durable() < self.core.last() {
            outputs.extend(self.accept());
            outputs.extend(self.sync());
        }
        outputs
    }

    pub(super) fn pass(&mut self, ms: u64) -> Vec<Output> {
        self.now.mono_ms += ms;
        self.now.wall_ms += ms;
        self.input(Input::Tick)
    }

    /// A server that starts again with the log as far as it was durable.
    pub(super) fn restart(&self) -> (Self, Vec<Output>) {
        let mut recovery = Recovery::new(Limits::default());
        let durable = self.core.durable();
        let log: Vec<_> = self.log.iter().filter(|(lsn, _)| *lsn <= durable).cloned().collect();
        for (lsn, record) in &log {
            recovery.apply(*lsn, record);
        }
        let core = recovery.finish(self.now);
        let mut bench = Self { core, now: self.now, request: 1_000, log };
        let outputs = bench.input(Input::Space { free: 1 << 30, low: false });
        (bench, outputs)
    }

    /// Everything that is known of the transaction.
    pub(super) fn transaction(&self) -> Option<String> {
        self.core.transaction_of(X)
    }

    /// The branch of a service is bound to a durable state.
    pub(super) fn is_bound(&self, service: &str) -> bool {
        self.core.is_bound(X, &name(service))
    }

    /// The transaction's phase, or `-` where it is not in memory.
    pub(super) fn phase(&self) -> String {
        self.core.phase_of(X).unwrap_or_else(|| "-".to_string())
    }
}

/// Effects as a line of text, in order.
pub(super) fn text(outputs: &[Output]) -> String {
    let texts: Vec<String> = outputs.iter().map(one).collect();
    if texts.is_empty() { "nothing".to_string() } else { texts.join(", ") }
}

fn one(output: &Output) -> String {
    match output {
        Output::Append { record, .. } => format!("append {}", record_name(record)),
        Output::Reply { reply, .. } => reply_text(reply),
        Output::ToService { session, message } => {
            let who = match *session {
                SERVICE_A => "a",
                SERVICE_B => "b",
                STRANGER => "c",
                _ => "?",
            };
            let what = match message {
                ToService::Prepare { .. } => "prepare",
                ToService::Commit { .. } => "commit",
                ToService::Abort { .. } => "abort",
                ToService::Pending { .. } => "pending",
                ToService::Forget { .. } => "forget",
            };
            format!("{what} to {who}")
        }
        Output::Deliver { .. } => "deliver".to_string(),
        Output::Gap { .. } => "gap".to_string(),
        Output::EndSession { .. } => "end session".to_string(),
        Output::Fetch(_) => "fetch".to_string(),
        Output::ReadChain { .. } => "read chain".to_string(),
        Output::FinishBranch { commit, .. } => {
            format!("{} in database", if *commit { "commit" } else { "roll back" })
        }
        Output::FinishOnSession { commit, .. } => {
            format!("{} on the client's session", if *commit { "commit" } else { "roll back" })
        }
        Output::Verify { local: true, .. } => "look for the marker".to_string(),
        Output::Verify { local: false, .. } => "ask whether it is prepared".to_string(),
        Output::Resolve { .. } => "resolve".to_string(),
        Output::Attention { .. } => "attention".to_string(),
        Output::Trouble { .. } => "trouble".to_string(),
        Output::AttentionOver { .. } => "attention is over".to_string(),
    }
}

fn record_name(record: &Record) -> &'static str {
    match record {
        Record::Begin(_) => "BEGIN",
        Record::Commit(_) => "COMMIT",
        Record::Abort(_) => "ABORT",
        Record::Operated(_) => "OPERATED",
        Record::End(_) => "END",
        _ => "other",
    }
}

fn reply_text(reply: &Reply) -> String {
    match reply {
        Reply::Begun { repeated: false, .. } => "begun".to_string(),
        Reply::Begun { repeated: true, .. } => "begun before".to_string(),
        Reply::Counted { branches, items, .. } => format!("counted {branches}+{items}"),
        Reply::Outcome(outcome) => match &outcome.reason {
            Some(reason) => format!("{} ({})", outcome.state.as_str(), reason.code.as_str()),
            None if outcome.finished && outcome.state == PublicState::Committing => {
                "Committing, finished".to_string()
            }
            None => outcome.state.as_str().to_string(),
        },
        Reply::Remaining { .. } => "remaining".to_string(),
        Reply::Transaction(view) => {
            let votes: Vec<&str> = view
                .branches
                .iter()
                .map(|b| match b.vote {
                    Some(VoteKind::Yes) => "yes",
                    Some(VoteKind::No) => "no",
                    Some(VoteKind::ReadOnly) => "read-only",
                    None => "none",
                })
                .collect();
            format!("shown {} [{}]", view.state.as_str(), votes.join(" "))
        }
        Reply::Forget(ids) => format!("may forget {}", ids.len()),
        Reply::Refused(refusal) => format!("refused {}", refusal.code),
        Reply::Done => "done".to_string(),
        other => format!("{other:?}"),
    }
}
