//! Phase two: telling the branches, again and again, until all have finished. Rows C8, C10 to C14,
//! and what a service's stream means for it (attach, loss).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::command::Caller;
use crate::ids::{Holder, Name, SessionId, StateId, TransactionId};
use crate::output::{Output, Reply, ToService};
use crate::reason::clipped;
use crate::record::{Commit, End, Finished, Reason, ReasonCode, Record};
use crate::refusal::{Code, Refusal};
use crate::view::{InstanceView, VoteKind};

use super::inquiry::Question;
use super::pause::pause_ms;
use super::transaction::Phase;
use super::{Context, Coordinator};

/// How often an abort is sent (C14); who misses all of them inquires.
const ABORT_SENDS: u32 = 5;
/// How long a client may take to finish a branch on its own session (MY3), in milliseconds; then
/// the server does it.
const SESSION_MS: u64 = 2_000;

impl Coordinator {
    /// C8: tells every branch that has something to finish.
    pub(super) fn start_finishing(&mut self, cx: &mut Context<'_>, id: TransactionId) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        let commit = tx.phase == Phase::Committing;
        for branch in &mut tx.branches {
            branch.attempts = 0;
            branch.next_ms = None;
            branch.finished |= match branch.vote {
                Some(VoteKind::Yes) => false,
                Some(VoteKind::No | VoteKind::ReadOnly) => true,
                // Never sent anything: there is nothing to undo.
                None => commit || (branch.is_service() && branch.prepare_sent_ms.is_none()),
            };
        }
        for at in 0..tx.branches.len() {
            self.send_decision(cx, id, at);
        }
        self.end_if_finished(cx, id);
        self.rearm(cx, id);
    }

    /// Sends what is due: prepares while collecting, the decision after it.
    pub(super) fn send_due(&mut self, cx: &mut Context<'_>, id: TransactionId) {
        let Some(tx) = self.transactions.get(&id) else { return };
        let (phase, now) = (tx.phase, cx.now.mono_ms);
        let due = |b: &super::transaction::Branch| b.next_ms.is_some_and(|at| at <= now);
        let due: Vec<usize> = (0..tx.branches.len()).filter(|i| due(&tx.branches[*i])).collect();
        for at in due {
            match phase {
                Phase::Collecting => self.send_prepare(cx, id, at),
                Phase::Committing | Phase::Failed => self.send_decision(cx, id, at),
                Phase::Opening
                | Phase::Local
                | Phase::Resolving
                | Phase::Deciding
                | Phase::Ended => {}
            }
        }
        if phase == Phase::Failed {
            self.end_if_finished(cx, id);
        }
    }

    /// C8, C11, C14: the decision, to a live instance of the durable state that holds the branch.
    pub(super) fn send_decision(&mut self, cx: &mut Context<'_>, id: TransactionId, at: usize) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        let commit = tx.phase == Phase::Committing;
        let now_ms = cx.now.mono_ms;
        let branch = &mut tx.branches[at];
        if branch.finished {
            branch.next_ms = None;
            return;
        }
        if !commit && branch.attempts >= ABORT_SENDS {
            // C14: it inquires, or the auditor finds it.
            branch.finished = true;
            branch.next_ms = None;
            return;
        }
        let (first, longest) = cx.limits.retry_ms;
        let mut pause = pause_ms(first, longest, branch.attempts + 1, id);
        if branch.is_service() {
            let name = &branch.participant.name;
            let Some(to) = self.services.choose(name, branch.state_id) else {
                // Nobody to tell: attaching is what wakes it. An abort is not waited for.
                branch.session = None;
                branch.next_ms = None;
                branch.finished = !commit;
                return;
            };
            branch.session = Some(to.session);
            branch.instance = Some(to.instance);
            let message = cx.decision(id, tx.begin_lsn, commit);
            cx.effects.emit(Output::ToService { session: to.session, message });
        } else {
            let database = branch.participant.name.clone();
            match branch.session.filter(|_| branch.attempts == 0) {
                Some(session) => {
                    cx.effects.emit(Output::FinishOnSession { session, id, database, commit });
                    pause = SESSION_MS;
                }
                None => {
                    branch.session = None;
                    let holder = branch.state_id.and_then(Holder::from_state_id);
                    cx.effects.emit(Output::FinishBranch { id, database, commit, holder });
                }
            }
        }
        branch.sends += 1;
        branch.attempts += 1;
        branch.decision_sent_ms.get_or_insert(now_ms);
        branch.next_ms = Some(now_ms + pause);
    }

