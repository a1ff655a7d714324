//! Appends that end lost or unknown: rows C3 and C9, which a log that one machine owns never
//! causes. A small world for them alone: services answer at once, streams do not break; what is
//! uncertain is whether a record was written, and whether somebody else's stands in its place.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use handfast_core::command::{
    BeginRequest, BranchRequest, Caller, Command, CommitRequest, Vote, Wait,
};
use handfast_core::event::EventRequest;
use handfast_core::ids::{Lsn, Name, Now, SessionId, StateId, TransactionId};
use handfast_core::input::{Chain, Input};
use handfast_core::limits::Limits;
use handfast_core::output::{Output, PublicState, Reply, ToService};
use handfast_core::participant::{Answer, BranchInput, BranchState, Synced, Work, step};
use handfast_core::record::{
    Abort, Participant, ParticipantKind, Reason, ReasonCode, Record, TopicSettings,
};
use handfast_core::refusal::Code;
use handfast_core::{Core, Recovery};

use crate::rng::{Rng, mix};

/// Services.
const SERVICES: usize = 2;
/// The client's stream.
const CLIENT: SessionId = SessionId(1);

/// How often the rows were gone through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    /// BEGIN lost or unknown.
    pub c3: u64,
    /// A decision lost or unknown.
    pub c9: u64,
    /// END lost or unknown.
    pub end: u64,
    /// Transactions.
    pub transactions: u64,
}

/// See the module.
#[derive(Debug)]
struct Cluster {
    rng: Rng,
    core: Core,
    now: Now,
    /// Every record that stands, in order.
    log: Vec<(Lsn, Arc<Record>)>,
    /// Appended, and nobody knows yet how that ended.
    appended: VecDeque<(Lsn, Arc<Record>)>,
    accepted: Lsn,
    chains: VecDeque<TransactionId>,
    to_services: VecDeque<(usize, ToService)>,
    branches: BTreeMap<(usize, TransactionId), BranchState>,
    told: BTreeMap<TransactionId, PublicState>,
    discarded: Vec<TransactionId>,
    asked: BTreeMap<u64, TransactionId>,
    requests: u64,
    hits: Hits,
    wrong: Option<String>,
    sure: bool,
}

/// Runs one seed.
///
/// # Errors
/// The invariant that does not hold, and how.
pub fn run(seed: u64, events: bool) -> Result<Hits, String> {
    let mut cluster = Cluster::new(seed);
    cluster.set_up();
    for _ in 0..cluster.rng.between(5, 60) {
        cluster.turn(events);
    }
    cluster.sure = true;
    for _ in 0..2_000 {
        let busy = cluster.work();
        if cluster.wrong.is_some() || (!busy && cluster.core.stats().open == 0) {
            break;
        }
        if !busy {
            let next = cluster.core.next_deadline().unwrap_or_default();
            cluster.now.mono_ms = next.max(cluster.now.mono_ms + 1);
            cluster.feed(Input::Tick);
        }
    }
    cluster.check_end();
    match cluster.wrong {
        Some(wrong) => Err(format!("seed {seed}: {wrong}")),
        None => Ok(cluster.hits),
    }
}

impl Cluster {
    fn new(seed: u64) -> Self {
        let now = Now { mono_ms: 1, wall_ms: 1 };
        Self {
            rng: Rng::new(seed),
            core: Recovery::new(Limits::default()).finish(now),
            now,
            log: Vec::new(),
            appended: VecDeque::new(),
            accepted: Lsn(0),
            chains: VecDeque::new(),
            to_services: VecDeque::new(),
            branches: BTreeMap::new(),
            told: BTreeMap::new(),
            discarded: Vec::new(),
            asked: BTreeMap::new(),
            requests: 0,
            hits: Hits::default(),
            wrong: None,
            sure: true,
        }
    }

    fn set_up(&mut self) {
        self.feed(Input::Space { free: 1 << 30, low: false });
        for at in 0..SERVICES {
            let attach = Command::Attach {
                service: service(at),
                instance: service(at),
                state_id: StateId(at as u128 + 1),
            };
            self.command(session(at), attach);
        }
        let settings = TopicSettings::default();
        self.command(CLIENT, Command::CreateTopic { name: name("t"), settings });
        while self.work() {}
        self.sure = false;
    }

    /// One random thing.
    fn turn(&mut self, events: bool) {
        match self.rng.below(10) {
            0 | 1 => self.begin(events),
            2 => {
                self.now.mono_ms += self.rng.below(2_000);
                self.feed(Input::Tick);
            }
            _ => {
                self.work();
            }
        }
    }

