//! Begin: rows C1, C2, L1 and L2, when there is a place (C21), and adding to an open transaction
//! (C18).
//!
//! Whatever could refuse a transaction's items refuses them here, before anything is written.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::command::{BeginRequest, BranchRequest, Caller, CommitRequest, bytes_of_events};
use crate::event::{DeliveryRef, EventRequest};
use crate::ids::{Lsn, TransactionId};
use crate::limits::{BATCH_BYTES, BATCH_ITEMS, BRANCHES, KEY_BYTES, WORK_BYTES};
use crate::output::Reply;
use crate::record::{Begin, IdempotencyKey, LocalItems, Participant, ParticipantKind, Record};
use crate::refusal::{Code, Refusal};

use super::checks::{check_votes, checked_deadline};
use super::inquiry::Question;
use super::transaction::{Branch, Phase, Transaction, work_bytes};
use super::{Context, Coordinator};

impl Coordinator {
    /// C1, L1.
    pub(super) fn begin(
        &mut self,
        cx: &mut Context<'_>,
        caller: Caller,
        request: Box<BeginRequest>,
    ) {
        if self.is_known(cx, caller, &request) {
            return;
        }
        let Some(request) = self.wait_for_place(cx, caller, request) else { return };
        if let Err(refusal) = self.open_transaction(cx, caller, *request) {
            // It may come from what the bus has appended, which must not be revealed (I6).
            cx.effects.refuse_when_durable(cx.bus.last(), caller, refusal);
        }
    }

    /// Whether its key was used before, or cannot be one. Then it has its answer.
    pub(super) fn is_known(
        &mut self,
        cx: &mut Context<'_>,
        caller: Caller,
        request: &BeginRequest,
    ) -> bool {
        let Some(key) = &request.key else { return false };
        match self.repeated(cx, caller, key, request.commit.as_ref()) {
            Ok(known) => known,
            Err(refusal) => {
                // A conflict reveals the other BEGIN, which may not be durable yet (I6).
                cx.effects.refuse_when_durable(cx.effects.last(), caller, refusal);
                true
            }
        }
    }

    /// A key that is known begins nothing: the answer is what its transaction has come to.
    fn repeated(
        &mut self,
        cx: &mut Context<'_>,
        caller: Caller,
        key: &IdempotencyKey,
        commit: Option<&CommitRequest>,
    ) -> Result<bool, Refusal> {
        if key.key.is_empty() || key.key.len() > KEY_BYTES {
            let detail = format!("an idempotency key has 1 to {KEY_BYTES} bytes");
            return Err(Refusal::new(Code::InvalidArgument, detail));
        }
        let Some(entry) = self.keys.find(&key.key) else { return Ok(false) };
        if entry.digest != key.digest {
            let detail = format!("the key {:?} was used for another request", key.key);
            return Err(Refusal::new(Code::KeyConflict, detail));
        }
        if let Some(commit) = commit {
            self.status(cx, caller, entry.id, Some(commit.wait));
        } else if let Some(tx) = self.transactions.get_mut(&entry.id) {
            if tx.phase == Phase::Opening {
                tx.beginners.push((caller, true));
            } else {
                let remaining_ms = tx.remaining_ms(cx.now);
                let reply = begun(tx, remaining_ms, true);
                cx.effects.reply_when_durable(tx.begin_lsn, caller, reply);
            }
        } else {
            let (id, databases) = (entry.id, Vec::new());
            let reply = Reply::Begun { id, remaining_ms: 0, repeated: true, databases };
            cx.effects.reply(caller, reply);
        }
        Ok(true)
    }

