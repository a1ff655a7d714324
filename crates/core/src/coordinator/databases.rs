//! Databases as participants: the votes that callers give for them and what the databases say to
//! that, finishing their branches, and what follows when one comes back.
//!
//! A client that holds the session of a branch finishes it there; its silence or the end of its
//! stream hands the branch to the server. Both may act: every finish is idempotent.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::command::{Caller, CommitRequest, DatabaseVote};
use crate::ids::{Holder, Lsn, Name, Now, SessionId, TransactionId};
use crate::input::{BranchReport, Found};
use crate::output::{Output, Reply};
use crate::record::{Participant, ParticipantKind, Reason, ReasonCode};
use crate::refusal::{Code, Refusal};
use crate::view::VoteKind;

use super::checks::check_votes;
use super::inquiry::Question;
use super::pause::pause_ms;
use super::transaction::{Branch, Phase, Transaction, Waiter};
use super::{Context, Coordinator};

/// A registered database.
#[derive(Clone, Debug, Default)]
pub(super) struct Registered {
    /// It answers.
    up: bool,
    /// It has answered since it was registered. Until then nobody knows whether it may be trusted,
    /// or is the right one; afterwards its silence refuses nothing, because it may be back before
    /// anybody has noticed.
    has_answered: bool,
    /// Why it takes no local transactions.
    local: Option<String>,
    /// Why it takes no part in distributed ones.
    distributed: Option<String>,
    /// It has confirmed that it is this opening's, when it was asked at this time or later.
    claimed_ms: Option<u64>,
    /// What began up to here may have been rolled back in it by another life of the store.
    doubted: Lsn,
}

/// Which databases have confirmed that they are this opening's, and what waits for them to.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    /// What was confirmed at this time or before counts no more.
    since_ms: Option<u64>,
    /// Every registered database has confirmed it: nothing has to be looked up.
    complete: bool,
    /// Transactions that are ready to be committed as soon as their databases have.
    waiting: BTreeSet<TransactionId>,
}

impl Claims {
    /// Decided otherwise, or gone.
    pub(super) fn forget(&mut self, id: TransactionId) {
        self.waiting.remove(&id);
    }
}

impl Coordinator {
    /// A database is registered or its state has changed: what waits for it goes on at once.
    pub(crate) fn database(&mut self, cx: &mut Context<'_>, name: &Name, up: bool) {
        let registered = self.databases.entry(name.clone()).or_default();
        let was_up = core::mem::replace(&mut registered.up, up);
        registered.has_answered |= up;
        self.count_claims();
        if up && !was_up {
            self.resume_database(cx, name);
        }
    }

    /// See [`crate::input::Input::Claimed`].
    pub(crate) fn claimed(&mut self, cx: &mut Context<'_>, name: &Name, asked_ms: u64) {
        let Some(registered) = self.databases.get_mut(name) else { return };
        registered.claimed_ms = registered.claimed_ms.max(Some(asked_ms));
        let was_refused = registered.local.is_some();
        if was_refused {
            registered.doubted = cx.effects.last();
        }
        self.count_claims();
        if was_refused {
            self.verify_again(cx, name);
        }
        for id in core::mem::take(&mut self.claims.waiting) {
            self.decide_if_ready(cx, id);
            self.rearm(cx, id);
        }
    }

    /// A database is this opening's after it was not, or could not be trusted. Another life of the
    /// store may have rolled back what was prepared there: what it has voted is no longer known (I2),
    /// nor what somebody has seen prepared before and votes later.
    fn verify_again(&mut self, cx: &mut Context<'_>, name: &Name) {
        let voted = |tx: &Transaction| {
            let at = tx.branch(name).filter(|_| tx.phase == Phase::Collecting)?;
            let branch = &tx.branches[at];
            (!branch.is_service() && branch.vote == Some(VoteKind::Yes)).then_some(at)
        };
        let found = self.transactions.iter().filter_map(|(id, tx)| Some((*id, voted(tx)?)));
        let mut found: Vec<(TransactionId, usize)> = found.collect();
        found.sort_unstable();
        for (id, at) in found {
            if let Some(tx) = self.transactions.get_mut(&id) {
                (tx.branches[at].vote, tx.branches[at].verifying) = (None, true);
            }
            self.verify(cx, id, at);
            self.rearm(cx, id);
        }
    }

