//! What the simulator has found, each as its smallest schedule. The story is told where it begins.

use std::sync::Arc;

use bytes::Bytes;
use handfast_core::command::{
    BeginRequest, BranchRequest, Caller, Command, CommitRequest, DatabaseVote, Start, Vote, Wait,
};
use handfast_core::event::{DeliveryRef, EventRequest, StoredEvent};
use handfast_core::ids::{
    Digest, KeyHash, Lsn, Name, Now, Offset, ProducerId, SessionId, StateId, TransactionId,
};
use handfast_core::input::{Found, Input, Resolution};
use handfast_core::limits::Limits;
use handfast_core::output::{Output, PublicState, Reply, ToService};
use handfast_core::record::{
    IdempotencyKey, Participant, ParticipantKind, Record, SubscriptionSettings, TopicSettings,
};
use handfast_core::refusal::Code;
use handfast_core::{Core, Recovery};

const X: TransactionId = TransactionId(1 << 80 | 7 << 76 | 1);
const Y: TransactionId = TransactionId(1 << 80 | 7 << 76 | 2);
const CLIENT: SessionId = SessionId(1);

/// A core whose log is accepted and synced by hand.
struct Bench {
    core: Core,
    now: Now,
    log: Vec<Arc<Record>>,
    requests: u64,
}

impl Bench {
    fn new() -> Self {
        let now = Now { mono_ms: 1, wall_ms: 1 };
        let core = Recovery::new(Limits::default()).finish(now);
        let mut bench = Self { core, now, log: Vec::new(), requests: 0 };
        bench.input(Input::Space { free: 1 << 30, low: false });
        bench.input(Input::Database { name: name("db"), up: true });
        bench.input(Input::Claimed { name: name("db"), asked_ms: 1 });
        let settings = TopicSettings::default();
        bench.command(CLIENT, Command::CreateTopic { name: name("t"), settings });
        bench.settle();
        bench
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        self.core.handle(self.now, input);
        self.drain()
    }

    fn drain(&mut self) -> Vec<Output> {
        let mut outputs = Vec::new();
        while let Some(output) = self.core.poll_output() {
            if let Output::Append { record, .. } = &output {
                self.log.push(Arc::clone(record));
            }
            outputs.push(output);
        }
        outputs
    }

    fn command(&mut self, session: SessionId, command: Command) -> Vec<Output> {
        self.requests += 1;
        let caller = Caller { session, request: self.requests };
        self.input(Input::Command { caller, command })
    }

    fn accept(&mut self) -> Vec<Output> {
        let through = self.core.last();
        self.input(Input::Accepted { through })
    }

    fn sync(&mut self) -> Vec<Output> {
        let through = self.core.last();
        self.input(Input::Durable { through })
    }

    fn settle(&mut self) -> Vec<Output> {
        let mut outputs = Vec::new();
        while self.core.durable() < self.core.last() {
            outputs.extend(self.accept());
            outputs.extend(self.sync());
        }
        outputs
    }

