//! The proofs: what must be true of the evidence. Each compares what is there with what the plan
//! and the outcomes say must be there, in both directions.

use std::collections::{BTreeMap, BTreeSet};

use super::bank::{Effect, INSUFFICIENT};
use super::evidence::Evidence;
use super::ledger::Transferred;
use super::plan::{Plan, Transfer};
use super::results::Ended;

/// One proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proof {
    /// For programs.
    pub(super) name: &'static str,
    /// For people.
    pub(super) title: &'static str,
    /// What was found.
    pub(super) figures: String,
    pub(super) holds: bool,
}

/// Does them all. `money_before` is what the accounts held before the first transfer.
pub(super) fn prove(plan: &Plan, money_before: i64, evidence: &Evidence) -> Vec<Proof> {
    let case = Case { plan, evidence };
    vec![
        case.outcomes(),
        case.money(money_before),
        case.balances(),
        case.effects(),
        case.events(),
        case.nothing_of_the_failed(),
        case.reasons(),
        case.nothing_in_doubt(),
    ]
}

struct Case<'a> {
    plan: &'a Plan,
    evidence: &'a Evidence,
}

impl Case<'_> {
    fn committed(&self) -> impl Iterator<Item = (&Transfer, &Ended)> {
        self.of(true)
    }

    fn failed(&self) -> impl Iterator<Item = (&Transfer, &Ended)> {
        self.of(false)
    }

    fn of(&self, committed: bool) -> impl Iterator<Item = (&Transfer, &Ended)> {
        self.plan.transfers.iter().filter_map(move |transfer| {
            let ended = self.evidence.ended(transfer.number)?;
            (ended.committed == committed).then_some((transfer, ended))
        })
    }

    fn outcomes(&self) -> Proof {
        let transfers = self.plan.transfers.len();
        let (committed, failed) = (self.committed().count(), self.failed().count());
        let heard = self.evidence.ended.len();
        Proof {
            name: "outcomes",
            title: "every transfer has one outcome",
            figures: format!("{transfers} = {committed} committed + {failed} failed"),
            holds: committed + failed == transfers && heard == transfers,
        }
    }

    fn money(&self, before: i64) -> Proof {
        let after = self.evidence.money();
        Proof {
            name: "money",
            title: "no money was lost or made",
            figures: format!("before {}, after {}", amount(before), amount(after)),
            holds: before == after && before == self.plan.money(),
        }
    }

    fn balances(&self) -> Proof {
        let mut wanted: BTreeMap<&str, i64> =
            self.plan.accounts.iter().map(|(name, a)| (name.as_str(), a.start)).collect();
        for (transfer, _) in self.committed() {
            *wanted.entry(&transfer.from).or_default() -= transfer.cents;
            *wanted.entry(&transfer.to).or_default() += transfer.cents;
        }
        let found = &self.evidence.accounts;
        let right = wanted.iter().filter(|(name, cents)| found.get(**name) == Some(cents)).count();
        Proof {
            name: "balances",
            title: "every balance is what the commits make it",
            figures: format!("{right} of {} accounts", wanted.len()),
            holds: right == wanted.len() && found.len() == wanted.len(),
        }
    }

    /// Exactly the two changes, in the very transaction that the client was told of.
    fn effects(&self) -> Proof {
        let (mut once, mut wanted) = (0, 0);
        for (transfer, ended) in self.committed() {
            wanted += 1;
            let effect = |account: &str, cents| Effect {
                transaction: ended.transaction.clone(),
                account: account.to_owned(),
                cents,
            };
            let mut must =
                vec![effect(&transfer.from, -transfer.cents), effect(&transfer.to, transfer.cents)];
            let mut found =
                self.evidence.effects.get(&transfer.number).cloned().unwrap_or_default();
            must.sort();
            found.sort();
            once += usize::from(must == found);
        }
        let booked = self.evidence.effects.len();
        Proof {
            name: "effects",
            title: "each commit took effect once in both accounts",
            figures: format!("{once} of {wanted}; {booked} have effects"),
            holds: once == wanted && booked == wanted,
        }
    }

    /// Exactly the one event, from the very transaction that the client was told of.
    fn events(&self) -> Proof {
        let (mut once, mut wanted) = (0, 0);
        for (transfer, ended) in self.committed() {
            wanted += 1;
            let Transfer { number, from, to, cents } = transfer.clone();
            let must = Transferred { transfer: number, from, to, cents };
            let found = self.evidence.entries.get(&number).map(Vec::as_slice);
            let is_right = matches!(found, Some([event])
                if event.transferred == must && event.transaction == ended.transaction);
            once += usize::from(is_right);
        }
        let events = self.evidence.events();
        Proof {
            name: "events",
            title: "each commit has one event at the subscriber",
            figures: format!("{once} of {wanted}; {events} events"),
            holds: once == wanted && events == wanted,
        }
    }

    fn nothing_of_the_failed(&self) -> Proof {
        let committed: BTreeSet<u32> = self.committed().map(|(t, _)| t.number).collect();
        let with_effect = self.evidence.effects.keys().filter(|t| !committed.contains(t)).count();
        let with_event = self.evidence.entries.keys().filter(|t| !committed.contains(t)).count();
        Proof {
            name: "nothing_of_failed",
            title: "failed transfers left nothing behind",
            figures: format!(
                "{with_effect} effects, {with_event} events, {} reservations",
                self.evidence.holds
            ),
            holds: with_effect == 0 && with_event == 0 && self.evidence.holds == 0,
        }
    }

    /// A kill is no reason to fail, and what nobody can pay is refused. Money that another transfer
    /// has reserved, for however long, is money that is not there.
    fn reasons(&self) -> Proof {
        let for_funds = |ended: &Ended| ended.reason.as_deref() == Some(INSUFFICIENT);
        let all = self.plan.money();
        let failed = self.failed().count();
        let lacked = self.failed().filter(|(_, ended)| for_funds(ended)).count();
        let impossible = self.plan.transfers.iter().filter(|t| t.cents > all).count();
        let refused = self.failed().filter(|(transfer, _)| transfer.cents > all).count();
        Proof {
            name: "reasons",
            title: "lack of funds is the only reason to fail",
            figures: format!("{lacked} of {failed}; {refused} of {impossible} impossible"),
            holds: lacked == failed && refused == impossible,
        }
    }

    fn nothing_in_doubt(&self) -> Proof {
        let prepared = self.evidence.prepared;
        let open = self.evidence.open;
        let told = open.map_or("an unknown number of".to_owned(), |o| o.to_string());
        Proof {
            name: "nothing_in_doubt",
            title: "nothing is left in doubt",
            figures: format!("{prepared} prepared, {told} open transactions"),
            holds: prepared == 0 && open == Some(0) && self.evidence.in_doubt(self.plan) == 0,
        }
    }
}

/// Cents as money.
pub(super) fn amount(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    let cents = cents.unsigned_abs();
    format!("{sign}{}.{:02}", cents / 100, cents % 100)
}

#[cfg(test)]
mod tests;