    /// See [`crate::input::Input::Paused`].
    pub(crate) fn paused(&mut self, now: Now) {
        self.claims.since_ms = Some(now.mono_ms);
        self.count_claims();
    }

    fn count_claims(&mut self) {
        let since_ms = self.claims.since_ms;
        self.claims.complete = self.databases.values().all(|d| d.claimed_ms > since_ms);
    }

    /// A COMMIT has to wait: a database with a branch of it has not confirmed that it is this
    /// opening's. Another one may have taken over, and be about to roll the branch back.
    pub(super) fn waits_for_claim(&mut self, id: TransactionId) -> bool {
        if self.claims.complete {
            return false;
        }
        let Some(tx) = self.transactions.get(&id) else { return false };
        let is_claimed = |name: &Name| {
            self.databases.get(name).is_some_and(|d| d.claimed_ms > self.claims.since_ms)
        };
        let mut databases = tx.branches.iter().filter(|b| !b.is_service());
        let waits = databases.any(|b| !is_claimed(&b.participant.name));
        if waits {
            self.claims.waiting.insert(id);
        }
        waits
    }

    /// Whether a database answers.
    pub(super) fn is_up(&self, name: &Name) -> bool {
        self.databases.get(name).is_some_and(|registered| registered.up)
    }

    /// What a database may not be used for from now on. What is under way goes on.
    pub(crate) fn database_refused(
        &mut self,
        name: Name,
        local: Option<String>,
        distributed: Option<String>,
    ) {
        let registered = self.databases.entry(name).or_default();
        (registered.local, registered.distributed) = (local, distributed);
        self.count_claims();
    }

    /// A database is registered no longer.
    pub(crate) fn database_gone(&mut self, name: &Name) {
        self.databases.remove(name);
        self.count_claims();
    }

    /// Databases with branches that are not finished, and how many.
    pub(crate) fn open_databases(&self) -> Vec<(Name, usize)> {
        let mut open = BTreeMap::<Name, usize>::new();
        for tx in self.transactions.values() {
            let branches = tx.branches.iter().filter(|b| !b.is_service() && !b.finished);
            let local = tx.local_database().filter(|_| tx.is_undecided());
            for name in branches.map(|b| &b.participant.name).chain(local) {
                *open.entry(name.clone()).or_default() += 1;
            }
        }
        open.into_iter().collect()
    }

    /// Whether a participant can be in a transaction of this kind.
    pub(super) fn check_database(
        &self,
        participant: &Participant,
        local: bool,
    ) -> Result<(), Refusal> {
        if participant.kind == ParticipantKind::Service {
            return Ok(());
        }
        let name = &participant.name;
        let Some(registered) = self.databases.get(name) else {
            let detail = format!("no database {name} is registered in the server's configuration");
            return Err(Refusal::new(Code::UnknownDatabase, detail));
        };
        match if local { &registered.local } else { &registered.distributed } {
            None if registered.has_answered => Ok(()),
            None => {
                let detail = format!("database {name} has not answered since it was registered");
                Err(Refusal::new(Code::DatabaseRefused, detail))
            }
            Some(why) => {
                let kind = if local { "local" } else { "distributed" };
                let detail = format!("database {name} takes no {kind} transactions: {why}");
                Err(Refusal::new(Code::DatabaseRefused, detail))
            }
        }
    }

    /// C4 for databases: votes apart from the commit.
    pub(super) fn vote_for(
        &mut self,
        cx: &mut Context<'_>,
        caller: Caller,
        id: TransactionId,
        votes: &[DatabaseVote],
    ) {
        let Some(tx) = self.transactions.get(&id) else {
            return self.ask_log(cx, id, Question::Step(caller));
        };
        match check_votes(&tx.branches, votes) {
            Ok(()) => {
                cx.effects.reply(caller, Reply::Done);
                self.take_votes(cx, caller, id, votes);
            }
            Err(refusal) => cx.effects.refuse(caller, refusal),
        }
    }

