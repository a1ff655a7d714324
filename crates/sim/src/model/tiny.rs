//! The tiny world: one coordinator, two services, one transaction, and everything that may happen
//! to them as explicit actions. Faults are on a budget, or there would be no end.

mod checks;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use handfast_core::command::{
    BeginRequest, BranchRequest, Caller, Command, CommitRequest, Vote, Wait,
};
use handfast_core::ids::{Lsn, Name, Now, OpeningId, SessionId, StateId, StoreId, TransactionId};
use handfast_core::input::{Chain, Input};
use handfast_core::limits::Limits;
use handfast_core::output::{Output, PublicState, Reply, ToService};
use handfast_core::participant::{Answer, BranchInput, BranchState, Synced, step};
use handfast_core::record::{Opened, Participant, ParticipantKind, Record};
use handfast_core::{Core, Recovery};

use crate::fault::Fault;

/// The transaction.
const X: TransactionId = TransactionId(1 << 80 | 7 << 76 | 1);
/// The client's stream.
const CLIENT: SessionId = SessionId(1);
/// Messages on one stream and direction, at most.
const QUEUE: usize = 3;

/// How many faults may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Restarts of the coordinator.
    pub crashes: u8,
    /// Restarts of services.
    pub restarts: u8,
    /// Streams that break.
    pub breaks: u8,
    /// Messages that arrive twice.
    pub repeats: u8,
    /// Times that the next deadline is reached.
    pub ticks: u8,
    /// Aborts by the client.
    pub aborts: u8,
}

/// One thing that may happen; numbers are services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The client begins and commits in one call.
    Begin,
    /// The client asks to abort.
    Abort,
    /// What was appended gets its place.
    Accept,
    /// What has its place becomes durable.
    Sync,
    /// A message of a service reaches the coordinator.
    Up(usize),
    /// A message reaches a service.
    Down(usize),
    /// A message reaches a service, and will again.
    DownTwice(usize),
    /// The work of a service ends: done, read-only, failed.
    Work(usize, u8),
    /// A service connects.
    Connect(usize),
    /// A stream breaks; what is under way is lost.
    Break(usize),
    /// A service restarts.
    Restart(usize),
    /// A prepared service inquires.
    Inquire(usize),
    /// The coordinator ends and starts again; true: the last group survives.
    Crash(bool),
    /// The next deadline is reached.
    Tick,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Tiny {
    core: Core,
    now: Now,
    log: Vec<Arc<Record>>,
    accepted: usize,
    durable: usize,
    services: [Service; 2],
    chains: usize,
    begun: bool,
    epoch: u32,
    sessions: u64,
    requests: u64,
    told: Option<PublicState>,
    budget: Budget,
    fault: Option<Fault>,
    violation: Option<String>,
}

/// One service: a durable state, work in memory, and a stream.
#[derive(Clone, Debug)]
struct Service {
    state: BranchState,
    working: bool,
    effects: u8,
    session: Option<SessionId>,
    up: VecDeque<Command>,
    down: VecDeque<ToService>,
}

impl Tiny {
    /// The world before anything happened: both services are connected.
    #[must_use]
    pub fn new(budget: Budget, fault: Option<Fault>) -> Self {
        let now = Now { mono_ms: 1, wall_ms: 1 };
        let opened = Record::Opened(opened(1));
        let log = vec![Arc::new(opened)];
        let service = Service {
            state: BranchState::None,
            working: false,
            effects: 0,
            session: None,
            up: VecDeque::new(),
            down: VecDeque::new(),
        };
        let mut tiny = Self {
            core: recover(&log, now),
            now,
            log,
            accepted: 1,
            durable: 1,
            services: [service.clone(), service],
            chains: 0,
            begun: false,
            epoch: 1,
            sessions: 1,
            requests: 0,
            told: None,
            budget,
            fault,
            violation: None,
        };
        tiny.feed(Input::Space { free: 1 << 30, low: false });
        tiny.act(Action::Connect(0));
        tiny.act(Action::Connect(1));
        for at in 0..2 {
            while !tiny.services[at].up.is_empty() {
                tiny.act(Action::Up(at));
            }
        }
        tiny
    }