    fn open_transaction(
        &mut self,
        cx: &mut Context<'_>,
        caller: Caller,
        request: BeginRequest,
    ) -> Result<(), Refusal> {
        let BeginRequest {
            id,
            local,
            deadline_ms,
            key,
            detached,
            branches,
            events,
            acknowledgements,
            commit,
        } = request;
        if cx.draining {
            return Err(Refusal::new(Code::Draining, "the server is about to stop"));
        }
        if self.transactions.contains_key(&id) {
            return Err(Refusal::new(Code::KeyConflict, format!("{id} exists already")));
        }
        let deadline_ms = checked_deadline(deadline_ms.unwrap_or(cx.limits.default_deadline_ms))?;
        let mut branches = checked_branches(&[], branches)?;
        let mut participants: Vec<Participant> =
            branches.iter().map(|b| b.participant.clone()).collect();
        for participant in &participants {
            self.check_database(participant, false)?;
        }
        if let Some(database) = &local {
            if !branches.is_empty() || commit.is_some() {
                return Err(local_refusal());
            }
            let database = Participant { name: database.clone(), kind: ParticipantKind::Database };
            self.check_database(&database, true)?;
            participants.push(database);
            branches.clear();
        }
        check_batch(0, 0, &events, &acknowledgements, room_for(cx, &events, &acknowledgements))?;
        if let Some(commit) = &commit {
            check_votes(&branches, &commit.votes)?;
        }

        let mut begin =
            Begin { id, wall_ms: cx.now.wall_ms, deadline_ms, key, participants, local: None };
        let mut staged = crate::bus::Staged::default();
        let work = work_bytes(&branches);
        self.check_work(cx.limits, work)?;
        cx.bus.stage(cx.limits, id, events, &acknowledgements, &mut staged)?;
        self.work_bytes += work;
        if local.is_some() {
            begin.local = Some(LocalItems {
                events: staged.events.clone(),
                acknowledged: staged.acknowledgements.clone(),
            });
        }
        self.evict_keys(cx);
        if let Some(key) = &begin.key {
            self.keys.insert(key, id);
        }
        let mut tx = Box::new(Transaction::new(begin.clone(), cx.now));
        tx.staged = staged;
        tx.branches = branches;
        self.branches += tx.branches.len();
        if !detached {
            tx.owner = Some(caller.session);
            self.owned.entry(caller.session).or_default().insert(id);
        }
        match commit {
            // Nothing can be prepared under an id that is not known yet, so it has no votes.
            Some(commit) => tx.commit_requested(caller, &commit),
            None => tx.beginners.push((caller, false)),
        }
        self.counters.begun += 1;
        // A distributed one says nothing that a crash would not undo: its COMMIT follows it in the
        // log, and an answer that needs it waits for it by itself.
        if local.is_some() {
            tx.begin_lsn = cx.effects.append(Record::Begin(begin));
        } else {
            tx.begin_lsn = cx.effects.append_lazily(Record::Begin(begin));
            self.undecided.begun(&mut tx);
        }
        self.transactions.insert(id, tx);
        Ok(())
    }

    /// C2: BEGIN has its place. A local transaction waits until it is durable as well.
    pub(super) fn begin_accepted(&mut self, cx: &mut Context<'_>, lsn: Lsn, id: TransactionId) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        if tx.phase != Phase::Opening || tx.is_local() {
            return;
        }
        tx.phase = Phase::Collecting;
        let remaining_ms = tx.remaining_ms(cx.now);
        for (caller, repeated) in core::mem::take(&mut tx.beginners) {
            let reply = begun(tx, remaining_ms, repeated);
            if tx.begin.key.is_some() {
                cx.effects.reply_when_durable(lsn, caller, reply);
            } else {
                cx.effects.reply(caller, reply);
            }
        }
        if let Some(reason) = tx.doomed.take() {
            return self.decide_abort(cx, id, reason);
        }
        for at in 0..tx.branches.len() {
            self.send_prepare(cx, id, at);
        }
        self.decide_if_ready(cx, id);
        self.rearm(cx, id);
    }

    /// L2: the one BEGIN that is waited for.
    pub(super) fn begin_durable(&mut self, cx: &mut Context<'_>, id: TransactionId) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        if tx.phase != Phase::Opening || !tx.is_local() {
            return;
        }
        tx.phase = Phase::Local;
        // The bytes are in the journal now; offsets, keys and sizes are all that is needed here.
        for event in &mut tx.staged.events {
            event.body = Bytes::new();
        }
        if let Some(items) = &mut tx.begin.local {
            for event in &mut items.events {
                event.body = Bytes::new();
            }
        }
        let remaining_ms = tx.remaining_ms(cx.now);
        for (caller, repeated) in core::mem::take(&mut tx.beginners) {
            cx.effects.reply(caller, begun(tx, remaining_ms, repeated));
        }
        if let Some(reason) = tx.doomed.take() {
            self.give_up(cx, id, reason);
        }
        self.rearm(cx, id);
    }

    /// C18: more branches.
    pub(super) fn enlist(
        &mut self,
        cx: &mut Context<'_>,
        caller: Caller,
        id: TransactionId,
        branches: Vec<BranchRequest>,
    ) {
        if !self.transactions.contains_key(&id) {
            return self.ask_log(cx, id, Question::Step(caller));
        }
        let added = self.checked_enlist(cx, id, branches);
        match added {
            Ok(first) => {
                let tx = &self.transactions[&id];
                let collecting = tx.phase == Phase::Collecting;
                let (last, reply) = (tx.branches.len(), counted(tx));
                for at in first..last {
                    if collecting {
                        self.send_prepare(cx, id, at);
                    }
                }
                self.rearm(cx, id);
                cx.effects.reply(caller, reply);
            }
            Err(refusal) => cx.effects.refuse(caller, refusal),
        }
    }

    fn checked_enlist(
        &mut self,
        cx: &mut Context<'_>,
        id: TransactionId,
        branches: Vec<BranchRequest>,
    ) -> Result<usize, Refusal> {
        let tx = self.growing(id)?;
        let added = checked_branches(&tx.branches, branches)?;
        for branch in &added {
            self.check_database(&branch.participant, false)?;
        }
        let work = work_bytes(&added);
        if work as u64 > cx.room.work {
            return Err(no_space());
        }
        self.check_work(cx.limits, work)?;
        self.work_bytes += work;
        let tx = self.transactions.get_mut(&id).expect("it was found above");
        let first = tx.branches.len();
        self.branches += added.len();
        tx.branches.extend(added);
        Ok(first)
    }

    /// C18: more items.
    pub(super) fn stage(
        &mut self,
        cx: &mut Context<'_>,
        caller: Caller,
        id: TransactionId,
        events: Vec<EventRequest>,
        acknowledgements: &[DeliveryRef],
    ) {
        if !self.transactions.contains_key(&id) {
            return self.ask_log(cx, id, Question::Step(caller));
        }
        let staged = self.growing(id).and_then(|tx| {
            let (items, bytes) = (tx.staged.items(), tx.staged.bytes);
            let room = room_for(cx, &events, acknowledgements);
            check_batch(items, bytes, &events, acknowledgements, room)?;
            cx.bus.stage(cx.limits, id, events, acknowledgements, &mut tx.staged)?;
            Ok(counted(tx))
        });
        match staged {
            Ok(reply) => cx.effects.reply(caller, reply),
            Err(refusal) => cx.effects.refuse_when_durable(cx.bus.last(), caller, refusal),
        }
    }

    /// A distributed transaction that can still grow, or why not.
    fn growing(&mut self, id: TransactionId) -> Result<&mut Transaction, Refusal> {
        let Some(tx) = self.transactions.get_mut(&id) else {
            let detail = format!("no transaction {id} is open");
            return Err(Refusal::new(Code::UnknownTransaction, detail));
        };
        if tx.is_local() {
            return Err(local_refusal());
        }
        if !tx.is_open() {
            return Err(tx.closed("takes no more: commit was asked, or it is decided"));
        }
        Ok(tx)
    }
}

