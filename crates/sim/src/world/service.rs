//! Services: instances that share a durable store and follow the real participant's rows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use handfast_core::command::{Command, Vote};
use handfast_core::ids::{Began, SessionId, TransactionId};
use handfast_core::output::{Reply, ToService};
use handfast_core::participant::{
    Answer, BranchInput, BranchState, Durable, Row, Synced, Work, inquiry_pause_ms,
    maybe_forgotten, step,
};

use super::{Down, Peer, World, numbered, state_id};
use crate::fault::Fault;
use crate::invariants::Seen;
use crate::rng::mix;

/// Messages of the past that are kept, to arrive again.
const REMEMBERED: usize = 20;

/// A service.
#[derive(Debug)]
pub(super) struct Service {
    /// Its name.
    pub name: handfast_core::ids::Name,
    /// Its durable states.
    pub stores: Vec<Store>,
    /// Its instances.
    pub instances: Vec<Instance>,
}

/// What is durable of a service.
#[derive(Debug, Default)]
pub(super) struct Store {
    branches: BTreeMap<TransactionId, Branch>,
    /// When the latest transaction began whose commit was forgotten.
    horizon: Option<Began>,
    /// The same by the time in its id, which only a planted bug looks at.
    horizon_ms: Option<u64>,
    /// When transactions began, as their prepares say, or their commits.
    begun: BTreeMap<TransactionId, Began>,
    /// How often a vote was asked for.
    prepares: BTreeMap<TransactionId, u32>,
    said: Vec<Command>,
    heard: Vec<ToService>,
}

/// One branch in a store.
#[derive(Debug)]
struct Branch {
    state: BranchState,
    reason: String,
    effects: u32,
    asked: u32,
    inquire_ms: u64,
}

/// An instance of a service.
#[derive(Debug)]
pub(super) struct Instance {
    name: handfast_core::ids::Name,
    store: usize,
    up: bool,
    session: Option<SessionId>,
    /// Work under way, in memory.
    working: BTreeSet<TransactionId>,
    /// When it asks next which outcomes it may forget.
    forget_ms: u64,
}

impl Instance {
    /// An instance that is not connected yet.
    #[must_use]
    pub(super) fn new(at: usize, store: usize) -> Self {
        let name = numbered("i", at);
        Self { name, store, up: true, session: None, working: BTreeSet::new(), forget_ms: 0 }
    }
}

impl Store {
    /// Whether the transaction may have been committed here and forgotten.
    fn maybe_forgotten(&self, fault: Option<Fault>, id: TransactionId) -> bool {
        if fault == Some(Fault::HorizonByClock) {
            return self.horizon_ms.is_some_and(|newest| id.unix_ms() <= newest);
        }
        self.begun.get(&id).is_some_and(|began| maybe_forgotten(*began, self.horizon))
    }

    /// Transactions that are prepared here.
    pub(super) fn prepared(&self) -> impl Iterator<Item = TransactionId> {
        let prepared = self.branches.iter().filter(|(_, b)| b.state == BranchState::Prepared);
        prepared.map(|(id, _)| *id)
    }

    /// When the next inquiry is due.
    pub(super) fn next_inquiry_ms(&self) -> Option<u64> {
        let prepared = self.branches.values().filter(|b| b.state == BranchState::Prepared);
        prepared.map(|b| b.inquire_ms).min()
    }
}

impl World {
    /// Some instance goes on with what it has to do.
    pub(super) fn instance_step(&mut self) {
        let service = self.rng.index(self.services.len());
        let at = self.rng.index(self.services[service].instances.len());
        self.instance_act(service, at);
    }

