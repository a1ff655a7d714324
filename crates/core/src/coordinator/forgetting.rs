//! When participants may forget outcomes.
//!
//! A participant that has forgotten an outcome takes the first prepare of a transaction that began
//! no later for a late repeat, and refuses it (row P2). So it keeps the outcome until every
//! transaction that began before, or about the same time, has been decided: none of them will ask
//! for a first vote any more.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::transaction::Transaction;
use super::{Context, Coordinator};
use crate::command::Caller;
use crate::ids::{Now, TransactionId};
use crate::output::{Output, Reply, ToService};

/// Outcomes that may be forgotten wait so long for each other.
const PAUSE_MS: u64 = 200;
/// Undecided transactions are counted by when they began, in slots of so many milliseconds.
const SLOT_MS: u64 = 64;
/// A transaction has its id, which says when it began, this long before it is known here, or less.
/// If it is more, others that began at the same time may make its services refuse it.
const UNDER_WAY_MS: u64 = 2_000;

/// How many transactions are undecided, by when they began. Local ones ask nobody for a vote and
/// are not counted; nor are those of before a restart, which has decided them.
#[derive(Clone, Debug, Default)]
pub(super) struct Undecided(BTreeMap<u64, u32>);

impl Undecided {
    pub(super) fn begun(&mut self, tx: &mut Transaction) {
        tx.is_counted = true;
        *self.0.entry(tx.begin.id.unix_ms() / SLOT_MS).or_default() += 1;
    }

    /// It is decided, or it never was.
    pub(super) fn decided(&mut self, tx: &mut Transaction) {
        if !core::mem::take(&mut tx.is_counted) {
            return;
        }
        let slot = tx.begin.id.unix_ms() / SLOT_MS;
        let Some(count) = self.0.get_mut(&slot) else { return };
        *count -= 1;
        if *count == 0 {
            self.0.remove(&slot);
        }
    }

    /// Nobody who began before this is undecided, or about to be.
    fn settled_before_ms(&self, now: Now) -> u64 {
        let oldest = self.0.first_key_value().map(|(slot, _)| slot * SLOT_MS);
        oldest.into_iter().fold(now.wall_ms.saturating_sub(UNDER_WAY_MS), u64::min)
    }
}

impl Coordinator {
    /// Its participants need not keep the outcome for this transaction any more.
    pub(super) fn forget_later(&mut self, now: Now, tx: &Transaction) {
        for branch in tx.branches.iter().filter(|b| b.is_service()) {
            if let Some(state_id) = branch.state_id {
                self.services.forget_later(&branch.participant.name, state_id, tx.begin.id);
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
        let before_ms = self.undecided.settled_before_ms(cx.now);
        for (session, ids) in self.services.take_forgettable(before_ms) {
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
        mut ids: Vec<TransactionId>,
    ) {
        let before_ms = self.undecided.settled_before_ms(cx.now);
        ids.retain(|id| !self.transactions.contains_key(id) && id.unix_ms() < before_ms);
        cx.effects.reply(caller, Reply::Forget(ids));
    }
}
