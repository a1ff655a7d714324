//! Sessions: how a stream talks to the pump. Batches in both directions, bounded in both.
//!
//! A session waits for a permit before it asks more; one that does not read what it has asked for
//! is ended, so that it slows nobody but itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel as channel;
use handfast_core::command::Command;
use handfast_core::event::{Delivery, OffsetRange};
use handfast_core::ids::{Name, SessionId, TransactionId};
use handfast_core::output::{Reply, ToService};
use handfast_core::refusal::{Code, Refusal};
use tokio::sync::{Semaphore, mpsc};

use super::pump::ToPump;
use super::requests::Requests;
use super::unread::{AllUnread, Unread};
use super::{NodeStopped, NodeStopped as Stopped};

/// Requests of one session that may be unanswered.
const UNANSWERED: usize = 4_096;
/// Requests that reach the pump as one message: others get their turn in between.
const BATCH: usize = 256;
/// A request whose number has this bit is answered at leisure if there is nothing to say but
/// [`Reply::Done`]: nobody is woken for that alone.
pub const QUIET: u64 = 1 << 63;
/// So many quiet answers are worth waking somebody.
const QUIET_ANSWERS: usize = 64;
/// Items that may wait for a session to read them, besides one for each transaction that may be
/// open: an instance of a service that comes back is told of all of its own at once.
const UNREAD: usize = 100_000;

/// One stream's two ends. The session ends when both are dropped, or the sender is closed.
#[derive(Debug)]
pub struct Connection {
    /// To the pump.
    pub sender: Sender,
    /// From the pump.
    pub inbox: Inbox,
}

/// The way to the pump.
#[derive(Clone, Debug)]
pub struct Sender(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    session: SessionId,
    pump: channel::Sender<ToPump>,
    permits: Arc<Semaphore>,
    requests: Requests,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The pump may be gone already; then there is no session either.
        let _ = self.pump.send(ToPump::SessionEnded(self.session));
    }
}

impl Sender {
    /// The session.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.0.session
    }

    /// Asks for a batch of things; each is answered by one [`Item::Reply`] with its number.
    /// Waits while too many requests of this session are unanswered, or too many bytes of all
    /// sessions have not been handled.
    ///
    /// Cancel safety: a call that is cancelled has sent nothing, or a first part of its batch.
    ///
    /// # Errors
    /// [`NodeStopped`] when the node has stopped.
    pub async fn send(&self, mut batch: Vec<(u64, Command)>) -> Result<(), Stopped> {
        while !batch.is_empty() {
            let rest = batch.split_off(batch.len().min(BATCH));
            let count = u32::try_from(batch.len()).expect("a batch is at most BATCH");
            let permits = self.0.permits.acquire_many(count).await.map_err(|_| NodeStopped)?;
            let room = self.0.requests.room_for(batch.iter().map(|(_, command)| command)).await?;
            permits.forget();
            let message = ToPump::Commands { session: self.0.session, batch, room };
            self.0.pump.send(message).map_err(|_| NodeStopped)?;
            batch = rest;
        }
        Ok(())
    }
}

/// What the node has for a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The answer to a request.
    Reply {
        /// The request's number.
        request: u64,
        /// The answer.
        reply: Reply,
    },
    /// For an instance of a service.
    ToService(ToService),
    /// For a client that holds the database session of a branch: finish it.
    Finish {
        /// The transaction.
        id: TransactionId,
        /// The database.
        database: Name,
        /// Commit or roll back.
        commit: bool,
    },
    /// For a subscriber.
    Deliver(Box<Delivery>),
    /// For a subscriber: events that are gone.
    Gap(OffsetRange),
    /// The session is over, and why.
    End(Refusal),
}

/// The way from the pump.
#[derive(Debug)]
pub struct Inbox {
    receiver: mpsc::UnboundedReceiver<Vec<Item>>,
    unread: Arc<Unread>,
    /// Items, and bytes of deliveries, that were received and are not read.
    holds: (usize, usize),
    /// Keeps the session open while its replies may still be wanted.
    shared: Arc<Shared>,
}

