//! An account service over a SQLite file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use handfast::TransactionId;
use handfast::service::{Handler, HandlerError, No, Prepared};
use rusqlite::{Connection, OptionalExtension, params};

use super::books::{Books, Effect};
use super::{Bank, Change, INSUFFICIENT, Work};
use crate::demo::plan::{Plan, Side};

const TABLES: &str = "
    CREATE TABLE account (
        name  TEXT    NOT NULL PRIMARY KEY,
        cents INTEGER NOT NULL CHECK (cents >= 0)
    ) STRICT;
    CREATE TABLE hold (
        transaction_id TEXT    NOT NULL,
        transfer       INTEGER NOT NULL,
        account        TEXT    NOT NULL,
        cents          INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX hold_transaction ON hold (transaction_id);
    CREATE INDEX hold_account ON hold (account);
    CREATE TABLE effect (
        transaction_id TEXT    NOT NULL,
        transfer       INTEGER NOT NULL,
        account        TEXT    NOT NULL,
        cents          INTEGER NOT NULL
    ) STRICT;
";

/// The database of one service.
pub(crate) fn path(dir: &Path, side: Side) -> PathBuf {
    dir.join(format!("{side}.sqlite"))
}

/// Makes the database of one service, with its accounts.
pub(super) fn create(path: &Path, side: Side, plan: &Plan) -> rusqlite::Result<()> {
    let mut db = Connection::open(path)?;
    let step = db.transaction()?;
    step.execute_batch(TABLES)?;
    {
        let mut insert = step.prepare("INSERT INTO account (name, cents) VALUES (?1, ?2)")?;
        for (name, account) in plan.accounts.iter().filter(|(_, account)| account.side == side) {
            insert.execute(params![name, account.start])?;
        }
    }
    step.commit()
}

/// Opens the database of one service to look at it.
pub(crate) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open(path)?;
    db.busy_timeout(Duration::from_secs(10))?;
    Ok(db)
}

/// Branches that have voted YES and are not finished; 0 before the service has started.
pub(super) fn prepared(path: &Path) -> rusqlite::Result<i64> {
    let db = open(path)?;
    let sql = "SELECT count(*) FROM sqlite_schema WHERE name = 'handfast_branch'";
    if db.query_row(sql, [], |row| row.get::<_, i64>(0))? == 0 {
        return Ok(0);
    }
    db.query_row("SELECT count(*) FROM handfast_branch WHERE state = 1", [], |row| row.get(0))
}

/// Everything that is written down.
pub(super) fn read(path: &Path) -> rusqlite::Result<Books> {
    let db = open(path)?;
    let mut accounts = db.prepare("SELECT name, cents FROM account")?;
    let accounts = accounts.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let holds: i64 = db.query_row("SELECT count(*) FROM hold", [], |row| row.get(0))?;
    let mut effects = db.prepare("SELECT transfer, transaction_id, account, cents FROM effect")?;
    let effects = effects.query_map([], |row| {
        let effect = Effect { transaction: row.get(1)?, account: row.get(2)?, cents: row.get(3)? };
        Ok((row.get(0)?, effect))
    })?;
    Ok(Books {
        accounts: accounts.collect::<Result<_, _>>()?,
        holds: holds.unsigned_abs(),
        effects: effects.collect::<Result<_, _>>()?,
    })
}

impl Handler<Connection> for Bank {
    fn prepare(&self, db: &Connection, id: TransactionId, work: &[u8]) -> Result<Prepared, No> {
        let work: Work = serde_json::from_slice(work)?;
        let mut balance = db.prepare_cached("SELECT cents FROM account WHERE name = ?1")?;
        // Only what leaves is reserved: what is to arrive cannot be spent yet.
        let mut reserved = db.prepare_cached(
            "SELECT coalesce(sum(min(cents, 0)), 0) FROM hold WHERE account = ?1",
        )?;
        let mut hold = db.prepare_cached(
            "INSERT INTO hold (transaction_id, transfer, account, cents) VALUES (?1, ?2, ?3, ?4)",
        )?;
        for Change { account, cents } in &work.changes {
            let balance: Option<i64> = balance.query_row([account], |row| row.get(0)).optional()?;
            let Some(balance) = balance else {
                return Err(No::new(format!("there is no account {account:?}")));
            };
            let reserved: i64 = reserved.query_row([account], |row| row.get(0))?;
            if *cents < 0 && balance + reserved + cents < 0 {
                return Err(No::new(INSUFFICIENT));
            }
            hold.execute(params![id.to_string(), work.transfer, account, cents])?;
        }
        Ok(Prepared::Yes)
    }

    fn commit(&self, db: &Connection, id: TransactionId, _: &[u8]) -> Result<(), HandlerError> {
        let id = id.to_string();
        let booked = db
            .prepare_cached(
                "UPDATE account SET cents = account.cents + hold.cents \
                 FROM hold WHERE hold.account = account.name AND hold.transaction_id = ?1",
            )?
            .execute([&id])?;
        let noted = db
            .prepare_cached(
                "INSERT INTO effect (transaction_id, transfer, account, cents) \
                 SELECT transaction_id, transfer, account, cents FROM hold \
                 WHERE transaction_id = ?1",
            )?
            .execute([&id])?;
        let released = release(db, &id)?;
        if booked == 0 || booked != noted || noted != released {
            return Err(format!("{booked} booked, {noted} noted, {released} released").into());
        }
        Ok(())
    }

    fn abort(&self, db: &Connection, id: TransactionId, _: &[u8]) -> Result<(), HandlerError> {
        release(db, &id.to_string())?;
        Ok(())
    }
}

fn release(db: &Connection, id: &str) -> rusqlite::Result<usize> {
    db.prepare_cached("DELETE FROM hold WHERE transaction_id = ?1")?.execute([id])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::plan::Account;

    fn work(transfer: u32, account: &str, cents: i64) -> Vec<u8> {
        let changes = vec![Change { account: account.to_owned(), cents }];
        serde_json::to_vec(&Work { transfer, changes }).expect("it is plain data")
    }

    #[test]
    fn what_is_reserved_cannot_be_spent_twice() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut plan = Plan::default();
        plan.accounts.insert("a".to_owned(), Account { side: Side::East, start: 100 });
        let path = path(dir.path(), Side::East);
        create(&path, Side::East, &plan).expect("it is empty");
        let db = open(&path).expect("it was made");
        let (one, two, three) = (TransactionId(1), TransactionId(2), TransactionId(3));
        assert_eq!(Bank.prepare(&db, one, &work(1, "a", -60)), Ok(Prepared::Yes));
        assert_eq!(Bank.prepare(&db, two, &work(2, "a", 500)), Ok(Prepared::Yes));
        let no = No::new(INSUFFICIENT);
        assert_eq!(Bank.prepare(&db, three, &work(3, "a", -60)), Err(no));
        Bank.abort(&db, one, &[]).expect("it was reserved");
        assert_eq!(Bank.prepare(&db, three, &work(3, "a", -60)), Ok(Prepared::Yes));
        Bank.commit(&db, three, &[]).expect("it was reserved");
        Bank.commit(&db, three, &[]).expect_err("it is not reserved any more");
        let cents: i64 = db.query_row("SELECT cents FROM account", [], |row| row.get(0)).unwrap();
        assert_eq!(cents, 40);
        assert!(Bank.prepare(&db, one, &work(1, "b", 1)).is_err(), "no such account");
    }
}