    /// What is wrong, if anything is.
    #[must_use]
    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// A digest of everything that decides what can happen next.
    #[must_use]
    pub fn digest(&self) -> u64 {
        super::digest::digest(&format!("{self:?}"))
    }

    /// What may happen now.
    #[must_use]
    pub fn actions(&self) -> Vec<Action> {
        let mut all = Vec::new();
        let budget = &self.budget;
        if !self.begun {
            all.push(Action::Begin);
        } else if budget.aborts > 0 {
            all.push(Action::Abort);
        }
        if self.accepted < self.log.len() {
            all.push(Action::Accept);
        }
        if self.durable < self.accepted {
            all.push(Action::Sync);
        }
        for (at, service) in self.services.iter().enumerate() {
            if !service.up.is_empty() {
                all.push(Action::Up(at));
            }
            if !service.down.is_empty() {
                all.push(Action::Down(at));
                if budget.repeats > 0 {
                    all.push(Action::DownTwice(at));
                }
            }
            if service.working {
                all.extend([Action::Work(at, 0), Action::Work(at, 1), Action::Work(at, 2)]);
            }
            match service.session {
                None => all.push(Action::Connect(at)),
                Some(_) => {
                    if budget.breaks > 0 {
                        all.push(Action::Break(at));
                    }
                    let asks = service.up.iter().any(|c| matches!(c, Command::Inquire { .. }));
                    if service.state == BranchState::Prepared && service.up.is_empty() && !asks {
                        all.push(Action::Inquire(at));
                    }
                }
            }
            if budget.restarts > 0 && (service.working || service.session.is_some()) {
                all.push(Action::Restart(at));
            }
        }
        if budget.crashes > 0 && self.begun {
            all.push(Action::Crash(false));
            if self.accepted > self.durable {
                all.push(Action::Crash(true));
            }
        }
        if budget.ticks > 0 && self.core.next_deadline().is_some_and(|at| at < 60_000) {
            all.push(Action::Tick);
        }
        all
    }

    /// It happens.
    pub fn act(&mut self, action: Action) {
        match action {
            Action::Begin => {
                self.begun = true;
                self.command(CLIENT, Command::Begin(Box::new(begin())));
            }
            Action::Abort => {
                self.budget.aborts -= 1;
                self.command(CLIENT, Command::Abort { id: X, detail: String::new() });
            }
            Action::Accept => {
                self.accepted = self.log.len();
                self.feed(Input::Accepted { through: Lsn(self.accepted as u64) });
                if self.fault == Some(Fault::SyncNotWaitedFor) {
                    self.feed(Input::Durable { through: Lsn(self.accepted as u64) });
                }
            }
            Action::Sync => {
                self.durable = self.accepted;
                if self.fault != Some(Fault::SyncNotWaitedFor) {
                    self.feed(Input::Durable { through: Lsn(self.durable as u64) });
                }
            }
            Action::Up(at) => {
                if let Some(command) = self.services[at].up.pop_front()
                    && let Some(session) = self.services[at].session
                {
                    self.command(session, command);
                }
            }
            Action::Down(at) => {
                if let Some(message) = self.services[at].down.pop_front() {
                    self.hear(at, &message);
                }
            }
            Action::DownTwice(at) => {
                self.budget.repeats -= 1;
                if let Some(message) = self.services[at].down.front().cloned() {
                    self.hear(at, &message);
                }
            }
            Action::Work(at, how) => {
                let input = match how {
                    0 => BranchInput::WorkDone,
                    1 => BranchInput::WorkReadOnly,
                    _ => BranchInput::WorkFailed { reason: String::new(), retryable: true },
                };
                self.branch(at, input);
            }
            Action::Connect(at) => {
                self.sessions += 1;
                let attach = Command::Attach {
                    service: name(at),
                    instance: name(at),
                    state_id: StateId(at as u128 + 1),
                };
                self.services[at].session = Some(SessionId(self.sessions));
                self.services[at].up.push_back(attach);
            }
            Action::Break(at) => {
                self.budget.breaks -= 1;
                self.lose(at);
            }
            Action::Restart(at) => {
                self.budget.restarts -= 1;
                self.services[at].working = false;
                self.lose(at);
            }
            Action::Inquire(at) => self.branch(at, BranchInput::InquiryTimer),
            Action::Crash(survives) => {
                self.budget.crashes -= 1;
                self.crash(survives);
            }
            Action::Tick => {
                self.budget.ticks -= 1;
                self.tick();
            }
        }
        self.check();
    }

