//! What is left behind when everybody has gone: read from the files of the services, of the
//! subscriber and of the client, never from what anybody remembers.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::bank;
use super::ledger::{Arrived, Ledger};
use super::plan::{Plan, Side};
use super::results::{self, Ended};

/// Money that was booked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Effect {
    pub(super) transaction: String,
    pub(super) account: String,
    pub(super) cents: i64,
}

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
pub(super) fn money(dir: &Path) -> rusqlite::Result<i64> {
    let mut sum = 0;
    for side in Side::BOTH {
        let sql = "SELECT coalesce(sum(cents), 0) FROM account";
        sum += bank::open(dir, side)?.query_row(sql, [], |row| row.get::<_, i64>(0))?;
    }
    Ok(sum)
}

/// Branches that have voted YES and are not finished, in both services.
pub(super) fn prepared(dir: &Path) -> rusqlite::Result<u64> {
    let mut sum = 0;
    for side in Side::BOTH {
        sum += bank::prepared(&bank::open(dir, side)?)?.unsigned_abs();
    }
    Ok(sum)
}

impl Evidence {
    /// Reads all of it.
    pub(super) fn gather(dir: &Path, open: Option<usize>) -> io::Result<Self> {
        let mut evidence = Self {
            accounts: BTreeMap::new(),
            holds: 0,
            prepared: prepared(dir).map_err(io::Error::other)?,
            effects: BTreeMap::new(),
            entries: BTreeMap::new(),
            redelivered: 0,
            ended: BTreeMap::new(),
            open,
        };
        for side in Side::BOTH {
            evidence.bank(dir, side).map_err(io::Error::other)?;
        }
        evidence.ledger(dir).map_err(io::Error::other)?;
        for ended in results::read(dir)? {
            evidence.ended.entry(ended.transfer).or_default().push(ended);
        }
        Ok(evidence)
    }

    fn bank(&mut self, dir: &Path, side: Side) -> rusqlite::Result<()> {
        let db = bank::open(dir, side)?;
        let mut accounts = db.prepare("SELECT name, cents FROM account")?;
        let rows = accounts.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        for row in rows {
            let (name, cents): (String, i64) = row?;
            self.accounts.insert(name, cents);
        }
        let holds: i64 = db.query_row("SELECT count(*) FROM hold", [], |row| row.get(0))?;
        self.holds += holds.unsigned_abs();
        let mut effects =
            db.prepare("SELECT transfer, transaction_id, account, cents FROM effect")?;
        let rows = effects.query_map([], |row| {
            let effect =
                Effect { transaction: row.get(1)?, account: row.get(2)?, cents: row.get(3)? };
            Ok((row.get(0)?, effect))
        })?;
        for row in rows {
            let (transfer, effect): (u32, Effect) = row?;
            self.effects.entry(transfer).or_default().push(effect);
        }
        Ok(())
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
