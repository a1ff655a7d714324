//! Questions about transactions: those in memory are answered from it, the others from the log.
//! Rows C13, C15 and C17. "The log has nothing" is an answer only if the log is whole.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;

use crate::command::{Caller, Wait};
use crate::ids::{Began, Name, SessionId, TransactionId};
use crate::input::Chain;
use crate::output::{BranchDecision, Output, PublicState, Reply, ToService};
use crate::record::{ParticipantKind, Updater};
use crate::refusal::{Code, Refusal};
use crate::view::{TransactionView, VoteKind};

use super::chain::ChainRecords;
use super::refusals::{failed, marker_not_written, unknown};
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
    fn ended_view(&self, id: TransactionId, records: &ChainRecords<'_>) -> Option<TransactionView> {
        let attention = self.unseen.why(id).map(Into::into);
        super::show::ended(id, records, attention).or_else(|| self.unseen.view(id))
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
        let records = ChainRecords::of(chain);
        for question in questions {
            match question {
                Question::Outcome(caller) => match records.outcome(id) {
                    Some(outcome) => cx.effects.reply(caller, Reply::Outcome(outcome)),
                    None => cx.effects.refuse(caller, unknown(id)),
                },
                Question::Commit(caller) => match records.outcome(id) {
                    Some(outcome) if outcome.reason.is_some() && records.is_local() => {
                        let detail = "a local commit was reported after the abort (L9)".into();
                        cx.effects.emit(Output::Attention { id, detail });
                        cx.effects.refuse(caller, marker_not_written(id));
                    }
                    Some(outcome) => cx.effects.reply(caller, Reply::Outcome(outcome)),
                    None => cx.effects.refuse(caller, unknown(id)),
                },
                Question::Show(caller) => match self.ended_view(id, &records) {
                    Some(view) => cx.effects.reply(caller, Reply::Transaction(Box::new(view))),
                    None => cx.effects.refuse(caller, unknown(id)),
                },
                Question::Step(caller) => cx.effects.refuse(caller, over(id, &records)),
                Question::Operate(caller) => cx.effects.refuse(
                    caller,
                    records.state().map_or_else(|| unknown(id), |_| super::refusals::decided(id)),
                ),
                Question::Gone(database) => self.note_gone(cx, id, &database, chain),
                Question::Branch { caller, database } => {
                    let decision = branch_decision(&records, &database, chain.whole);
                    cx.effects.reply(caller, Reply::Branch(decision));
                }
                Question::Inquiry { session, speaker } => {
                    let began = cx.began(records.began);
                    let message = inquiry_answer(id, began, &records, chain.whole, &speaker);
                    cx.effects.emit(Output::ToService { session, message });
                }
            }
        }
    }
}

/// What is wrong with a step on a transaction that has ended: how it did, in the words of whoever
/// made it fail.
fn over(id: TransactionId, records: &ChainRecords<'_>) -> Refusal {
    match (records.state(), records.abort) {
        (None, _) => unknown(id),
        (Some(_), Some(abort)) => failed(id, &abort.reason),
        (Some(_), None) => {
            Refusal::new(Code::Closed, format!("{id} takes no more: it is decided to commit"))
        }
    }
}

/// C15 for a database, from the log.
fn branch_decision(records: &ChainRecords<'_>, database: &Name, whole: bool) -> BranchDecision {
    let named = |u: &Updater| {
        u.participant.name == *database && u.participant.kind == ParticipantKind::Database
    };
    match (records.commit, records.abort, records.end) {
        (Some(commit), _, _) if commit.updaters.iter().any(named) => BranchDecision::Commit,
        (Some(_), _, _) | (None, Some(_), _) => BranchDecision::Abort,
        (None, None, Some(end)) if !end.committed => BranchDecision::Abort,
        // Committed, but who the updaters were is gone: nothing may be guessed.
        (None, None, Some(_)) => BranchDecision::Pending,
        (None, None, None) if records.begin.is_none() && whole => BranchDecision::Unknown,
        (None, None, None) => BranchDecision::Pending,
    }
}

/// C15, from the log.
fn inquiry_answer(
    id: TransactionId,
    began: Began,
    records: &ChainRecords<'_>,
    whole: bool,
    speaker: &Speaker,
) -> ToService {
    let pending = ToService::Pending { id, retry_after_ms: PENDING_MS };
    match (records.commit, records.abort, records.end) {
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
        (None, None, None) if records.begin.is_none() && whole => ToService::Abort { id },
        (None, None, None) => pending,
    }
}
