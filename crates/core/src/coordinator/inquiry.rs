//! Questions about transactions: those in memory are answered from it, the others from the log.
//! Rows C13, C15 and C17. "The log has nothing" is an answer only if the log is whole.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;

use crate::command::{Caller, Wait};
use crate::ids::{Began, Lsn, Name, SessionId, TransactionId};
use crate::input::Chain;
use crate::output::{BranchDecision, Outcome, Output, PublicState, Reply, ToService};
use crate::record::{
    Abort, Begin, Commit, End, Note, ParticipantKind, Reason, Record, Remark, Updater,
};
use crate::refusal::{Code, Refusal};
use crate::view::{TransactionView, VoteKind};

use super::services::Speaker;
use super::{Context, Coordinator};

/// When a participant may inquire again, in milliseconds.
pub(super) const PENDING_MS: u64 = 1_000;

/// A question about a transaction that is not in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// What came of it?
    Outcome(Caller),
    /// The same, from somebody who reports that a local commit succeeded.
    Commit(Caller),
    /// Everything about it.
    Show(Caller),
    /// May it grow, or be voted for, or have more time?
    Step(Caller),
    /// May an operator do something about it?
    Operate(Caller),
    /// What is there to say about a commit that this database has lost?
    Gone(Name),
    /// What was decided about a database's branch?
    Branch { caller: Caller, database: Name },
    /// A participant has prepared it.
    Inquiry { session: SessionId, speaker: Speaker },
}

/// The records of one chain.
#[derive(Default)]
pub(super) struct Parts<'a> {
    pub(super) begin: Option<&'a Begin>,
    /// The place of BEGIN, or of the first record that is left.
    began: Lsn,
    pub(super) commit: Option<&'a Commit>,
    pub(super) abort: Option<&'a Abort>,
    pub(super) end: Option<&'a End>,
    pub(super) notes: Vec<&'a Note>,
    /// What a database has lost of it.
    pub(super) gone: Option<&'a Note>,
}

impl<'a> Parts<'a> {
    pub(super) fn of(chain: &'a Chain) -> Self {
        let began = chain.records.first().map_or(Lsn(0), |(lsn, _)| *lsn);
        let mut parts = Self { began, ..Self::default() };
        for (_, record) in &chain.records {
            match record {
                Record::Begin(r) => parts.begin = Some(r),
                // The first decision in log order is the decision.
                Record::Commit(r) if parts.abort.is_none() => {
                    parts.commit.get_or_insert(r);
                }
                Record::Abort(r) if parts.commit.is_none() => {
                    parts.abort.get_or_insert(r);
                }
                Record::End(r) => parts.end = Some(r),
                Record::Operated(r) => {
                    parts.notes.push(&r.note);
                    if r.remark == Remark::Gone {
                        parts.gone = Some(&r.note);
                    }
                }
                _ => {}
            }
        }
        parts
    }

    fn is_local(&self) -> bool {
        self.begin.is_some_and(|b| b.local.is_some())
    }

    pub(super) fn state(&self) -> Option<PublicState> {
        match (self.commit, self.abort, self.end) {
            (Some(_), _, Some(_)) => Some(PublicState::Committed),
            (Some(_), _, None) => Some(PublicState::Committing),
            (None, Some(_), _) => Some(PublicState::Failed),
            // BEGIN may have gone with its segment; END alone still tells.
            (None, None, Some(end)) if end.committed => Some(PublicState::Committed),
            (None, None, Some(_)) => Some(PublicState::Failed),
            (None, None, None) => self.begin.map(|_| PublicState::Preparing),
        }
    }

    /// A branch did not end as decided, or did not stay so.
    pub(super) fn is_heuristic(&self) -> bool {
        self.gone.is_some() || self.end.is_some_and(|e| e.heuristic)
    }

    /// Which one, and how.
    pub(super) fn why(&self) -> Option<&'a str> {
        let gone = self.gone.map(|note| note.text.as_str());
        gone.or(self.end.map(|e| e.why.as_str())).filter(|why| !why.is_empty())
    }

    fn outcome(&self, id: TransactionId) -> Option<Outcome> {
        let state = self.state()?;
        Some(Outcome {
            id,
            state,
            reason: self.abort.map(|a| a.reason.clone()),
            heuristic: self.is_heuristic(),
            finished: state == PublicState::Committed,
        })
    }
}