    /// The server ends; what is durable is read again.
    fn crash(&mut self) -> Vec<Output> {
        self.log.truncate(self.core.durable().0 as usize);
        let mut recovery = Recovery::new(Limits::default());
        for (lsn, record) in (1..).zip(&self.log) {
            recovery.apply(Lsn(lsn), record);
        }
        self.core = recovery.finish(self.now);
        let mut outputs = self.drain();
        outputs.extend(self.input(Input::Space { free: 1 << 30, low: false }));
        outputs.extend(self.input(Input::Database { name: name("db"), up: true }));
        outputs.extend(self.input(Input::Claimed { name: name("db"), asked_ms: 1 }));
        outputs
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn begin(id: TransactionId) -> BeginRequest {
    BeginRequest {
        id,
        local: None,
        deadline_ms: None,
        key: None,
        detached: true,
        branches: Vec::new(),
        events: Vec::new(),
        acknowledgements: Vec::new(),
        commit: None,
    }
}

fn key(digest: u64) -> Option<IdempotencyKey> {
    Some(IdempotencyKey { key: "the key".into(), digest })
}

fn commit(branches: u32, items: u32) -> CommitRequest {
    CommitRequest { branches, items, votes: Vec::new(), vouched: true, wait: Wait::Decided }
}

/// The public states that outputs tell, in order.
fn told(outputs: &[Output]) -> Vec<PublicState> {
    let state = |output: &Output| match output {
        Output::Reply { reply: Reply::Outcome(outcome), .. } => Some(outcome.state),
        _ => None,
    };
    outputs.iter().filter_map(state).collect()
}

fn begun(outputs: &[Output]) -> usize {
    let begun = |o: &&Output| matches!(o, Output::Reply { reply: Reply::Begun { .. }, .. });
    outputs.iter().filter(begun).count()
}

/// I6, I4. The abort of a local transaction was answered when it was accepted, as that of a
/// distributed one. But a restart does not abort a local transaction: it was told as Failed, the
/// server crashed, and it was Preparing again, with its whole deadline.
#[test]
fn the_abort_of_a_local_transaction_is_told_when_it_is_durable() {
    let mut w = Bench::new();
    w.command(
        CLIENT,
        Command::Begin(Box::new(BeginRequest { local: Some(name("db")), ..begin(X) })),
    );
    w.settle();
    w.command(CLIENT, Command::Abort { id: X, detail: String::new() });
    w.input(Input::Resolved { id: X, resolution: Resolution::Tombstone });
    assert_eq!(told(&w.accept()), []);
    assert_eq!(told(&w.sync()), [PublicState::Failed]);
}

/// I13. A commit was asked before BEGIN had its place in the log, and then the deadline passed: the
/// tick put the same timer back again and again and never returned.
#[test]
fn a_deadline_may_pass_before_begin_has_its_place() {
    let mut w = Bench::new();
    w.command(CLIENT, Command::Begin(Box::new(BeginRequest { deadline_ms: Some(10), ..begin(X) })));
    w.command(CLIENT, Command::Commit { id: X, request: commit(0, 0) });
    w.now.mono_ms += 20;
    w.input(Input::Tick);
    assert_eq!(told(&w.settle()), [PublicState::Failed]);
}

/// I13. A keyed begin that was repeated between "accepted" and "durable" was never answered.
#[test]
fn a_begin_repeated_before_it_is_durable_is_answered() {
    let mut w = Bench::new();
    w.command(CLIENT, Command::Begin(Box::new(BeginRequest { key: key(1), ..begin(X) })));
    w.accept();
    w.command(CLIENT, Command::Begin(Box::new(BeginRequest { key: key(1), ..begin(Y) })));
    assert_eq!(begun(&w.sync()), 2);
}

/// I10. A keyed begin with its commit in one call that failed was answered before its BEGIN was
/// durable: after a crash the same key began another transaction, which could commit.
#[test]
fn a_keyed_failure_is_told_when_its_begin_is_durable() {
    let mut w = Bench::new();
    let commit = Some(commit(7, 0));
    w.command(CLIENT, Command::Begin(Box::new(BeginRequest { key: key(1), commit, ..begin(X) })));
    w.accept();
    assert_eq!(told(&w.accept()), []);
    let status = w.command(CLIENT, Command::Status { id: X, wait: None });
    assert_eq!(told(&status), [PublicState::Preparing]);
    assert_eq!(told(&w.sync()), [PublicState::Failed]);
}

/// I6. The conflict of a key was told before the BEGIN that it conflicts with was durable.
#[test]
fn a_conflict_waits_for_what_it_reveals() {
    let mut w = Bench::new();
    let refused = |outputs: &[Output]| {
        let conflict = |o: &&Output| match o {
            Output::Reply { reply: Reply::Refused(refusal), .. } => {
                refusal.code == Code::KeyConflict
            }
            _ => false,
        };
        outputs.iter().filter(conflict).count()
    };
    w.command(CLIENT, Command::Begin(Box::new(BeginRequest { key: key(1), ..begin(X) })));
    let other = BeginRequest { key: key(2), ..begin(Y) };
    assert_eq!(refused(&w.command(CLIENT, Command::Begin(Box::new(other)))), 0);
    w.accept();
    assert_eq!(refused(&w.sync()), 1);
}

/// I4. A transaction was told as Failed, the crash lost its ABORT, and until the restart's own
/// ABORT had its place it was Preparing.
#[test]
fn what_a_restart_aborts_is_failed_at_once() {
    let mut w = Bench::new();
    w.command(CLIENT, Command::Begin(Box::new(begin(X))));
    w.settle();
    w.command(CLIENT, Command::Abort { id: X, detail: String::new() });
    assert_eq!(told(&w.accept()), [PublicState::Failed]);
    w.crash();
    let outputs = w.command(CLIENT, Command::Status { id: X, wait: None });
    assert_eq!(told(&outputs), [PublicState::Failed]);
}

/// I4. When BEGIN and COMMIT became durable in one group, an answer that had waited for BEGIN came
/// out behind one that told of COMMIT, and took it back.
#[test]
fn answers_keep_the_order_of_the_log() {
    let mut w = Bench::new();
    let commit = Some(commit(0, 0));
    w.command(CLIENT, Command::Begin(Box::new(BeginRequest { key: key(1), commit, ..begin(X) })));
    w.accept();
    w.command(CLIENT, Command::Status { id: X, wait: Some(Wait::Finished) });
    w.now.mono_ms += 5_000;
    w.input(Input::Tick);
    w.accept();
    assert_eq!(told(&w.sync()), [PublicState::Preparing, PublicState::Committing]);
}

/// I1, I9. A service was asked twice by other means and prepared in two durable states. The branch
/// is bound to one of them; the other inquired, and was told to commit as well.
#[test]
fn another_durable_state_is_not_told_to_commit() {
    let (first, second) = (SessionId(10), SessionId(11));
    let mut w = Bench::new();
    for (session, instance, state) in [(first, "one", 1), (second, "two", 2)] {
        let (service, instance) = (name("pay"), name(instance));
        w.command(session, Command::Attach { service, instance, state_id: StateId(state) });
    }
    let participant = Participant { name: name("pay"), kind: ParticipantKind::Service };
    let branches = vec![BranchRequest { participant, work: None }];
    w.command(CLIENT, Command::Begin(Box::new(BeginRequest { branches, ..begin(X) })));
    w.settle();
    w.command(first, Command::Vote { id: X, vote: Vote::Yes });
    w.command(CLIENT, Command::Commit { id: X, request: commit(1, 0) });
    w.settle();
    let outputs = w.command(second, Command::Inquire { id: X });
    let abort = ToService::Abort { id: X };
    assert!(outputs.contains(&Output::ToService { session: second, message: abort }));
}

/// I11. An acknowledgement was staged in a local transaction over a restart. Its COMMIT was
/// accepted, not durable, and the next event of the same key was delivered already: a crash in
/// that moment brought the first one back behind it.
#[test]
fn a_key_is_held_until_the_commit_is_durable_after_a_restart_too() {
    let subscriber = SessionId(20);
    let mut w = Bench::new();
    let settings = SubscriptionSettings::default();
    let (topic, start) = (name("t"), Start::Earliest);
    w.command(CLIENT, Command::CreateSubscription { name: name("s"), topic, start, settings });
    let event = |body: &'static [u8]| EventRequest {
        topic: name("t"),
        key: Some(KeyHash(1)),
        body: Bytes::from_static(body),
    };
    w.settle();
    w.command(subscriber, Command::Subscribe { subscription: name("s"), credit: 5 });
    let events = vec![event(b"first"), event(b"second")];
    let (producer, digest) = (ProducerId(1), Digest(1));
    w.command(CLIENT, Command::Publish { producer, sequence: 1, digest, events });
    let outputs = w.settle();
    let delivered = |outputs: &[Output]| -> Vec<DeliveryRef> {
        let delivery = |o: &Output| match o {
            Output::Deliver { delivery, .. } => Some(delivery.reference),
            _ => None,
        };
        outputs.iter().filter_map(delivery).collect()
    };
    let acknowledgements = delivered(&outputs);
    assert_eq!(acknowledgements.len(), 1);
    let local = Some(name("db"));
    w.command(
        CLIENT,
        Command::Begin(Box::new(BeginRequest { local, acknowledgements, ..begin(X) })),
    );
    w.settle();
    w.crash();
    w.command(CLIENT, Command::Commit { id: X, request: commit(0, 1) });
    w.accept();
    let mut outputs =
        w.command(subscriber, Command::Subscribe { subscription: name("s"), credit: 5 });
    let fetch = outputs.iter().find_map(|o| match o {
        Output::Fetch(fetch) => Some(fetch.fetch),
        _ => None,
    });
    let stored = |offset: u64, body: &'static [u8]| StoredEvent {
        offset: Offset(offset),
        key: Some(KeyHash(1)),
        transaction: None,
        wall_ms: 1,
        body: Bytes::from_static(body),
    };
    let events = vec![stored(0, b"first"), stored(1, b"second")];
    let fetch = fetch.expect("there is something to read");
    outputs.extend(w.input(Input::Fetched { fetch, events, next: Offset(2) }));
    assert_eq!(delivered(&outputs), []);
}

