//! Clients: transactions of both kinds, step by step and in one call, with and without a key,
//! counted rightly and wrongly, finished, aborted, abandoned; and questions about older ones.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use handfast_core::command::{
    Act, BeginRequest, BranchRequest, Command, CommitRequest, DatabaseVote, Wait,
};
use handfast_core::ids::{Name, SessionId, TransactionId};
use handfast_core::input::BranchReport;
use handfast_core::output::{PublicState, Reply};
use handfast_core::record::{IdempotencyKey, Participant, ParticipantKind};

use super::{Down, Peer, World, numbered};
use crate::invariants::Seen;

/// One client.
#[derive(Debug, Default)]
pub(super) struct Client {
    session: Option<SessionId>,
    waiting: BTreeMap<u64, Waiting>,
    job: Option<Job>,
    /// Transactions that it may ask about.
    known: Vec<TransactionId>,
}

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    Begin,
    Step,
    Outcome(TransactionId, bool),
    Other,
}

/// One transaction, as its client sees it.
#[derive(Debug)]
struct Job {
    request: BeginRequest,
    sent: bool,
    /// The number of its begin on this stream.
    begin: u64,
    id: Option<TransactionId>,
    steps: VecDeque<Step>,
    branches: u32,
    items: u32,
    votes: Vec<DatabaseVote>,
    /// It does not wait for each answer before the next step.
    hasty: bool,
    tries: u32,
}

/// What a client does next in a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Enlist(usize, bool),
    EnlistDatabase(usize),
    PrepareDatabase(usize),
    StartWork(usize),
    Stage,
    StageAcknowledgement,
    Marker(usize),
    LocalCommit(usize),
    Extend,
    Commit { wrong: bool },
    Abort,
    Abandon,
    Wait,
}

impl Client {
    /// Whether nothing is under way.
    #[must_use]
    pub(super) fn is_idle(&self) -> bool {
        self.job.is_none() && self.waiting.is_empty()
    }
}

impl World {
    pub(super) fn client_act(&mut self, at: usize) {
        let Some(session) = self.clients[at].session else {
            let session = self.open(Peer::Client(at));
            self.clients[at].session = Some(session);
            return;
        };
        if self.clients[at].job.is_none() {
            if self.healing {
                return;
            }
            if self.rng.percent(30) {
                return self.ask_about(at, session);
            }
            let job = self.new_job();
            self.clients[at].job = Some(job);
        }
        let Some(mut job) = self.clients[at].job.take() else { return };
        let keep = self.go_on(at, session, &mut job);
        if keep && self.clients[at].job.is_none() {
            self.clients[at].job = Some(job);
        }
    }

    /// False: the job is over.
    fn go_on(&mut self, at: usize, session: SessionId, job: &mut Job) -> bool {
        if !job.sent {
            if job.tries == 4 {
                return false;
            }
            job.tries += 1;
            job.sent = true;
            let mut request = job.request.clone();
            request.id = self.new_transaction_id();
            let request = self.send(session, Command::Begin(Box::new(request)));
            job.begin = request;
            self.clients[at].waiting.insert(request, Waiting::Begin);
            return true;
        }
        let Some(id) = job.id else { return true };
        if !self.clients[at].waiting.is_empty() && !job.hasty {
            return true;
        }
        let Some(step) = job.steps.pop_front() else {
            return !self.clients[at].waiting.is_empty();
        };
        if let Some((command, waiting)) = self.take_step(id, job, &step) {
            let request = self.send(session, command);
            self.clients[at].waiting.insert(request, waiting);
        }
        true
    }

