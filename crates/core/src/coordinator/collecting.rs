//! Collecting: prepares and votes, the commit call, and giving up. Rows C4 to C7, C18 to C20, and
//! the commit of a local transaction (L3).

use alloc::format;
use alloc::string::String;

use crate::command::{Caller, CommitRequest, Vote};
use crate::ids::TransactionId;
use crate::output::{Output, Reply, ToService};
use crate::reason::clipped;
use crate::record::{Reason, ReasonCode};
use crate::refusal::{Code, Refusal};
use crate::view::VoteKind;

use super::checks::check_votes;
use super::checks::checked_deadline;
use super::inquiry::Question;
use super::pause::pause_ms;
use super::refusals::{marker_not_written, names, resolving};
use super::services::Speaker;
use super::transaction::{Branch, Phase, Transaction};
use super::{Context, Coordinator};

/// First pause before a prepare is sent again to a silent participant, in milliseconds. Work takes
/// its time, so it is longer than that of a commit.
const PREPARE_RETRY_MS: u64 = 1_000;

impl Coordinator {
    /// C4: a vote.
    pub(super) fn vote(
        &mut self,
        cx: &mut Context<'_>,
        caller: Caller,
        id: TransactionId,
        vote: Vote,
    ) {
        let speaker = match self.services.speaker(caller.session) {
            Ok(speaker) => speaker,
            Err(refusal) => return cx.effects.refuse(caller, refusal),
        };
        let Some(tx) = self.transactions.get_mut(&id) else {
            // Decided long ago, or never begun: whoever is prepared is told what stands.
            cx.effects.reply(caller, Reply::Done);
            let question = Question::Inquiry { session: caller.session, speaker };
            return self.ask_log(cx, id, question);
        };
        let at = match speaker.branch_of(tx) {
            Ok(at) => at,
            Err(refusal) => return cx.effects.refuse(caller, refusal),
        };
        let Speaker { service, state_id } = speaker;
        let branch = &mut tx.branches[at];
        let kind = match &vote {
            Vote::Yes => VoteKind::Yes,
            Vote::ReadOnly => VoteKind::ReadOnly,
            Vote::No { .. } => VoteKind::No,
        };
        match (tx.phase, branch.vote) {
            // Local transactions have no branches, so no vote comes this far for one.
            (Phase::Local | Phase::Resolving | Phase::Opening, _) => {
                let detail = format!("{id} has not asked anybody to vote yet");
                cx.effects.refuse(caller, Refusal::new(Code::Pending, detail));
            }
            (Phase::Collecting, Some(had)) if had != kind && kind != VoteKind::No => {
                let detail = format!("{service} has voted otherwise on {id} before");
                cx.effects.refuse(caller, Refusal::new(Code::ContradictingVote, detail));
            }
            (Phase::Collecting, _) => {
                branch.state_id = Some(state_id);
                branch.session = Some(caller.session);
                branch.vote = Some(kind);
                // It is never told again what to do.
                self.work_bytes -= branch.work.take().map_or(0, |work| work.len());
                branch.voted_ms.get_or_insert(cx.now.mono_ms);
                branch.next_ms = None;
                branch.finished = kind != VoteKind::Yes;
                cx.effects.reply(caller, Reply::Done);
                match vote {
                    Vote::No { reason, retryable } => {
                        let reason = Reason {
                            code: ReasonCode::VotedNo,
                            participant: Some(service),
                            detail: clipped(reason),
                            retryable,
                        };
                        self.decide_abort(cx, id, reason);
                    }
                    Vote::Yes | Vote::ReadOnly => self.decide_if_ready(cx, id),
                }
            }
            // C13: after the decision a vote changes nothing. One that is prepared is told.
            (Phase::Deciding, _) => cx.effects.reply(caller, Reply::Done),
            (Phase::Committing | Phase::Ended, had)
                if kind == VoteKind::No && had != Some(kind) =>
            {
                let detail = format!("{id} is decided: {service} cannot take back its vote");
                cx.effects.refuse(caller, Refusal::new(Code::ContradictingVote, detail));
            }
            (Phase::Committing | Phase::Failed | Phase::Ended, _) => {
                cx.effects.reply(caller, Reply::Done);
                if kind == VoteKind::Yes {
                    self.tell(cx, id, at, caller.session);
                }
            }
        }
    }

