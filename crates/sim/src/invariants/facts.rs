//! What is true of the world: the log as it stands, what is durable in it, what participants and
//! databases hold, and who asked for what. The checkers read it; only the world writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use handfast_core::Stats;
use handfast_core::command::{Act, Caller, Command};
use handfast_core::event::{Body, DeliveryRef};
use handfast_core::ids::{
    KeyHash, Lsn, Name, Now, Offset, SessionId, StateId, SubscriptionId, TopicId, TransactionId,
};
use handfast_core::input::Input;
use handfast_core::limits::Limits;
use handfast_core::output::{Output, Reply};
use handfast_core::participant::BranchState;
use handfast_core::record::{Record, SubscriptionCreated};

/// A durable state of a service.
pub type Place = (Name, StateId);

/// What the log says of a transaction.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    /// BEGIN.
    pub begin: Option<Lsn>,
    /// It is a local one.
    pub local: bool,
    /// The first decision, and whether it is COMMIT.
    pub decision: Option<(Lsn, bool)>,
    /// What operators did, the last of it.
    pub operated: Option<Lsn>,
    /// What operators did before that.
    pub operated_before: Option<Lsn>,
    /// END.
    pub end: Option<Lsn>,
    /// The last record.
    pub last: Lsn,
}

/// An event in the log.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The record that holds it.
    pub lsn: Lsn,
    /// Its ordering key.
    pub key: Option<KeyHash>,
    /// Its bytes.
    pub body: Bytes,
    /// The transaction that published it.
    pub transaction: Option<TransactionId>,
}

/// What was asked of the coordinator about a transaction.
#[derive(Clone, Debug, Default)]
pub struct Intent {
    /// The stream it fails with.
    pub owner: Option<SessionId>,
    /// That stream has ended.
    pub owner_gone: bool,
    /// Branches that were taken.
    pub branches: usize,
    /// Items that were taken.
    pub items: usize,
    /// Counts of every commit that was asked while it was undecided.
    pub commits: Vec<(usize, usize)>,
    /// Somebody asked to abort it.
    pub abort_asked: bool,
    /// An operator wanted it to fail.
    pub operator_asked: bool,
    /// When it fails, on the monotonic clock.
    pub deadline_ms: u64,
    /// Services and databases in it.
    pub participants: Vec<Name>,
}

/// A command that was not answered yet, as far as checkers need to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Begin: id, key, whether it is local.
    Begin(TransactionId, Option<String>, bool),
    /// More branches.
    Enlist(TransactionId, Vec<Name>),
    /// More items.
    Stage(TransactionId, usize, Vec<DeliveryRef>),
    /// A new deadline.
    Extend(TransactionId),
    /// Commit, abort, status or show.
    About(TransactionId),
    /// Publish: by whom, under which number, and what.
    Publish(u128, u64, Vec<Bytes>),
    /// Acknowledge.
    Acknowledge(Vec<DeliveryRef>),
    /// Anything else.
    Other,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Facts {
    /// The time.
    pub now: Now,
    /// The limits of the server.
    pub limits: Limits,
    /// Every record that stands; index 0 is LSN 1.
    pub log: Vec<Arc<Record>>,
    /// When each of them was appended, on the monotonic clock.
    pub appended_ms: Vec<u64>,
    /// So many of them are truly on disk.
    pub durable: u64,
    /// So many of them have their place.
    pub accepted: u64,
    /// Transactions in the log.
    pub chains: BTreeMap<TransactionId, Chain>,
    /// Events in the log.
    pub events: BTreeMap<(TopicId, Offset), Placed>,
    /// Acknowledged events, and dead letters.
    pub done: BTreeMap<(SubscriptionId, Offset), Lsn>,
    /// Dead letters.
    pub dead: BTreeSet<(SubscriptionId, Offset)>,
    /// Subscriptions in the log.
    pub subscriptions: BTreeMap<SubscriptionId, (Lsn, SubscriptionCreated)>,
    /// Where each topic was cut off.
    pub truncated: BTreeMap<TopicId, Vec<(Lsn, Offset)>>,
    /// Transactions that were begun under each key.
    pub keys: BTreeMap<String, Vec<TransactionId>>,
    /// Batches in the log, by their number. A number that is forgotten may be used again.
    pub batches: BTreeMap<(u128, u64), Vec<Lsn>>,
    /// What was asked, by transaction. Only of this run of the server.
    pub intents: BTreeMap<TransactionId, Intent>,
    /// Transactions that were begun before the last restart.
    pub restarted: BTreeSet<TransactionId>,
    /// Unanswered commands of this run of the server.
    pub asked: BTreeMap<Caller, Asked>,
    /// Which stream is which service.
    pub attached: BTreeMap<SessionId, Place>,
    /// What the services' stores hold.
    pub branches: BTreeMap<(Place, TransactionId), BranchState>,
    /// Services that have said NO (or that they had aborted).
    pub refusals: BTreeSet<(Name, TransactionId)>,
    /// Visible markers (true) and tombstones (false) of the databases.
    pub rows: BTreeMap<(Name, TransactionId), bool>,
    /// Branches that are prepared in the databases.
    pub prepared: BTreeSet<(Name, TransactionId)>,
    /// What copies of the store have decided about transactions that they have begun.
    pub decided_by_copies: BTreeMap<TransactionId, bool>,
    /// Branches that somebody lost or forced, against the rules.
    pub disasters: BTreeSet<TransactionId>,
    /// Sessions that are open at the server.
    pub sessions: BTreeSet<SessionId>,
    /// The core's own figures, after the last input.
    pub stats: Stats,
    /// Restarts of the server.
    pub crashes: u32,
}