    /// One step of what is under way; false if there is none.
    fn work(&mut self) -> bool {
        let choice = self.rng.below(3);
        for kind in 0..3 {
            match (choice + kind) % 3 {
                0 if !self.appended.is_empty() => {
                    self.answer_append();
                    return true;
                }
                1 if !self.chains.is_empty() => {
                    self.answer_chain();
                    return true;
                }
                2 if !self.to_services.is_empty() => {
                    if let Some((at, message)) = self.to_services.pop_front() {
                        self.hear(at, &message);
                    }
                    return true;
                }
                _ => {}
            }
        }
        false
    }

    fn begin(&mut self, events: bool) {
        self.hits.transactions += 1;
        let id = TransactionId(u128::from(self.hits.transactions));
        let branch = |at: usize| BranchRequest {
            participant: Participant { name: service(at), kind: ParticipantKind::Service },
            work: Some(Bytes::from_static(b"work")),
        };
        let body = Bytes::from(format!("event of {id}"));
        let event = EventRequest { topic: name("t"), key: None, body };
        let events: Vec<EventRequest> = events.then_some(event).into_iter().collect();
        let items = events.len() as u32;
        let begin = BeginRequest {
            id,
            local: None,
            deadline_ms: None,
            key: None,
            detached: true,
            branches: (0..SERVICES).map(branch).collect(),
            events,
            acknowledgements: Vec::new(),
            commit: Some(CommitRequest {
                branches: SERVICES as u32,
                items,
                votes: Vec::new(),
                vouched: true,
                wait: Wait::Finished,
            }),
        };
        self.asked.insert(self.requests + 1, id);
        self.command(CLIENT, Command::Begin(Box::new(begin)));
    }

    fn command(&mut self, session: SessionId, command: Command) {
        self.requests += 1;
        let caller = Caller { session, request: self.requests };
        self.feed(Input::Command { caller, command });
    }

    /// How the oldest append has ended.
    fn answer_append(&mut self) {
        let Some((lsn, record)) = self.appended.pop_front() else { return };
        let id = record.transaction();
        let fate = if self.sure || id.is_none() { 99 } else { self.rng.below(100) };
        match fate {
            0..12 => {
                self.count(&record);
                self.rival(lsn, &record);
                self.feed(Input::Lost { lsn });
            }
            12..24 => {
                self.count(&record);
                self.log.push((lsn, record));
                self.feed(Input::Unknown { lsn });
            }
            24..36 => {
                self.count(&record);
                self.feed(Input::Unknown { lsn });
            }
            _ => {
                self.log.push((lsn, record));
                self.accepted = lsn;
                self.feed(Input::Accepted { through: lsn });
                self.feed(Input::Durable { through: lsn });
            }
        }
    }

    fn count(&mut self, record: &Record) {
        match record {
            Record::Begin(_) => self.hits.c3 += 1,
            Record::End(_) => self.hits.end += 1,
            _ => self.hits.c9 += 1,
        }
    }

    /// What another machine has written in the place of a record: now and then the other decision,
    /// or another transaction under the same id.
    fn rival(&mut self, lsn: Lsn, record: &Record) {
        let written = match record {
            Record::Commit(commit) if self.decision(commit.id).is_none() => {
                let reason = Reason::new(ReasonCode::Operator, "another machine", true);
                let (id, previous) = (commit.id, commit.previous);
                Record::Abort(Abort { id, previous, wall_ms: 1, reason })
            }
            Record::Begin(begin) => {
                let mut begin = begin.clone();
                begin.deadline_ms += 1;
                Record::Begin(begin)
            }
            _ => return,
        };
        if self.rng.percent(50) {
            self.log.push((lsn, Arc::new(written)));
        }
    }

    fn answer_chain(&mut self) {
        let Some(id) = self.chains.pop_front() else { return };
        let of_it = self.log.iter().filter(|(_, r)| r.transaction() == Some(id));
        let records = of_it.map(|(lsn, r)| (*lsn, (**r).clone())).collect();
        self.feed(Input::Chain { id, chain: Chain { records, whole: true } });
    }