    /// Faults are over: everything runs to its end. What is wrong if it does not.
    #[must_use]
    pub fn heals(mut self) -> Option<String> {
        self.budget =
            Budget { crashes: 0, restarts: 0, breaks: 0, repeats: 0, ticks: 0, aborts: 0 };
        for _ in 0..400 {
            let calm = |a: &Action| {
                !matches!(a, Action::Work(_, 1 | 2) | Action::Inquire(_) | Action::Begin)
            };
            match self.actions().into_iter().find(calm) {
                Some(action) => self.act(action),
                None if self.is_finished() => return None,
                None => {
                    self.tick();
                    for at in 0..2 {
                        if self.services[at].state == BranchState::Prepared {
                            self.branch(at, BranchInput::InquiryTimer);
                        }
                    }
                }
            }
            if let Some(violation) = &self.violation {
                return Some(violation.clone());
            }
        }
        Some(format!("I13: it does not end: {:?}", self.services))
    }

    fn is_finished(&self) -> bool {
        let ended = |s: &Service| s.state != BranchState::Prepared && !s.working;
        self.core.stats().open == 0 && self.services.iter().all(ended)
    }

    fn tick(&mut self) {
        let at = self.core.next_deadline().unwrap_or_default().max(self.now.mono_ms + 1);
        self.now.mono_ms = at;
        self.feed(Input::Tick);
    }

    fn lose(&mut self, at: usize) {
        let service = &mut self.services[at];
        service.up.clear();
        service.down.clear();
        if let Some(session) = service.session.take() {
            self.feed(Input::SessionEnded { session });
        }
    }

    fn crash(&mut self, survives: bool) {
        let left = if survives { self.accepted } else { self.durable };
        self.log.truncate(left);
        if self.fault == Some(Fault::CommitLostInCrash)
            && let Some(at) = self.log.iter().position(|r| matches!(**r, Record::Commit(_)))
        {
            self.log.truncate(at);
        }
        for service in &mut self.services {
            service.session = None;
            service.up.clear();
            service.down.clear();
        }
        self.epoch += 1;
        self.log.push(Arc::new(Record::Opened(opened(self.epoch))));
        (self.accepted, self.durable) = (self.log.len(), self.log.len());
        self.chains = 0;
        self.core = recover(&self.log, self.now);
        self.drain();
        self.feed(Input::Space { free: 1 << 30, low: false });
    }

    fn command(&mut self, session: SessionId, command: Command) {
        self.requests += 1;
        let caller = Caller { session, request: self.requests };
        self.feed(Input::Command { caller, command });
    }

