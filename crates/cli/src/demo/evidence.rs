//! What is left behind when everybody has gone: read from the files or databases of the
//! services, of the subscriber and of the client, never from what anybody remembers.

use std::collections::BTreeMap;
use std::path::Path;

use super::bank::{Books, Effect, Home};
use super::ledger::{Arrived, Ledger};
use super::plan::Plan;
use super::results::{self, Ended};
use crate::harness::Problem;

/// Everything that the proofs are made of.
#[derive(Debug)]
pub(super) struct Evidence {
    /// Balances.
    pub(super) accounts: BTreeMap<String, i64>,
    /// Reservations that nobody has released.
    pub(super) holds: u64,
    /// Branches that have voted YES and were never finished.
    pub(super) prepared: u64,
    /// By transfer.
    pub(super) effects: BTreeMap<u32, Vec<Effect>>,
    /// By transfer.
    pub(super) entries: BTreeMap<u32, Vec<Arrived>>,
    /// Events that came again and were ignored.
    pub(super) redelivered: u64,
    /// What the client has heard, by transfer.
    pub(super) ended: BTreeMap<u32, Vec<Ended>>,
    /// Transactions that the server has not ended; none: it did not say.
    pub(super) open: Option<usize>,
}

/// The sum of all balances of both services.
pub(super) async fn money(homes: &[Home]) -> Result<i64, Problem> {
    let mut sum = 0;
    for home in homes {
        sum += home.read().await?.accounts.iter().map(|(_, cents)| cents).sum::<i64>();
    }
    Ok(sum)
}

/// Branches that have voted YES and are not finished, in both services.
pub(super) async fn prepared(homes: &[Home]) -> Result<u64, Problem> {
    let mut sum = 0;
    for home in homes {
        sum += home.prepared().await?;
    }
    Ok(sum)
}

impl Evidence {
    /// Reads all of it.
    pub(super) async fn gather(
        dir: &Path,
        homes: &[Home],
        open: Option<usize>,
    ) -> Result<Self, Problem> {
        let mut evidence = Self {
            accounts: BTreeMap::new(),
            holds: 0,
            prepared: prepared(homes).await?,
            effects: BTreeMap::new(),
            entries: BTreeMap::new(),
            redelivered: 0,
            ended: BTreeMap::new(),
            open,
        };
        for home in homes {
            let Books { accounts, holds, effects } = home.read().await?;
            evidence.accounts.extend(accounts);
            evidence.holds += holds;
            for (transfer, effect) in effects {
                evidence.effects.entry(transfer).or_default().push(effect);
            }
        }
        evidence.ledger(dir)?;
        for ended in results::read(dir)? {
            evidence.ended.entry(ended.transfer).or_default().push(ended);
        }
        Ok(evidence)
    }

    fn ledger(&mut self, dir: &Path) -> rusqlite::Result<()> {
        let ledger = Ledger::open(dir)?;
        self.redelivered = ledger.redelivered()?.unsigned_abs();
        for entry in ledger.entries()? {
            self.entries.entry(entry.transferred.transfer).or_default().push(entry);
        }
        Ok(())
    }

    /// How a transfer ended: once, and for certain.
    pub(super) fn ended(&self, transfer: u32) -> Option<&Ended> {
        match self.ended.get(&transfer).map(Vec::as_slice) {
            Some([ended]) => Some(ended),
            _ => None,
        }
    }

    /// Money after all.
    pub(super) fn money(&self) -> i64 {
        self.accounts.values().sum()
    }

    /// Events that are written down.
    pub(super) fn events(&self) -> usize {
        self.entries.values().map(Vec::len).sum()
    }

    /// Effects and events beyond the first of their kind.
    pub(super) fn duplicates(&self, plan: &Plan) -> usize {
        let mut more = 0;
        for transfer in &plan.transfers {
            more += self.entries.get(&transfer.number).map_or(0, |e| e.len().saturating_sub(1));
            for account in [&transfer.from, &transfer.to] {
                let effects = self.effects.get(&transfer.number);
                let here =
                    effects.map_or(0, |e| e.iter().filter(|e| &e.account == account).count());
                more += here.saturating_sub(1);
            }
        }
        more
    }

    /// Whatever is prepared, open, or has no certain end.
    pub(super) fn in_doubt(&self, plan: &Plan) -> u64 {
        let unknown = plan.transfers.iter().filter(|t| self.ended(t.number).is_none()).count();
        self.prepared + self.open.unwrap_or(1) as u64 + unknown as u64
    }
}
