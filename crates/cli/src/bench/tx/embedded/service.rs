//! A participant of an embedded run: a session that does as it is told, and counts.

use std::collections::HashSet;

use handfast_core::command::{Command, Vote};
use handfast_core::ids::{Name, StateId, TransactionId};
use handfast_core::output::ToService;
use handfast_server::node::{Connection, Item, Node};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::super::plan::{Done, REFUSE};
use crate::harness::PartError;

/// Starts one; says what it did when the node has stopped.
pub(super) fn start(node: &Node, name: &str) -> Result<JoinHandle<Done>, PartError> {
    let attach = Command::Attach {
        service: Name::new(name)?,
        instance: Name::new("only")?,
        state_id: StateId(Uuid::now_v7().as_u128()),
    };
    Ok(tokio::spawn(serve(node.connect(), attach)))
}

async fn serve(mut session: Connection, attach: Command) -> Done {
    let mut service = Service::default();
    let mut request = 0;
    let mut batch = vec![(request, attach)];
    while session.sender.send(std::mem::take(&mut batch)).await.is_ok() {
        let Some(items) = session.inbox.recv().await else { break };
        for item in items {
            if let Item::ToService(message) = item
                && let Some(answer) = service.answer(message)
            {
                request += 1;
                batch.push((request, answer));
            }
        }
    }
    service.done
}

#[derive(Default)]
struct Service {
    prepared: HashSet<TransactionId>,
    done: Done,
}

impl Service {
    fn answer(&mut self, message: ToService) -> Option<Command> {
        match message {
            ToService::Prepare { id, work, .. } => {
                let vote = if work.is_some_and(|work| work == REFUSE) {
                    self.done.refused += 1;
                    Vote::No { reason: "it was told to".to_owned(), retryable: false }
                } else {
                    self.done.prepared += u64::from(self.prepared.insert(id));
                    Vote::Yes
                };
                Some(Command::Vote { id, vote })
            }
            ToService::Commit { id, .. } => {
                // Told again because an answer was late: counted once.
                self.done.committed += u64::from(self.prepared.remove(&id));
                Some(Command::Finished { id, committed: true })
            }
            ToService::Abort { id } => {
                self.done.aborted += u64::from(self.prepared.remove(&id));
                Some(Command::Finished { id, committed: false })
            }
            ToService::Pending { id, .. } => Some(Command::Inquire { id }),
            ToService::Forget { .. } => None,
        }
    }
}