    fn take_step(
        &mut self,
        id: TransactionId,
        job: &mut Job,
        step: &Step,
    ) -> Option<(Command, Waiting)> {
        match *step {
            Step::Enlist(service, has_work) => {
                job.branches += 1;
                let branches = vec![self.branch_request(service, has_work)];
                Some((Command::Enlist { id, branches }, Waiting::Step))
            }
            Step::EnlistDatabase(at) => {
                job.branches += 1;
                let participant = self.database_participant(at);
                let branches = vec![BranchRequest { participant, work: None }];
                Some((Command::Enlist { id, branches }, Waiting::Step))
            }
            Step::PrepareDatabase(at) => {
                let database = &self.databases[at];
                let name = database.name.clone();
                // A caller without the library may be wrong about what it has done (I2).
                let lies = self.rng.percent(10);
                if !database.up && !lies {
                    return None;
                }
                if !lies {
                    self.facts.prepared.insert((name.clone(), id));
                }
                let vote = DatabaseVote {
                    database: name,
                    holder: None,
                    finishes: !lies && self.rng.percent(50),
                    vouched: !lies && self.rng.percent(60),
                };
                if self.rng.percent(30) {
                    let votes = vec![vote];
                    return Some((Command::VoteFor { id, votes }, Waiting::Step));
                }
                job.votes.push(vote);
                None
            }
            Step::StartWork(service) => {
                self.start_work(service, id);
                None
            }
            Step::Stage => {
                let events = self.new_events(2);
                job.items += events.len() as u32;
                Some((Command::Stage { id, events, acknowledgements: Vec::new() }, Waiting::Step))
            }
            Step::StageAcknowledgement => {
                let delivery = self.take_held()?;
                job.items += 1;
                let acknowledgements = vec![delivery];
                Some((Command::Stage { id, events: Vec::new(), acknowledgements }, Waiting::Step))
            }
            Step::Marker(at) => {
                let taken = self.facts.rows.contains_key(&(self.databases[at].name.clone(), id));
                let database = &mut self.databases[at];
                if database.up && !taken {
                    database.open.insert(id);
                } else {
                    job.steps = [Step::Abort].into();
                }
                None
            }
            Step::LocalCommit(at) => {
                self.commit_locally(at, id, job);
                None
            }
            Step::Extend => {
                let deadline_ms = self.rng.between(500, 20_000);
                Some((Command::Extend { id, deadline_ms }, Waiting::Other))
            }
            Step::Commit { wrong } => {
                let items = if wrong { job.items + 1 } else { job.items };
                let request = self.commit_request(job.branches, items, job.votes.clone());
                let local = job.request.local.is_some();
                Some((Command::Commit { id, request }, Waiting::Outcome(id, local)))
            }
            Step::Abort => {
                let detail = "changed its mind".into();
                let local = job.request.local.is_some();
                if self.rng.percent(10) {
                    let act = if self.rng.percent(70) { Act::Abort } else { Act::Note };
                    let command = Command::Operate { id, act, detail };
                    return Some((command, Waiting::Outcome(id, local)));
                }
                Some((Command::Abort { id, detail }, Waiting::Outcome(id, local)))
            }
            Step::Abandon => {
                job.steps.clear();
                None
            }
            Step::Wait => None,
        }
    }

    fn commit_request(
        &mut self,
        branches: u32,
        items: u32,
        votes: Vec<DatabaseVote>,
    ) -> CommitRequest {
        let wait = if self.rng.percent(50) { Wait::Finished } else { Wait::Decided };
        // Whether it is believed or looked up, a commit is only asked after one's own.
        CommitRequest { branches, items, votes, vouched: self.rng.percent(50), wait }
    }

    /// The client's own COMMIT in its database; the answer may never arrive.
    fn commit_locally(&mut self, at: usize, id: TransactionId, job: &mut Job) {
        let database = &mut self.databases[at];
        let held = database.open.remove(&id);
        let (up, name) = (database.up, database.name.clone());
        if held && up {
            self.facts.rows.insert((name.clone(), id), true);
            self.see(&Seen::Visible(&name, id));
            match self.rng.below(10) {
                0..7 => {}
                // The answer was lost: it does not know.
                7 => job.steps = [Step::Abort].into(),
                // It died.
                _ => job.steps = [Step::Abandon].into(),
            }
        } else {
            job.steps = [Step::Abort].into();
        }
    }

    fn branch_request(&mut self, service: usize, has_work: bool) -> BranchRequest {
        let name = self.services[service].name.clone();
        let participant = Participant { name, kind: ParticipantKind::Service };
        BranchRequest { participant, work: has_work.then(|| Bytes::from_static(b"work")) }
    }

    fn database_participant(&self, at: usize) -> Participant {
        Participant { name: self.databases[at].name.clone(), kind: ParticipantKind::Database }
    }

