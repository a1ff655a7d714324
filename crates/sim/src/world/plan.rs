//! What a seed is like: how many of everybody there are, and how often what happens. Seeds differ
//! widely, because a fault that is always there hides what happens without it.

use crate::rng::Rng;

/// What can happen in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// A message reaches the server.
    Up,
    /// A message of the server arrives.
    Down,
    /// Records get their place.
    Accept,
    /// A group is written, or is durable.
    Disk,
    /// The reader answers a fetch.
    Fetch,
    /// The reader answers a question about a transaction.
    Chain,
    /// A database does something.
    Database,
    /// A client goes on.
    Client,
    /// An instance of a service goes on.
    Instance,
    /// A subscriber goes on.
    Subscriber,
    /// A publisher goes on.
    Publisher,
    /// Time passes.
    Time,
    /// A stream breaks.
    Break,
    /// The server ends and starts again.
    Crash,
    /// An instance restarts, leaves, joins or gives up.
    Service,
    /// A database goes away or comes back.
    Outage,
    /// A message arrives that was sent long ago, or a second time.
    Stale,
    /// The server writes a checkpoint.
    Checkpoint,
    /// Retention offers to forget events.
    Retention,
    /// The machine's clock is set: an hour or a year off, or right.
    Clock,
    /// The store is copied while the server runs.
    Copy,
    /// The server stands still, and copies of its store may run meanwhile.
    StandStill,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Random steps before healing.
    pub steps: u64,
    /// Clients.
    pub clients: usize,
    /// Instances of each service; its stores are as many as the second number says.
    pub services: Vec<(usize, usize)>,
    /// Databases.
    pub databases: usize,
    /// Subscribers; one subscription for two of them.
    pub subscribers: usize,
    /// Publishers.
    pub publishers: usize,
    /// Transactions that may be open.
    pub places: usize,
    /// Time may jump.
    pub jumps: bool,
    /// Percent of work that succeeds.
    pub works: u64,
    /// Branches are lost or forced, against the rules.
    pub disasters: bool,
    /// The store is copied.
    pub copies: bool,
    /// The first instance of each service hardly looks at what the server sends it.
    pub slow: bool,
    /// Attempts before an event is a dead letter.
    pub attempts: Option<u32>,
    weights: Vec<(Action, u64)>,
}

impl Plan {
    /// The plan of a seed.
    pub(super) fn new(rng: &mut Rng) -> Self {
        let services = (0..rng.between(1, 3)).map(|_| {
            let stores = if rng.percent(20) { 2 } else { 1 };
            (rng.between(stores, 3) as usize, stores as usize)
        });
        let services = services.collect();
        let databases = rng.between(0, 2) as usize;
        let often = |rng: &mut Rng, percent: u64, most: u64| {
            if rng.percent(percent) { rng.between(1, most) } else { 0 }
        };
        let copies = databases > 0 && rng.percent(40);
        let weights = vec![
            (Action::Up, rng.between(80, 200)),
            (Action::Down, rng.between(80, 200)),
            (Action::Accept, rng.between(30, 120)),
            (Action::Disk, rng.between(40, 160)),
            (Action::Fetch, rng.between(20, 60)),
            (Action::Chain, rng.between(10, 40)),
            (Action::Database, if databases > 0 { rng.between(20, 80) } else { 0 }),
            (Action::Client, rng.between(60, 160)),
            (Action::Instance, rng.between(30, 100)),
            (Action::Subscriber, rng.between(20, 80)),
            (Action::Publisher, rng.between(5, 40)),
            (Action::Time, rng.between(5, 40)),
            (Action::Break, often(rng, 60, 10)),
            (Action::Crash, if copies { rng.between(1, 8) } else { often(rng, 60, 6) }),
            (Action::Service, often(rng, 60, 10)),
            (Action::Outage, if databases > 0 { often(rng, 50, 6) } else { 0 }),
            (Action::Stale, often(rng, 60, 20)),
            (Action::Checkpoint, often(rng, 50, 5)),
            (Action::Retention, often(rng, 20, 3)),
            (Action::Clock, often(rng, 40, 4)),
            (Action::Copy, if copies { rng.between(10, 40) } else { 0 }),
            (Action::StandStill, if copies { rng.between(5, 40) } else { 0 }),
        ];
        Self {
            steps: rng.between(200, 2_500),
            clients: rng.between(1, 4) as usize,
            services,
            databases,
            subscribers: rng.between(1, 4) as usize,
            publishers: rng.between(1, 2) as usize,
            // Few places for all clients, or enough except after many faults.
            places: if rng.percent(20) { rng.between(1, 3) as usize } else { 12 },
            jumps: rng.percent(40),
            works: [100, 90, 60][rng.index(3)],
            disasters: rng.percent(8),
            copies,
            slow: rng.percent(25),
            attempts: [None, Some(2), Some(5)][rng.index(3)],
            weights,
        }
    }

    /// What may happen, and how often.
    pub(super) fn weights(&self) -> Vec<(Action, u64)> {
        self.weights.clone()
    }

    /// The sum of the weights.
    pub(super) fn total(&self) -> u64 {
        self.weights.iter().map(|(_, weight)| weight).sum()
    }
}