impl Facts {
    /// Whether a record is on disk.
    #[must_use]
    pub fn is_durable(&self, lsn: Lsn) -> bool {
        lsn.0 <= self.durable
    }

    /// The record at a place.
    #[must_use]
    pub fn record(&self, lsn: Lsn) -> Option<&Record> {
        let at = usize::try_from(lsn.0.checked_sub(1)?).ok()?;
        self.log.get(at).map(|record| &**record)
    }

    /// Where the batch with these events is that was published under a number.
    #[must_use]
    pub fn batch(&self, number: (u128, u64), bodies: &[Bytes]) -> Option<Lsn> {
        let says = |lsn: &&Lsn| match self.record(**lsn) {
            Some(Record::Published(published)) => {
                let of = |body: &Body| match body {
                    Body::Here(body) => Some(body.clone()),
                    Body::InBegin { .. } => None,
                };
                published
                    .events
                    .iter()
                    .map(|event| of(&event.body))
                    .eq(bodies.iter().cloned().map(Some))
            }
            _ => false,
        };
        self.batches.get(&number)?.iter().rev().find(says).copied()
    }

    /// The decision that is on disk: true for COMMIT.
    #[must_use]
    pub fn durable_decision(&self, id: TransactionId) -> Option<bool> {
        let (lsn, commit) = self.chains.get(&id)?.decision?;
        self.is_durable(lsn).then_some(commit)
    }

    /// Where a topic begins, by what is on disk.
    #[must_use]
    pub fn durable_start(&self, topic: TopicId) -> Offset {
        let cuts = self.truncated.get(&topic).into_iter().flatten();
        let durable = cuts.filter(|(lsn, _)| self.is_durable(*lsn)).map(|(_, start)| *start);
        durable.max().unwrap_or_default()
    }

    /// The decision that stands, on disk or not.
    #[must_use]
    pub fn decision(&self, id: TransactionId) -> Option<bool> {
        self.chains.get(&id)?.decision.map(|(_, commit)| commit)
    }

    /// Whether a database is an updater of a committed transaction.
    #[must_use]
    pub fn is_database_updater(&self, id: TransactionId, database: &Name) -> bool {
        let decision = self.chains.get(&id).and_then(|chain| chain.decision);
        let Some(Record::Commit(commit)) = decision.and_then(|(lsn, _)| self.record(lsn)) else {
            return false;
        };
        commit.updaters.iter().any(|updater| updater.participant.name == *database)
    }

    /// Whether a durable state of a service is an updater of a committed transaction.
    #[must_use]
    pub fn is_updater(&self, id: TransactionId, place: &Place) -> bool {
        let chain = self.chains.get(&id);
        let Some((lsn, true)) = chain.and_then(|chain| chain.decision) else { return false };
        match self.record(lsn) {
            Some(Record::Commit(commit)) => commit
                .updaters
                .iter()
                .any(|u| u.participant.name == place.0 && u.state_id == place.1),
            _ => false,
        }
    }

    /// The newest time in the log, in records and in ids.
    #[must_use]
    pub fn newest_ms(&self) -> u64 {
        self.log.iter().map(|record| record.newest_ms()).max().unwrap_or(0)
    }

