//! The coordinator: rows C1 to C21 and L1 to L9 of the protocol for many transactions.
//!
//! One file per phase. Every handler takes the transaction where it stands and either applies the
//! input, ignores it for a stated reason, or refuses it with a code. It never reads a clock and
//! never waits: what waits is a record, a vote or a deadline.

mod admission;
mod attention;
mod chain;
mod checks;
mod collecting;
mod committing;
mod databases;
mod deciding;
mod forgetting;
mod inquiry;
mod keys;
mod local;
mod opening;
mod operator;
mod pause;
mod recovery;
mod refusals;
mod services;
mod show;
#[cfg(test)]
mod tests;
mod timers;
mod transaction;
mod unseen;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;

use hashbrown::HashMap;

use crate::ages::Ages;
use crate::bus::{Bus, Room};
use crate::command::{Caller, Command};
use crate::effects::Effects;
use crate::ids::{Began, Lsn, Name, Now, SessionId, StoreId, TransactionId};
use crate::limits::Limits;
use crate::output::ToService;
use crate::record::{KeyBatch, KeyRestated, Reason, ReasonCode, Record};
use crate::refusal::{Code, Refusal};

use admission::Line;
use collecting::deadline_reason;
use databases::Registered;
use forgetting::Undecided;
use inquiry::Question;
use keys::Keys;
use services::Services;
use timers::Timers;
use transaction::{Phase, Transaction, work_bytes};
use unseen::Unseen;

/// What a handler works with besides the coordinator itself.
pub(crate) struct Context<'a> {
    pub(crate) now: Now,
    /// The store, and the epoch of this opening.
    pub(crate) life: (StoreId, u32),
    pub(crate) ages: &'a Ages,
    pub(crate) limits: &'a Limits,
    pub(crate) bus: &'a mut Bus,
    pub(crate) effects: &'a mut Effects,
    /// What may still be appended to the log.
    pub(crate) room: Room,
    /// New work is refused: the server is about to stop.
    pub(crate) draining: bool,
}

impl Context<'_> {
    /// When a transaction began whose BEGIN has this place. One of an earlier epoch gets the present
    /// one: all that was undecided was decided when it opened, so everything that is still to be
    /// decided began later, and that is all that a participant needs to know (P2).
    pub(crate) fn began(&self, begin: Lsn) -> Began {
        let (store, epoch) = self.life;
        Began { store, epoch, lsn: begin }
    }

    /// The decision about a transaction, as a service is told it.
    pub(crate) fn decision(&self, id: TransactionId, begin: Lsn, commit: bool) -> ToService {
        if commit {
            ToService::Commit { id, began: self.began(begin) }
        } else {
            ToService::Abort { id }
        }
    }
}

/// The coordinator.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coordinator {
    /// Boxed, because the table moves what it holds.
    transactions: HashMap<TransactionId, Box<Transaction>>,
    /// Begins that wait for a place among them.
    line: Line,
    /// Those that may still ask for a first vote.
    undecided: Undecided,
    /// Transactions that end with their stream.
    owned: HashMap<SessionId, BTreeSet<TransactionId>>,
    /// Transactions with a branch that a client will finish on its own database session.
    held: HashMap<SessionId, BTreeSet<TransactionId>>,
    services: Services,
    /// Registered databases.
    databases: BTreeMap<Name, Registered>,
    claims: databases::Claims,
    keys: Keys,
    /// Those that have ended otherwise than decided, until a person has seen it.
    unseen: Unseen,
    timers: Timers,
    /// When collected `forget`s are sent.
    forget_at: Option<u64>,
    /// Questions about transactions that are not in memory, while the log is read.
    questions: HashMap<TransactionId, Vec<Question>>,
    /// Bytes of work of branches that have not voted.
    work_bytes: usize,
    /// Branches of all open transactions.
    branches: usize,
    counters: Counters,
    resumed: Resumed,
}

/// What a start has found open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resumed {
    /// Not decided before: they fail, as `coordinator_restarted`.
    pub aborted: usize,
    /// Decided: their participants are told again.
    pub decided: usize,
    /// Local: their databases decide.
    pub local: usize,
}

/// Events counted since the server started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Transactions begun.
    pub begun: u64,
    /// Transactions whose COMMIT became durable.
    pub committed: u64,
    /// Transactions whose ABORT was accepted.
    pub failed: u64,
    /// Transactions that asked for a person's attention.
    pub attention: u64,
    /// Local transactions that nobody has said the end of, and whose database had no marker.
    pub abandoned: u64,
}

/// Room kept for the decision and END of each open transaction, and for its key.
const OPEN_BYTES: u64 = 768;
/// Room kept in them for each branch: its name and state with the decision, its times with END.
const BRANCH_BYTES: u64 = 256;
/// Room kept for a key that ended and is not in the log as such, with all of its name.
const KEY_BYTES: u64 = 192;

