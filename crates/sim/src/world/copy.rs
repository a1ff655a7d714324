//! Copies of the store as a fault: the log as it was at some moment is put in place, and a server
//! runs on it, while the databases keep what they have. Then the right store is back.
//!
//! Copies are made while the store is stopped, while it runs, and while it stands still. They go on:
//! they publish, begin, commit and restart, so that their epochs and their places in the log rise,
//! and they finish, roll back and resolve in every database that they take for their own. What they
//! do there is judged by what the right store has decided (I1).

use std::sync::Arc;

use bytes::Bytes;
use handfast_core::command::{
    BeginRequest, BranchRequest, Caller, Command, CommitRequest, DatabaseVote, Wait,
};
use handfast_core::event::EventRequest;
use handfast_core::ids::{
    Digest, Lsn, Name, Now, ProducerId, SessionId, StoreId, Tick, TransactionId,
};
use handfast_core::input::{BranchReport, Chain, Found, Input, Resolution};
use handfast_core::output::{Output, PublicState, Reply};
use handfast_core::record::{Opened, Participant, ParticipantKind, Record};
use handfast_core::{Core, Recovery};

use super::owner::{Known, Life, Says};
use super::{World, numbered};

/// Copies that are kept at once.
const MOST: usize = 3;
/// Nobody but a copy uses it.
const PRODUCER: u128 = 1 << 64;

/// A store that was copied from the right one.
#[derive(Clone, Debug)]
pub(super) struct StoreCopy {
    log: Vec<Arc<Record>>,
    /// It is of a life that went on, in which the log was so long when it was copied.
    of_running: Option<u64>,
}

/// A copy that is in place, with its server.
struct Running {
    core: Core,
    life: Life,
    log: Vec<Arc<Record>>,
    now: Now,
    last_tick: Tick,
    requests: u64,
    /// What it has begun, and whether that was committed.
    replies: Vec<(TransactionId, PublicState)>,
}

impl World {
    /// The store is stopped and copied, now and then.
    pub(super) fn copy_stopped(&mut self) {
        if !self.databases.is_empty() && self.plan.copies && self.rng.percent(40) {
            self.keep_copy(None);
        }
    }

    /// The disk is copied while the server runs.
    pub(super) fn copy_running(&mut self) {
        let open = self.open_in_databases();
        if open.is_some() || self.rng.percent(10) {
            self.keep_copy(Some(self.facts.durable));
            self.bait = open.or(self.bait);
        }
    }

    /// A copy may come to judge it wrongly: its BEGIN is durable, it is prepared, and undecided.
    fn open_in_databases(&self) -> Option<TransactionId> {
        let facts = &self.facts;
        let undecided = |id: &TransactionId| {
            let chain = facts.chains.get(id);
            let begun = chain.filter(|chain| chain.begin.is_some_and(|at| facts.is_durable(at)));
            begun.is_some_and(|chain| chain.decision.is_none())
        };
        facts.prepared.iter().map(|(_, id)| *id).find(|id| undecided(id))
    }

    /// What was open as the store was copied is decided now, and not finished: let the server end.
    pub(super) fn is_baited(&mut self) -> bool {
        let Some(id) = self.bait else { return false };
        if self.facts.decision(id).is_none() {
            return false;
        }
        let unfinished = self.facts.prepared.iter().any(|(_, of)| *of == id);
        if !unfinished || self.facts.durable_decision(id) == Some(false) {
            self.bait = None;
            return false;
        }
        let usable = (0..self.copies.len()).any(|at| self.may_be_put_in_place(at));
        let now = self.facts.durable_decision(id) == Some(true) && usable;
        if now {
            self.bait = None;
        }
        now
    }

