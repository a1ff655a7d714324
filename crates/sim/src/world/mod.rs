//! The simulated world: one real [`Core`], and everybody around it as values.
//!
//! A run takes random steps (a message arrives, a record gets its place, a client does its next
//! thing, something breaks), then heals: faults stop, everybody is up, time runs, and all that was
//! begun has to end. The checkers see everything on the way.

mod client;
mod clocks;
mod copy;
mod core_side;
mod crash;
mod database;
mod disk;
mod heal;
mod net;
mod owner;
mod plan;
mod publisher;
mod service;
mod setup;
mod spoil;
mod subscriber;

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use handfast_core::Core;
use handfast_core::event::Delivery;
use handfast_core::ids::{Name, Now, OpeningId, SessionId, StateId, Tick, TransactionId};
use handfast_core::input::Input;
use handfast_core::limits::Limits;
use handfast_core::output::{Fetch, Output};

use crate::fault::Fault;
use crate::invariants::facts::Place;
use crate::invariants::{Facts, Invariants, Seen, Violation};
use crate::rng::Rng;
use crate::rows::Rows;
use crate::trace::{Detail, Trace};
use client::Client;
use clocks::Clocks;
use copy::StoreCopy;
use database::Database;
use disk::Disk;
use net::{Down, Peer, Stream};
use owner::Life;
use plan::Plan;
use publisher::Publisher;
use service::Service;
use subscriber::Subscriber;

/// Topics.
const TOPICS: usize = 2;

/// The limits of the simulated server: small, so that they are met.
fn limits(places: usize) -> Limits {
    let mut limits = Limits::default();
    limits.open_transactions = places;
    limits.waiting = 2;
    limits.staged_bytes = 400;
    limits.dead_letters = 5;
    limits.key_batch = 2;
    limits
}

/// What a run has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// A hash over everything that happened; 0 without a trace.
    pub digest: u64,
    /// Inputs that the core has handled.
    pub inputs: u64,
    /// Transactions in the log.
    pub transactions: u64,
    /// Events in the log.
    pub events: u64,
    /// Restarts of the server.
    pub crashes: u32,
    /// Which rows were gone through.
    pub rows: Rows,
}

/// A run that has failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// What is wrong.
    pub violation: Violation,
    /// The last lines of its trace.
    pub lines: Vec<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "seed {}: {}", self.seed, self.violation)?;
        write!(
            f,
            "replay: HANDFAST_SEED={} cargo test --release -p handfast-sim replay -- --nocapture",
            self.seed
        )
    }
}

/// Runs one seed. A failing one is run again for the last lines of its trace.
///
/// # Errors
/// The first violation.
pub fn run(seed: u64, fault: Option<Fault>, detail: Detail) -> Result<Report, Box<Failure>> {
    match attempt(seed, fault, detail) {
        Ok(report) => Ok(report),
        Err(_) if matches!(detail, Detail::Off | Detail::Hash) => {
            attempt(seed, fault, Detail::Lines)
        }
        Err(failure) => Err(failure),
    }
}

fn attempt(seed: u64, fault: Option<Fault>, detail: Detail) -> Result<Report, Box<Failure>> {
    let mut world = World::new(seed, fault, detail);
    let ran = catch_unwind(AssertUnwindSafe(|| world.live()));
    let violation = match ran {
        Ok(()) => world.checkers.violation.clone(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
            Some(Violation { invariant: "assertion", what: text.to_string() })
        }
    };
    match violation {
        Some(violation) => {
            let lines = world.trace.last_lines();
            Err(Box::new(Failure { seed, violation, lines }))
        }
        None => Ok(world.report()),
    }
}

/// See the module.
#[derive(Debug)]
pub struct World {
    rng: Rng,
    plan: Plan,
    fault: Option<Fault>,
    now: Now,
    clocks: Clocks,
    core: Core,
    disk: Disk,
    epoch: u32,
    facts: Facts,
    checkers: Invariants,
    rows: Rows,
    trace: Trace,
    inputs: u64,
    streams: BTreeMap<SessionId, Stream>,
    last_session: u64,
    last_request: u64,
    last_body: u64,
    last_tick: Tick,
    last_key: u64,
    clients: Vec<Client>,
    services: Vec<Service>,
    subscribers: Vec<Subscriber>,
    publishers: Vec<Publisher>,
    databases: Vec<Database>,
    fetches: VecDeque<Fetch>,
    chains: VecDeque<TransactionId>,
    finishes: Vec<(TransactionId, Name, bool)>,
    resolves: Vec<(TransactionId, Name)>,
    /// Votes and markers that databases are asked about.
    verifies: Vec<(TransactionId, Name, bool)>,
    /// What databases were told by this opening of the store, and say about it.
    life: Life,
    /// Copies of the store.
    copies: Vec<StoreCopy>,
    /// What was open as the store was copied while it ran; the server ends soon after it is decided.
    bait: Option<TransactionId>,
    /// Openings so far, of the store and of its copies.
    openings: u128,
    /// Claims so far, of all of them.
    claims: u64,
    healing: bool,
    /// Planted outputs that go out after the present one.
    planted: VecDeque<Output>,
    /// What the planted bugs remember.
    past: Past,
}

/// What the planted bugs remember.
#[derive(Debug, Default)]
struct Past {
    deliveries: Vec<(SessionId, Delivery)>,
    /// When each delivery was sent, and to whom.
    sent: Vec<(u64, SessionId, Delivery)>,
    decisions: std::collections::BTreeSet<(TransactionId, String)>,
    staged: BTreeMap<TransactionId, Vec<(Option<handfast_core::ids::KeyHash>, Bytes)>>,
    batches: std::collections::BTreeSet<(u128, u64)>,
    begun: Vec<TransactionId>,
}

