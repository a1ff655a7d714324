//! What an operator can do about a transaction: fail what is undecided, wait no longer for a branch
//! that is gone for good, take note. Never write a commit. All of it leaves a trace.

use alloc::format;
use alloc::string::String;

use crate::command::{Act, Caller, Wait};
use crate::ids::{Lsn, Name, TransactionId};
use crate::output::Reply;
use crate::reason::clipped;
use crate::record::{Note, Operated, Reason, ReasonCode, Record, Remark};
use crate::refusal::{Code, Refusal};

use super::inquiry::Question;
use super::refusals::{decided, resolving, undecided};
use super::transaction::Phase;
use super::{Context, Coordinator};

/// What a step leaves in the log beside its words.
enum Left {
    Words,
    Noted,
    Released(Name),
}

impl Coordinator {
    /// An operator steps in.
    pub(super) fn operate(
        &mut self,
        cx: &mut Context<'_>,
        caller: Caller,
        id: TransactionId,
        act: Act,
        detail: String,
    ) {
        let detail = clipped(detail);
        if act == Act::Note && self.note_ended(cx, caller, id, &detail) {
            return;
        }
        let Some(tx) = self.transactions.get_mut(&id) else {
            return self.ask_log(cx, id, Question::Operate(caller));
        };
        match act {
            Act::Abort => match tx.phase {
                Phase::Opening | Phase::Collecting | Phase::Local => {
                    // ABORT's reason is the trace.
                    let reason = Reason::new(ReasonCode::Operator, detail, false);
                    self.wait_for(cx, caller, id, Wait::Decided);
                    self.give_up(cx, id, reason);
                }
                Phase::Resolving => cx.effects.refuse(caller, resolving(id)),
                Phase::Deciding | Phase::Committing | Phase::Failed | Phase::Ended => {
                    cx.effects.refuse(caller, decided(id));
                }
            },
            Act::Release(name) => match tx.phase {
                Phase::Committing | Phase::Failed => self.release(cx, caller, id, &name, &detail),
                Phase::Opening
                | Phase::Collecting
                | Phase::Local
                | Phase::Resolving
                | Phase::Deciding => cx.effects.refuse(caller, undecided(id)),
                Phase::Ended => cx.effects.refuse(caller, decided(id)),
            },
            Act::Note => match tx.phase {
                Phase::Committing | Phase::Failed => {
                    tx.noted = true;
                    let text = format!("noted by an operator: {detail}");
                    self.leave_trace(cx, id, text, Left::Noted);
                    cx.effects.reply_when_durable(cx.effects.last(), caller, Reply::Done);
                }
                Phase::Opening
                | Phase::Collecting
                | Phase::Local
                | Phase::Resolving
                | Phase::Deciding => cx.effects.refuse(caller, undecided(id)),
                Phase::Ended => cx.effects.refuse(caller, decided(id)),
            },
        }
    }

    /// An operator wanted a local transaction to fail, and its database says that it had committed.
    pub(super) fn had_committed(
        &mut self,
        cx: &mut Context<'_>,
        id: TransactionId,
        asked: &Reason,
    ) {
        if asked.code == ReasonCode::Operator {
            let text = format!(
                "an operator asked to abort ({}), but it had committed in its database",
                asked.detail
            );
            self.leave_trace(cx, id, text, Left::Words);
        }
    }

    /// X6: the transaction ends without the branch, and says for ever that nobody knows its end.
    fn release(
        &mut self,
        cx: &mut Context<'_>,
        caller: Caller,
        id: TransactionId,
        name: &Name,
        detail: &str,
    ) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        let Some(at) = tx.branch(name).filter(|at| !tx.branches[*at].finished) else {
            let detail = format!("{name} has no branch of {id} that is waited for");
            return cx.effects.refuse(caller, Refusal::new(Code::NotAParticipant, detail));
        };
        tx.heuristic = true;
        let text = format!("{name} released by an operator: {detail}");
        self.leave_trace(cx, id, text, Left::Released(name.clone()));
        cx.effects.reply_when_durable(cx.effects.last(), caller, Reply::Done);
        self.branch_finished(cx, id, at, false);
    }

    /// What was done becomes part of the transaction's chain, after its decision.
    fn leave_trace(&mut self, cx: &mut Context<'_>, id: TransactionId, text: String, left: Left) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        let note = Note { wall_ms: cx.now.wall_ms, text };
        let decision = tx.decision.as_ref().map_or(Lsn(0), |decided| decided.lsn);
        let previous = tx.last.max(decision);
        let (noted, released) = match left {
            Left::Words => (false, None),
            Left::Noted => (true, None),
            Left::Released(name) => (false, Some(name)),
        };
        let operated = Operated { id, previous, note, noted, released, remark: Remark::Open };
        // What follows refers to it, also before it is accepted.
        tx.last = cx.effects.append(Record::Operated(operated));
    }
}