    fn keep_copy(&mut self, of_running: Option<u64>) {
        if self.copies.len() == MOST {
            let at = self.rng.index(MOST);
            self.copies.swap_remove(at);
        }
        let length = of_running.map_or(self.facts.log.len(), |length| length as usize);
        let log = self.facts.log[..length].to_vec();
        self.trace.line(format_args!("{} {length} records are copied", self.now.mono_ms));
        self.copies.push(StoreCopy { log, of_running });
    }

    /// The server stands still; its store is copied right then, and copies may run meanwhile. What was
    /// on its way to the disk is on it: else it is decided when the server goes on, as databases.md
    /// says of virtual machines that are cloned with their memory.
    pub(super) fn stand_still(&mut self) {
        if self.open_in_databases().is_none() && !self.rng.percent(10) {
            return;
        }
        self.settle_disk();
        if self.checkers.violation.is_some() {
            return;
        }
        self.trace.line(format_args!("{} the server stands still", self.now.mono_ms));
        self.keep_copy(None);
        self.put_in_place(self.copies.len() - 1);
        self.run_copies(500);
        // It notices three seconds.
        self.advance(3_000);
        self.feed(Input::Paused);
        for at in 0..self.databases.len() {
            self.look_at(at);
        }
    }

    /// Copies are put in place, one after the other, while the right store is not at work.
    pub(super) fn run_copies(&mut self, longest_ms: u64) {
        if self.copies.is_empty() || !self.rng.percent(60) {
            return;
        }
        for _ in 0..self.rng.between(1, 4) {
            for at in 0..self.databases.len() {
                if self.rng.percent(20) {
                    self.databases[at].up ^= true;
                    self.databases[at].open.clear();
                }
            }
            let at = self.rng.index(self.copies.len());
            if !self.may_be_put_in_place(at) {
                continue;
            }
            self.put_in_place(at);
            let ms = self.rng.below(longest_ms);
            self.advance(ms);
        }
    }

    fn put_in_place(&mut self, at: usize) {
        let log = self.copies[at].log.clone();
        self.trace.line(format_args!("{} a copy of {} records runs", self.now.mono_ms, log.len()));
        self.copies[at].log = self.run_copy(log);
    }

    /// The one case of databases.md that cannot be told: the snapshot of a running life, while no
    /// database that answers has been told anything by that life or a later one since.
    fn may_be_put_in_place(&self, at: usize) -> bool {
        let copy = &self.copies[at];
        let Some(length) = copy.of_running else { return true };
        let is_known = |row: &handfast_core::owner::Owner| {
            let opened =
                |r: &Arc<Record>| matches!(&**r, Record::Opened(o) if o.opening == row.opening);
            copy.log.iter().any(opened) && row.durable_lsn.0 <= length
        };
        self.databases.iter().any(|d| d.up && d.owner.as_ref().is_some_and(|row| !is_known(row)))
    }

    /// What the log is when the copy is stopped again.
    fn run_copy(&mut self, log: Vec<Arc<Record>>) -> Vec<Arc<Record>> {
        let mut copy = self.open_copy(log);
        if self.rng.percent(60) {
            // As a server does; else it goes on before it reaches them.
            for at in 0..self.databases.len() {
                self.copy_claims(&mut copy, at);
            }
        }
        for _ in 0..self.rng.between(2, 14) {
            if self.checkers.violation.is_some() {
                break;
            }
            match self.rng.below(10) {
                0 | 1 => {
                    for _ in 0..self.rng.between(1, 60) {
                        copy.publish();
                    }
                }
                2 => {
                    self.settle_copy(&mut copy);
                    copy = self.open_copy(copy.log);
                }
                3..7 if !self.databases.is_empty() => {
                    let at = self.rng.index(self.databases.len());
                    self.copy_claims(&mut copy, at);
                }
                7 => self.copy_begins(&mut copy),
                8 => {
                    let ms = self.rng.below(15_000);
                    copy.now.mono_ms += ms;
                    copy.now.wall_ms += ms;
                    copy.input(Input::Tick);
                }
                _ => self.copy_audits(&mut copy),
            }
            self.settle_copy(&mut copy);
        }
        for (id, state) in copy.replies {
            let committed = state != PublicState::Failed;
            self.facts.decided_by_copies.insert(id, committed);
        }
        copy.log
    }

