//! Finishing MariaDB branches on the sessions that prepared them (databases.md, MY3).
//!
//! A session with a prepared branch waits here for the decision, which comes over the stream that
//! carried its vote. When that stream ends, the session is closed and the server finishes the
//! branch: nothing here decides how a branch ends. One task for each client, whatever the number
//! of transactions.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use handfast_core::ids::TransactionId;
use handfast_database::End;
use handfast_database::mariadb::application;
use handfast_wire::raw::transaction_request::Call;
use handfast_wire::v1::transaction_reply::Result as Answer;
use handfast_wire::{ids, v1};
use sqlx::MySql;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::handle::BranchHandle;
use super::lease::Lease;
use crate::client::Handfast;
use crate::link::{CallOptions, Listener, Queued};

/// So many branches are finished at a time; more wait for their turn.
const AT_ONCE: usize = 64;
/// One XA COMMIT or ROLLBACK may take this long; then its connection is closed.
const FINISHING: Duration = Duration::from_secs(30);
/// How often branches are looked for whose decision does not come.
const TICK: Duration = Duration::from_secs(1);
/// After its deadline a transaction is decided, and the server has taken over what was silent.
const GRACE: Duration = Duration::from_secs(10);

/// The way to the task.
#[derive(Clone, Debug)]
pub(super) struct Finisher(mpsc::UnboundedSender<Order>);

/// A session with a prepared branch.
pub(super) struct Held {
    /// Its client is kept, and with it the stream open on which the decision comes.
    handle: BranchHandle,
    stream: u64,
    lease: Lease<MySql>,
    /// No decision comes any more.
    give_up: Instant,
    /// It is known that the transaction failed.
    failed: bool,
}

impl Held {
    pub(super) fn new(handle: BranchHandle, stream: u64, lease: Lease<MySql>) -> Self {
        let give_up = handle.deadline + GRACE;
        Self { handle, stream, lease, give_up, failed: false }
    }
}

enum Order {
    /// The server says how to end a branch.
    Finish(v1::FinishBranch),
    /// A stream has ended.
    Ended(u64),
    Hold(Box<Held>),
    Abandon(Box<Held>),
    AbortAsked(TransactionId),
    Failed(TransactionId),
    Extend(TransactionId, Instant),
}

impl Finisher {
    /// The finisher of a client; its task is started when it is first needed, and ends when nobody
    /// can give it orders any more.
    pub(super) fn of(handfast: &Handfast) -> Option<&Self> {
        handfast.inner.pushed.listen(|| {
            let (orders, inbox) = mpsc::unbounded_channel();
            tokio::spawn(Task::default().run(inbox));
            Self(orders)
        })
    }

    /// Takes a session over; before its vote leaves.
    pub(super) fn hold(&self, held: Held) {
        self.order(Order::Hold(Box::new(held)));
    }

    /// A session whose branch is not voted for, and never will be: it rolls back.
    pub(super) fn abandon(&self, held: Held) {
        self.order(Order::Abandon(Box::new(held)));
    }

    fn order(&self, order: Order) {
        // Fails only while the runtime shuts down.
        drop(self.0.send(order));
    }
}

impl Listener for Finisher {
    fn pushed(&self, answer: Answer) {
        // Anything else is of a newer server: nothing here knows what it means.
        if let Answer::Finish(finish) = answer {
            self.order(Order::Finish(finish));
        }
    }

    fn stream_ended(&self, stream: u64) {
        self.order(Order::Ended(stream));
    }

    /// The order to roll back comes soon.
    fn abort_asked(&self, id: TransactionId) {
        self.order(Order::AbortAsked(id));
    }

    fn failed(&self, id: TransactionId) {
        self.order(Order::Failed(id));
    }

    fn extended(&self, id: TransactionId, deadline: Instant) {
        self.order(Order::Extend(id, deadline));
    }
}

/// What becomes of a session whose branch is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// The server waits for the report.
    Report,
    /// The server never knew the session: it is free.
    Keep,
    /// The server may know the session and end it at any time.
    Close,
}

