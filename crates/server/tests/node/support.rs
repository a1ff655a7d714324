//! What several tests need: names, requests, and a service that runs inside the test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use handfast_core::command::{BeginRequest, BranchRequest, Command, CommitRequest, Vote, Wait};
use handfast_core::event::EventRequest;
use handfast_core::ids::{Name, StateId, TransactionId};
use handfast_core::output::{Outcome, PublicState, Reply, ToService};
use handfast_core::record::{IdempotencyKey, Participant, ParticipantKind, TopicSettings};
use handfast_server::node::{Item, Node};

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A call on its own; if the node has stopped, the test fails with its fault.
pub(crate) async fn call(node: &Node, command: Command) -> Reply {
    match node.call(command).await {
        Ok(reply) => reply,
        Err(stopped) => panic!("{stopped}: {:?}", node.stopped().await),
    }
}

pub(crate) async fn create_topic(node: &Node, topic: &str) {
    let command = Command::CreateTopic { name: name(topic), settings: TopicSettings::default() };
    let reply = call(node, command).await;
    assert!(matches!(reply, Reply::Topic { .. }), "{reply:?}");
}

/// A transaction in one call over the services, with one event whose body is its number.
pub(crate) fn run(id: TransactionId, number: u64, services: &[&str], wait: Wait) -> BeginRequest {
    let branch = |service: &&str| BranchRequest {
        participant: Participant { name: name(service), kind: ParticipantKind::Service },
        work: Some(Bytes::copy_from_slice(&number.to_be_bytes())),
    };
    BeginRequest {
        id,
        local: None,
        deadline_ms: Some(600_000),
        key: Some(IdempotencyKey { key: format!("run-{number}").into(), digest: number }),
        detached: true,
        branches: services.iter().map(branch).collect(),
        events: vec![event("t", number)],
        acknowledgements: vec![],
        commit: Some(CommitRequest {
            branches: u32::try_from(services.len()).unwrap(),
            items: 1,
            votes: vec![],
            vouched: true,
            wait,
        }),
    }
}

pub(crate) fn event(topic: &str, number: u64) -> EventRequest {
    let body = Bytes::copy_from_slice(&number.to_be_bytes());
    EventRequest { topic: name(topic), key: None, body }
}

/// The durable state of a service that lives in the test: what it prepared and how it ended.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) prepared: BTreeSet<TransactionId>,
    pub(crate) ended: BTreeMap<TransactionId, bool>,
}

/// Runs a service on a node until the node stops. It votes NO on every `no_every`-th number.
pub(crate) fn serve(node: &Node, service: &str, ledger: Arc<Mutex<Ledger>>, no_every: u64) {
    let mut connection = node.connect();
    let attach = Command::Attach {
        service: name(service),
        instance: name("one"),
        state_id: StateId(u128::from(service.as_bytes()[0])),
    };
    let in_doubt: Vec<TransactionId> = ledger.lock().unwrap().prepared.iter().copied().collect();
    tokio::spawn(async move {
        let mut requests = 0..;
        let mut next = || requests.next().unwrap();
        let mut batch = vec![(next(), attach)];
        batch.extend(in_doubt.into_iter().map(|id| (next(), Command::Inquire { id })));
        while connection.sender.send(std::mem::take(&mut batch)).await.is_ok() {
            let Some(items) = connection.inbox.recv().await else { break };
            let mut ledger = ledger.lock().unwrap();
            for item in items {
                if let Item::ToService(message) = item
                    && let Some(answer) = ledger.answer(message, no_every)
                {
                    batch.push((next(), answer));
                }
            }
        }
    });
}

impl Ledger {
    fn answer(&mut self, message: ToService, no_every: u64) -> Option<Command> {
        match message {
            ToService::Prepare { id, work, .. } => {
                let number = work.map_or(0, |w| u64::from_be_bytes(w[..8].try_into().unwrap()));
                let no = no_every > 0 && number.is_multiple_of(no_every);
                let vote = match self.ended.get(&id) {
                    Some(true) => Vote::Yes,
                    Some(false) => refuse(),
                    None if no => {
                        self.ended.insert(id, false);
                        refuse()
                    }
                    None => {
                        self.prepared.insert(id);
                        Vote::Yes
                    }
                };
                Some(Command::Vote { id, vote })
            }
            ToService::Commit { id, .. } => {
                let was = self.ended.insert(id, true);
                assert_ne!(was, Some(false), "I1: {id} was aborted here and is committed now");
                assert!(
                    self.prepared.remove(&id) || was == Some(true),
                    "I2: {id} is committed and was never prepared"
                );
                Some(Command::Finished { id, committed: true })
            }
            ToService::Abort { id } => {
                let was = self.ended.insert(id, false);
                assert_ne!(was, Some(true), "I1: {id} was committed here and is aborted now");
                self.prepared.remove(&id);
                Some(Command::Finished { id, committed: false })
            }
            ToService::Pending { id, .. } => Some(Command::Inquire { id }),
            ToService::Forget { .. } => None,
        }
    }
}

fn refuse() -> Vote {
    Vote::No { reason: "not this one".into(), retryable: false }
}

/// What the server says about a transaction: its outcome, or nothing if it does not know it.
pub(crate) async fn status(node: &Node, id: TransactionId, wait: Option<Wait>) -> Option<Outcome> {
    match call(node, Command::Status { id, wait }).await {
        Reply::Outcome(outcome) => Some(outcome),
        Reply::Refused(_) => None,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn is_decided_to_commit(outcome: &Outcome) -> bool {
    matches!(outcome.state, PublicState::Committing | PublicState::Committed)
}

/// Waits until the node has no open transaction. Asks again and again, as often as it takes.
pub(crate) async fn until_quiet(node: &Node) {
    loop {
        let list = Command::ListTransactions { after: None, limit: 1, attention: false };
        match call(node, list).await {
            Reply::Transactions(open) if open.is_empty() => return,
            Reply::Transactions(_) => tokio::task::yield_now().await,
            other => panic!("{other:?}"),
        }
    }
}