    fn new_job(&mut self) -> Job {
        let mut request = BeginRequest {
            id: TransactionId(0),
            local: None,
            deadline_ms: self.rng.percent(70).then(|| self.rng.between(300, 20_000)),
            key: None,
            detached: self.rng.percent(40),
            branches: Vec::new(),
            events: if self.rng.percent(60) { self.new_events(2) } else { Vec::new() },
            acknowledgements: Vec::new(),
            commit: None,
        };
        if self.rng.percent(40) {
            self.last_key += 1;
            request.key = Some(IdempotencyKey {
                key: format!("key {}", self.last_key).into(),
                digest: self.last_key,
            });
        }
        if self.last_key > 0 && self.rng.percent(4) {
            // Somebody else's key: a conflict, unless a crash has freed it.
            let key = format!("key {}", 1 + self.rng.below(self.last_key)).into();
            request.key = Some(IdempotencyKey { key, digest: self.rng.bits() | 1 << 63 });
        }
        if self.rng.percent(30)
            && let Some(delivery) = self.take_held()
        {
            request.acknowledgements.push(delivery);
        }
        let mut job = Job {
            request,
            sent: false,
            begin: 0,
            id: None,
            steps: VecDeque::new(),
            branches: 0,
            items: 0,
            votes: Vec::new(),
            hasty: self.rng.percent(30),
            tries: 0,
        };
        let local = if self.plan.copies { 15 } else { 35 };
        if !self.databases.is_empty() && self.rng.percent(local) {
            self.plan_local(&mut job);
        } else {
            self.plan_distributed(&mut job);
        }
        job.items += (job.request.events.len() + job.request.acknowledgements.len()) as u32;
        if self.rng.percent(10) {
            job.steps.insert(self.rng.index(job.steps.len() + 1), Step::Extend);
        }
        job
    }

    fn plan_local(&mut self, job: &mut Job) {
        let at = self.rng.index(self.databases.len());
        job.request.local = Some(self.databases[at].name.clone());
        let end = match self.rng.below(10) {
            0..7 => Step::Commit { wrong: false },
            7 => Step::Abort,
            _ => Step::Abandon,
        };
        job.steps = [Step::Marker(at), Step::Wait, Step::LocalCommit(at), end].into();
        match self.rng.below(10) {
            0 => job.steps = [Step::Abort].into(),
            1 => job.steps = [Step::Marker(at), Step::Wait, Step::Wait, Step::Abort].into(),
            _ => {}
        }
    }

    fn plan_distributed(&mut self, job: &mut Job) {
        // Work in databases is no part of those.
        let in_one_call = self.rng.percent(if self.plan.copies { 10 } else { 35 });
        let has_database = !in_one_call
            && !self.databases.is_empty()
            && self.rng.percent(if self.plan.copies { 80 } else { 40 });
        // Who is slow to look at what the server sends may be asked by other means all the sooner.
        let asked = if self.plan.slow { 20 } else { 75 };
        for service in 0..self.services.len() {
            if self.rng.percent(30) {
                continue;
            }
            job.branches += 1;
            let has_work = in_one_call || self.rng.percent(asked);
            if in_one_call || self.rng.percent(50) {
                let branch = self.branch_request(service, has_work);
                job.request.branches.push(branch);
                if !has_work {
                    self.plan_work(job, service);
                }
            } else {
                job.branches -= 1;
                if !has_work && self.rng.percent(70) {
                    self.plan_work(job, service);
                }
                job.steps.push_back(Step::Enlist(service, has_work));
            }
        }
        if in_one_call {
            let items = job.request.events.len() + job.request.acknowledgements.len();
            let wrong = u32::from(self.rng.percent(5));
            let request = self.commit_request(job.branches + wrong, items as u32, Vec::new());
            job.request.commit = Some(request);
            return;
        }
        if has_database {
            let at = self.rng.index(self.databases.len());
            let mut steps = vec![Step::EnlistDatabase(at)];
            if self.rng.percent(90) {
                steps.push(Step::PrepareDatabase(at));
            }
            // Where stores are copied it stays prepared for longer.
            let to = if self.plan.copies { 0 } else { job.steps.len() };
            for (step, at) in steps.into_iter().zip(to..) {
                job.steps.insert(at, step);
            }
        }
        if self.rng.percent(40) {
            job.steps.push_back(Step::Stage);
        }
        if self.rng.percent(40) {
            job.steps.push_back(Step::StageAcknowledgement);
        }
        let end = match self.rng.below(20) {
            0..15 => Step::Commit { wrong: self.rng.percent(10) },
            15 | 16 => Step::Abort,
            _ => Step::Abandon,
        };
        job.steps.push_back(end);
        if self.rng.percent(10) {
            job.steps.push_back(Step::Commit { wrong: false });
        }
        if self.rng.percent(10) {
            job.steps.push_back(Step::Stage);
        }
    }

    /// The service is asked by other means; now and then twice, and another instance hears it.
    fn plan_work(&mut self, job: &mut Job, service: usize) {
        job.steps.push_back(Step::StartWork(service));
        if self.rng.percent(30) {
            job.steps.push_back(Step::StartWork(service));
        }
    }