/// I2. While the server stood still, a copy of its store took a database over and rolled a branch
/// back. An operator adopted the database before the transaction's deadline: what the database had
/// voted before counted, as did what its caller said afterwards of a prepare from before, and half
/// of the work was committed.
#[test]
fn what_was_prepared_before_an_adoption_is_looked_up_again() {
    let db = || Participant { name: name("db"), kind: ParticipantKind::Database };
    let vote = || {
        let votes = vec![DatabaseVote {
            database: name("db"),
            holder: None,
            finishes: false,
            vouched: true,
        }];
        Command::VoteFor { id: X, votes }
    };
    let refused = |why: Option<&str>| {
        let why = why.map(str::to_owned);
        Input::DatabaseRefused { name: name("db"), local: why.clone(), distributed: why }
    };
    let asked = |outputs: &[Output]| {
        outputs.iter().any(|o| matches!(o, Output::Verify { id: X, local: false, .. }))
    };
    for late in [false, true] {
        let mut w = Bench::new();
        let branches = vec![BranchRequest { participant: db(), work: None }];
        w.command(CLIENT, Command::Begin(Box::new(BeginRequest { branches, ..begin(X) })));
        w.settle();
        if !late {
            w.command(CLIENT, vote());
        }
        w.now.mono_ms += 3_000;
        w.input(Input::Paused);
        w.input(refused(Some("it is another life's")));
        w.command(CLIENT, Command::Commit { id: X, request: commit(1, 0) });
        let asked_ms = w.now.mono_ms + 1;
        let mut outputs = w.input(Input::Claimed { name: name("db"), asked_ms });
        outputs.extend(w.input(refused(None)));
        if late {
            outputs.extend(w.command(CLIENT, vote()));
        }
        assert!(asked(&outputs), "{outputs:?}");
        let database = name("db");
        w.input(Input::Verified { id: X, database, found: Found::No });
        assert_eq!(told(&w.settle()), [PublicState::Failed]);
        // What begins now is taken at its word again.
        let branches = vec![BranchRequest { participant: db(), work: None }];
        w.command(CLIENT, Command::Begin(Box::new(BeginRequest { branches, ..begin(Y) })));
        let Command::VoteFor { votes, .. } = vote() else { return };
        w.settle();
        w.command(CLIENT, Command::VoteFor { id: Y, votes });
        w.command(CLIENT, Command::Commit { id: Y, request: commit(1, 0) });
        assert_eq!(told(&w.settle()), [PublicState::Committing]);
    }
}