impl Coordinator {
    /// A command of the coordinator.
    pub(crate) fn command(&mut self, cx: &mut Context<'_>, caller: Caller, command: Command) {
        match command {
            Command::Begin(request) => self.begin(cx, caller, request),
            Command::Enlist { id, branches } => self.enlist(cx, caller, id, branches),
            Command::Stage { id, events, acknowledgements } => {
                self.stage(cx, caller, id, events, &acknowledgements);
            }
            Command::Commit { id, request } => self.commit(cx, caller, id, &request),
            Command::Abort { id, detail } => self.abort(cx, caller, id, detail),
            Command::Extend { id, deadline_ms } => self.extend(cx, caller, id, deadline_ms),
            Command::Status { id, wait } => self.status(cx, caller, id, wait),
            Command::Show { id } => self.show(cx, caller, id),
            Command::ListTransactions { after, limit, attention } => {
                self.list(cx, caller, after, limit, attention);
            }
            Command::Attach { service, instance, state_id } => {
                self.attach(cx, caller, &service, instance, state_id);
            }
            Command::Vote { id, vote } => self.vote(cx, caller, id, vote),
            Command::VoteFor { id, votes } => self.vote_for(cx, caller, id, &votes),
            Command::BranchEnded { id, database, done } => {
                self.branch_ended(cx, caller, id, &database, done);
            }
            Command::Operate { id, act, detail } => self.operate(cx, caller, id, act, detail),
            Command::InquireBranch { id, database } => {
                self.inquire_branch(cx, caller, id, database);
            }
            Command::Finished { id, committed } => self.finished(cx, caller, id, committed),
            Command::NotKnown { id } => self.not_known(cx, caller, id),
            Command::NotFinished { id, reason } => self.not_finished(cx, caller, id, reason),
            Command::Inquire { id } => self.inquire(cx, caller, id),
            Command::MayForget { outcomes } => self.may_forget(cx, caller, outcomes),
            Command::ListParticipants => self.list_participants(cx, caller),
            other => unreachable!("{other:?} is not a command of the coordinator"),
        }
    }

    /// A stream ended: its undecided transactions fail (C20, L4), its instance is gone.
    pub(crate) fn session_ended(&mut self, cx: &mut Context<'_>, session: SessionId) {
        for id in self.owned.remove(&session).unwrap_or_default() {
            let reason =
                Reason::new(ReasonCode::ClientGone, "the stream that began it ended", true);
            self.give_up(cx, id, reason);
        }
        self.refuse_waiting_of(cx, session);
        if let Some(service) = self.services.detach(session) {
            self.resend_after_loss(cx, &service, session);
        }
        self.take_over_held(cx, session);
    }

    /// A record is accepted and applied: what was waiting for its place in the log goes on.
    pub(crate) fn accepted(&mut self, cx: &mut Context<'_>, lsn: Lsn, record: &Record) {
        match record {
            Record::Begin(begin) => self.begin_accepted(cx, lsn, begin.id),
            Record::Commit(commit) => self.end_with_commit(cx, commit),
            Record::Abort(abort) if !self.is_local(abort.id) => self.abort_stands(cx, abort.id),
            Record::End(_) => {
                if let Some(batch) = self.keys.seal(cx.limits) {
                    cx.effects.append_lazily(batch);
                }
            }
            _ => {}
        }
    }

    /// A record is durable: what it decides takes effect.
    pub(crate) fn durable(&mut self, cx: &mut Context<'_>, record: &Record) {
        match record {
            Record::Begin(begin) => self.begin_durable(cx, begin.id),
            Record::Commit(commit) => self.commit_durable(cx, commit.id),
            Record::Abort(abort) => self.abort_stands(cx, abort.id),
            Record::End(end) => self.end_durable(cx, end.id),
            _ => {}
        }
    }

    /// Deadlines, pauses between messages, callers that have waited long enough.
    pub(crate) fn tick(&mut self, cx: &mut Context<'_>) {
        while let Some(id) = self.timers.pop(cx.now.mono_ms) {
            if let Some(tx) = self.transactions.get_mut(&id) {
                tx.timer = None;
                self.wake(cx, id);
                self.rearm(cx, id);
            }
        }
        self.refuse_late(cx);
        if self.forget_at.is_some_and(|at| at <= cx.now.mono_ms) {
            self.send_forgets(cx);
            self.evict_keys(cx);
        }
    }

