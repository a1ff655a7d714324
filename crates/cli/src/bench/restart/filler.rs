//! Fills a store through a node in this process: decided transactions that do not finish, then
//! events, all of them durable. Then it waits to be killed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use handfast::bytes::Bytes;
use handfast_core::command::{BeginRequest, BranchRequest, Command, CommitRequest, Vote, Wait};
use handfast_core::event::EventRequest;
use handfast_core::ids::{Digest, Name, ProducerId, StateId};
use handfast_core::limits::Limits;
use handfast_core::output::{PublicState, Reply, ToService};
use handfast_core::record::{Participant, ParticipantKind, TopicSettings};
use handfast_core::refusal::Code;
use handfast_server::node::{Connection, Item, Node, NodeOptions};
use serde::{Deserialize, Serialize};

use crate::bench::part::Said;
use crate::bench::runtime;
use crate::harness::{PartError, exit_with_stdin};

/// Transactions, and batches of events, that are under way at once.
const AT_ONCE: u64 = 2_000;
/// A service is told again and again what it does not confirm; one that has too much of that unread
/// loses its stream.
const BRANCHES_EACH: u64 = 20_000;
const BATCHES_AT_ONCE: u64 = 16;
const BATCH: u64 = 100;
/// Refused for so long means that the disk is full.
const STUCK: Duration = Duration::from_secs(10);
/// Data of an event; with its place in the log it takes a little more.
static EVENT: [u8; 1_000] = [b'.'; 1_000];
const TOPIC: &str = "fill";

/// What to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) store: PathBuf,
    pub(super) bytes: u64,
    pub(super) open: u32,
    /// Each open transaction has published one.
    pub(super) has_events: bool,
}

/// What is there now.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Filled {
    pub(super) open: u64,
    pub(super) events: u64,
    /// How often something was refused as `no_space` on the way.
    pub(super) refused: u64,
}

/// The limit has to be raised, for the filler and for the server.
pub(super) fn limit(open: u32) -> usize {
    open as usize + 1_000
}

/// Fills the store, and waits.
pub(super) fn run(plan: &Plan) -> Result<(), PartError> {
    exit_with_stdin();
    runtime(2)?.block_on(async {
        let mut limits = Limits::default();
        limits.open_transactions = limit(plan.open);
        let options = NodeOptions::default().with_limits(limits);
        let node = Node::open(&plan.store, options, &mut |_| {})?;
        let mut services = Vec::new();
        for number in 0..=u64::from(plan.open) / BRANCHES_EACH {
            let service = Name::new(&format!("never-finishes-{number}"))?;
            let attach = Command::Attach {
                service: service.clone(),
                instance: Name::new("only")?,
                state_id: StateId(u128::from(number) + 1),
            };
            tokio::spawn(votes_only(node.connect(), attach));
            services.push(service);
        }
        let settings = TopicSettings::default();
        node.call(Command::CreateTopic { name: Name::new(TOPIC)?, settings }).await?;
        let (open, refused) = open(&node, &services, plan).await?;
        let (events, more) = publish(&node, plan).await?;
        let refused = refused + more;
        let events = events + if plan.has_events { open } else { 0 };
        match Said::say_found_and_stay(&Filled { open, events, refused })? {}
    })
}

/// A participant that votes YES, and never says that it has finished.
async fn votes_only(mut session: Connection, attach: Command) {
    let mut request = 0;
    let mut batch = vec![(request, attach)];
    while session.sender.send(std::mem::take(&mut batch)).await.is_ok() {
        let Some(items) = session.inbox.recv().await else { return };
        for item in items {
            if let Item::ToService(ToService::Prepare { id, .. }) = item {
                request += 1;
                batch.push((request, Command::Vote { id, vote: Vote::Yes }));
            }
        }
    }
}