    fn open_copy(&mut self, mut log: Vec<Arc<Record>>) -> Running {
        let newest_ms = log.iter().map(|record| record.newest_ms()).max().unwrap_or(0);
        let wall_ms = self.now.wall_ms.max(newest_ms + 1);
        let now = Now { mono_ms: self.now.mono_ms, wall_ms };
        let epoch = log.iter().rev().find_map(|record| match &**record {
            Record::Opened(opened) => Some(opened.epoch),
            _ => None,
        });
        let (opening, epoch) = (self.new_opening(), epoch.unwrap_or_default() + 1);
        let opened = Opened { store: StoreId(1), epoch, opening, wall_ms, newest_ms };
        log.push(Arc::new(Record::Opened(opened)));
        let mut recovery = Recovery::new(self.facts.limits.clone());
        for (lsn, record) in (1..).map(Lsn).zip(&log) {
            recovery.apply(lsn, record);
        }
        for lsn in recovery.elsewhere() {
            let at = usize::try_from(lsn.0 - 1).expect("the log fits into memory");
            recovery.recall(lsn, &log[at]);
        }
        let core = recovery.finish(now);
        let (life, last_tick) = (Life::new(opening), Tick::first_of(wall_ms));
        let (requests, replies) = (0, Vec::new());
        let mut copy = Running { core, life, log, now, last_tick, requests, replies };
        copy.input(Input::Space { free: 1 << 30, low: false });
        for database in &self.databases {
            copy.input(Input::Database { name: database.name.clone(), up: false });
        }
        self.settle_copy(&mut copy);
        copy
    }

    fn copy_claims(&mut self, copy: &mut Running, at: usize) {
        let name = self.databases[at].name.clone();
        let mut life = copy.life.clone();
        let ours = copy.saying(|says| self.claim_for(&mut life, says, at));
        copy.life = life;
        self.trace.line(format_args!("{} copy claims {name}: {ours}", self.now.mono_ms));
        if ours {
            let asked_ms = copy.now.mono_ms;
            copy.input(Input::Claimed { name: name.clone(), asked_ms });
        }
        copy.input(Input::Database { name, up: ours });
        if ours {
            self.settle_copy(copy);
            self.copy_audits(copy);
        }
    }

    fn copy_audits(&mut self, copy: &mut Running) {
        let mut life = copy.life.clone();
        copy.saying(|says| self.audit_for(&mut life, says));
        copy.life = life;
    }

    /// Somebody who was led to the copy begins there, and commits.
    fn copy_begins(&mut self, copy: &mut Running) {
        let at = self.rng.index(self.databases.len());
        let name = self.databases[at].name.clone();
        let id = copy.new_transaction_id();
        let participant = Participant { name: name.clone(), kind: ParticipantKind::Database };
        copy.command(Command::Begin(Box::new(BeginRequest {
            id,
            local: None,
            deadline_ms: None,
            key: None,
            detached: true,
            branches: vec![BranchRequest { participant, work: None }],
            events: Vec::new(),
            acknowledgements: Vec::new(),
            commit: None,
        })));
        self.settle_copy(copy);
        let begun = copy.log.iter().any(|r| matches!(&**r, Record::Begin(b) if b.id == id));
        if !begun || !self.databases[at].up {
            return;
        }
        self.facts.prepared.insert((name.clone(), id));
        if self.rng.percent(20) {
            // Its client is gone.
            return;
        }
        let vote = DatabaseVote { database: name, holder: None, finishes: false, vouched: true };
        let votes = vec![vote];
        let request =
            CommitRequest { branches: 1, items: 0, votes, vouched: true, wait: Wait::Decided };
        copy.command(Command::Commit { id, request });
    }