    /// C5, C19, L3: commit.
    pub(super) fn commit(
        &mut self,
        cx: &mut Context<'_>,
        caller: Caller,
        id: TransactionId,
        request: &CommitRequest,
    ) {
        let Some(tx) = self.transactions.get_mut(&id) else {
            return self.ask_log(cx, id, Question::Commit(caller));
        };
        let failed = tx.decision.as_ref().is_some_and(|d| d.abort.is_some());
        match tx.phase {
            Phase::Collecting | Phase::Opening if tx.is_local() => {
                let detail = format!("{id} is not begun yet: wait for the answer of begin");
                cx.effects.refuse(caller, Refusal::new(Code::Pending, detail));
            }
            Phase::Opening | Phase::Collecting => {
                if let Err(refusal) = check_votes(&tx.branches, &request.votes) {
                    return cx.effects.refuse(caller, refusal);
                }
                tx.commit_requested(caller, request);
                // It decides if that was all.
                self.take_votes(cx, caller, id, &request.votes);
            }
            Phase::Local if request.vouched => {
                let checking = core::mem::take(&mut tx.checking);
                tx.waiters.extend(checking);
                tx.commit_requested(caller, request);
                self.decide_commit(cx, id);
            }
            Phase::Local => self.check_marker(cx, caller, id, request),
            Phase::Resolving => cx.effects.refuse(caller, resolving(id)),
            Phase::Failed | Phase::Ended if tx.is_local() && failed => {
                self.attention(cx, id, "a local commit was reported after the abort (L9)");
                cx.effects.refuse(caller, marker_not_written(id));
            }
            Phase::Deciding | Phase::Committing | Phase::Failed | Phase::Ended => {
                self.wait_for(cx, caller, id, request.wait);
            }
        }
    }

    /// C6, L4: abort.
    pub(super) fn abort(
        &mut self,
        cx: &mut Context<'_>,
        caller: Caller,
        id: TransactionId,
        detail: String,
    ) {
        let Some(tx) = self.transactions.get_mut(&id) else {
            return self.ask_log(cx, id, Question::Outcome(caller));
        };
        match tx.phase {
            Phase::Opening | Phase::Collecting | Phase::Local => {
                let reason = Reason::new(ReasonCode::Aborted, clipped(detail), false);
                self.wait_for(cx, caller, id, crate::command::Wait::Decided);
                self.give_up(cx, id, reason);
            }
            Phase::Resolving => cx.effects.refuse(caller, resolving(id)),
            Phase::Deciding | Phase::Committing | Phase::Failed | Phase::Ended => {
                self.wait_for(cx, caller, id, crate::command::Wait::Decided);
            }
        }
    }

    /// A new deadline, for what is not decided.
    pub(super) fn extend(
        &mut self,
        cx: &mut Context<'_>,
        caller: Caller,
        id: TransactionId,
        deadline_ms: u64,
    ) {
        let Some(tx) = self.transactions.get_mut(&id) else {
            return self.ask_log(cx, id, Question::Step(caller));
        };
        let extended = checked_deadline(deadline_ms).and_then(|deadline_ms| match tx.phase {
            Phase::Opening | Phase::Collecting | Phase::Local => {
                tx.deadline_ms = cx.now.mono_ms + deadline_ms;
                Ok(deadline_ms)
            }
            Phase::Resolving
            | Phase::Deciding
            | Phase::Committing
            | Phase::Failed
            | Phase::Ended => Err(tx.closed("has no deadline any more")),
        });
        match extended {
            Ok(remaining_ms) => {
                self.rearm(cx, id);
                cx.effects.reply(caller, Reply::Remaining { remaining_ms });
            }
            Err(refusal) => cx.effects.refuse(caller, refusal),
        }
    }