    /// A record was appended.
    pub fn append(&mut self, record: &Arc<Record>) {
        self.log.push(Arc::clone(record));
        self.appended_ms.push(self.now.mono_ms);
        let lsn = Lsn(self.log.len() as u64);
        if let Record::Begin(begin) = &**record
            && let Some(intent) = self.intents.get_mut(&begin.id)
        {
            // It may have waited for a place; its time runs from its begin on (C21).
            intent.deadline_ms = self.now.mono_ms + begin.deadline_ms;
        }
        self.fold(lsn, record);
    }

    /// The server ended; only so many records are left.
    pub fn crash(&mut self, left: u64) {
        self.restarted.extend(self.intents.keys().copied());
        self.intents.clear();
        self.asked.clear();
        self.attached.clear();
        self.sessions.clear();
        self.crashes += 1;
        self.log.truncate(left as usize);
        self.appended_ms.truncate(left as usize);
        self.rebuild();
        self.durable = left;
        self.accepted = left;
    }

    /// Everything that follows from the log, anew.
    pub fn rebuild(&mut self) {
        self.chains.clear();
        self.events.clear();
        self.done.clear();
        self.dead.clear();
        self.subscriptions.clear();
        self.truncated.clear();
        self.keys.clear();
        self.batches.clear();
        // The bytes of a local transaction's events are found in its BEGIN, so the log stays.
        let log = self.log.clone();
        for (lsn, record) in (1..).zip(&log) {
            self.fold(Lsn(lsn), record);
        }
    }

    fn fold(&mut self, lsn: Lsn, record: &Record) {
        match record {
            Record::Begin(begin) => {
                let chain = self.chains.entry(begin.id).or_default();
                chain.begin.get_or_insert(lsn);
                chain.local = begin.local.is_some();
                chain.last = lsn;
                if let Some(key) = &begin.key {
                    self.keys.entry(key.key.to_string()).or_default().push(begin.id);
                }
            }
            Record::Commit(commit) => {
                let chain = self.chains.entry(commit.id).or_default();
                chain.decision.get_or_insert((lsn, true));
                chain.last = lsn;
                for event in &commit.events {
                    let body = self.body(commit.id, &event.body);
                    let (key, transaction) = (event.key, Some(commit.id));
                    let placed = Placed { lsn, key, body, transaction };
                    self.events.insert((event.topic, event.offset), placed);
                }
                for done in &commit.acknowledged {
                    self.done.entry(*done).or_insert(lsn);
                }
            }
            Record::Abort(abort) => {
                let chain = self.chains.entry(abort.id).or_default();
                chain.decision.get_or_insert((lsn, false));
                chain.last = lsn;
            }
            Record::Operated(operated) => {
                let chain = self.chains.entry(operated.id).or_default();
                chain.operated_before = chain.operated.replace(lsn);
                chain.last = lsn;
            }
            Record::End(end) => {
                let chain = self.chains.entry(end.id).or_default();
                chain.end.get_or_insert(lsn);
                chain.last = lsn;
            }
            Record::Published(published) => {
                let number = (published.producer.0, published.sequence);
                self.batches.entry(number).or_default().push(lsn);
                for event in &published.events {
                    let Body::Here(body) = &event.body else { continue };
                    let (key, body) = (event.key, body.clone());
                    let placed = Placed { lsn, key, body, transaction: None };
                    self.events.insert((event.topic, event.offset), placed);
                }
            }
            Record::SubscriptionCreated(created) => {
                self.subscriptions.insert(created.subscription, (lsn, created.clone()));
            }
            Record::TopicTruncated(cut) => {
                self.truncated.entry(cut.topic).or_default().push((lsn, cut.start));
            }
            Record::Acknowledged(acknowledged) => {
                for range in &acknowledged.ranges {
                    for offset in range.from.0..range.to.0 {
                        let done = (acknowledged.subscription, Offset(offset));
                        self.done.entry(done).or_insert(lsn);
                    }
                }
            }
            Record::DeadLettered(letter) => {
                self.done.entry((letter.subscription, letter.offset)).or_insert(lsn);
                self.dead.insert((letter.subscription, letter.offset));
            }
            _ => {}
        }
    }

    /// The bytes of an event, wherever they are.
    #[must_use]
    pub fn body(&self, id: TransactionId, body: &Body) -> Bytes {
        match body {
            Body::Here(bytes) => bytes.clone(),
            Body::InBegin { item, .. } => {
                let begin = self.chains.get(&id).and_then(|c| c.begin);
                let begin = begin.and_then(|lsn| self.record(lsn));
                let items = match begin {
                    Some(Record::Begin(begin)) => begin.local.as_ref(),
                    _ => None,
                };
                items
                    .and_then(|items| items.events.get(*item as usize))
                    .map(|event| event.body.clone())
                    .unwrap_or_default()
            }
        }
    }

