//! A core with two services, a client, a topic and a consumer group, driven as the server does it:
//! inputs in batches, and a log that has everything as soon as it is asked for.

use std::hint::black_box;

use bytes::Bytes;
use handfast_core::command::{
    BeginRequest, BranchRequest, Caller, Command, CommitRequest, Start, Vote, Wait,
};
use handfast_core::event::{DeliveryRef, EventRequest, StoredEvent};
use handfast_core::ids::{
    Digest, Name, Now, Offset, ProducerId, SessionId, StateId, TransactionId,
};
use handfast_core::input::Input;
use handfast_core::limits::Limits;
use handfast_core::output::{Fetch, Output, ToService, Wanted};
use handfast_core::record::{
    IdempotencyKey, Participant, ParticipantKind, SubscriptionSettings, TopicSettings,
};
use handfast_core::{Core, Recovery};

const CLIENT: SessionId = SessionId(1);
const SUBSCRIBER: SessionId = SessionId(2);
const SERVICES: [(SessionId, &str); 2] = [(SessionId(10), "a"), (SessionId(11), "b")];
const BODY: [u8; 200] = [b'.'; 200];

/// See the module.
pub(crate) struct World {
    core: Core,
    now: Now,
    next: u64,
    participants: Vec<Participant>,
    topic: Name,
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a short plain word is a name")
}

impl World {
    /// Everybody is attached. With a subscriber, everything that is published is delivered to it.
    pub(crate) fn new(has_subscriber: bool) -> Self {
        let core = Recovery::new(Limits::default()).finish(Now { mono_ms: 0, wall_ms: 1_000 });
        let participant = |(_, service): (SessionId, &str)| Participant {
            name: name(service),
            kind: ParticipantKind::Service,
        };
        let participants = SERVICES.map(participant).to_vec();
        let now = Now { mono_ms: 1, wall_ms: 1_001 };
        let mut world = Self { core, now, next: 1, participants, topic: name("t") };
        world.core.handle(now, Input::Space { free: 1 << 40, low: false });
        for (session, service) in SERVICES {
            let (service, instance) = (name(service), name("only"));
            let state_id = StateId(u128::from(session.0));
            world.command(session, Command::Attach { service, instance, state_id });
        }
        let settings = TopicSettings::default();
        world.command(CLIENT, Command::CreateTopic { name: name("t"), settings });
        world.settle();
        if has_subscriber {
            world.subscribe();
        }
        world
    }

    fn subscribe(&mut self) {
        let create = Command::CreateSubscription {
            name: name("s"),
            topic: name("t"),
            start: Start::Earliest,
            settings: SubscriptionSettings::default(),
        };
        self.command(CLIENT, create);
        self.settle();
        self.command(SUBSCRIBER, Command::Subscribe { subscription: name("s"), credit: 10_000 });
        self.settle();
    }

    fn command(&mut self, session: SessionId, command: Command) {
        let caller = Caller { session, request: self.next };
        self.next += 1;
        self.core.handle(self.now, Input::Command { caller, command });
    }

    fn event(&self) -> EventRequest {
        EventRequest { topic: self.topic.clone(), key: None, body: Bytes::from_static(&BODY) }
    }

    /// So many transactions at once over both services with one event each, from being asked for
    /// until they have ended.
    pub(crate) fn transactions(&mut self, count: u64) {
        for _ in 0..count {
            let number = self.next;
            let branch = |participant: &Participant| BranchRequest {
                participant: participant.clone(),
                work: Some(Bytes::from_static(b"work")),
            };
            let key =
                IdempotencyKey { key: format!("a-client-of-ours-{number}").into(), digest: number };
            let request = BeginRequest {
                // The high bits are a time, as in a UUID of version 7.
                id: TransactionId((0x0001_0000_0000 << 80) | u128::from(number)),
                local: None,
                deadline_ms: None,
                key: Some(key),
                detached: false,
                branches: self.participants.iter().map(branch).collect(),
                events: vec![self.event()],
                acknowledgements: Vec::new(),
                commit: Some(CommitRequest {
                    branches: 2,
                    items: 1,
                    votes: Vec::new(),
                    vouched: true,
                    wait: Wait::Decided,
                }),
            };
            self.command(CLIENT, Command::Begin(Box::new(request)));
        }
        self.settle();
    }

    /// One batch of so many events.
    pub(crate) fn publish(&mut self, count: usize) {
        let events = (0..count).map(|_| self.event()).collect();
        let (producer, sequence) = (ProducerId(1), self.next);
        let digest = Digest(sequence);
        self.command(CLIENT, Command::Publish { producer, sequence, digest, events });
        self.settle();
    }

    /// Carries out everything that the core wants until it wants nothing more.
    fn settle(&mut self) {
        loop {
            let mut answers = Vec::new();
            let mut delivered = Vec::new();
            let mut is_quiet = true;
            while let Some(output) = self.core.poll_output() {
                is_quiet = false;
                match output {
                    Output::ToService { session, message } => {
                        answers.extend(answer(&message).map(|command| (session, command)));
                    }
                    Output::Fetch(fetch) => self.fetched(fetch),
                    Output::Deliver { delivery, .. } => delivered.push(delivery.reference),
                    other => drop(black_box(other)),
                }
            }
            for (session, command) in answers {
                self.command(session, command);
            }
            self.acknowledge(delivered);
            let last = self.core.last();
            if self.core.durable() < last {
                is_quiet = false;
                self.core.handle(self.now, Input::Accepted { through: last });
                self.core.handle(self.now, Input::Durable { through: last });
            }
            if is_quiet {
                return;
            }
        }
    }

    fn acknowledge(&mut self, deliveries: Vec<DeliveryRef>) {
        if !deliveries.is_empty() {
            self.command(SUBSCRIBER, Command::Acknowledge { deliveries });
        }
    }

    /// What the journal would have read.
    fn fetched(&mut self, fetch: Fetch) {
        let stored = |offset: u64| StoredEvent {
            offset: Offset(offset),
            key: None,
            transaction: None,
            wall_ms: self.now.wall_ms,
            body: Bytes::from_static(&BODY),
        };
        let (events, next): (Vec<_>, _) = match fetch.wanted {
            Wanted::Range { from, to, max_events } => {
                let end = to.0.min(from.0 + u64::from(max_events));
                ((from.0..end).map(stored).collect(), Offset(end))
            }
            Wanted::Offsets(offsets) => {
                let next = offsets.last().map_or(Offset(0), |last| Offset(last.0 + 1));
                (offsets.into_iter().map(|offset| stored(offset.0)).collect(), next)
            }
        };
        self.core.handle(self.now, Input::Fetched { fetch: fetch.fetch, events, next });
    }
}

/// What a service says that does as it is told.
fn answer(message: &ToService) -> Option<Command> {
    match *message {
        ToService::Prepare { id, .. } => Some(Command::Vote { id, vote: Vote::Yes }),
        ToService::Commit { id, .. } => Some(Command::Finished { id, committed: true }),
        ToService::Abort { id } => Some(Command::Finished { id, committed: false }),
        ToService::Pending { .. } | ToService::Forget { .. } => None,
    }
}