    pub(super) fn instance_act(&mut self, service: usize, at: usize) {
        let instance = &mut self.services[service].instances[at];
        if !instance.up {
            return;
        }
        let store = instance.store;
        let Some(session) = instance.session else {
            let name = instance.name.clone();
            let session = self.open(Peer::Instance(service, at));
            self.services[service].instances[at].session = Some(session);
            let attach = Command::Attach {
                service: self.services[service].name.clone(),
                instance: name,
                state_id: state_id(service, store),
            };
            self.send(session, attach);
            return;
        };
        let working = instance.working.iter().next().copied();
        if let Some(id) = working {
            let fate = mix(id.0 as u64 ^ (service as u64) << 32) % 100;
            let input = if fate >= self.plan.works {
                BranchInput::WorkFailed { reason: "the work failed".into(), retryable: false }
            } else if fate.is_multiple_of(8) {
                BranchInput::WorkReadOnly
            } else {
                BranchInput::WorkDone
            };
            self.branch(service, at, id, input);
        }
        let now_ms = self.now.mono_ms;
        let due = self.services[service].stores[store].branches.iter().find_map(|(id, b)| {
            (b.state == BranchState::Prepared && b.inquire_ms <= now_ms).then_some(*id)
        });
        if let Some(id) = due {
            if self.fault == Some(Fault::PreparedGivesUp) && !self.healing {
                return self.force(service, store, id, BranchState::Aborted);
            }
            self.branch(service, at, id, BranchInput::InquiryTimer);
        }
        let asks = self.services[service].instances[at].forget_ms <= now_ms;
        if asks && (self.healing || self.rng.percent(5)) {
            self.services[service].instances[at].forget_ms = now_ms + 1_000;
            let store = &self.services[service].stores[store];
            let ended = store.branches.iter().filter(|(_, b)| b.state != BranchState::Prepared);
            let outcomes = ended.map(|(id, _)| (*id, store.begun.get(id).copied()));
            let outcomes: Vec<_> = outcomes.collect();
            if !outcomes.is_empty() {
                self.send(session, Command::MayForget { outcomes });
            }
        }
    }

    /// An instance restarts, stops, starts, or gives up on work that it has not voted for.
    pub(super) fn service_trouble(&mut self) {
        let service = self.rng.index(self.services.len());
        let at = self.rng.index(self.services[service].instances.len());
        let working = self.services[service].instances[at].working.iter().next().copied();
        if self.plan.disasters && self.rng.percent(40) {
            return self.disaster(service);
        }
        match self.rng.below(4) {
            0 | 1 => self.restart_instance(service, at),
            2 => {
                let up = !self.services[service].instances[at].up;
                self.services[service].instances[at].up = up;
                if !up {
                    self.restart_instance(service, at);
                }
            }
            _ => {
                if let Some(id) = working {
                    let input = [BranchInput::Timeout, BranchInput::Disconnect];
                    let input = input[self.rng.index(2)].clone();
                    self.branch(service, at, id, input);
                }
            }
        }
    }

    /// All instances are up again.
    pub(super) fn instances_up(&mut self) {
        for service in &mut self.services {
            for instance in &mut service.instances {
                instance.up = true;
            }
        }
    }

    fn restart_instance(&mut self, service: usize, at: usize) {
        self.services[service].instances[at].working.clear();
        if let Some(session) = self.services[service].instances[at].session {
            self.break_stream(session);
        }
        let store = self.services[service].instances[at].store;
        for branch in self.services[service].stores[store].branches.values_mut() {
            // Row P8: it inquires as soon as it is connected.
            branch.inquire_ms = self.now.mono_ms;
        }
    }

    /// Against all rules a branch is lost, or an operator forces it.
    fn disaster(&mut self, service: usize) {
        let store = self.rng.index(self.services[service].stores.len());
        let prepared: Vec<_> = self.services[service].stores[store].prepared().collect();
        let Some(id) = self.rng.pick(&prepared).copied() else { return };
        self.facts.disasters.insert(id);
        self.trace.line(format_args!("{} disaster with {id}", self.now.mono_ms));
        if self.rng.percent(50) {
            self.services[service].stores[store].branches.remove(&id);
            self.facts.branches.remove(&(self.place(service, store), id));
        } else {
            self.force(service, store, id, BranchState::Aborted);
        }
    }

    fn force(&mut self, service: usize, store: usize, id: TransactionId, to: BranchState) {
        let place = self.place(service, store);
        if let Some(branch) = self.services[service].stores[store].branches.get_mut(&id) {
            let from = std::mem::replace(&mut branch.state, to);
            self.facts.branches.insert((place.clone(), id), to);
            self.see(&Seen::Branch(&place, id, from, to));
        }
    }

    /// A message arrives that was sent before: a vote or report on a newer stream, or something
    /// that lay with a slow instance.
    pub(super) fn stale_message(&mut self) {
        let service = self.rng.index(self.services.len());
        let at = self.rng.index(self.services[service].instances.len());
        let instance = &self.services[service].instances[at];
        let (Some(session), true) = (instance.session, instance.up) else { return };
        let store = &self.services[service].stores[instance.store];
        if self.rng.percent(50) {
            if let Some(command) = self.rng.pick(&store.said).cloned() {
                self.send(session, command);
            }
        } else if let Some(message) = self.rng.pick(&store.heard).cloned() {
            self.instance_hears(service, at, message);
        }
    }