struct Job {
    held: Held,
    end: End,
    then: Then,
}

#[derive(Default)]
struct Task {
    held: HashMap<TransactionId, Vec<Held>>,
    /// The last stream that has ended, and with it all before.
    ended: u64,
    waiting: VecDeque<Job>,
    working: FuturesUnordered<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Order>) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut open = true;
        while open || !self.working.is_empty() {
            tokio::select! {
                order = inbox.recv(), if open => match order {
                    Some(order) => self.obey(order),
                    None => open = false,
                },
                Some(()) = self.working.next(), if !self.working.is_empty() => {}
                _ = tick.tick(), if !self.held.is_empty() => self.expire(),
            }
            while self.working.len() < AT_ONCE
                && let Some(job) = self.waiting.pop_front()
            {
                self.working.push(Box::pin(finish(job)));
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Finish(told) => self.told(&told),
            Order::Ended(stream) => {
                self.ended = stream;
                // Dropping a session closes it; the server takes its branch over.
                self.retain(|held| held.stream > stream);
            }
            Order::Hold(held) if held.stream <= self.ended => drop(held),
            Order::Hold(held) => self.held.entry(held.handle.id).or_default().push(*held),
            Order::Abandon(held) => {
                self.waiting.push_back(Job { held: *held, end: End::Abort, then: Then::Keep });
            }
            Order::AbortAsked(id) => {
                for held in self.held.get_mut(&id).into_iter().flatten() {
                    held.give_up = Instant::now() + GRACE;
                }
            }
            Order::Failed(id) => {
                // The order to roll back is on its way, unless the votes were not taken.
                for held in self.held.get_mut(&id).into_iter().flatten() {
                    held.failed = true;
                    held.give_up = Instant::now() + TICK;
                }
            }
            Order::Extend(id, deadline) => {
                for held in self.held.get_mut(&id).into_iter().flatten() {
                    held.give_up = deadline + GRACE;
                }
            }
        }
    }

    fn told(&mut self, told: &v1::FinishBranch) {
        let Ok(id) = ids::transaction_id("transaction_id", &told.transaction_id) else { return };
        let end = if told.commit { End::Commit } else { End::Abort };
        // One that is not held was given up, and the server finishes it without a report.
        let Some(held) = self.held.get_mut(&id) else { return };
        let Some(at) = held.iter().position(|held| held.handle.database == told.database) else {
            return;
        };
        let one = held.swap_remove(at);
        if held.is_empty() {
            self.held.remove(&id);
        }
        self.waiting.push_back(Job { held: one, end, then: Then::Report });
    }

    fn expire(&mut self) {
        let now = Instant::now();
        for held in self.retain(|held| held.give_up > now) {
            if held.failed {
                self.waiting.push_back(Job { held, end: End::Abort, then: Then::Close });
            }
        }
    }

    /// Keeps some of the sessions and gives the others out.
    fn retain(&mut self, keep: impl Fn(&Held) -> bool) -> Vec<Held> {
        let mut others = Vec::new();
        self.held.retain(|_, held| {
            others.extend(held.extract_if(.., |held| !keep(held)));
            !held.is_empty()
        });
        others
    }
}

async fn finish(Job { held, end, then }: Job) {
    let Held {
        handle: BranchHandle { handfast, id, database, branch, .. }, stream, mut lease, ..
    } = held;
    let finished = timeout(FINISHING, application::finish_own(&mut lease, &branch, end)).await;
    let done = match finished {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::debug!(%branch, %error, "a branch is left to the server");
            false
        }
        Err(_) => {
            tracing::debug!(%branch, "a branch is left to the server: no answer");
            false
        }
    };
    if done && then != Then::Close {
        lease.give_back();
    } else {
        drop(lease);
    }
    if then == Then::Report {
        let transaction_id = ids::transaction_bytes(id);
        let ended = Call::BranchEnded(v1::BranchEnded { transaction_id, database, done });
        let terms = CallOptions::within(handfast.connection().limit).only_on(Some(stream));
        handfast.inner.transactions.post(Queued::new(ended, 0, terms));
    }
}