impl Coordinator {
    /// C17.
    pub(super) fn status(
        &mut self,
        cx: &mut Context<'_>,
        caller: Caller,
        id: TransactionId,
        wait: Option<Wait>,
    ) {
        match (self.transactions.get_mut(&id), wait) {
            (None, _) => self.ask_log(cx, id, Question::Outcome(caller)),
            // The caller of a local transaction knows that it is committed as soon as its database
            // has, and must not hear less here (I4): so this waits for COMMIT's sync.
            (Some(tx), None) if tx.is_local() && tx.is_committing_undurably() => {
                self.wait_for(cx, caller, id, Wait::Decided);
            }
            (Some(tx), None) => {
                let outcome = tx.outcome(cx.effects.durable());
                cx.effects.reply(caller, Reply::Outcome(outcome));
            }
            (Some(_), Some(wait)) => {
                self.wait_for(cx, caller, id, wait);
                self.bound_wait(cx, caller, id);
            }
        }
    }

    /// Who only looks, or depends on a database that may be gone, waits a bounded time, decided or
    /// not, and is answered with what stands then.
    pub(super) fn bound_wait(&mut self, cx: &mut Context<'_>, caller: Caller, id: TransactionId) {
        let until_ms = cx.now.mono_ms + cx.limits.finish_wait_ms;
        if let Some(tx) = self.transactions.get_mut(&id) {
            for waiter in tx.waiters.iter_mut().filter(|w| w.caller == caller) {
                waiter.until_ms.get_or_insert(until_ms);
            }
        }
        self.rearm(cx, id);
    }

    /// A transaction that is only in the log, or of which even the log has only the end.
    fn ended_view(&self, id: TransactionId, parts: &Parts<'_>) -> Option<TransactionView> {
        let attention = self.unseen.why(id).map(Into::into);
        super::show::ended(id, parts, attention).or_else(|| self.unseen.view(id))
    }

    /// Everything about a transaction.
    pub(super) fn show(&mut self, cx: &mut Context<'_>, caller: Caller, id: TransactionId) {
        match self.view(cx, id) {
            Some(view) => cx.effects.reply(caller, Reply::Transaction(Box::new(view))),
            None => self.ask_log(cx, id, Question::Show(caller)),
        }
    }

    /// C15 for a database, asked by whoever found a prepared branch in it.
    pub(super) fn inquire_branch(
        &mut self,
        cx: &mut Context<'_>,
        caller: Caller,
        id: TransactionId,
        database: Name,
    ) {
        let Some(tx) = self.transactions.get(&id) else {
            return self.ask_log(cx, id, Question::Branch { caller, database });
        };
        let yes = tx.branch(&database).is_some_and(|at| {
            let branch = &tx.branches[at];
            !branch.is_service() && branch.vote == Some(VoteKind::Yes)
        });
        let decision = match (tx.public_state(cx.effects.durable()), yes) {
            (PublicState::Preparing, _) => BranchDecision::Pending,
            (PublicState::Committing | PublicState::Committed, true) => BranchDecision::Commit,
            (PublicState::Committing | PublicState::Committed | PublicState::Failed, _) => {
                BranchDecision::Abort
            }
        };
        cx.effects.reply(caller, Reply::Branch(decision));
    }

    /// Puts a question about a transaction that is not in memory; one reading serves them all.
    pub(super) fn ask_log(&mut self, cx: &mut Context<'_>, id: TransactionId, question: Question) {
        let questions = self.questions.entry(id).or_default();
        if questions.is_empty() {
            cx.effects.emit(Output::ReadChain { id });
        }
        questions.push(question);
    }

    /// The log cannot say: nothing is guessed, and whoever asked is told or asks again.
    pub(crate) fn chain_unreadable(
        &mut self,
        cx: &mut Context<'_>,
        id: TransactionId,
        detail: &str,
    ) {
        for question in self.questions.remove(&id).unwrap_or_default() {
            match question {
                Question::Outcome(caller)
                | Question::Commit(caller)
                | Question::Show(caller)
                | Question::Step(caller)
                | Question::Operate(caller) => {
                    let detail = format!("the records of {id} cannot be read: {detail}");
                    cx.effects.refuse(caller, Refusal::new(Code::Damaged, detail));
                }
                // It is looked for again when the database is recognised anew.
                Question::Gone(_) => {}
                Question::Branch { caller, .. } => {
                    cx.effects.reply(caller, Reply::Branch(BranchDecision::Pending));
                }
                Question::Inquiry { session, .. } => {
                    let message = ToService::Pending { id, retry_after_ms: PENDING_MS };
                    cx.effects.emit(Output::ToService { session, message });
                }
            }
        }
    }

