//! Transactions that have ended, and not as was decided: a branch was ended against the decision, or
//! lost. They stay in attention, also over restarts, until a person says that it was seen.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::command::Caller;
use crate::ids::{Lsn, Name, TransactionId};
use crate::input::Chain;
use crate::limits::UNSEEN;
use crate::output::{Output, PublicState, Reply};
use crate::reason::clipped;
use crate::record::{End, Note, Operated, Record, Remark, UnseenRestated};
use crate::view::TransactionView;

use super::chain::ChainRecords;
use super::inquiry::Question;
use super::{Context, Coordinator};

/// Most of them in one record of a checkpoint.
const CHUNK: usize = 256;

/// See the module. At most [`UNSEEN`], the newest.
#[derive(Clone, Debug, Default)]
pub(super) struct Unseen(BTreeMap<TransactionId, UnseenRestated>);

impl Unseen {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = TransactionId> {
        self.0.keys().copied()
    }

    /// Why a person should look at it.
    pub(super) fn why(&self, id: TransactionId) -> Option<&str> {
        self.0.get(&id).map(|unseen| unseen.why.as_str())
    }

    /// All that is known without the log.
    pub(super) fn view(&self, id: TransactionId) -> Option<TransactionView> {
        self.0.get(&id).map(view)
    }

    /// The fold: END says it, or a checkpoint does.
    pub(super) fn ended(&mut self, lsn: Lsn, end: &End) {
        if let Some(why) = end.unseen() {
            let (committed, why) = (end.committed, why.into());
            self.restored(UnseenRestated {
                id: end.id,
                end: lsn,
                committed,
                wall_ms: end.wall_ms,
                why,
            });
        }
    }

    /// The fold: what had committed in a database is gone there.
    pub(super) fn gone(&mut self, lsn: Lsn, operated: &Operated) {
        self.restored(UnseenRestated {
            id: operated.id,
            end: lsn,
            committed: true,
            wall_ms: operated.note.wall_ms,
            why: operated.note.text.clone(),
        });
    }

    pub(super) fn restored(&mut self, unseen: UnseenRestated) {
        self.0.insert(unseen.id, unseen);
        while self.0.len() > UNSEEN {
            self.0.pop_first();
        }
    }

    /// The fold: somebody has seen it.
    pub(super) fn seen(&mut self, id: TransactionId) {
        self.0.remove(&id);
    }

    pub(super) fn restate(&self, out: &mut Vec<Record>) {
        let all: Vec<UnseenRestated> = self.0.values().cloned().collect();
        out.extend(all.chunks(CHUNK).map(|chunk| Record::UnseenRestated(chunk.to_vec())));
    }
}

impl Coordinator {
    /// A branch did not end as decided. Whatever was noted before, this was not.
    pub(super) fn heuristic(&mut self, cx: &mut Context<'_>, id: TransactionId, why: &str) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        tx.heuristic = true;
        if tx.why.contains(why) {
            return;
        }
        let why = if tx.why.is_empty() { why.into() } else { format!("{}; {why}", tx.why) };
        tx.why = clipped(why);
        tx.noted = false;
        tx.is_late = false;
        if tx.attention.replace(tx.why.clone()).is_none() {
            self.counters.attention += 1;
        }
        let detail = tx.why.clone();
        cx.effects.emit(Output::Attention { id, detail });
    }

    /// A database has lost what a transaction had committed in it. Asked of the log first: what is to
    /// be said follows the last that was.
    pub(crate) fn commit_gone(&mut self, cx: &mut Context<'_>, id: TransactionId, database: Name) {
        // One that is open is told again.
        if !self.transactions.contains_key(&id) {
            self.ask_log(cx, id, Question::Gone(database));
        }
    }

    /// See [`Coordinator::commit_gone`]; the log has answered.
    pub(super) fn note_gone(
        &mut self,
        cx: &mut Context<'_>,
        id: TransactionId,
        database: &Name,
        chain: &Chain,
    ) {
        let text = lost_by(database);
        let is_committed = matches!(ChainRecords::of(chain).state(), Some(PublicState::Committed));
        let is_said = |(_, record): &(Lsn, Record)| match record {
            Record::Operated(operated) => operated.note.text == text,
            _ => false,
        };
        // What was said a moment ago is not in the log yet.
        let newest = self.unseen.0.get(&id);
        if !is_committed
            || chain.records.iter().any(is_said)
            || newest.is_some_and(|u| u.why == text)
        {
            return;
        }
        let last = chain.records.last().map_or(Lsn(0), |(lsn, _)| *lsn);
        let previous = newest.map_or(last, |unseen| unseen.end.max(last));
        let note = Note { wall_ms: cx.now.wall_ms, text };
        let operated =
            Operated { id, previous, note, noted: false, released: None, remark: Remark::Gone };
        let lsn = cx.effects.append(Record::Operated(operated.clone()));
        // Here at once, so that what follows refers to it.
        self.unseen.gone(lsn, &operated);
        cx.effects.emit(Output::Attention { id, detail: operated.note.text });
    }

    /// An operator has seen how a transaction ended. False if there is nothing to see.
    pub(super) fn note_ended(
        &mut self,
        cx: &mut Context<'_>,
        caller: Caller,
        id: TransactionId,
        detail: &str,
    ) -> bool {
        let Some(unseen) = self.unseen.0.get(&id) else { return false };
        let text = format!("noted by an operator: {detail}");
        let note = Note { wall_ms: cx.now.wall_ms, text };
        let operated = Operated {
            id,
            previous: unseen.end,
            note,
            noted: true,
            released: None,
            remark: Remark::Seen,
        };
        let lsn = cx.effects.append(Record::Operated(operated));
        // Here at once, so that it is noted once.
        self.unseen.seen(id);
        cx.effects.reply_when_durable(lsn, caller, Reply::Done);
        true
    }
}

impl TransactionView {
    /// It was said already that a database has lost it, whether somebody has seen that or not.
    #[must_use]
    pub fn is_told_lost_by(&self, database: &Name) -> bool {
        let text = lost_by(database);
        self.notes.iter().any(|note| note.text == text)
    }
}

fn lost_by(database: &Name) -> String {
    format!("database {database} has lost it: it had committed there, and its marker is gone")
}

fn view(unseen: &UnseenRestated) -> TransactionView {
    let state = if unseen.committed { PublicState::Committed } else { PublicState::Failed };
    TransactionView {
        id: unseen.id,
        state,
        local: None,
        begun_wall_ms: unseen.id.unix_ms(),
        remaining_ms: None,
        commit_asked: unseen.committed,
        events: 0,
        acknowledgements: 0,
        reason: None,
        decided_wall_ms: None,
        ended_wall_ms: Some(unseen.wall_ms),
        heuristic: true,
        why: Some(unseen.why.clone()),
        attention: Some(unseen.why.clone()),
        notes: Vec::new(),
        branches: Vec::new(),
    }
}