    /// C4 for databases: what a caller says counts at once if its library has seen the guarded
    /// prepare succeed; else the database is asked (I2). Decides if it was the last.
    pub(super) fn take_votes(
        &mut self,
        cx: &mut Context<'_>,
        caller: Caller,
        id: TransactionId,
        votes: &[DatabaseVote],
    ) {
        for vote in votes {
            let Some(tx) = self.transactions.get_mut(&id) else { return };
            if !tx.is_undecided() {
                return;
            }
            let Some(at) = tx.branch(&vote.database) else { continue };
            let registered = self.databases.get(&vote.database);
            let doubted = registered.is_some_and(|database| tx.begin_lsn <= database.doubted);
            let branch = &mut tx.branches[at];
            if branch.vote.is_some() || branch.verifying {
                continue;
            }
            branch.state_id = vote.holder.map(Holder::state_id);
            branch.voted_ms.get_or_insert(cx.now.mono_ms);
            if vote.finishes {
                branch.session = Some(caller.session);
                self.held.entry(caller.session).or_default().insert(id);
            }
            if vote.vouched && !doubted {
                branch.vote = Some(VoteKind::Yes);
            } else {
                branch.verifying = true;
                self.verify(cx, id, at);
            }
        }
        self.decide_if_ready(cx, id);
        self.rearm(cx, id);
    }

    /// Asks a database whether it holds a branch prepared.
    pub(super) fn verify(&mut self, cx: &mut Context<'_>, id: TransactionId, at: usize) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        let branch = &mut tx.branches[at];
        branch.attempts += 1;
        branch.next_ms = None;
        let database = branch.participant.name.clone();
        cx.effects.emit(Output::Verify { id, database, local: false });
    }