    fn feed(&mut self, input: Input) {
        self.core.handle(self.now, input);
        self.drain();
        while self.chains > 0 {
            self.chains -= 1;
            let durable = self.log.iter().take(self.durable);
            let of_it = (1..).zip(durable).filter(|(_, r)| r.transaction() == Some(X));
            let records = of_it.map(|(lsn, r)| (Lsn(lsn), (**r).clone())).collect();
            self.core
                .handle(self.now, Input::Chain { id: X, chain: Chain { records, whole: true } });
            self.drain();
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Append { record, .. } => {
                    self.check_append(&record);
                    self.log.push(record);
                }
                Output::ToService { session, mut message } => {
                    if self.fault == Some(Fault::AbortSentAfterCommit)
                        && session.0 % 2 == 0
                        && matches!(message, ToService::Commit { .. })
                    {
                        message = ToService::Abort { id: X };
                    }
                    self.check_message(&message);
                    let to = self.services.iter_mut().find(|s| s.session == Some(session));
                    if let Some(service) = to.filter(|s| s.down.len() < QUEUE) {
                        service.down.push_back(message);
                    }
                }
                Output::Reply { reply: Reply::Outcome(outcome), .. } => self.tell(outcome.state),
                Output::ReadChain { .. } => self.chains += 1,
                _ => {}
            }
        }
    }

    fn hear(&mut self, at: usize, message: &ToService) {
        match message {
            ToService::Prepare { .. } => {
                self.branch(at, BranchInput::Prepare { has_work: true, maybe_forgotten: false });
            }
            ToService::Commit { .. } => self.branch(at, BranchInput::Commit),
            ToService::Abort { .. } => self.branch(at, BranchInput::Abort),
            // Outcomes are kept: a late prepare would begin the work again otherwise.
            ToService::Forget { .. } | ToService::Pending { .. } => {}
        }
    }

    fn branch(&mut self, at: usize, input: BranchInput) {
        let service = &self.services[at];
        let from = if service.working { BranchState::Working } else { service.state };
        let step = step(from, input);
        let early =
            self.fault == Some(Fault::VoteBeforeRecord) && step.next == BranchState::Prepared;
        let service = &mut self.services[at];
        service.working = step.next == BranchState::Working;
        if let Some(durable) = step.durable.filter(|_| !early) {
            service.state = durable.records().unwrap_or(BranchState::None);
            service.effects += u8::from(service.state == BranchState::Committed);
        }
        let Some(held) = step.then else { return };
        let command = match held.release(&Synced::now()) {
            Answer::Vote(vote) => Command::Vote { id: X, vote },
            Answer::NoAsRecorded => {
                let vote = Vote::No { reason: String::new(), retryable: true };
                Command::Vote { id: X, vote }
            }
            Answer::Finished { committed } => Command::Finished { id: X, committed },
            Answer::NotKnown => Command::NotKnown { id: X },
            Answer::Inquire => Command::Inquire { id: X },
        };
        if service.session.is_some() && service.up.len() < QUEUE {
            service.up.push_back(command);
        }
    }
}

fn recover(log: &[Arc<Record>], now: Now) -> Core {
    let mut limits = Limits::default();
    limits.default_deadline_ms = 5_000;
    let mut recovery = Recovery::new(limits);
    for (lsn, record) in (1..).zip(log) {
        recovery.apply(Lsn(lsn), record);
    }
    recovery.finish(now)
}

fn name(service: usize) -> Name {
    Name::new(["s0", "s1"][service]).expect("a name")
}

fn begin() -> BeginRequest {
    let branch = |at: usize| BranchRequest {
        participant: Participant { name: name(at), kind: ParticipantKind::Service },
        work: Some(Bytes::from_static(b"w")),
    };
    BeginRequest {
        id: X,
        local: None,
        deadline_ms: None,
        key: None,
        detached: true,
        branches: vec![branch(0), branch(1)],
        events: Vec::new(),
        acknowledgements: Vec::new(),
        commit: Some(CommitRequest {
            branches: 2,
            items: 0,
            votes: Vec::new(),
            vouched: true,
            wait: Wait::Finished,
        }),
    }
}

/// The record of an opening.
fn opened(epoch: u32) -> Opened {
    let opening = OpeningId(u128::from(epoch));
    Opened { store: StoreId(1), epoch, opening, wall_ms: 1, newest_ms: 0 }
}
