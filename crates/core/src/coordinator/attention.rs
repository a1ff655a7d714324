//! When a person should look at a transaction, and what they read then: what is waited for, and
//! whether anybody has to act.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::ids::TransactionId;
use crate::output::Output;

use super::transaction::{Branch, Phase, Transaction};
use super::{Context, Coordinator};

/// Most participants in one sentence.
const NAMED: usize = 5;

impl Coordinator {
    /// Flags a transaction for a person, once. That it takes long is said better by what is in the
    /// way, once that is known, and whoever has taken note of that has not seen this.
    pub(super) fn attention(&mut self, cx: &mut Context<'_>, id: TransactionId, detail: &str) {
        if let Some(tx) = self.transactions.get_mut(&id)
            && (tx.attention.is_none() || tx.is_late)
        {
            tx.noted = false;
        }
        self.flag(cx, id, detail);
    }

    fn flag(&mut self, cx: &mut Context<'_>, id: TransactionId, detail: &str) {
        if let Some(tx) = self.transactions.get_mut(&id)
            && (tx.attention.is_none() || tx.is_late)
        {
            tx.is_late = false;
            if tx.attention.replace(detail.into()).is_none() {
                self.counters.attention += 1;
            }
            cx.effects.emit(Output::Attention { id, detail: detail.into() });
        }
    }

    /// It takes long. What it waits for changes, and is said anew whenever somebody asks.
    pub(super) fn late(&mut self, cx: &mut Context<'_>, id: TransactionId) {
        let Some(tx) = self.transactions.get(&id) else { return };
        if tx.attention.is_some() {
            return;
        }
        let detail = self.waits_for(tx);
        self.flag(cx, id, &detail);
        if let Some(tx) = self.transactions.get_mut(&id) {
            tx.is_late = true;
        }
    }

    /// Why a person should look, as it is now.
    pub(super) fn attention_of(&self, tx: &Transaction) -> Option<String> {
        match &tx.attention {
            Some(_) if tx.noted => None,
            Some(_) if tx.is_late => Some(self.waits_for(tx)),
            other => other.clone(),
        }
    }

    fn waits_for(&self, tx: &Transaction) -> String {
        match tx.phase {
            Phase::Local | Phase::Resolving => self.waits_for_marker(tx),
            Phase::Opening
            | Phase::Collecting
            | Phase::Deciding
            | Phase::Committing
            | Phase::Failed
            | Phase::Ended => self.waits_for_branches(tx),
        }
    }

    fn waits_for_marker(&self, tx: &Transaction) -> String {
        let Some(name) = tx.local_database() else { return String::new() };
        if self.is_up(name) {
            format!(
                "database {name} does not say yet how a local transaction ended: a session there \
                 may hold its marker. It ends when that session does"
            )
        } else {
            format!(
                "database {name} is not up, and it alone knows how a local transaction ended. It is \
                 asked at once when it is back; nobody else has to act"
            )
        }
    }

    fn waits_for_branches(&self, tx: &Transaction) -> String {
        let open: Vec<&Branch> = tx.branches.iter().filter(|branch| !branch.finished).collect();
        let mut said: Vec<String> =
            open.iter().take(NAMED).map(|branch| self.waits_for_branch(branch)).collect();
        if open.len() > NAMED {
            said.push(format!("and {} more", open.len() - NAMED));
        }
        format!(
            "committing for too long: {}. It goes on by itself when that changes; if one is gone for \
             good, release it",
            said.join(", ")
        )
    }

    fn waits_for_branch(&self, branch: &Branch) -> String {
        let name = &branch.participant.name;
        if branch.is_service() {
            if let Some(trouble) = &branch.trouble {
                return format!("service {name} could not do it: {trouble}");
            }
            return if self.services.has(name, branch.state_id) {
                format!("service {name} does not say that it has committed")
            } else {
                format!("service {name} is not connected with the state that holds its branch")
            };
        }
        match self.databases.get(name) {
            Some(_) if self.is_up(name) => format!("database {name} could not finish it yet"),
            Some(_) => format!("database {name} is not up"),
            None => format!("database {name} is registered no longer"),
        }
    }
}