/// What a delivery keeps in memory for a session that has not read it.
fn bytes(item: &Item) -> usize {
    match item {
        Item::Deliver(delivery) => delivery.event.body.len(),
        // Bounded by their number.
        Item::Reply { .. }
        | Item::ToService(_)
        | Item::Finish { .. }
        | Item::Gap(_)
        | Item::End(_) => 0,
    }
}

/// How many messages an item is: a list is as many as it has entries.
fn weight(item: &Item) -> usize {
    let Item::Reply { reply, .. } = item else { return 1 };
    1 + match reply {
        Reply::Transactions(views) => views.len(),
        Reply::Topics(views) => views.len(),
        Reply::Subscriptions(views) => views.len(),
        Reply::Participants(views) => views.len(),
        Reply::DeadLetters { letters, .. } => letters.len(),
        _ => 0,
    }
}

/// Counts what waits to be read by a session and does not come from the node.
#[derive(Clone, Debug)]
pub struct Beside(Arc<Unread>);

impl Beside {
    /// So many messages are about to be sent to the session, which counts them as received with
    /// [`Inbox::received_beside`].
    ///
    /// # Errors
    /// A refusal, when all sessions have too much to read and this one has some of it: it has to
    /// end.
    pub fn sent(&self, messages: usize) -> Result<(), Refusal> {
        if self.0.is_in_the_way() {
            self.0.cut_off();
            return Err(Refusal::new(Code::TooSlow, "its answers are not read"));
        }
        self.0.sent(messages, 0);
        Ok(())
    }
}

impl Inbox {
    /// For messages to the session that do not come from the node.
    #[must_use]
    pub fn beside(&self) -> Beside {
        Beside(Arc::clone(&self.unread))
    }

    /// So many messages of [`Inbox::beside`] were received.
    pub fn received_beside(&mut self, messages: usize) {
        self.holds.0 += messages;
    }

    /// Whatever is there, in order; none when the session or the node is over. What was received
    /// before counts as read.
    ///
    /// Cancel safe.
    pub async fn recv(&mut self) -> Option<Vec<Item>> {
        self.taken();
        self.more().await
    }

    /// The same, while what was received before still waits to be read.
    ///
    /// Cancel safe.
    pub async fn more(&mut self) -> Option<Vec<Item>> {
        let mut items = self.receiver.recv().await?;
        while let Ok(more) = self.receiver.try_recv() {
            items.extend(more);
        }
        for item in &items {
            self.holds.0 += weight(item);
            self.holds.1 += bytes(item);
        }
        Some(items)
    }

    /// What is to be done when the session has to be ended because it reads nothing, while all
    /// together have too much to read. Once.
    pub fn when_cut_off(&self, cut_off: impl Fn() + Send + Sync + 'static) {
        self.unread.when_cut_off(cut_off);
    }

    /// What was received has been read.
    pub fn taken(&mut self) {
        let (items, bytes) = std::mem::take(&mut self.holds);
        if items > 0 && self.unread.read(items, bytes) {
            // The node may have stopped; then nothing comes any more.
            let _ = self.shared.pump.send(ToPump::CaughtUp(self.shared.session));
        }
    }
}

/// The pump's end of a session.
#[derive(Debug)]
pub(crate) struct Outbox {
    sender: mpsc::UnboundedSender<Vec<Item>>,
    unread: Arc<Unread>,
    permits: Arc<Semaphore>,
    pending: Vec<Item>,
    pending_weight: usize,
    pending_bytes: usize,
    answered: usize,
    /// It is among those that are sent to at the end of the batch.
    touched: bool,
    /// It is among those that have refusals which may wait a moment.
    has_refusals: bool,
    /// How many items were sent last: about as many will be.
    last: usize,
}