/// Transactions that are decided, and stay open: how many, and how often one was refused for want of
/// room in between.
async fn open(node: &Node, services: &[Name], plan: &Plan) -> Result<(u64, u64), PartError> {
    let mut session = node.connect();
    let (wanted, topic) = (u64::from(plan.open), Name::new(TOPIC)?);
    let event = || {
        let body = Bytes::from_static(&EVENT[..200]);
        EventRequest { topic: topic.clone(), key: None, body }
    };
    let begin = |number: u64| {
        let name = services[(number / BRANCHES_EACH) as usize].clone();
        let participant = Participant { name, kind: ParticipantKind::Service };
        let request = BeginRequest {
            id: node.new_transaction_id(),
            local: None,
            deadline_ms: None,
            key: None,
            detached: true,
            branches: vec![BranchRequest { participant, work: Some(Bytes::from_static(b"work")) }],
            events: plan.has_events.then(event).into_iter().collect(),
            acknowledgements: Vec::new(),
            commit: Some(CommitRequest {
                branches: 1,
                items: plan.has_events.into(),
                votes: Vec::new(),
                vouched: true,
                wait: Wait::Decided,
            }),
        };
        (number, Command::Begin(Box::new(request)))
    };
    let mut asked = wanted.min(AT_ONCE);
    let mut batch: Vec<_> = (0..asked).map(begin).collect();
    let (mut done, mut refused, mut last) = (0, 0, Instant::now());
    while done < wanted {
        session.sender.send(std::mem::take(&mut batch)).await?;
        for item in session.inbox.recv().await.ok_or("the node has stopped")? {
            let Item::Reply { request, reply } = item else { continue };
            let outcome = match reply {
                Reply::Outcome(outcome) => outcome,
                // As below, the log makes room while it is asked again.
                Reply::Refused(refusal)
                    if refusal.code == Code::NoSpace && last.elapsed() < STUCK =>
                {
                    refused += 1;
                    batch.push(begin(request));
                    continue;
                }
                other => return Err(format!("not begun: {other:?}").into()),
            };
            if outcome.state != PublicState::Committing {
                return Err(format!("a transaction is not decided to commit: {outcome:?}").into());
            }
            (done, last) = (done + 1, Instant::now());
            if asked < wanted {
                batch.push(begin(asked));
                asked += 1;
            }
        }
        Said::Progress(done).say()?;
    }
    Ok((done, refused))
}

/// Events until the journal has its size: how many, and how many batches were refused for want of
/// room in between.
async fn publish(node: &Node, plan: &Plan) -> Result<(u64, u64), PartError> {
    let topic = Name::new(TOPIC)?;
    let mut session = node.connect();
    let publish = |sequence: u64| {
        let body = Bytes::from_static(&EVENT);
        let event = || EventRequest { topic: topic.clone(), key: None, body: body.clone() };
        let events = (0..BATCH).map(|_| event()).collect();
        let (producer, digest) = (ProducerId(1), Digest(sequence));
        (sequence, Command::Publish { producer, sequence, digest, events })
    };
    let (mut sequence, mut done, mut refused) = (0, 0, 0);
    let mut last = Instant::now();
    while size(&plan.store)? < plan.bytes {
        let batch: Vec<_> = (1..=BATCHES_AT_ONCE).map(|n| publish(sequence + n)).collect();
        sequence += BATCHES_AT_ONCE;
        let mut unanswered = BATCHES_AT_ONCE;
        session.sender.send(batch).await?;
        while unanswered > 0 {
            for item in session.inbox.recv().await.ok_or("the node has stopped")? {
                unanswered -= 1;
                match item {
                    Item::Reply { reply: Reply::Published { .. }, .. } => {
                        (done, last) = (done + 1, Instant::now());
                    }
                    // The log has no room yet: it makes some while it is asked again.
                    Item::Reply { reply: Reply::Refused(refusal), .. }
                        if refusal.code == Code::NoSpace && last.elapsed() < STUCK =>
                    {
                        refused += 1;
                    }
                    other => return Err(format!("not published: {other:?}").into()),
                }
            }
        }
        Said::Progress(done * BATCH).say()?;
    }
    Ok((done * BATCH, refused))
}

/// Bytes of the journal that are written: what is only preallocated does not count, so the newest
/// segment is left out.
fn size(store: &Path) -> Result<u64, PartError> {
    let mut sizes = Vec::new();
    for entry in std::fs::read_dir(store)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_string_lossy().ends_with(".log") {
            sizes.push((name, entry.metadata()?.len()));
        }
    }
    sizes.sort();
    sizes.pop();
    Ok(sizes.iter().map(|(_, size)| size).sum())
}