impl World {
    fn live(&mut self) {
        self.set_up();
        for _ in 0..self.plan.steps {
            if self.checkers.violation.is_some() {
                return;
            }
            self.step();
        }
        self.heal();
    }

    fn report(&self) -> Report {
        Report {
            digest: self.trace.digest(),
            inputs: self.inputs,
            transactions: self.facts.chains.len() as u64,
            events: self.facts.events.len() as u64,
            crashes: self.facts.crashes,
            rows: self.rows.clone(),
        }
    }

    /// One random thing happens.
    fn step(&mut self) {
        if self.is_baited() {
            return self.crash();
        }
        let mut at = self.rng.below(self.plan.total());
        for (action, weight) in self.plan.weights() {
            if at < weight {
                return self.act(action);
            }
            at -= weight;
        }
    }

    fn act(&mut self, action: plan::Action) {
        use plan::Action;
        match action {
            Action::Up => {
                if let Some(session) = self.some_stream(|s| s.broken || !s.up.is_empty()) {
                    self.deliver_up(session);
                }
            }
            Action::Down => {
                let some = self.some_stream(|s| !s.broken && !s.down.is_empty());
                if let Some(session) = some
                    && !self.stands_still(session)
                    && !self.is_slow(session)
                {
                    self.deliver_down(session);
                }
            }
            Action::Accept => self.accept(),
            Action::Disk => {
                if self.rng.percent(50) {
                    self.disk.write(&self.facts);
                } else {
                    self.sync();
                }
            }
            Action::Fetch => self.answer_fetch(),
            Action::Chain => self.answer_chain(),
            Action::Database => self.database_step(),
            Action::Client => {
                let at = self.rng.index(self.clients.len());
                self.client_act(at);
            }
            Action::Instance => self.instance_step(),
            Action::Subscriber => {
                let at = self.rng.index(self.subscribers.len());
                self.subscriber_act(at);
            }
            Action::Publisher => {
                let at = self.rng.index(self.publishers.len());
                self.publisher_act(at);
            }
            Action::Time => self.pass_time(),
            Action::Break => {
                if let Some(session) = self.some_stream(|s| !s.broken) {
                    self.break_stream(session);
                }
            }
            Action::Crash => self.crash(),
            Action::Service => self.service_trouble(),
            Action::Outage => {
                let at = self.rng.index(self.databases.len());
                self.toggle_database(at);
            }
            Action::Stale => self.stale_message(),
            Action::Checkpoint => self.checkpoint(),
            Action::Retention => self.retention(),
            Action::Clock => self.clocks.set(&mut self.rng),
            Action::Copy => self.copy_running(),
            Action::StandStill => self.stand_still(),
        }
    }

    fn pass_time(&mut self) {
        let by = match self.rng.below(20) {
            0 if self.plan.jumps => self.rng.between(1_000, 40_000),
            1..6 => {
                let next = self.core.next_deadline().unwrap_or_default();
                next.saturating_sub(self.now.mono_ms).min(20_000)
            }
            // Who waits for a place waits for some milliseconds only.
            _ if self.facts.stats.waiting > 0 => self.rng.below(4),
            _ => self.rng.below(150),
        };
        self.advance(by);
        if self.rng.percent(85) {
            self.tick();
        }
    }

    fn advance(&mut self, ms: u64) {
        self.now = self.clocks.advance(ms);
        self.facts.now = self.now;
    }

    fn tick(&mut self) {
        if self.fault == Some(Fault::TicksLost) {
            return;
        }
        if self.core.next_deadline().is_some_and(|at| at <= self.now.mono_ms) {
            self.feed(Input::Tick);
        }
    }

    fn see(&mut self, seen: &Seen<'_>) {
        self.rows.see(&self.facts, seen);
        self.checkers.see(&self.facts, seen);
    }

    fn some_stream(&mut self, fits: impl Fn(&Stream) -> bool) -> Option<SessionId> {
        let fitting: Vec<SessionId> =
            self.streams.iter().filter(|(_, s)| fits(s)).map(|(id, _)| *id).collect();
        self.rng.pick(&fitting).copied()
    }

    fn stands_still(&self, session: SessionId) -> bool {
        match self.streams.get(&session).map(|stream| stream.peer) {
            Some(Peer::Subscriber(at)) => self.subscribers[at].stands_still,
            Some(Peer::Client(_) | Peer::Instance(..) | Peer::Publisher(_)) | None => false,
        }
    }

    /// It lets a message lie once more.
    fn is_slow(&mut self, session: SessionId) -> bool {
        let peer = self.streams.get(&session).map(|stream| stream.peer);
        self.plan.slow && matches!(peer, Some(Peer::Instance(_, 0))) && self.rng.percent(98)
    }

    fn new_transaction_id(&mut self) -> TransactionId {
        self.last_tick = Tick((self.last_tick.0 + 1).max(Tick::first_of(self.now.wall_ms).0));
        TransactionId::new(self.last_tick, 0, self.epoch, self.life.opening)
    }

    /// Random, as far as anybody can tell.
    fn new_opening(&mut self) -> OpeningId {
        self.openings += 1;
        OpeningId(self.openings)
    }

    fn new_body(&mut self) -> Bytes {
        self.last_body += 1;
        Bytes::from(format!("event {}", self.last_body))
    }

    fn place(&self, service: usize, store: usize) -> Place {
        (self.services[service].name.clone(), state_id(service, store))
    }
}

fn state_id(service: usize, store: usize) -> StateId {
    StateId((service as u128 + 1) * 16 + store as u128)
}

fn name(text: &str) -> Name {
    Name::new(text).expect("names of the world are names")
}

fn numbered(text: &str, number: usize) -> Name {
    name(&format!("{text}{number}"))
}
