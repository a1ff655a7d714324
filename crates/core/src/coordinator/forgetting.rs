//! When participants may forget outcomes.
//!
//! A participant that has forgotten an outcome takes the first prepare of a transaction that began
//! no later for a late repeat, and refuses it (row P2). So it keeps the outcome until every
//! transaction that began before has been decided: none of them will ask for a first vote any more.
//! What began before is told by the places of their BEGINs in the log and by no clock: each gets its
//! place when it is begun here, so there is none that may still come with a lower one.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::transaction::Transaction;
use super::{Context, Coordinator};
use crate::command::Caller;
use crate::ids::{Began, Lsn, Now, TransactionId};
use crate::output::{Output, Reply, ToService};

/// Outcomes that may be forgotten wait so long for each other.
const PAUSE_MS: u64 = 200;
/// Undecided transactions are counted by when they began, in slots of so many places.
const SLOT: u64 = 64;

/// How many transactions are undecided, by the places of their BEGINs. Local ones ask nobody for a
/// vote and are not counted; nor are those of before a restart, which has decided them.
#[derive(Clone, Debug, Default)]
pub(super) struct Undecided(BTreeMap<u64, u32>);

impl Undecided {
    /// Its BEGIN was appended.
    pub(super) fn begun(&mut self, tx: &mut Transaction) {
        tx.is_counted = true;
        *self.0.entry(tx.begin_lsn.0 / SLOT).or_default() += 1;
    }

    /// It is decided, or it never was.
    pub(super) fn decided(&mut self, tx: &mut Transaction) {
        if !core::mem::take(&mut tx.is_counted) {
            return;
        }
        let slot = tx.begin_lsn.0 / SLOT;
        let Some(count) = self.0.get_mut(&slot) else { return };
        *count -= 1;
        if *count == 0 {
            self.0.remove(&slot);
        }
    }

    /// Its BEGIN has another place than it was counted under.
    pub(super) fn moved(&mut self, tx: &mut Transaction, lsn: Lsn) {
        let is_counted = tx.is_counted;
        self.decided(tx);
        tx.begin_lsn = lsn;
        if is_counted {
            self.begun(tx);
        }
    }

    /// Nobody whose BEGIN is before this is undecided, if this is the last record.
    fn settled_before(&self, last: Lsn) -> Lsn {
        let oldest = self.0.first_key_value().map(|(slot, _)| slot * SLOT);
        Lsn(oldest.unwrap_or(last.0 + 1))
    }
}

impl Coordinator {
    /// Its participants need not keep the outcome for this transaction any more.
    pub(super) fn forget_later(&mut self, now: Now, tx: &Transaction) {
        for branch in tx.branches.iter().filter(|b| b.is_service()) {
            if let Some(state_id) = branch.state_id {
                let ended = (tx.begin_lsn, tx.begin.id);
                self.services.forget_later(&branch.participant.name, state_id, ended);
            }
        }
        self.arm_forgets(now);
    }

    fn arm_forgets(&mut self, now: Now) {
        if self.forget_at.is_none() && self.services.has_forgettable() {
            self.forget_at = Some(now.mono_ms + PAUSE_MS);
        }
    }

    /// Sends the collected `forget`s whose time has come.
    pub(super) fn send_forgets(&mut self, cx: &mut Context<'_>) {
        let before = self.undecided.settled_before(cx.effects.last());
        for (session, ids) in self.services.take_forgettable(before) {
            cx.effects.emit(Output::ToService { session, message: ToService::Forget { ids } });
        }
        self.forget_at = None;
        self.arm_forgets(cx.now);
    }

    /// Which of these outcomes a participant may forget: it asks for what no `forget` came for.
    pub(super) fn may_forget(
        &mut self,
        cx: &mut Context<'_>,
        caller: Caller,
        outcomes: Vec<(TransactionId, Option<Began>)>,
    ) {
        let before = self.undecided.settled_before(cx.effects.last());
        let (store, epoch) = cx.life;
        // All that was undecided at an opening was decided by it.
        let is_settled = |began: Began| {
            began.store == store
                && (began.epoch < epoch || (began.epoch == epoch && began.lsn < before))
        };
        let ids = outcomes.into_iter().filter_map(|(id, began)| {
            let over = !self.transactions.contains_key(&id) && began.is_none_or(is_settled);
            over.then_some(id)
        });
        cx.effects.reply(caller, Reply::Forget(ids.collect()));
    }
}