    fn feed(&mut self, input: Input) {
        self.core.handle(self.now, input);
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Append { lsn, record } => self.appended.push_back((lsn, record)),
                Output::ReadChain { id } => self.chains.push_back(id),
                Output::ToService { session, message } => {
                    let at = session.0 as usize - 10;
                    self.to_services.push_back((at, message));
                }
                Output::Reply { to, reply } => self.reply(to, &reply),
                _ => {}
            }
        }
    }

    fn reply(&mut self, to: Caller, reply: &Reply) {
        let Some(id) = self.asked.get(&to.request).copied().filter(|_| to.session == CLIENT) else {
            return;
        };
        match reply {
            Reply::Outcome(outcome) => {
                self.asked.remove(&to.request);
                let commit = self.decision(id);
                let agrees = match outcome.state {
                    PublicState::Preparing => true,
                    PublicState::Committing | PublicState::Committed => commit == Some(true),
                    PublicState::Failed => commit != Some(true),
                };
                if !agrees {
                    self.wrong = Some(format!("I1: {outcome:?}, but the log says {commit:?}"));
                }
                self.told.insert(id, outcome.state);
            }
            Reply::Refused(refusal) => {
                self.asked.remove(&to.request);
                if refusal.code == Code::KeyConflict {
                    self.discarded.push(id);
                } else {
                    self.wrong = Some(format!("{id} is refused: {refusal}"));
                }
            }
            _ => {}
        }
    }

    fn hear(&mut self, at: usize, message: &ToService) {
        let (id, input) = match message {
            ToService::Prepare { id, .. } => {
                (*id, BranchInput::Prepare { has_work: true, maybe_forgotten: false })
            }
            ToService::Commit { id, .. } => (*id, BranchInput::Commit),
            ToService::Abort { id } => (*id, BranchInput::Abort),
            ToService::Pending { .. } | ToService::Forget { .. } => return,
        };
        let from = self.branches.get(&(at, id)).copied().unwrap_or(BranchState::None);
        let mut done = step(from, input);
        if done.work == Some(Work::Do) {
            let fails = mix(id.0 as u64 * 8 + at as u64).is_multiple_of(8);
            let input = if fails {
                BranchInput::WorkFailed { reason: "no".into(), retryable: false }
            } else {
                BranchInput::WorkDone
            };
            done = step(BranchState::Working, input);
        }
        if let Some(state) = done.durable.and_then(handfast_core::participant::Durable::records) {
            if state == BranchState::Committed && self.decision(id) != Some(true) {
                self.wrong = Some(format!("I1: {at} commits {id}"));
            }
            if state == BranchState::Aborted && self.is_updater(at, id) {
                self.wrong = Some(format!("I1: {at} aborts {id}, COMMIT stands"));
            }
            self.branches.insert((at, id), state);
        }
        let Some(held) = done.then else { return };
        let command = match held.release(&Synced::now()) {
            Answer::Vote(vote) => Command::Vote { id, vote },
            Answer::NoAsRecorded => {
                Command::Vote { id, vote: Vote::No { reason: "no".into(), retryable: false } }
            }
            Answer::Finished { committed } => Command::Finished { id, committed },
            Answer::NotKnown => Command::NotKnown { id },
            Answer::Inquire => Command::Inquire { id },
        };
        self.command(session(at), command);
    }

    /// The first decision in the order of the log is the decision.
    fn decision(&self, id: TransactionId) -> Option<bool> {
        self.log.iter().find_map(|(_, record)| match &**record {
            Record::Commit(r) if r.id == id => Some(true),
            Record::Abort(r) if r.id == id => Some(false),
            _ => None,
        })
    }

    fn is_updater(&self, at: usize, id: TransactionId) -> bool {
        let named = |r: &Record| match r {
            Record::Commit(r) if r.id == id => {
                r.updaters.iter().any(|u| u.participant.name == service(at))
            }
            _ => false,
        };
        self.decision(id) == Some(true) && self.log.iter().any(|(_, r)| named(r))
    }

    fn check_end(&mut self) {
        let open = self.core.stats().open;
        let mut wrong = None;
        if open > 0 {
            wrong = Some(format!("I13: {open} transactions do not end"));
        }
        for ((at, id), state) in &self.branches {
            let expected = match self.decision(*id) {
                Some(true) => BranchState::Committed,
                Some(false) | None => BranchState::Aborted,
            };
            let discarded = self.discarded.contains(id);
            if *state != expected && !discarded {
                wrong = Some(format!("I1: {at} is {state:?} in {id}, not {expected:?}"));
            }
        }
        if !self.asked.is_empty() {
            wrong = Some(format!("I13: without an answer: {:?}", self.asked));
        }
        for (_, record) in &self.log {
            let Record::End(end) = &**record else { continue };
            let ends =
                self.log.iter().filter(|(_, r)| matches!(&**r, Record::End(e) if e.id == end.id));
            if ends.count() > 1 {
                wrong = Some(format!("I12: {} ends twice", end.id));
            }
        }
        if self.wrong.is_none() {
            self.wrong = wrong;
        }
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn service(at: usize) -> Name {
    name(["a", "b"][at])
}

fn session(at: usize) -> SessionId {
    SessionId(10 + at as u64)
}