    pub(super) fn instance_told(&mut self, service: usize, at: usize, message: Down) {
        match message {
            Down::ToService(message) => {
                self.remember(service, at, message.clone());
                self.instance_hears(service, at, message);
            }
            Down::Reply(_, Reply::Forget(ids)) => {
                for id in ids {
                    self.branch(service, at, id, BranchInput::Forget);
                }
            }
            Down::Reply(..) | Down::Deliver(_) | Down::Gap(_) | Down::Finish { .. } | Down::End => {
            }
        }
    }

    /// What was on its way on a stream that broke may be with the instance already, which is slow to
    /// look at it.
    pub(super) fn left_unread(&mut self, service: usize, at: usize, left: VecDeque<Down>) {
        for message in left {
            if let Down::ToService(message) = message {
                self.remember(service, at, message);
            }
        }
    }

    fn remember(&mut self, service: usize, at: usize, message: ToService) {
        let store = self.services[service].instances[at].store;
        let heard = &mut self.services[service].stores[store].heard;
        if heard.len() == REMEMBERED {
            heard.remove(0);
        }
        heard.push(message);
    }

    pub(super) fn instance_lost(&mut self, service: usize, at: usize, session: SessionId) {
        let instance = &mut self.services[service].instances[at];
        if instance.session == Some(session) {
            instance.session = None;
        }
    }

    fn instance_hears(&mut self, service: usize, at: usize, message: ToService) {
        match message {
            ToService::Prepare { id, began, work, .. } => {
                let store = self.services[service].instances[at].store;
                let store = &mut self.services[service].stores[store];
                *store.prepares.entry(id).or_default() += 1;
                store.begun.insert(id, began);
                let maybe_forgotten = store.maybe_forgotten(self.fault, id);
                let has_work = work.is_some();
                self.branch(service, at, id, BranchInput::Prepare { has_work, maybe_forgotten });
            }
            ToService::Commit { id, began } => {
                if self.fault != Some(Fault::PlaceOnlyInPrepare) {
                    let store = self.services[service].instances[at].store;
                    let begun = &mut self.services[service].stores[store].begun;
                    begun.entry(id).or_insert(began);
                }
                self.branch(service, at, id, BranchInput::Commit);
            }
            ToService::Abort { id } => self.branch(service, at, id, BranchInput::Abort),
            ToService::Pending { id, retry_after_ms } => {
                let store = self.services[service].instances[at].store;
                let branches = &mut self.services[service].stores[store].branches;
                if let Some(branch) = branches.get_mut(&id) {
                    branch.inquire_ms = self.now.mono_ms + retry_after_ms;
                }
            }
            ToService::Forget { ids } => {
                for id in ids {
                    self.branch(service, at, id, BranchInput::Forget);
                }
            }
        }
    }

    /// A client asks an instance for work by other means.
    pub(super) fn start_work(&mut self, service: usize, id: TransactionId) {
        let count = self.services[service].instances.len();
        // Who is slow hears of it last by other means as well.
        let at = if self.plan.slow { count - 1 } else { self.rng.index(count) };
        if self.services[service].instances[at].up {
            self.branch(service, at, id, BranchInput::Start);
        }
    }

    /// One step of a branch at an instance: work, the durable part, the answer.
    fn branch(&mut self, service: usize, at: usize, id: TransactionId, input: BranchInput) {
        let store = self.services[service].instances[at].store;
        let recorded = self.services[service].stores[store].branches.get(&id).map(|b| b.state);
        let working = self.services[service].instances[at].working.contains(&id);
        let from = match recorded {
            Some(state) => state,
            // Another instance may have brought it to its end while this one was at work: like
            // the state, what was forgotten is read in the step that writes.
            None if working
                && self.services[service].stores[store].maybe_forgotten(self.fault, id) =>
            {
                BranchState::None
            }
            None if working => BranchState::Working,
            None => BranchState::None,
        };
        let is_commit = input == BranchInput::Commit;
        let reason = match &input {
            BranchInput::WorkFailed { reason, .. } => reason.clone(),
            _ => String::new(),
        };
        let mut step = step(from, input);
        if self.fault == Some(Fault::VoteBeforeRecord)
            && step.durable == Some(Durable::Prepare)
            && self.rng.percent(20)
        {
            step.durable = None;
        }
        if !self.healing && step.durable.is_some() && self.rng.percent(2) {
            // The durable step fails: nothing of it has happened.
            return self.restart_instance(service, at);
        }
        self.rows.participant(step.row);
        self.trace.line(format_args!("{} {service}/{at} {id} {:?}", self.now.mono_ms, step.row));
        match step.work {
            Some(Work::Do) => {
                self.services[service].instances[at].working.insert(id);
            }
            Some(Work::Finish) | None => {}
        }
        match step.next {
            BranchState::Working => {
                self.services[service].instances[at].working.insert(id);
            }
            _ => {
                self.services[service].instances[at].working.remove(&id);
            }
        }
        if let Some(durable) = step.durable {
            self.record(service, store, id, from, durable, reason);
        }
        if is_commit && step.row == Row::P11 && self.fault == Some(Fault::CommitAppliedTwice) {
            self.apply(service, store, id);
        }
        let Some(held) = step.then else { return };
        let answer = held.release(&Synced::now());
        if self.healing || self.rng.percent(95) {
            self.answer(service, at, id, answer);
        }
    }