    /// C13: tells one stream of a service what stands.
    pub(super) fn tell(
        &mut self,
        cx: &mut Context<'_>,
        id: TransactionId,
        at: usize,
        session: SessionId,
    ) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        let committed = tx.decision.as_ref().is_some_and(|d| d.abort.is_none());
        let updater = tx.branches[at].vote == Some(VoteKind::Yes);
        let message = match (tx.phase, committed && updater) {
            (Phase::Committing | Phase::Ended, commit) => cx.decision(id, tx.begin_lsn, commit),
            (Phase::Failed, _) => cx.decision(id, tx.begin_lsn, false),
            (
                Phase::Opening
                | Phase::Collecting
                | Phase::Local
                | Phase::Resolving
                | Phase::Deciding,
                _,
            ) => ToService::Pending { id, retry_after_ms: super::inquiry::PENDING_MS },
        };
        cx.effects.emit(Output::ToService { session, message });
    }

    /// Which service reports, and which branch it speaks for; none: it is answered already.
    fn spoken_for(
        &self,
        cx: &mut Context<'_>,
        caller: Caller,
        id: TransactionId,
    ) -> Option<(Name, usize)> {
        let found = self.services.speaker(caller.session).and_then(|speaker| {
            // C13: it ended here before.
            let Some(tx) = self.transactions.get(&id) else { return Ok(None) };
            let at = speaker.branch_of(tx)?;
            Ok(Some((speaker.service, at)))
        });
        match found {
            Ok(Some(found)) => return Some(found),
            Ok(None) => cx.effects.reply(caller, Reply::Done),
            Err(refusal) => cx.effects.refuse(caller, refusal),
        }
        None
    }

    /// C10: a service reports how its branch ended.
    pub(super) fn finished(
        &mut self,
        cx: &mut Context<'_>,
        caller: Caller,
        id: TransactionId,
        committed: bool,
    ) {
        let Some((service, at)) = self.spoken_for(cx, caller, id) else { return };
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        let committing = tx.decision.as_ref().map(|d| d.abort.is_none());
        let updater = tx.branches[at].vote == Some(VoteKind::Yes);
        let agrees = match committing {
            // A branch that did not vote YES has nothing that could contradict a commit.
            Some(commit) => commit == committed || (commit && !updater),
            None => !committed,
        };
        if !agrees {
            self.attention(cx, id, "a participant ended its branch against the decision (P13)");
            let detail = format!("{service} ended its branch of {id} against the decision");
            return cx.effects.refuse(caller, Refusal::new(Code::ContradictingOutcome, detail));
        }
        cx.effects.reply(caller, Reply::Done);
        match tx.phase {
            Phase::Committing | Phase::Failed => self.branch_finished(cx, id, at, true),
            // Whoever has aborted cannot commit any more: that is a NO, whatever it was before.
            Phase::Collecting => {
                let reason = Reason {
                    participant: Some(service),
                    ..Reason::new(ReasonCode::VotedNo, "it has aborted its branch alone", true)
                };
                tx.branches[at].vote = Some(VoteKind::No);
                self.decide_abort(cx, id, reason);
            }
            Phase::Opening | Phase::Local | Phase::Resolving | Phase::Deciding | Phase::Ended => {}
        }
    }

    /// C12: a service does not know a transaction that it had voted YES for. It has no marker that
    /// could be looked up, so this is for a person; the transaction is committed all the same.
    pub(super) fn not_known(&mut self, cx: &mut Context<'_>, caller: Caller, id: TransactionId) {
        let Some((service, at)) = self.spoken_for(cx, caller, id) else { return };
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        cx.effects.reply(caller, Reply::Done);
        if tx.phase == Phase::Committing && !tx.branches[at].finished {
            let why = format!("{service} has lost its branch: it does not know {id}");
            self.heuristic(cx, id, &why);
            self.branch_finished(cx, id, at, false);
        }
    }

    /// A service tries again by itself; why it has to is for people.
    pub(super) fn not_finished(
        &mut self,
        cx: &mut Context<'_>,
        caller: Caller,
        id: TransactionId,
        reason: String,
    ) {
        let Some((service, at)) = self.spoken_for(cx, caller, id) else { return };
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        cx.effects.reply(caller, Reply::Done);
        let branch = &mut tx.branches[at];
        let trouble = clipped(reason).into_boxed_str();
        let is_told = matches!(tx.phase, Phase::Committing | Phase::Failed);
        // It fails again and again, mostly with the same words: they are said once.
        if is_told && !branch.finished && branch.trouble.as_ref() != Some(&trouble) {
            let (commit, detail) = (tx.phase == Phase::Committing, trouble.clone());
            cx.effects.emit(Output::Trouble { id, participant: service, commit, detail });
            branch.trouble = Some(trouble);
        }
    }

    pub(super) fn branch_finished(
        &mut self,
        cx: &mut Context<'_>,
        id: TransactionId,
        at: usize,
        as_told: bool,
    ) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        let branch = &mut tx.branches[at];
        branch.finished = true;
        branch.next_ms = None;
        if as_told {
            branch.finished_ms.get_or_insert(cx.now.mono_ms);
        }
        self.end_if_finished(cx, id);
    }

    /// C10, C14: everybody has finished.
    pub(super) fn end_if_finished(&mut self, cx: &mut Context<'_>, id: TransactionId) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        let done = tx.branches.iter().all(|b| b.finished);
        if !done || !matches!(tx.phase, Phase::Committing | Phase::Failed) {
            return;
        }
        tx.phase = Phase::Ended;
        match tx.end_lsn {
            None => {
                self.append_end(cx, id);
                self.await_end(cx, id);
            }
            Some(lsn) if lsn <= cx.effects.durable() => self.end_durable(cx, id),
            Some(_) => {}
        }
    }

    /// C10: COMMIT has its place. If nobody has to be told, END follows it into the same group: one
    /// sync for both.
    pub(super) fn end_with_commit(&mut self, cx: &mut Context<'_>, commit: &Commit) {
        let tx = self.transactions.get(&commit.id);
        let deciding = tx.is_some_and(|tx| tx.phase == Phase::Deciding && tx.end_lsn.is_none());
        if deciding && commit.updaters.is_empty() {
            self.append_end(cx, commit.id);
            self.await_end(cx, commit.id);
        }
    }

    /// If somebody waits for the outcome, END is not left to go with what comes next.
    fn await_end(&self, cx: &mut Context<'_>, id: TransactionId) {
        let waited_for = self.transactions.get(&id).filter(|tx| !tx.waiters.is_empty());
        if let Some(lsn) = waited_for.and_then(|tx| tx.end_lsn) {
            cx.effects.await_durable(lsn);
        }
    }

    /// END, which nobody waits for: it goes to the disk with what comes next.
    fn append_end(&mut self, cx: &mut Context<'_>, id: TransactionId) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        let Some(decided) = &tx.decision else { return };
        let committed = decided.abort.is_none();
        let since = |at: Option<u64>| at.map(|at| at.saturating_sub(tx.begun_ms));
        let took_part = |b: &&super::transaction::Branch| b.sends > 0 || b.vote.is_some();
        let finished = tx.branches.iter().filter(took_part).map(|b| Finished {
            participant: b.participant.name.clone(),
            prepare_sent_ms: since(b.prepare_sent_ms),
            voted_ms: since(b.voted_ms),
            decision_sent_ms: since(b.decision_sent_ms),
            finished_ms: since(b.finished_ms),
            sends: b.sends,
        });
        let end = End {
            id,
            previous: tx.last,
            wall_ms: cx.now.wall_ms,
            committed,
            heuristic: tx.heuristic,
            why: tx.why.clone(),
            noted: tx.noted,
            finished: finished.collect(),
        };
        tx.end_lsn = Some(cx.effects.append_lazily(Record::End(end)));
    }

    /// C10: END is durable: whoever waited sees `Committed`, participants may forget.
    pub(super) fn end_durable(&mut self, cx: &mut Context<'_>, id: TransactionId) {
        let Some(tx) = self.transactions.get_mut(&id).filter(|tx| tx.phase == Phase::Ended) else {
            return;
        };
        tx.answer_waiters(cx.effects, |_| true);
        let Some(mut tx) = self.transactions.remove(&id) else { return };
        if tx.attention.is_some() && !tx.heuristic {
            cx.effects.emit(Output::AttentionOver { id });
        }
        self.timers.disarm(id, &mut tx.timer);
        self.disown(tx.owner, id);
        self.let_go(&tx);
        self.release_work(&tx);
        self.branches = self.branches.saturating_sub(tx.branches.len());
        self.forget_later(cx.now, &tx);
    }

    /// An instance of a service: what waited for its durable state goes on at once.
    pub(super) fn attach(
        &mut self,
        cx: &mut Context<'_>,
        caller: Caller,
        service: &Name,
        instance: Name,
        state_id: StateId,
    ) {
        let view = InstanceView {
            instance,
            state_id,
            session: caller.session,
            since_wall_ms: cx.now.wall_ms,
        };
        if self.services.is_attached(caller.session) {
            let detail = "the stream has attached before: one stream is one instance";
            return cx.effects.refuse(caller, Refusal::new(Code::InvalidArgument, detail));
        }
        let replaced = self.services.attach(service.clone(), view);
        cx.effects.reply(caller, Reply::Done);
        if let Some(session) = replaced {
            let detail = "a newer stream of the same instance has attached";
            let refusal = Refusal::new(Code::NotAttached, detail);
            cx.effects.emit(Output::EndSession { session, refusal });
            self.resend_after_loss(cx, service, session);
        }
        self.resend(cx, service, |session| session.is_none());
    }

    /// A stream of the service is gone: what was sent to it goes to another instance of the same
    /// durable state, if one lives.
    pub(super) fn resend_after_loss(
        &mut self,
        cx: &mut Context<'_>,
        service: &Name,
        lost: SessionId,
    ) {
        self.resend(cx, service, |session| session == Some(lost));
    }

    /// Sends what stands to the branches of a service that `pick` picks by their stream. In the
    /// order of the ids, so that the same inputs give the same outputs.
    fn resend(
        &mut self,
        cx: &mut Context<'_>,
        service: &Name,
        pick: impl Fn(Option<SessionId>) -> bool,
    ) {
        let mut found: Vec<(TransactionId, usize)> = Vec::new();
        for (id, tx) in &self.transactions {
            let Some(at) = tx.branch(service) else { continue };
            let branch = &tx.branches[at];
            if branch.is_service() && pick(branch.session) && !branch.finished {
                found.push((*id, at));
            }
        }
        found.sort_unstable();
        for (id, at) in found {
            let Some(tx) = self.transactions.get_mut(&id) else { continue };
            match tx.phase {
                Phase::Collecting => self.send_prepare(cx, id, at),
                Phase::Committing | Phase::Failed => {
                    self.send_decision(cx, id, at);
                    self.end_if_finished(cx, id);
                }
                Phase::Opening
                | Phase::Local
                | Phase::Resolving
                | Phase::Deciding
                | Phase::Ended => tx.branches[at].session = None,
            }
            self.rearm(cx, id);
        }
    }

    /// C15: an inquiry. What is not in memory is asked of the log.
    pub(super) fn inquire(&mut self, cx: &mut Context<'_>, caller: Caller, id: TransactionId) {
        let speaker = match self.services.speaker(caller.session) {
            Ok(speaker) => speaker,
            Err(refusal) => return cx.effects.refuse(caller, refusal),
        };
        cx.effects.reply(caller, Reply::Done);
        let session = caller.session;
        match self.transactions.get(&id) {
            None => self.ask_log(cx, id, Question::Inquiry { session, speaker }),
            Some(tx) => match speaker.branch_of(tx) {
                Ok(at) => self.tell(cx, id, at, session),
                Err(_) => {
                    // It prepared by itself and may still be enlisted, until the decision; or the
                    // branch is bound to another durable state, and this one is no part of it.
                    let message = if tx.is_undecided() || tx.phase == Phase::Deciding {
                        let retry_after_ms = super::inquiry::PENDING_MS;
                        ToService::Pending { id, retry_after_ms }
                    } else {
                        ToService::Abort { id }
                    };
                    cx.effects.emit(Output::ToService { session, message });
                }
            },
        }
    }
}
