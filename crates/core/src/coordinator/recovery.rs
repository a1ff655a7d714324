//! The fold for transactions, restart (C16), and the transactions' part of a checkpoint.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::ids::{Lsn, Now, TransactionId};
use crate::record::{
    Begin, Decision, End, Operated, Reason, ReasonCode, Record, Remark, TransactionRestated,
    Updater,
};
use crate::view::VoteKind;

use super::transaction::{Branch, Decided, Phase, Transaction};
use super::{Context, Coordinator, Resumed};

impl Coordinator {
    pub(super) fn apply_begin(&mut self, lsn: Lsn, begin: &Begin) {
        if let Some(key) = &begin.key
            && self.keys.find(&key.key).is_none_or(|entry| entry.id != begin.id)
        {
            self.keys.insert(key, begin.id);
        }
        let tx = self
            .transactions
            .entry(begin.id)
            .or_insert_with(|| Box::new(Transaction::new(begin.clone(), Now::default())));
        tx.begin_lsn = lsn;
        tx.last = lsn;
    }

    pub(super) fn apply_decision(&mut self, lsn: Lsn, record: &Record, id: TransactionId) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        // Live, a trace that an operator left may follow it already.
        tx.last = tx.last.max(lsn);
        if tx.decision.is_some() {
            // Live, the decision was noted when it was appended. In recovery only the first counts.
            return;
        }
        match record {
            Record::Commit(commit) => {
                let at = Now { mono_ms: 0, wall_ms: commit.wall_ms };
                tx.decision = Some(Decided { abort: None, lsn, at });
                tx.branches = updater_branches(&commit.updaters);
            }
            Record::Abort(abort) => {
                let at = Now { mono_ms: 0, wall_ms: abort.wall_ms };
                tx.decision = Some(Decided { abort: Some(abort.reason.clone()), lsn, at });
            }
            _ => {}
        }
    }

    pub(super) fn apply_operated(&mut self, lsn: Lsn, operated: &Operated) {
        match operated.remark {
            Remark::Open => {}
            Remark::Seen => return self.unseen.seen(operated.id),
            Remark::Gone => return self.unseen.gone(lsn, operated),
        }
        let Some(tx) = self.transactions.get_mut(&operated.id) else { return };
        tx.last = tx.last.max(lsn);
        tx.notes.push(operated.note.clone());
        // Not if it was found meanwhile that a branch ended otherwise, which nobody has seen: live
        // that may be before this record is accepted. In recovery nothing is found yet, and what is
        // later counts anew.
        if operated.noted && tx.why.is_empty() {
            tx.noted = true;
        }
        if let Some(name) = &operated.released {
            tx.release(name);
        }
    }

    pub(super) fn apply_end(&mut self, lsn: Lsn, end: &End) {
        self.unseen.ended(lsn, end);
        let Some(tx) = self.transactions.get_mut(&end.id) else { return };
        tx.last = lsn;
        tx.end_lsn = Some(lsn);
        if let Some(key) = &tx.begin.key {
            self.keys.end(key, end.id, end.committed, end.wall_ms);
        }
    }

    pub(super) fn apply_restated(&mut self, restated: &TransactionRestated) {
        let mut tx = Transaction::new(restated.begin.clone(), Now::default());
        tx.begin_lsn = restated.begin_lsn;
        tx.last = restated.last;
        tx.branches = updater_branches(&restated.updaters);
        let at = Now { mono_ms: 0, wall_ms: restated.decided_wall_ms };
        tx.decision = restated.decision.as_ref().map(|decision| Decided {
            abort: match decision {
                Decision::Commit => None,
                Decision::Abort(reason) => Some(reason.clone()),
            },
            lsn: restated.last,
            at,
        });
        tx.notes.clone_from(&restated.notes);
        tx.noted = restated.noted;
        for name in &restated.released {
            tx.release(name);
        }
        if let Some(key) = &restated.begin.key {
            self.keys.insert(key, restated.begin.id);
        }
        self.transactions.insert(restated.begin.id, Box::new(tx));
    }

    /// In recovery: a transaction whose END was read is done with, so that memory holds what is
    /// open.
    pub(crate) fn forget_ended(&mut self, id: TransactionId) {
        if self.transactions.get(&id).is_some_and(|tx| tx.end_lsn.is_some()) {
            self.transactions.remove(&id);
        }
    }

    /// C16: every transaction goes on by what its chain says.
    pub(crate) fn restart(&mut self, cx: &mut Context<'_>) {
        self.keys.recovered(cx.limits, cx.now.wall_ms);
        self.branches = self.transactions.values().map(|tx| tx.branches.len()).sum();
        let mut open: Vec<(Lsn, TransactionId)> =
            self.transactions.iter().map(|(id, tx)| (tx.begin_lsn, *id)).collect();
        open.sort_unstable();
        let mut resumed = Resumed::default();
        for (_, id) in open {
            let Some(tx) = self.transactions.get_mut(&id) else { continue };
            tx.begun_ms = cx.now.mono_ms;
            // It has its whole deadline again; only a local transaction makes use of it.
            tx.deadline_ms = cx.now.mono_ms + tx.begin.deadline_ms;
            let committed = tx.decision.as_mut().map(|decided| {
                decided.at.mono_ms = cx.now.mono_ms;
                decided.abort.is_none()
            });
            match committed {
                Some(true) => {
                    resumed.decided += 1;
                    tx.phase = Phase::Committing;
                    self.start_finishing(cx, id);
                }
                Some(false) => {
                    resumed.decided += 1;
                    tx.phase = Phase::Failed;
                    self.start_finishing(cx, id);
                }
                None if tx.is_local() => {
                    resumed.local += 1;
                    tx.staged = cx.bus.restage(&tx.begin);
                    tx.phase = Phase::Local;
                    self.rearm(cx, id);
                }
                None => {
                    resumed.aborted += 1;
                    tx.phase = Phase::Collecting;
                    let reason = Reason::new(
                        ReasonCode::CoordinatorRestarted,
                        "the server started again before the decision",
                        true,
                    );
                    self.decide_abort(cx, id, reason);
                }
            }
        }
        self.resumed = resumed;
    }

    /// The transactions' part of a checkpoint.
    pub(crate) fn restate(&self, out: &mut Vec<Record>) {
        self.keys.restate(out);
        self.unseen.restate(out);
        let mut open: Vec<&Transaction> =
            self.transactions.values().map(|tx| &**tx).filter(|tx| tx.end_lsn.is_none()).collect();
        open.sort_unstable_by_key(|tx| tx.begin_lsn);
        for tx in open {
            let updaters = tx.branches.iter().filter(|b| b.vote == Some(VoteKind::Yes));
            let decision = tx.decision.as_ref().map(|d| match &d.abort {
                None => Decision::Commit,
                Some(reason) => Decision::Abort(reason.clone()),
            });
            let updaters = match &decision {
                Some(Decision::Commit) => updaters
                    .map(|b| Updater {
                        participant: b.participant.clone(),
                        state_id: b.state_id.unwrap_or_default(),
                    })
                    .collect(),
                Some(Decision::Abort(_)) | None => Vec::new(),
            };
            out.push(Record::TransactionRestated(Box::new(TransactionRestated {
                begin: tx.begin.clone(),
                begin_lsn: tx.begin_lsn,
                last: tx.last,
                decision,
                decided_wall_ms: tx.decision.as_ref().map_or(0, |d| d.at.wall_ms),
                updaters,
                released: tx.released.clone(),
                notes: tx.notes.clone(),
                noted: tx.noted,
            })));
        }
    }
}

/// The branches that a recovered COMMIT still has to tell.
fn updater_branches(updaters: &[Updater]) -> Vec<Branch> {
    let branch = |updater: &Updater| {
        let mut branch = Branch::new(updater.participant.clone(), None);
        branch.vote = Some(VoteKind::Yes);
        branch.state_id = Some(updater.state_id);
        branch
    };
    updaters.iter().map(branch).collect()
}