    /// The server is about to be given an input.
    pub fn input(&mut self, input: &Input) {
        match input {
            Input::Command { caller, command } => self.command(*caller, command),
            Input::SessionEnded { session } => {
                self.attached.remove(session);
                self.sessions.remove(session);
                self.asked.retain(|caller, _| caller.session != *session);
                for intent in self.intents.values_mut().filter(|i| i.owner == Some(*session)) {
                    intent.owner_gone = true;
                }
            }
            _ => {}
        }
    }

    fn command(&mut self, caller: Caller, command: &Command) {
        self.sessions.insert(caller.session);
        let asked = match command {
            Command::Begin(begin) => {
                let commits = begin.commit.iter().map(|c| (c.branches as usize, c.items as usize));
                let intent = Intent {
                    owner: (!begin.detached).then_some(caller.session),
                    branches: begin.branches.len(),
                    items: begin.events.len() + begin.acknowledgements.len(),
                    commits: commits.collect(),
                    deadline_ms: self.now.mono_ms + begin.deadline_ms.unwrap_or(30_000),
                    participants: begin
                        .branches
                        .iter()
                        .map(|b| b.participant.name.clone())
                        .collect(),
                    ..Intent::default()
                };
                self.intents.insert(begin.id, intent);
                let key = begin.key.as_ref().map(|key| key.key.to_string());
                Asked::Begin(begin.id, key, begin.local.is_some())
            }
            Command::Enlist { id, branches } => {
                let names = branches.iter().map(|b| b.participant.name.clone());
                Asked::Enlist(*id, names.collect())
            }
            Command::Stage { id, events, acknowledgements } => {
                let items = events.len() + acknowledgements.len();
                Asked::Stage(*id, items, acknowledgements.clone())
            }
            Command::Commit { id, request } => {
                let decided = self.decision(*id).is_some();
                if let Some(intent) = self.intents.get_mut(id)
                    && !decided
                {
                    intent.commits.push((request.branches as usize, request.items as usize));
                }
                Asked::About(*id)
            }
            Command::Operate { id, act: Act::Abort, .. } => {
                if let Some(intent) = self.intents.get_mut(id) {
                    intent.operator_asked = true;
                }
                Asked::About(*id)
            }
            Command::Abort { id, .. } => {
                if let Some(intent) = self.intents.get_mut(id) {
                    intent.abort_asked = true;
                }
                Asked::About(*id)
            }
            Command::Extend { id, .. } => Asked::Extend(*id),
            Command::Status { id, .. } | Command::Show { id } => Asked::About(*id),
            Command::Publish { producer, sequence, events, .. } => {
                let bodies = events.iter().map(|event| event.body.clone()).collect();
                Asked::Publish(producer.0, *sequence, bodies)
            }
            Command::Acknowledge { deliveries } => Asked::Acknowledge(deliveries.clone()),
            Command::Attach { service, state_id, .. } => {
                self.attached.insert(caller.session, (service.clone(), *state_id));
                Asked::Other
            }
            _ => Asked::Other,
        };
        self.asked.insert(caller, asked);
    }

    /// The server has done something; gives back what a reply answers.
    pub fn output(&mut self, output: &Output) -> Option<Asked> {
        let Output::Reply { to, reply } = output else { return None };
        let asked = self.asked.remove(to)?;
        match (&asked, reply) {
            (Asked::Enlist(id, names), Reply::Counted { .. }) => {
                if let Some(intent) = self.intents.get_mut(id) {
                    intent.branches += names.len();
                    intent.participants.extend(names.iter().cloned());
                }
            }
            (Asked::Stage(id, items, _), Reply::Counted { .. }) => {
                if let Some(intent) = self.intents.get_mut(id) {
                    intent.items += items;
                }
            }
            (Asked::Extend(id), Reply::Remaining { remaining_ms }) => {
                if let Some(intent) = self.intents.get_mut(id) {
                    intent.deadline_ms = self.now.mono_ms + remaining_ms;
                }
            }
            (Asked::Begin(id, ..), Reply::Refused(_)) if !self.chains.contains_key(id) => {
                self.intents.remove(id);
            }
            _ => {}
        }
        Some(asked)
    }
}