    /// The log's answer.
    pub(crate) fn chain_read(&mut self, cx: &mut Context<'_>, id: TransactionId, chain: &Chain) {
        let questions: Vec<Question> = self.questions.remove(&id).unwrap_or_default();
        let parts = Parts::of(chain);
        for question in questions {
            match question {
                Question::Outcome(caller) => match parts.outcome(id) {
                    Some(outcome) => cx.effects.reply(caller, Reply::Outcome(outcome)),
                    None => cx.effects.refuse(caller, unknown(id)),
                },
                Question::Commit(caller) => match parts.outcome(id) {
                    Some(outcome) if outcome.reason.is_some() && parts.is_local() => {
                        let detail = "a local commit was reported after the abort (L9)".into();
                        cx.effects.emit(Output::Attention { id, detail });
                        cx.effects.refuse(caller, marker_not_written(id));
                    }
                    Some(outcome) => cx.effects.reply(caller, Reply::Outcome(outcome)),
                    None => cx.effects.refuse(caller, unknown(id)),
                },
                Question::Show(caller) => match self.ended_view(id, &parts) {
                    Some(view) => cx.effects.reply(caller, Reply::Transaction(Box::new(view))),
                    None => cx.effects.refuse(caller, unknown(id)),
                },
                Question::Step(caller) => cx.effects.refuse(caller, over(id, &parts)),
                Question::Operate(caller) => cx.effects.refuse(
                    caller,
                    parts.state().map_or_else(|| unknown(id), |_| super::operator::decided(id)),
                ),
                Question::Gone(database) => self.note_gone(cx, id, &database, chain),
                Question::Branch { caller, database } => {
                    let decision = branch_decision(&parts, &database, chain.whole);
                    cx.effects.reply(caller, Reply::Branch(decision));
                }
                Question::Inquiry { session, speaker } => {
                    let began = cx.began(parts.began);
                    let message = inquiry_answer(id, began, &parts, chain.whole, &speaker);
                    cx.effects.emit(Output::ToService { session, message });
                }
            }
        }
    }
}

/// What is wrong with a step on a transaction that has ended: how it did, in the words of whoever
/// made it fail.
fn over(id: TransactionId, parts: &Parts<'_>) -> Refusal {
    match (parts.state(), parts.abort) {
        (None, _) => unknown(id),
        (Some(_), Some(abort)) => failed(id, &abort.reason),
        (Some(_), None) => {
            Refusal::new(Code::Closed, format!("{id} takes no more: it is decided to commit"))
        }
    }
}

/// It has failed, and takes no more.
pub(super) fn failed(id: TransactionId, reason: &Reason) -> Refusal {
    let by = reason.participant.as_ref().map(|name| format!(" by {name}")).unwrap_or_default();
    let detail = if reason.detail.is_empty() { "" } else { ": " };
    let code = reason.code.as_str();
    Refusal::new(Code::Closed, format!("{id} has failed ({code}{by}{detail}{})", reason.detail))
}

/// C15 for a database, from the log.
fn branch_decision(parts: &Parts<'_>, database: &Name, whole: bool) -> BranchDecision {
    let named = |u: &Updater| {
        u.participant.name == *database && u.participant.kind == ParticipantKind::Database
    };
    match (parts.commit, parts.abort, parts.end) {
        (Some(commit), _, _) if commit.updaters.iter().any(named) => BranchDecision::Commit,
        (Some(_), _, _) | (None, Some(_), _) => BranchDecision::Abort,
        (None, None, Some(end)) if !end.committed => BranchDecision::Abort,
        // Committed, but who the updaters were is gone: nothing may be guessed.
        (None, None, Some(_)) => BranchDecision::Pending,
        (None, None, None) if parts.begin.is_none() && whole => BranchDecision::Unknown,
        (None, None, None) => BranchDecision::Pending,
    }
}

/// C15, from the log.
fn inquiry_answer(
    id: TransactionId,
    began: Began,
    parts: &Parts<'_>,
    whole: bool,
    speaker: &Speaker,
) -> ToService {
    let pending = ToService::Pending { id, retry_after_ms: PENDING_MS };
    match (parts.commit, parts.abort, parts.end) {
        (Some(commit), _, _) => {
            let updater = commit.updaters.iter().any(|u| {
                u.participant.kind == ParticipantKind::Service
                    && u.participant.name == speaker.service
                    && u.state_id == speaker.state_id
            });
            if updater { ToService::Commit { id, began } } else { ToService::Abort { id } }
        }
        (None, Some(_), _) => ToService::Abort { id },
        (None, None, Some(end)) if !end.committed => ToService::Abort { id },
        // Committed, but who the updaters were is gone: nothing may be guessed.
        (None, None, Some(_)) => pending,
        (None, None, None) if parts.begin.is_none() && whole => ToService::Abort { id },
        (None, None, None) => pending,
    }
}

/// L9.
pub(super) fn marker_not_written(id: TransactionId) -> Refusal {
    let detail = format!("{id} has failed: its marker cannot have been written");
    Refusal::new(Code::MarkerNotWritten, detail)
}

fn unknown(id: TransactionId) -> Refusal {
    let detail = format!("the log has no transaction {id}, or no longer");
    Refusal::new(Code::UnknownTransaction, detail)
}
