//! The world at its beginning: topics and subscriptions exist, nobody is connected yet.

use std::collections::{BTreeMap, VecDeque};

use handfast_core::command::{Caller, Command, Start};
use handfast_core::ids::{Now, OpeningId, SessionId, StoreId, Tick};
use handfast_core::input::Input;
use handfast_core::record::{Opened, Record, SubscriptionSettings, TopicSettings};
use handfast_core::{Core, Recovery};

use super::client::Client;
use super::clocks::Clocks;
use super::database::Database;
use super::disk::Disk;
use super::owner::Life;
use super::plan::Plan;
use super::publisher::Publisher;
use super::service::{Instance, Service, Store};
use super::subscriber::Subscriber;
use super::{Past, TOPICS, World, limits, name, numbered};
use crate::fault::Fault;
use crate::invariants::{Facts, Invariants};
use crate::rng::Rng;
use crate::rows::Rows;
use crate::trace::{Detail, Trace};

impl World {
    /// A world that nothing has happened in.
    #[must_use]
    pub fn new(seed: u64, fault: Option<Fault>, detail: Detail) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::new(&mut rng);
        let now = Now { mono_ms: 1_000, wall_ms: 1_700_000_000_000 };
        let limits = limits(plan.places);
        let mut facts = Facts { now, limits, ..Facts::default() };
        let (store, opening, wall_ms) = (StoreId(1), OpeningId(1), now.wall_ms);
        let opened = Opened { store, epoch: 1, opening, wall_ms, newest_ms: 0 };
        let opened = Record::Opened(opened);
        facts.append(&std::sync::Arc::new(opened));
        (facts.durable, facts.accepted) = (1, 1);
        let services = plan.services.iter().enumerate().map(|(at, (instances, stores))| Service {
            name: name(["pay", "stock", "mail"][at]),
            stores: (0..*stores).map(|_| Store::default()).collect(),
            instances: (0..*instances).map(|i| Instance::new(i, i % stores)).collect(),
        });
        Self {
            core: empty_core(&facts, now),
            services: services.collect(),
            clients: (0..plan.clients).map(|_| Client::default()).collect(),
            subscribers: (0..plan.subscribers).map(|i| Subscriber::new(i / 2)).collect(),
            publishers: (0..plan.publishers).map(Publisher::new).collect(),
            databases: (0..plan.databases).map(|i| Database::new(numbered("db", i))).collect(),
            rng,
            plan,
            fault,
            now,
            clocks: Clocks::new(now),
            disk: Disk::default(),
            epoch: 1,
            facts,
            checkers: Invariants::default(),
            rows: Rows::default(),
            trace: Trace::new(detail),
            inputs: 0,
            streams: BTreeMap::new(),
            last_session: 0,
            last_request: 0,
            last_body: 0,
            last_tick: Tick(0),
            last_key: 0,
            fetches: VecDeque::new(),
            chains: VecDeque::new(),
            finishes: Vec::new(),
            resolves: Vec::new(),
            verifies: Vec::new(),
            life: Life::new(opening),
            copies: Vec::new(),
            bait: None,
            openings: opening.0,
            claims: 0,
            healing: false,
            planted: VecDeque::new(),
            past: Past::default(),
        }
    }

    /// Makes topics and subscriptions, durably.
    pub(super) fn set_up(&mut self) {
        self.feed(Input::Space { free: 1 << 30, low: false });
        for at in 0..self.databases.len() {
            self.look_at(at);
        }
        let admin = SessionId(1_000_000);
        let mut commands = Vec::new();
        for at in 0..TOPICS {
            let settings = TopicSettings::default();
            commands.push(Command::CreateTopic { name: numbered("t", at), settings });
        }
        for at in 0..self.subscribers.len().div_ceil(2) {
            let settings = SubscriptionSettings {
                lease_ms: self.rng.between(500, 5_000),
                max_attempts: self.plan.attempts,
                backoff_ms: self.rng.below(2) * 50,
                backoff_max_ms: 400,
            };
            commands.push(Command::CreateSubscription {
                name: numbered("s", at),
                topic: numbered("t", at % TOPICS),
                start: Start::Earliest,
                settings,
            });
        }
        for command in commands {
            self.last_request += 1;
            let caller = Caller { session: admin, request: self.last_request };
            self.feed(Input::Command { caller, command });
        }
        self.settle_disk();
        self.feed(Input::SessionEnded { session: admin });
    }
}

fn empty_core(facts: &Facts, now: Now) -> Core {
    let mut recovery = Recovery::new(facts.limits.clone());
    if let Some(record) = facts.log.first() {
        recovery.apply(handfast_core::ids::Lsn(1), record);
    }
    recovery.finish(now)
}