fn checked_branches(have: &[Branch], more: Vec<BranchRequest>) -> Result<Vec<Branch>, Refusal> {
    if have.len() + more.len() > BRANCHES {
        let detail = format!("a transaction has at most {BRANCHES} branches");
        return Err(Refusal::new(Code::TooMany, detail));
    }
    let mut added: Vec<Branch> = Vec::with_capacity(more.len());
    for BranchRequest { participant, work } in more {
        if work.as_ref().is_some_and(|w| w.len() > WORK_BYTES) {
            let detail = format!("the work for {} is over {WORK_BYTES} bytes", participant.name);
            return Err(Refusal::new(Code::TooLarge, detail));
        }
        let named = |b: &Branch| b.participant.name == participant.name;
        if have.iter().any(named) || added.iter().any(named) {
            let detail = format!("{} takes part already", participant.name);
            return Err(Refusal::new(Code::AlreadyEnlisted, detail));
        }
        added.push(Branch::new(participant, work));
    }
    Ok(added)
}

/// The room for these items: acknowledgements alone let events go, so they are let in as long as
/// anything is.
fn room_for(cx: &Context<'_>, events: &[EventRequest], acknowledgements: &[DeliveryRef]) -> u64 {
    let makes_room = events.is_empty() && !acknowledgements.is_empty();
    if makes_room { cx.room.upkeep } else { cx.room.work }
}

/// The limits of one transaction's items, with what it has already, and the room in the log.
fn check_batch(
    items: usize,
    bytes: usize,
    events: &[EventRequest],
    acknowledgements: &[DeliveryRef],
    room: u64,
) -> Result<(), Refusal> {
    if items + events.len() + acknowledgements.len() > BATCH_ITEMS {
        let detail = format!("a transaction has at most {BATCH_ITEMS} events and acknowledgements");
        return Err(Refusal::new(Code::TooMany, detail));
    }
    let more = bytes_of_events(events);
    if bytes + more > BATCH_BYTES {
        let detail = format!("a transaction has at most {BATCH_BYTES} bytes of events");
        return Err(Refusal::new(Code::TooLarge, detail));
    }
    if more as u64 + RECORD_BYTES > room {
        return Err(no_space());
    }
    Ok(())
}

/// What a transaction's records take besides its events, at most (names of 64 branches included).
pub(crate) const RECORD_BYTES: u64 = 16 << 10;

fn no_space() -> Refusal {
    Refusal::new(Code::NoSpace, "the store has no room for new work")
}

fn local_refusal() -> Refusal {
    let detail = "a local transaction is one database and events: no other database, no service, \
                  and its commit is reported after the database's own";
    Refusal::new(Code::LocalTransaction, detail)
}

fn counted(tx: &Transaction) -> Reply {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Reply::Counted {
        id: tx.id(),
        databases: tx.databases(),
        branches: count(tx.branches.len()),
        items: count(tx.staged.items()),
    }
}

fn begun(tx: &Transaction, remaining_ms: u64, repeated: bool) -> Reply {
    Reply::Begun { id: tx.id(), remaining_ms, repeated, databases: tx.databases() }
}
