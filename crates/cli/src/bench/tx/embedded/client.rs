//! The client of an embedded run: one session on which so many transactions are under way.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use handfast::bytes::Bytes;
use handfast_core::command::{BeginRequest, BranchRequest, Command, CommitRequest, Wait};
use handfast_core::event::EventRequest;
use handfast_core::ids::Name;
use handfast_core::output::{Outcome, PublicState, Reply};
use handfast_core::record::{IdempotencyKey, Participant, ParticipantKind, ReasonCode};
use handfast_server::node::{Item, Node};
use handfast_wire::status;

use super::super::args::WaitFor;
use super::super::plan::Load;
use super::super::tally::{End, Tally};
use crate::harness::PartError;

/// See the module.
pub(super) struct Client {
    node: Node,
    load: Load,
    participants: Vec<Participant>,
    topic: Name,
    next: u64,
    /// Under way, with when it was asked for.
    asked: HashMap<u64, Instant>,
}

impl Client {
    pub(super) fn new(node: &Node, load: &Load) -> Result<Self, PartError> {
        let participant = |name: &String| {
            let kind = ParticipantKind::Service;
            Ok::<_, PartError>(Participant { name: Name::new(name)?, kind })
        };
        Ok(Self {
            node: node.clone(),
            load: load.clone(),
            participants: load.participants.iter().map(participant).collect::<Result<_, _>>()?,
            topic: Name::new(&load.topic)?,
            next: 0,
            asked: HashMap::new(),
        })
    }

    pub(super) fn topic(&self) -> Name {
        self.topic.clone()
    }

    /// Asks for the next as soon as one is answered, until `to`; then waits for the answers.
    pub(super) async fn run(mut self, mut tally: Tally, to: Instant) -> Result<Tally, PartError> {
        let mut session = self.node.connect();
        let mut batch: Vec<_> = (0..self.load.concurrency).map(|_| self.begin()).collect();
        while !self.asked.is_empty() {
            session.sender.send(std::mem::take(&mut batch)).await?;
            let items = session.inbox.recv().await.ok_or("the node has stopped")?;
            let is_over = Instant::now() >= to;
            for item in items {
                let Item::Reply { request, reply } = item else { continue };
                let asked = self.asked.remove(&request).ok_or("an answer to nothing")?;
                tally.ended(&self.load, request, asked, end(reply));
                if !is_over {
                    batch.push(self.begin());
                }
            }
        }
        Ok(tally)
    }

    fn begin(&mut self) -> (u64, Command) {
        let number = self.next;
        self.next += 1;
        self.asked.insert(number, Instant::now());
        let load = &self.load;
        let branches = self.participants.iter().enumerate().map(|(at, participant)| {
            let work = Some(Bytes::from_static(load.work(number, at)));
            BranchRequest { participant: participant.clone(), work }
        });
        let events = (0..load.events).map(|event| {
            let body = Bytes::from(load.data(number, event));
            EventRequest { topic: self.topic.clone(), key: None, body }
        });
        let wait = match load.wait {
            WaitFor::Decided => Wait::Decided,
            WaitFor::Finished => Wait::Finished,
        };
        let request = BeginRequest {
            id: self.node.new_transaction_id(),
            local: None,
            deadline_ms: None,
            // As the client library has one for each.
            key: Some(IdempotencyKey {
                key: format!("{}-{number}", load.topic).into(),
                digest: number,
            }),
            detached: true,
            branches: branches.collect(),
            events: events.collect(),
            acknowledgements: Vec::new(),
            commit: Some(CommitRequest {
                branches: self.participants.len().try_into().unwrap_or(u32::MAX),
                items: load.events.into(),
                votes: Vec::new(),
                vouched: true,
                wait,
            }),
        };
        (number, Command::Begin(Box::new(request)))
    }
}

fn end(reply: Reply) -> End {
    let outcome = match reply {
        Reply::Outcome(outcome) => outcome,
        Reply::Refused(refusal) => {
            let after = Duration::from_millis(status::retry_after_ms(refusal.code));
            return End::Refused { code: refusal.code.as_str().to_owned(), after };
        }
        other => return End::Wrong(format!("a transaction was answered with {other:?}")),
    };
    let Outcome { state, reason, .. } = outcome;
    match (state, reason) {
        (PublicState::Committing | PublicState::Committed, _) => End::Committed,
        (PublicState::Failed, Some(reason)) if reason.code == ReasonCode::VotedNo => End::VotedNo,
        (state, reason) => End::Wrong(format!("a transaction ended as {state:?}: {reason:?}")),
    }
}
