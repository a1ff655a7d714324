//! What the subscriber keeps: every event that it was given, written down in one step with the
//! row that says so.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

/// The topic of the events.
pub(crate) const TOPIC: &str = "transfers";
/// The type of the events.
pub(crate) const KIND: &str = "transfer";
/// The subscription.
pub(crate) const SUBSCRIPTION: &str = "ledger";

/// `inbox` keeps an event from being written down twice; `entry` would show it if it were.
const TABLES: &str = "
    CREATE TABLE inbox (
        subscription TEXT    NOT NULL,
        offset       INTEGER NOT NULL,
        PRIMARY KEY (subscription, offset)
    ) STRICT;
    CREATE TABLE entry (
        offset         INTEGER NOT NULL,
        transaction_id TEXT    NOT NULL,
        transfer       INTEGER NOT NULL,
        from_account   TEXT    NOT NULL,
        to_account     TEXT    NOT NULL,
        cents          INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE redelivered (one INTEGER PRIMARY KEY CHECK (one = 1), count INTEGER NOT NULL) STRICT;
    INSERT INTO redelivered (one, count) VALUES (1, 0);
";

/// The data of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Transferred {
    pub(crate) transfer: u32,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) cents: i64,
}

/// An event that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) offset: i64,
    pub(crate) transaction: String,
    pub(crate) transferred: Transferred,
}

/// The subscriber's database.
#[derive(Debug)]
pub(crate) struct Ledger(Connection);

impl Ledger {
    pub(crate) fn path(dir: &Path) -> PathBuf {
        dir.join("ledger.sqlite")
    }

    pub(crate) fn create(dir: &Path) -> rusqlite::Result<()> {
        let db = Connection::open(Self::path(dir))?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.execute_batch(TABLES)
    }

    pub(crate) fn open(dir: &Path) -> rusqlite::Result<Self> {
        let db = Connection::open(Self::path(dir))?;
        db.busy_timeout(Duration::from_secs(10))?;
        db.pragma_update(None, "synchronous", "FULL")?;
        Ok(Self(db))
    }

    /// Writes events down that were not before, all in one durable step.
    pub(crate) fn write(&mut self, arrived: &[Arrived]) -> rusqlite::Result<()> {
        let step = self.0.transaction()?;
        let mut redelivered = 0;
        for event in arrived {
            let is_new = step
                .prepare_cached(
                    "INSERT INTO inbox (subscription, offset) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                )?
                .execute(params![SUBSCRIPTION, event.offset])?;
            if is_new == 0 {
                redelivered += 1;
                continue;
            }
            let Transferred { transfer, from, to, cents } = &event.transferred;
            step.prepare_cached(
                "INSERT INTO entry \
                 (offset, transaction_id, transfer, from_account, to_account, cents) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                event.offset,
                event.transaction,
                transfer,
                from,
                to,
                cents
            ])?;
        }
        step.execute("UPDATE redelivered SET count = count + ?1", [redelivered])?;
        step.commit()
    }

    /// Events that are written down.
    pub(crate) fn count(&self) -> rusqlite::Result<i64> {
        self.0.query_row("SELECT count(*) FROM entry", [], |row| row.get(0))
    }

    /// Events that came again and were ignored.
    pub(crate) fn redelivered(&self) -> rusqlite::Result<i64> {
        self.0.query_row("SELECT count FROM redelivered", [], |row| row.get(0))
    }

    /// Everything that is written down.
    pub(crate) fn entries(&self) -> rusqlite::Result<Vec<Arrived>> {
        let mut statement = self.0.prepare(
            "SELECT offset, transaction_id, transfer, from_account, to_account, cents FROM entry",
        )?;
        let rows = statement.query_map([], |row| {
            Ok(Arrived {
                offset: row.get(0)?,
                transaction: row.get(1)?,
                transferred: Transferred {
                    transfer: row.get(2)?,
                    from: row.get(3)?,
                    to: row.get(4)?,
                    cents: row.get(5)?,
                },
            })
        })?;
        rows.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_comes_again_is_counted_and_not_written() {
        let dir = tempfile::tempdir().expect("a directory");
        Ledger::create(dir.path()).expect("it is empty");
        let mut ledger = Ledger::open(dir.path()).expect("it was made");
        let event = |offset| Arrived {
            offset,
            transaction: "x".to_owned(),
            transferred: Transferred {
                transfer: 1,
                from: "a".to_owned(),
                to: "b".to_owned(),
                cents: 5,
            },
        };
        ledger.write(&[event(3), event(3), event(4)]).expect("it can be written");
        ledger.write(&[event(4)]).expect("it can be written");
        assert_eq!(ledger.count(), Ok(2));
        assert_eq!(ledger.redelivered(), Ok(2));
    }
}