    /// The earliest time at which [`Coordinator::tick`] has something to do.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let line = self.line.next_deadline();
        self.timers.next().into_iter().chain(self.forget_at).chain(line).min()
    }

    /// Open transactions.
    /// Bytes that the decision and END of every open transaction may take in the log, and its key,
    /// besides its events.
    pub(crate) fn reserved_bytes(&self) -> u64 {
        self.transactions.len() as u64 * OPEN_BYTES
            + self.branches as u64 * BRANCH_BYTES
            + self.keys.fresh() as u64 * KEY_BYTES
    }

    pub(crate) fn open(&self) -> usize {
        self.transactions.len()
    }

    /// Bytes of work that wait for votes.
    pub(crate) fn work_bytes(&self) -> usize {
        self.work_bytes
    }

    /// Refuses more work than may wait for votes.
    fn check_work(&self, limits: &Limits, more: usize) -> Result<(), Refusal> {
        if self.work_bytes.saturating_add(more) > limits.work_bytes {
            let detail =
                format!("at most {} bytes of work wait for votes at a time", limits.work_bytes);
            return Err(Refusal::new(Code::StagedBytesFull, detail));
        }
        Ok(())
    }

    /// A transaction is gone, and with it the work that nobody has voted for.
    fn release_work(&mut self, tx: &Transaction) {
        self.work_bytes -= work_bytes(&tx.branches);
    }

    /// Where BEGIN of the oldest open transaction is.
    pub(crate) fn oldest_open(&self) -> Option<Lsn> {
        self.transactions.values().map(|tx| tx.begin_lsn).min()
    }

    /// Where a transaction stands.
    #[cfg(test)]
    pub(crate) fn phase(&self, id: TransactionId) -> Option<Phase> {
        self.transactions.get(&id).map(|tx| tx.phase)
    }

    /// An open transaction.
    #[cfg(test)]
    pub(crate) fn transaction(&self, id: TransactionId) -> Option<&Transaction> {
        self.transactions.get(&id).map(|tx| &**tx)
    }

    /// Transactions with a decision that is on its way to be durable or to be finished.
    pub(crate) fn deciding(&self) -> usize {
        self.transactions.values().filter(|tx| !tx.is_undecided()).count()
    }

    /// Open transactions that ask for attention.
    pub(crate) fn in_attention(&self) -> usize {
        self.transactions.values().filter(|tx| tx.needs_attention()).count()
    }

    /// Transactions that have ended otherwise than decided, and nobody has seen it.
    pub(crate) fn unseen(&self) -> usize {
        self.unseen.len()
    }

    /// Lets go of keys that are too old or too many.
    fn evict_keys(&mut self, cx: &Context<'_>) {
        self.keys.evict(cx.limits, cx.ages.before(cx.now, cx.limits.key_age_ms));
    }

    /// Idempotency keys that are kept.
    pub(crate) fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Where in the log the older idempotency keys are.
    pub(crate) fn key_batches(&self) -> Vec<KeyBatch> {
        self.keys.batches()
    }

    /// Batches of keys that a checkpoint refers to and that were not read, the newest first.
    pub(crate) fn keys_elsewhere(&self) -> Vec<Lsn> {
        self.keys.elsewhere()
    }

    /// The newest of those.
    pub(crate) fn recall_keys(&mut self, lsn: Lsn, keys: &[KeyRestated]) {
        self.keys.recall(lsn, keys);
    }

    /// Keys of transactions that ended before this Unix time may be forgotten.
    pub(crate) fn keys_since_ms(&self) -> u64 {
        self.keys.since_ms()
    }

    /// What the start has found open.
    pub(crate) fn resumed(&self) -> Resumed {
        self.resumed
    }

    /// Instances of services that are attached.
    pub(crate) fn instances(&self) -> usize {
        self.services.count()
    }

    /// Counted since the start.
    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    /// What a transaction waits for has passed.
    fn wake(&mut self, cx: &mut Context<'_>, id: TransactionId) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        let now = cx.now.mono_ms;
        tx.answer_waiters(cx.effects, |w| w.until_ms.is_some_and(|until| until <= now));
        match tx.phase {
            Phase::Opening | Phase::Collecting | Phase::Local => {
                if tx.deadline_ms <= now {
                    let reason = deadline_reason(tx);
                    self.give_up(cx, id, reason);
                } else if tx.phase == Phase::Collecting {
                    self.send_due(cx, id);
                }
            }
            Phase::Resolving => self.resolve(cx, id),
            Phase::Committing => {
                let late = tx.decision.as_ref().is_some_and(|d| {
                    now >= d.at.mono_ms + cx.limits.attention_ms && tx.attention.is_none()
                });
                if late {
                    self.late(cx, id);
                }
                self.send_due(cx, id);
            }
            Phase::Failed => self.send_due(cx, id),
            Phase::Deciding | Phase::Ended => {}
        }
    }

    /// Puts the transaction's timer where its next wake is.
    fn rearm(&mut self, cx: &Context<'_>, id: TransactionId) {
        if let Some(tx) = self.transactions.get_mut(&id) {
            let at = tx.next_wake(cx.limits.attention_ms);
            self.timers.arm(id, &mut tx.timer, at);
        }
    }

    /// The stream's transactions no longer contain this one.
    fn disown(&mut self, owner: Option<SessionId>, id: TransactionId) {
        let Some(session) = owner else { return };
        if let Some(owned) = self.owned.get_mut(&session) {
            owned.remove(&id);
            if owned.is_empty() {
                self.owned.remove(&session);
            }
        }
    }
}