/// Makes a session; its outbox goes to the pump.
pub(crate) fn open(
    session: SessionId,
    pump: &channel::Sender<ToPump>,
    requests: &Requests,
    all_unread: &Arc<AllUnread>,
) -> Connection {
    let (sender, receiver) = mpsc::unbounded_channel();
    let unread = Arc::new(Unread::new(all_unread));
    let permits = Arc::new(Semaphore::new(UNANSWERED));
    let outbox = Outbox {
        sender,
        unread: Arc::clone(&unread),
        permits: Arc::clone(&permits),
        pending: Vec::new(),
        pending_weight: 0,
        pending_bytes: 0,
        answered: 0,
        touched: false,
        has_refusals: false,
        last: 0,
    };
    // If the pump is gone the outbox is dropped, and the inbox says so.
    let _ = pump.send(ToPump::SessionOpened { session, outbox });
    let shared =
        Arc::new(Shared { session, pump: pump.clone(), permits, requests: requests.clone() });
    Connection {
        sender: Sender(Arc::clone(&shared)),
        inbox: Inbox { receiver, unread, holds: (0, 0), shared },
    }
}

/// Numbers for sessions, never used twice in a process.
#[derive(Debug)]
pub(crate) struct SessionIds(AtomicU64);

impl SessionIds {
    /// From 1; session 0 is that of the unary calls.
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(1))
    }

    pub(crate) fn next(&self) -> SessionId {
        SessionId(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// All outboxes, with what is to be sent at the end of a batch.
#[derive(Debug)]
pub(crate) struct Outboxes {
    /// Items that may wait for a session to read them.
    unread: usize,
    /// Of all of them together.
    all_unread: Arc<AllUnread>,
    outboxes: HashMap<SessionId, Outbox>,
    touched: Vec<SessionId>,
    /// Sessions with refusals which may wait a moment.
    refused: Vec<SessionId>,
    /// Such refusals since the start.
    refusals: u64,
}

/// A refusal of something that may be asked again later.
pub(crate) fn is_later(reply: &Reply) -> bool {
    matches!(reply, Reply::Refused(refusal) if refusal.code.is_retryable())
}

/// What came of sending everything.
#[derive(Debug, Default)]
pub(crate) struct Flushed {
    /// Sessions that are over: those who do not read, and those whose stream is gone.
    pub(crate) over: Vec<SessionId>,
    /// Sessions that have more to read than they should.
    pub(crate) behind: Vec<SessionId>,
}

impl Outboxes {
    pub(crate) fn new(open_transactions: usize, all_unread: Arc<AllUnread>) -> Self {
        let unread = UNREAD.saturating_add(open_transactions);
        let (outboxes, touched, refused) = (HashMap::new(), Vec::new(), Vec::new());
        Self { unread, all_unread, outboxes, touched, refused, refusals: 0 }
    }

    /// A session has said that it has caught up, and nothing has been sent since that it has to
    /// catch up with again.
    pub(crate) fn has_caught_up(&self, session: SessionId) -> bool {
        let outbox = self.outboxes.get(&session);
        outbox.is_some_and(|outbox| !outbox.unread.is_behind())
    }

    pub(crate) fn insert(&mut self, session: SessionId, outbox: Outbox) {
        self.outboxes.insert(session, outbox);
    }

    /// Forgets a session; what waited for it is dropped.
    pub(crate) fn remove(&mut self, session: SessionId) {
        self.outboxes.remove(&session);
    }

    pub(crate) fn len(&self) -> usize {
        self.outboxes.len()
    }

    pub(crate) fn push(&mut self, session: SessionId, item: Item) {
        let Some(outbox) = self.outboxes.get_mut(&session) else { return };
        if outbox.pending.is_empty() {
            outbox.pending.reserve_exact(outbox.last);
        }
        let quiet = matches!(
            item, Item::Reply { request, reply: Reply::Done } if request & QUIET != 0
        );
        // Who is to come again later need not be told so at once: a server with too much to do would
        // spend its time on waking those for whom it does nothing.
        let is_later = matches!(&item, Item::Reply { reply, .. } if is_later(reply));
        self.refusals += u64::from(is_later);
        if is_later && !outbox.touched && !outbox.has_refusals {
            outbox.has_refusals = true;
            self.refused.push(session);
        }
        outbox.answered += usize::from(matches!(item, Item::Reply { .. }));
        outbox.pending_weight += weight(&item);
        outbox.pending_bytes += bytes(&item);
        outbox.pending.push(item);
        let waits = quiet || is_later;
        if !outbox.touched && (!waits || outbox.pending.len() >= QUIET_ANSWERS) {
            outbox.touched = true;
            self.touched.push(session);
        }
    }

    /// How often somebody was refused who may come again later.
    pub(crate) fn refusals(&self) -> u64 {
        self.refusals
    }

    /// There are refusals that nobody has been told yet.
    pub(crate) fn has_refusals(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Refusals have waited long enough.
    pub(crate) fn tell_refused(&mut self) {
        for session in self.refused.drain(..) {
            let Some(outbox) = self.outboxes.get_mut(&session) else { continue };
            outbox.has_refusals = false;
            if !outbox.touched && !outbox.pending.is_empty() {
                outbox.touched = true;
                self.touched.push(session);
            }
        }
    }

    /// Quiet answers have waited long enough.
    pub(crate) fn hurry(&mut self) {
        for (session, outbox) in &mut self.outboxes {
            if !outbox.touched && !outbox.pending.is_empty() {
                outbox.touched = true;
                self.touched.push(*session);
            }
        }
    }

    /// Sends everything.
    pub(crate) fn flush(&mut self) -> Flushed {
        let Flushed { mut over, mut behind } = Flushed::default();
        for session in self.touched.drain(..) {
            let Some(outbox) = self.outboxes.get_mut(&session) else { continue };
            outbox.touched = false;
            let mut items = std::mem::take(&mut outbox.pending);
            outbox.last = items.len();
            let bytes = std::mem::take(&mut outbox.pending_bytes);
            // Before they are sent: whoever takes the last of them sees it.
            let weight = std::mem::take(&mut outbox.pending_weight);
            let (unread, is_behind_now) = outbox.unread.sent(weight, bytes);
            if is_behind_now {
                behind.push(session);
            }
            let ended = items.iter().any(|i| matches!(i, Item::End(_)));
            if unread > self.unread && !ended {
                let detail = format!("{unread} messages wait to be read: the stream is too slow");
                outbox.unread.sent(1, 0);
                items.push(Item::End(Refusal::new(Code::TooSlow, detail)));
                over.push(session);
            } else if ended {
                over.push(session);
            }
            outbox.permits.add_permits(std::mem::take(&mut outbox.answered));
            if outbox.sender.send(items).is_err() && !over.contains(&session) {
                over.push(session);
            }
        }
        if self.all_unread.is_too_much() {
            self.end_who_read_nothing(&mut over);
        }
        for session in &over {
            self.outboxes.remove(session);
        }
        Flushed { over, behind }
    }

    /// All of them together have far too much to read: ends those that read nothing, the ones with
    /// the most first.
    fn end_who_read_nothing(&mut self, over: &mut Vec<SessionId>) {
        let mut stuck: Vec<_> = self
            .outboxes
            .iter()
            .filter_map(|(session, outbox)| Some((outbox.unread.stuck_bytes()?, *session)))
            .filter(|(_, session)| !over.contains(session))
            .collect();
        stuck.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        let mut free = self.all_unread.excess();
        for (bytes, session) in stuck {
            let Some(excess) = free.checked_sub(1) else { break };
            free = (excess + 1).saturating_sub(bytes);
            let Some(outbox) = self.outboxes.get(&session) else { continue };
            let detail = format!("{bytes} bytes wait to be read by a stream that reads nothing");
            outbox.unread.sent(1, 0);
            // It may have gone already.
            let _ = outbox.sender.send(vec![Item::End(Refusal::new(Code::TooSlow, detail))]);
            outbox.unread.cut_off();
            over.push(session);
        }
    }
}