    fn record(
        &mut self,
        service: usize,
        store: usize,
        id: TransactionId,
        from: BranchState,
        durable: Durable,
        reason: String,
    ) {
        let place = self.place(service, store);
        let inquire_ms = self.now.mono_ms + inquiry_pause_ms(0, self.rng.bits());
        let kept = &mut self.services[service].stores[store];
        match durable.records() {
            Some(state) => {
                let branch = kept.branches.entry(id).or_insert(Branch {
                    state,
                    reason: String::new(),
                    effects: 0,
                    asked: 0,
                    inquire_ms,
                });
                branch.state = state;
                if state == BranchState::Aborted {
                    branch.reason = reason;
                    self.facts.refusals.insert((place.0.clone(), id));
                }
                self.facts.branches.insert((place.clone(), id), state);
                self.see(&Seen::Branch(&place, id, from, state));
            }
            None => {
                kept.branches.remove(&id);
                if from == BranchState::Committed {
                    kept.horizon = kept.horizon.max(kept.begun.get(&id).copied());
                    kept.horizon_ms = kept.horizon_ms.max(Some(id.unix_ms()));
                }
                self.facts.branches.remove(&(place.clone(), id));
                self.see(&Seen::Branch(&place, id, from, BranchState::None));
            }
        }
        if durable == Durable::Apply {
            self.apply(service, store, id);
        }
    }

    fn apply(&mut self, service: usize, store: usize, id: TransactionId) {
        let place = self.place(service, store);
        if let Some(branch) = self.services[service].stores[store].branches.get_mut(&id) {
            branch.effects += 1;
            let effects = branch.effects;
            self.see(&Seen::Effect(&place, id, effects));
        }
    }

    fn answer(&mut self, service: usize, at: usize, id: TransactionId, answer: Answer) {
        let store = self.services[service].instances[at].store;
        let kept = &mut self.services[service].stores[store];
        let command = match answer {
            Answer::Vote(vote) => {
                // A first prepare that is taken for a late repeat is no reason to fail.
                let for_cause =
                    kept.branches.contains_key(&id) || kept.prepares.get(&id) > Some(&1);
                if matches!(vote, Vote::No { .. }) && for_cause {
                    let name = self.services[service].name.clone();
                    self.facts.refusals.insert((name, id));
                }
                Command::Vote { id, vote }
            }
            Answer::NoAsRecorded => {
                let reason = kept.branches.get(&id).map(|b| b.reason.clone()).unwrap_or_default();
                Command::Vote { id, vote: Vote::No { reason, retryable: true } }
            }
            Answer::Finished { committed } => Command::Finished { id, committed },
            Answer::NotKnown => Command::NotKnown { id },
            Answer::Inquire => {
                let pause = match kept.branches.get_mut(&id) {
                    Some(branch) => {
                        branch.asked += 1;
                        branch.asked
                    }
                    None => 0,
                };
                let pause_ms = inquiry_pause_ms(pause, self.rng.bits());
                if let Some(branch) = self.services[service].stores[store].branches.get_mut(&id) {
                    branch.inquire_ms = self.now.mono_ms + pause_ms;
                }
                Command::Inquire { id }
            }
        };
        let said = &mut self.services[service].stores[store].said;
        if said.len() == REMEMBERED {
            said.remove(0);
        }
        said.push(command.clone());
        if let Some(session) = self.services[service].instances[at].session {
            self.send(session, command);
        }
    }
}
