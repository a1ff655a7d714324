//! The decision: rows C5, C6, C8 and C9. Once a decision record stands in the log nothing here
//! changes it; a lost or unknown append is answered by reading, never by guessing.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::command::Wait;
use crate::ids::{Lsn, StateId, TransactionId};
use crate::input::Chain;
use crate::output::{Output, PublicState, Reply};
use crate::record::{Abort, Commit, Reason, Record, Updater};
use crate::refusal::{Code, Refusal};
use crate::view::VoteKind;

use super::transaction::{Decided, Phase};
use super::{Context, Coordinator};

impl Coordinator {
    /// C5, L3, L6: appends COMMIT with everything that takes effect by it.
    pub(super) fn decide_commit(&mut self, cx: &mut Context<'_>, id: TransactionId) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        assert!(tx.is_undecided(), "{id} is decided already (I1)");
        let mut updaters = Vec::new();
        let mut read_only = Vec::new();
        for branch in &tx.branches {
            match branch.vote {
                Some(VoteKind::Yes) => updaters.push(Updater {
                    participant: branch.participant.clone(),
                    state_id: branch.state_id.unwrap_or(StateId(0)),
                }),
                Some(VoteKind::ReadOnly) => read_only.push(branch.participant.clone()),
                Some(VoteKind::No) | None => {
                    unreachable!("{id} commits without the YES of {} (I2)", branch.participant.name)
                }
            }
        }
        let events = cx.bus.place(&mut tx.staged, tx.begin.local.is_some());
        let commit = Commit {
            id,
            previous: tx.last,
            wall_ms: cx.now.wall_ms,
            updaters,
            read_only,
            events,
            acknowledged: tx.staged.acknowledgements.clone(),
        };
        let lsn = cx.effects.append(Record::Commit(commit));
        tx.decision = Some(Decided { abort: None, lsn, at: cx.now });
        tx.phase = Phase::Deciding;
        self.undecided.decided(tx);
        tx.resolving = None;
        for branch in &mut tx.branches {
            branch.next_ms = None;
        }
    }

    /// C6, L5: appends ABORT.
    pub(super) fn decide_abort(&mut self, cx: &mut Context<'_>, id: TransactionId, reason: Reason) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        assert!(tx.is_undecided(), "{id} is decided already (I1)");
        let abort =
            Abort { id, previous: tx.last, wall_ms: cx.now.wall_ms, reason: reason.clone() };
        let lsn = cx.effects.append(Record::Abort(abort));
        tx.decision = Some(Decided { abort: Some(reason), lsn, at: cx.now });
        tx.phase = Phase::Deciding;
        self.undecided.decided(tx);
        self.claims.forget(id);
        tx.resolving = None;
        for branch in &mut tx.branches {
            branch.next_ms = None;
            self.work_bytes -= branch.work.take().map_or(0, |work| work.len());
        }
    }