    /// Everything that the copy wants done is done, where it may do it.
    fn settle_copy(&mut self, copy: &mut Running) {
        loop {
            while let Some(output) = copy.core.poll_output() {
                self.carry_out_for(copy, output);
            }
            let through = copy.core.last();
            if copy.core.durable() == through || self.checkers.violation.is_some() {
                return;
            }
            copy.input(Input::Accepted { through });
            copy.input(Input::Durable { through });
        }
    }

    fn carry_out_for(&mut self, copy: &mut Running, output: Output) {
        let mine = |database: &Name| copy.life.has(database);
        let input = match output {
            Output::Append { record, .. } => {
                copy.log.push(record);
                return;
            }
            Output::FinishBranch { id, database, commit, .. } => {
                let report = self.finish_for(copy, id, &database, commit);
                Input::BranchFinished { id, database, report }
            }
            Output::Resolve { id, database, .. } => {
                let resolution =
                    if mine(&database) { self.resolve(id, &database) } else { Resolution::Unknown };
                Input::Resolved { id, resolution }
            }
            Output::Verify { id, database, .. } => {
                Input::Verified { id, database, found: Found::Unknown }
            }
            Output::ReadChain { id } => {
                let of_it = (1..).zip(&copy.log).filter(|(_, r)| r.transaction() == Some(id));
                let records = of_it.map(|(lsn, record)| (Lsn(lsn), (**record).clone())).collect();
                Input::Chain { id, chain: Chain { records, whole: true } }
            }
            Output::Reply { reply: Reply::Outcome(outcome), .. } => {
                copy.replies.push((outcome.id, outcome.state));
                return;
            }
            // Services, subscribers and other clients are not led to it.
            _ => return,
        };
        copy.input(input);
    }

    fn finish_for(
        &mut self,
        copy: &Running,
        id: TransactionId,
        database: &Name,
        commit: bool,
    ) -> BranchReport {
        let Some(at) = self.index(database).filter(|_| copy.life.has(database)) else {
            return BranchReport::Unknown;
        };
        let made = copy.core.openings().of(id);
        let earlier = made.is_none_or(|made| made.end.is_some());
        if !commit && earlier && !self.may_roll_back(&copy.life, at, id) {
            return BranchReport::Unknown;
        }
        if commit && made.is_some_and(|made| made.end.is_none()) {
            self.facts.decided_by_copies.insert(id, true);
        }
        self.finish(id, database, commit)
    }
}

impl Running {
    fn input(&mut self, input: Input) {
        self.core.handle(self.now, input);
    }

    fn command(&mut self, command: Command) {
        self.requests += 1;
        let caller = Caller { session: SessionId(1), request: self.requests };
        self.input(Input::Command { caller, command });
    }

    fn publish(&mut self) {
        let body = Bytes::from_static(b"of a copy");
        let event = EventRequest { topic: numbered("t", 0), key: None, body };
        let sequence = self.requests;
        let (producer, digest) = (ProducerId(PRODUCER), Digest(sequence));
        self.command(Command::Publish { producer, sequence, digest, events: vec![event] });
    }

    fn new_transaction_id(&mut self) -> TransactionId {
        self.last_tick.0 += 1;
        TransactionId::new(self.last_tick, 0, self.core.epoch(), self.life.opening)
    }

    fn saying<T>(&self, look: impl FnOnce(&Says<'_>) -> T) -> T {
        let knows = |id| {
            let mut known = Known::Nothing;
            for record in self.log.iter().filter(|record| record.transaction() == Some(id)) {
                known = match &**record {
                    Record::Abort(_) => return Known::Aborted,
                    _ => Known::Otherwise,
                };
            }
            known
        };
        let (openings, durable) = (self.core.openings(), self.core.durable());
        look(&Says { openings, durable, knows: &knows })
    }
}