    /// A question about a transaction of the past.
    fn ask_about(&mut self, at: usize, session: SessionId) {
        let Some(id) = self.rng.pick(&self.clients[at].known).copied() else { return };
        let wait = [None, Some(Wait::Decided), Some(Wait::Finished)][self.rng.index(3)];
        let (command, waiting) = match self.rng.below(8) {
            0..4 => (Command::Status { id, wait }, Waiting::Other),
            4 | 5 => (Command::Show { id }, Waiting::Other),
            6 => {
                let attention = wait.is_some();
                (Command::ListTransactions { after: None, limit: 10, attention }, Waiting::Other)
            }
            _ => (Command::Abort { id, detail: "late".into() }, Waiting::Other),
        };
        let request = self.send(session, command);
        self.clients[at].waiting.insert(request, waiting);
    }

    pub(super) fn client_told(&mut self, at: usize, message: Down) {
        if let Down::Finish { id, database, commit } = message {
            return self.finish_on_session(at, id, database, commit);
        }
        let Down::Reply(request, reply) = message else { return };
        let Some(waiting) = self.clients[at].waiting.remove(&request) else { return };
        match waiting {
            Waiting::Begin => self.begun(at, request, reply),
            Waiting::Outcome(id, local) => {
                if self.clients[at].job.as_ref().is_some_and(|job| job.id == Some(id)) {
                    self.clients[at].job = None;
                }
                let failed = matches!(&reply, Reply::Outcome(o) if o.state == PublicState::Failed);
                // Row L9: somebody reports a commit that cannot have been.
                if failed && local && !self.healing && self.rng.percent(50) {
                    let request = self.commit_request(0, 0, Vec::new());
                    if let Some(session) = self.clients[at].session {
                        let request = self.send(session, Command::Commit { id, request });
                        self.clients[at].waiting.insert(request, Waiting::Other);
                    }
                }
            }
            Waiting::Step | Waiting::Other => {}
        }
    }

    /// The client finishes a branch on the session that it holds; its report may never come, or say
    /// that it could not.
    fn finish_on_session(&mut self, at: usize, id: TransactionId, database: Name, commit: bool) {
        let done = !self.rng.percent(15) || self.healing;
        if done && self.finish(id, &database, commit) != BranchReport::Done {
            return;
        }
        let silent = !self.healing && self.rng.percent(15);
        if let Some(session) = self.clients[at].session.filter(|_| !silent) {
            let request = self.send(session, Command::BranchEnded { id, database, done });
            self.clients[at].waiting.insert(request, Waiting::Other);
        }
    }

    fn begun(&mut self, at: usize, request: u64, reply: Reply) {
        if self.clients[at].job.as_ref().is_none_or(|job| job.begin != request) {
            // It has given up on that one.
            return;
        }
        let id = match reply {
            Reply::Begun { id, repeated, .. } => {
                if let Some(job) = &mut self.clients[at].job {
                    job.id = Some(id);
                    if repeated {
                        // What became of the first attempt is not known to it.
                        job.steps = [Step::Abort].into();
                        if job.request.local.is_none() && self.rng.percent(50) {
                            job.steps = [Step::Commit { wrong: false }].into();
                        }
                    }
                }
                id
            }
            Reply::Outcome(outcome) => {
                self.clients[at].job = None;
                outcome.id
            }
            _ => {
                self.clients[at].job = None;
                return;
            }
        };
        self.clients[at].known.push(id);
    }

    pub(super) fn client_lost(&mut self, at: usize, session: SessionId) {
        if self.clients[at].session != Some(session) {
            return;
        }
        let dies = self.rng.percent(50);
        let client = &mut self.clients[at];
        client.session = None;
        client.waiting.clear();
        let Some(job) = &mut client.job else { return };
        let id = job.id;
        if job.request.key.is_some() && !dies {
            // The same request again, under its key.
            (job.sent, job.id) = (false, None);
        } else if job.request.detached && id.is_some() && !dies {
            job.hasty = true;
        } else {
            client.job = None;
            if let Some(id) = id {
                for database in &mut self.databases {
                    database.open.remove(&id);
                }
            }
        }
    }

    /// Whoever has nothing left to do in a transaction lets go of it.
    pub(super) fn client_finishes(&mut self, at: usize) {
        for database in &mut self.databases {
            database.open.clear();
        }
        self.clients[at].job = None;
    }

    /// Names of subscriptions that should have a subscriber.
    pub(super) fn subscriptions(&self) -> Vec<Name> {
        (0..self.subscribers.len().div_ceil(2)).map(|at| numbered("s", at)).collect()
    }
}