    /// C8: COMMIT is durable.
    pub(super) fn commit_durable(&mut self, cx: &mut Context<'_>, id: TransactionId) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        if tx.phase != Phase::Deciding {
            return;
        }
        tx.phase = Phase::Committing;
        self.counters.committed += 1;
        let until_ms = cx.now.mono_ms + cx.limits.finish_wait_ms;
        tx.answer_waiters(cx.effects, |w| w.wait == Wait::Decided);
        for waiter in &mut tx.waiters {
            waiter.until_ms.get_or_insert(until_ms);
        }
        self.start_finishing(cx, id);
    }

    /// Whether it is a local transaction. A restart does not abort those: their ABORT has to be
    /// durable before anybody hears of it.
    pub(super) fn is_local(&self, id: TransactionId) -> bool {
        self.transactions.get(&id).is_some_and(|tx| tx.is_local())
    }

    /// C8: ABORT is accepted, which is enough for a distributed transaction, because a restart
    /// aborts what is undecided; or it is durable.
    pub(super) fn abort_stands(&mut self, cx: &mut Context<'_>, id: TransactionId) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        if tx.phase != Phase::Deciding {
            return;
        }
        tx.phase = Phase::Failed;
        self.counters.failed += 1;
        let staged = core::mem::take(&mut tx.staged);
        tx.answer_waiters(cx.effects, |_| true);
        cx.bus.release(cx.now, staged, cx.effects);
        self.start_finishing(cx, id);
    }

    /// C3, C9: the append of a transaction's record was lost, or nobody knows: read.
    pub(crate) fn append_failed(&mut self, cx: &mut Context<'_>, record: Arc<Record>) {
        if matches!(*record, Record::KeysEnded(_)) {
            return self.keys.seal_failed();
        }
        let Some(id) = record.transaction() else { return };
        if matches!(&*record, Record::Operated(operated) if operated.follows_end()) {
            // What it follows stands; only its own place was taken.
            cx.effects.append_again(record);
            return;
        }
        if let Some(tx) = self.transactions.get_mut(&id) {
            tx.unplaced = Some(record);
            cx.effects.emit(Output::ReadChain { id });
        }
    }

    /// C3, C9: what stands is adopted; where nothing stands, the same record is tried again.
    pub(crate) fn adopt(&mut self, cx: &mut Context<'_>, id: TransactionId, chain: &Chain) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        let Some(unplaced) = tx.unplaced.take() else { return };
        let begin = chain.records.iter().find_map(|(lsn, record)| match record {
            Record::Begin(begin) => Some((*lsn, begin)),
            _ => None,
        });
        if matches!(*unplaced, Record::Operated(_)) {
            // It says nothing that others wait for; only its place was taken.
            tx.last = cx.effects.append_again(unplaced);
            return;
        }
        if matches!(*unplaced, Record::End(_)) {
            return self.adopt_end(cx, id, chain, unplaced);
        }
        match (tx.phase, begin) {
            (Phase::Opening, Some((lsn, begin))) if *begin == tx.begin => {
                self.undecided.moved(tx, lsn);
                tx.last = lsn;
                self.begin_accepted(cx, lsn, id);
                self.begin_durable(cx, id);
            }
            (Phase::Opening, Some(_)) => self.discard(cx, id, Code::KeyConflict),
            (Phase::Opening, None) => {
                let lsn = cx.effects.append_again(unplaced);
                self.undecided.moved(tx, lsn);
            }
            (Phase::Deciding, begin) => {
                self.adopt_decision(cx, id, chain, begin.is_some(), unplaced);
            }
            (
                Phase::Collecting
                | Phase::Local
                | Phase::Resolving
                | Phase::Committing
                | Phase::Failed
                | Phase::Ended,
                _,
            ) => {}
        }
    }

    /// END was lost: it says nothing that the chain does not. Once is enough (I12).
    fn adopt_end(
        &mut self,
        cx: &mut Context<'_>,
        id: TransactionId,
        chain: &Chain,
        unplaced: Arc<Record>,
    ) {
        let standing = chain.records.iter().find(|(_, r)| matches!(r, Record::End(_)));
        if let Some((lsn, Record::End(end))) = standing {
            // What is read is durable. If it went with COMMIT, that is about to be known as durable,
            // and ends it.
            self.apply_end((*lsn).min(cx.effects.durable()), end);
            return self.end_durable(cx, id);
        }
        let lsn = cx.effects.append_again(unplaced);
        if let Some(tx) = self.transactions.get_mut(&id) {
            tx.end_lsn = Some(lsn);
        }
    }

    fn adopt_decision(
        &mut self,
        cx: &mut Context<'_>,
        id: TransactionId,
        chain: &Chain,
        begun: bool,
        unplaced: Arc<Record>,
    ) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        let standing = chain
            .records
            .iter()
            .find(|(_, r)| matches!(r, Record::Commit(_) | Record::Abort(_)))
            .cloned();
        match standing {
            Some((lsn, record)) => {
                tx.last = lsn;
                let abort = match &record {
                    Record::Abort(abort) => Some(abort.reason.clone()),
                    _ => None,
                };
                let committed = abort.is_none();
                tx.decision = Some(Decided { abort, lsn, at: cx.now });
                cx.bus.apply(lsn, &record);
                if committed {
                    cx.bus.durable(cx.now, lsn, &record, cx.effects);
                    self.commit_durable(cx, id);
                } else {
                    self.abort_stands(cx, id);
                }
            }
            None if begun => {
                let lsn = cx.effects.append_again(unplaced);
                if let Some(decided) = &mut tx.decision {
                    decided.lsn = lsn;
                }
            }
            None => self.discard(cx, id, Code::UnknownTransaction),
        }
        self.rearm(cx, id);
    }

    /// The transaction turned out not to be: whoever waits is refused.
    fn discard(&mut self, cx: &mut Context<'_>, id: TransactionId, code: Code) {
        let Some(mut tx) = self.transactions.remove(&id) else { return };
        self.timers.disarm(id, &mut tx.timer);
        self.disown(tx.owner, id);
        self.release_work(&tx);
        self.branches = self.branches.saturating_sub(tx.branches.len());
        self.undecided.decided(&mut tx);
        self.claims.forget(id);
        if let Some(key) = &tx.begin.key {
            self.keys.remove(key, id);
        }
        let refusal = Refusal::new(code, alloc::format!("the log does not hold {id} as it was"));
        let beginners = tx.beginners.iter().map(|(caller, _)| *caller);
        for caller in beginners.chain(tx.waiters.iter().map(|w| w.caller)) {
            cx.effects.refuse(caller, refusal.clone());
        }
        cx.bus.release(cx.now, tx.staged, cx.effects);
    }

    /// The fold: what a record changes in the transactions and keys. Live when it is accepted, and
    /// in recovery; never emits anything.
    pub(crate) fn apply(&mut self, lsn: Lsn, record: &Record) {
        match record {
            Record::Begin(begin) => self.apply_begin(lsn, begin),
            Record::Commit(commit) => self.apply_decision(lsn, record, commit.id),
            Record::Abort(abort) => self.apply_decision(lsn, record, abort.id),
            Record::Operated(operated) => self.apply_operated(lsn, operated),
            Record::End(end) => self.apply_end(lsn, end),
            Record::TransactionRestated(restated) => self.apply_restated(restated),
            Record::UnseenRestated(all) => {
                all.iter().for_each(|unseen| self.unseen.restored(unseen.clone()));
            }
            Record::KeysEnded(keys) => self.keys.sealed_at(lsn, keys),
            Record::KeysRestated(keys) => keys.iter().for_each(|k| self.keys.restore(k)),
            Record::CheckpointStart(start) => {
                // A checkpoint restates everything from nothing.
                self.transactions.clear();
                self.unseen = super::Unseen::default();
                self.keys = super::Keys::default();
                self.keys.refer(&start.keys);
            }
            Record::Opened(_)
            | Record::Published(_)
            | Record::TopicCreated(_)
            | Record::TopicAltered(_)
            | Record::TopicDeleted(_)
            | Record::TopicTruncated(_)
            | Record::SubscriptionCreated(_)
            | Record::SubscriptionSought(_)
            | Record::SubscriptionDeleted(_)
            | Record::Acknowledged(_)
            | Record::GapAcknowledged(_)
            | Record::DeadLettered(_)
            | Record::DeadLettersTaken(_)
            | Record::SegmentDropped(_)
            | Record::SubscriptionRestated(_)
            | Record::TopicRestated(_)
            | Record::ProducersRestated(_)
            | Record::CheckpointEnd => {}
        }
    }

    /// The public state of an open transaction.
    pub(crate) fn public_state(&self, id: TransactionId, durable: Lsn) -> Option<PublicState> {
        self.transactions.get(&id).map(|tx| tx.public_state(durable))
    }

    /// Answers a caller when the decision (or END) is far enough, or at once if it is.
    pub(super) fn wait_for(
        &mut self,
        cx: &mut Context<'_>,
        caller: crate::command::Caller,
        id: TransactionId,
        wait: Wait,
    ) {
        let Some(tx) = self.transactions.get_mut(&id) else { return };
        let begun = tx.waits_for();
        let outcome = tx.outcome(cx.effects.durable().max(begun));
        let settled = match outcome.state {
            PublicState::Preparing => false,
            PublicState::Committing => wait == Wait::Decided,
            PublicState::Committed | PublicState::Failed => true,
        };
        if settled {
            return cx.effects.reply_when_durable(begun, caller, Reply::Outcome(outcome));
        }
        let until_ms = (outcome.state == PublicState::Committing)
            .then_some(cx.now.mono_ms + cx.limits.finish_wait_ms);
        if let Some(lsn) = tx.end_lsn {
            cx.effects.await_durable(lsn);
        }
        tx.waiters.push(super::transaction::Waiter { caller, wait, until_ms });
        self.rearm(cx, id);
    }
}