    /// Deadline, abort, lost stream: a distributed transaction fails, a local one is resolved.
    pub(super) fn give_up(&mut self, cx: &mut Context<'_>, id: TransactionId, reason: Reason) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        match tx.phase {
            Phase::Opening => tx.doomed = Some(reason),
            Phase::Collecting => self.decide_abort(cx, id, reason),
            Phase::Local => self.start_resolving(cx, id, reason),
            // Decided, or on the way to it: nobody takes that back.
            Phase::Resolving
            | Phase::Deciding
            | Phase::Committing
            | Phase::Failed
            | Phase::Ended => {}
        }
    }

    /// C5, C6: commit was asked and every vote is in, or the caller has counted otherwise.
    pub(super) fn decide_if_ready(&mut self, cx: &mut Context<'_>, id: TransactionId) {
        let Some(tx) = self.transactions.get(&id) else { return };
        let (Phase::Collecting, Some(counts)) = (tx.phase, tx.asked) else { return };
        let (branches, items) = (tx.branches.len(), tx.staged.items());
        if (counts.branches as usize, counts.items as usize) != (branches, items) {
            let detail = format!(
                "the commit counted {} branches and {} items, the coordinator {branches} and \
                 {items}",
                counts.branches, counts.items
            );
            let reason = Reason::new(ReasonCode::Incomplete, detail, true);
            return self.decide_abort(cx, id, reason);
        }
        if tx.branches.iter().all(|b| b.vote.is_some()) && !self.waits_for_claim(id) {
            self.decide_commit(cx, id);
        }
    }

    /// C2, C7: request, to the durable state it first went to; a database prepares by itself.
    pub(super) fn send_prepare(&mut self, cx: &mut Context<'_>, id: TransactionId, at: usize) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        let remaining_ms = tx.remaining_ms(cx.now);
        let now_ms = cx.now.mono_ms;
        let branch = &mut tx.branches[at];
        if branch.verifying {
            return self.verify(cx, id, at);
        }
        if !branch.is_service() || branch.vote.is_some() {
            branch.next_ms = None;
            return;
        }
        let Some(to) = self.services.choose(&branch.participant.name, branch.state_id) else {
            branch.session = None;
            branch.next_ms = None;
            return;
        };
        branch.state_id = Some(to.state_id);
        branch.session = Some(to.session);
        branch.instance = Some(to.instance);
        branch.prepare_sent_ms.get_or_insert(now_ms);
        branch.sends += 1;
        branch.attempts += 1;
        let pause = pause_ms(PREPARE_RETRY_MS, cx.limits.retry_ms.1, branch.attempts, id);
        branch.next_ms = Some(now_ms + pause);
        let began = cx.began(tx.begin_lsn);
        let message = ToService::Prepare { id, began, work: branch.work.clone(), remaining_ms };
        cx.effects.emit(Output::ToService { session: to.session, message });
    }
}

/// Why a transaction failed at its deadline: who was silent.
pub(super) fn deadline_reason(tx: &Transaction) -> Reason {
    let silent = tx.branches.iter().filter(|b| b.vote.is_none());
    let (mut unreached, mut unanswered) = (silent.clone(), silent.clone());
    let never_sent = |b: &&Branch| b.is_service() && b.prepare_sent_ms.is_none();
    let first = silent.clone().next();
    let detail = match first {
        None if tx.asked.is_some() => {
            String::from("a database had not confirmed that it belongs to this server")
        }
        None => String::from("commit was not asked in time"),
        Some(_) if unreached.any(|b| never_sent(&b)) => format!(
            "no instance was connected: {}",
            names(silent.filter(never_sent).map(|b| &b.participant.name))
        ),
        Some(_) => {
            format!("no vote from {}", names(unanswered.by_ref().map(|b| &b.participant.name)))
        }
    };
    Reason {
        code: ReasonCode::DeadlinePassed,
        participant: first.map(|b| b.participant.name.clone()),
        detail,
        retryable: true,
    }
}