    /// L3 for a caller who has not seen its commit succeed by the guard: the marker is looked for
    /// first.
    pub(super) fn check_marker(
        &mut self,
        cx: &mut Context<'_>,
        caller: Caller,
        id: TransactionId,
        request: &CommitRequest,
    ) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        let Some(database) = tx.local_database().cloned() else { return };
        if tx.checking.is_empty() {
            cx.effects.emit(Output::Verify { id, database, local: true });
        }
        tx.was_asked = true;
        tx.checking.push(Waiter { caller, wait: request.wait, until_ms: None });
    }

    /// What a database said about a vote, or about the marker of a local transaction.
    pub(crate) fn verified(
        &mut self,
        cx: &mut Context<'_>,
        id: TransactionId,
        database: &Name,
        found: Found,
    ) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        if tx.is_local() {
            return self.marker_checked(cx, id, found);
        }
        let Some(at) = tx.branch(database) else { return };
        let branch = &mut tx.branches[at];
        if !branch.verifying || tx.phase != Phase::Collecting {
            return;
        }
        match found {
            Found::Yes => {
                branch.verifying = false;
                branch.vote = Some(VoteKind::Yes);
                branch.attempts = 0;
                self.decide_if_ready(cx, id);
            }
            Found::No => {
                branch.verifying = false;
                branch.vote = Some(VoteKind::No);
                let reason = Reason {
                    participant: Some(database.clone()),
                    ..Reason::new(
                        ReasonCode::VotedNo,
                        "the database does not hold it prepared with its marker, whatever its caller said",
                        true,
                    )
                };
                self.decide_abort(cx, id, reason);
            }
            Found::Unknown => {
                let (first, longest) = cx.limits.retry_ms;
                let pause = pause_ms(first, longest, branch.attempts, id);
                branch.next_ms = Some(cx.now.mono_ms + pause);
            }
        }
        self.rearm(cx, id);
    }

    fn marker_checked(&mut self, cx: &mut Context<'_>, id: TransactionId, found: Found) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        // Given up meanwhile: then the tombstone decides, and they wait for that.
        if tx.phase != Phase::Local || tx.checking.is_empty() {
            return;
        }
        let waiting = core::mem::take(&mut tx.checking);
        let refusal = match found {
            Found::Yes => {
                let items = u32::try_from(tx.staged.items()).unwrap_or(u32::MAX);
                for Waiter { caller, wait, .. } in waiting {
                    let (votes, vouched) = (Vec::new(), true);
                    let request = CommitRequest { branches: 0, items, votes, vouched, wait };
                    tx.commit_requested(caller, &request);
                }
                return self.decide_commit(cx, id);
            }
            Found::No => {
                let detail = format!(
                    "{id} has no marker: its local transaction has not committed, or in another \
                     database than the registered one"
                );
                Refusal::new(Code::MarkerNotWritten, detail)
            }
            Found::Unknown => {
                let detail = format!("the database does not say whether {id} has committed");
                Refusal::new(Code::Pending, detail)
            }
        };
        for waiter in waiting {
            cx.effects.refuse(waiter.caller, refusal.clone());
        }
    }

    /// MY3: a client reports about a branch that it held.
    pub(super) fn branch_ended(
        &mut self,
        cx: &mut Context<'_>,
        caller: Caller,
        id: TransactionId,
        database: &Name,
        done: bool,
    ) {
        let Some(tx) = self.transactions.get_mut(&id) else {
            // C13: it ended here before.
            return cx.effects.reply(caller, Reply::Done);
        };
        let Some(at) = tx.branch(database).filter(|at| !tx.branches[*at].is_service()) else {
            let detail = format!("{database} is no database in {id}");
            return cx.effects.refuse(caller, Refusal::new(Code::NotAParticipant, detail));
        };
        let branch = &mut tx.branches[at];
        let decided = matches!(tx.phase, Phase::Committing | Phase::Failed);
        if decided && !branch.finished && branch.session != Some(caller.session) {
            let detail = format!("another stream held {database} for {id}, or none");
            return cx.effects.refuse(caller, Refusal::new(Code::WrongState, detail));
        }
        cx.effects.reply(caller, Reply::Done);
        if !decided || branch.finished {
            return;
        }
        if done {
            self.branch_finished(cx, id, at, true);
        } else {
            branch.session = None;
            self.send_decision(cx, id, at);
        }
        self.rearm(cx, id);
    }

    /// A client's stream is gone: the server finishes what it held.
    pub(super) fn take_over_held(&mut self, cx: &mut Context<'_>, session: SessionId) {
        for id in self.held.remove(&session).unwrap_or_default() {
            let Some(tx) = self.transactions.get_mut(&id) else { continue };
            let decided = matches!(tx.phase, Phase::Committing | Phase::Failed);
            let mine = |b: &Branch| !b.is_service() && b.session == Some(session) && !b.finished;
            let found: Vec<usize> =
                (0..tx.branches.len()).filter(|at| mine(&tx.branches[*at])).collect();
            for at in found {
                if let Some(tx) = self.transactions.get_mut(&id) {
                    tx.branches[at].session = None;
                }
                if decided {
                    self.send_decision(cx, id, at);
                }
            }
            self.end_if_finished(cx, id);
            self.rearm(cx, id);
        }
    }

    /// The streams that held its branches hold them no longer.
    pub(super) fn let_go(&mut self, tx: &Transaction) {
        for session in tx.branches.iter().filter(|b| !b.is_service()).filter_map(|b| b.session) {
            if let Some(held) = self.held.get_mut(&session) {
                held.remove(&tx.id());
                if held.is_empty() {
                    self.held.remove(&session);
                }
            }
        }
    }

    /// A branch in a database was finished, or could not be.
    pub(crate) fn database_finished(
        &mut self,
        cx: &mut Context<'_>,
        id: TransactionId,
        database: &Name,
        report: BranchReport,
    ) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        let Some(at) = tx.branch(database) else { return };
        if !matches!(tx.phase, Phase::Committing | Phase::Failed) || tx.branches[at].finished {
            return;
        }
        match report {
            BranchReport::Done => self.branch_finished(cx, id, at, true),
            // C11: it is sent again at its time, or when the database comes back.
            BranchReport::Unknown => {}
            BranchReport::Held(detail) => {
                self.attention(cx, id, &format!("database {database}: {detail}"));
            }
            BranchReport::Heuristic(detail) => {
                self.heuristic(cx, id, &format!("database {database}: {detail}"));
                self.branch_finished(cx, id, at, false);
            }
        }
    }

    /// A database came back: its branches and look-ups are tried at once.
    fn resume_database(&mut self, cx: &mut Context<'_>, name: &Name) {
        let mut ids: Vec<TransactionId> = self.transactions.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let tx = &self.transactions[&id];
            let at = tx.branch(name).filter(|at| !tx.branches[*at].is_service());
            match (tx.phase, at) {
                (Phase::Collecting, Some(at)) if tx.branches[at].next_ms.is_some() => {
                    self.verify(cx, id, at);
                }
                // A client that holds its session has its time.
                (Phase::Committing | Phase::Failed, Some(at))
                    if tx.branches[at].session.is_none() =>
                {
                    self.send_decision(cx, id, at);
                    self.end_if_finished(cx, id);
                }
                (Phase::Resolving, _) if tx.local_database() == Some(name) => {
                    self.resolve_now(cx, id);
                }
                _ => {}
            }
            self.rearm(cx, id);
        }
    }
}
