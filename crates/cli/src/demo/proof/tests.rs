//! That the proofs hold for a sound end, and that each fails when the files are tampered with.

use std::path::Path;

use handfast::TransactionId;
use handfast::service::Handler;
use rusqlite::Connection;

use super::*;
use crate::demo::bank::{self, Bank, Change, Home, Work};
use crate::demo::evidence::money;
use crate::demo::ledger::{Arrived, Ledger};
use crate::demo::plan::Side;
use crate::demo::report::{Happened, Report};
use crate::demo::results::Results;

fn wait<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(work)
}

fn homes(dir: &Path) -> [Home; 2] {
    Side::BOTH.map(|side| Home::new(dir, side, None))
}

fn gather(dir: &Path, open: Option<usize>) -> Evidence {
    wait(Evidence::gather(dir, &homes(dir), open)).expect("the files can be read")
}

/// The files of a run in which every transfer ended as it should.
fn sound_run(dir: &Path) -> Plan {
    let plan = Plan::from_seed(3, 40);
    for side in Side::BOTH {
        wait(Home::new(dir, side, None).create(side, &plan)).expect("it is empty");
    }
    Ledger::create(dir).expect("it is empty");
    let mut ledger = Ledger::open(dir).expect("it was made");
    let mut results = Results::open(dir).expect("it can be made");
    for transfer in &plan.transfers {
        let id = TransactionId(transfer.number.into());
        let Transfer { number, from, to, cents } = transfer.clone();
        let votes = [(&from, -cents), (&to, cents)].map(|(account, cents)| {
            let db =
                bank::open(&bank::path(dir, plan.accounts[account].side)).expect("it was made");
            let changes = vec![Change { account: account.clone(), cents }];
            let work = serde_json::to_vec(&Work { transfer: number, changes }).expect("plain data");
            let vote = Bank.prepare(&db, id, &work);
            (db, vote)
        });
        let committed = votes.iter().all(|(_, vote)| vote.is_ok());
        for (db, vote) in &votes {
            match vote {
                Ok(_) if committed => Bank.commit(db, id, &[]).expect("it is prepared"),
                Ok(_) => Bank.abort(db, id, &[]).expect("it is prepared"),
                Err(_) => {}
            }
        }
        let reason = votes.into_iter().find_map(|(_, vote)| Some(vote.err()?.reason));
        let transaction = id.to_string();
        let ended = Ended { transfer: number, committed, transaction, attempts: 1, reason };
        results.write(&[ended]).expect("it can be written");
        if committed {
            let transferred = Transferred { transfer: number, from, to, cents };
            let arrived =
                Arrived { offset: number.into(), transaction: id.to_string(), transferred };
            ledger.write(&[arrived]).expect("it can be written");
        }
    }
    plan
}

/// The names of the proofs that fail after the files were tampered with.
fn failing(tamper: impl FnOnce(&Path)) -> Vec<&'static str> {
    let dir = tempfile::tempdir().expect("a directory");
    let plan = sound_run(dir.path());
    tamper(dir.path());
    let evidence = gather(dir.path(), Some(0));
    let report = Report::new(&plan, plan.money(), &evidence, Happened::default());
    let proofs = prove(&plan, plan.money(), &evidence);
    assert_eq!(report.ok, proofs.iter().all(|proof| proof.holds));
    proofs.into_iter().filter(|proof| !proof.holds).map(|proof| proof.name).collect()
}

fn sql(path: &Path, statement: &str) {
    let changed = Connection::open(path).expect("it is there").execute(statement, []);
    assert!(changed.expect(statement) > 0, "{statement} changed nothing");
}

fn east(statement: &str) -> Vec<&'static str> {
    failing(|dir| sql(&bank::path(dir, Side::East), statement))
}

fn ledger(statement: &str) -> Vec<&'static str> {
    failing(|dir| sql(&Ledger::path(dir), statement))
}

#[test]
fn a_sound_run_is_proven() {
    assert_eq!(failing(|_| {}), [""; 0]);
    let dir = tempfile::tempdir().expect("a directory");
    let plan = sound_run(dir.path());
    let evidence = gather(dir.path(), Some(0));
    let failed = plan.transfers.iter().filter(|t| !evidence.ended(t.number).unwrap().committed);
    assert!((1..20).contains(&failed.count()), "some fail and most do not");
    assert_eq!(wait(money(&homes(dir.path()))).expect("it can be read"), plan.money());
    let report = Report::new(&plan, plan.money(), &evidence, Happened::default());
    let json = serde_json::to_value(&report).expect("it is plain data");
    for field in ["transfers", "committed", "failed", "money_before", "money_after", "events"] {
        assert!(json[field].as_u64().is_some_and(|figure| figure > 0), "{field}: {json}");
    }
    for field in ["duplicates", "in_doubt", "kills"] {
        assert_eq!(json[field], 0, "{field}: {json}");
    }
    assert!(report.text(false).contains("every transfer has one outcome"));
}

#[test]
fn a_lost_effect_is_found() {
    let one = "DELETE FROM effect WHERE rowid = (SELECT min(rowid) FROM effect)";
    assert_eq!(east(one), ["effects"]);
}

#[test]
fn a_doubled_effect_is_found() {
    assert_eq!(east("INSERT INTO effect SELECT * FROM effect LIMIT 1"), ["effects"]);
}

#[test]
fn an_effect_of_another_transaction_is_found() {
    let other = "UPDATE effect SET transaction_id = 'x' WHERE rowid = 1";
    assert_eq!(east(other), ["effects"]);
}

#[test]
fn an_effect_of_a_failed_transfer_is_found() {
    let found = failing(|dir| {
        let failed = crate::demo::results::read(dir).expect("it was written");
        let failed = failed.iter().find(|ended| !ended.committed).expect("some failed").transfer;
        let statement = format!("INSERT INTO effect VALUES ('x', {failed}, 'east-0001', 5)");
        sql(&bank::path(dir, Side::East), &statement);
    });
    assert_eq!(found, ["effects", "nothing_of_failed"]);
}

#[test]
fn money_that_was_made_is_found() {
    let found = east("UPDATE account SET cents = cents + 1 WHERE name = 'east-0002'");
    assert_eq!(found, ["money", "balances"]);
}

#[test]
fn money_in_the_wrong_account_is_found() {
    let found = east(
        "UPDATE account SET cents = cents + iif(name = 'east-0002', 1, -1) \
         WHERE name IN ('east-0002', 'east-0003')",
    );
    assert_eq!(found, ["balances"]);
}

#[test]
fn a_lost_event_is_found() {
    assert_eq!(ledger("DELETE FROM entry WHERE rowid = 1"), ["events"]);
}

#[test]
fn an_event_too_many_is_found() {
    assert_eq!(ledger("INSERT INTO entry SELECT * FROM entry LIMIT 1"), ["events"]);
    let foreign = "INSERT INTO entry VALUES (999, 'x', 999, 'a', 'b', 1)";
    assert_eq!(ledger(foreign), ["events", "nothing_of_failed"]);
}

#[test]
fn an_event_with_another_amount_is_found() {
    assert_eq!(ledger("UPDATE entry SET cents = cents + 1 WHERE rowid = 1"), ["events"]);
}

#[test]
fn a_reservation_that_stays_is_found() {
    let found = east("INSERT INTO hold VALUES ('x', 1, 'east-0001', -1)");
    assert_eq!(found, ["nothing_of_failed"]);
}

#[test]
fn a_prepared_branch_is_found() {
    let found = failing(|dir| {
        let path = bank::path(dir, Side::East);
        drop(handfast::service::SqliteStore::open(&path).expect("it has its tables now"));
        let row = "INSERT INTO handfast_branch (transaction_id, state, work, at_unix_ms) \
                   VALUES (zeroblob(16), 1, x'00', 0)";
        sql(&path, row);
    });
    assert_eq!(found, ["nothing_in_doubt"]);
}

#[test]
fn a_server_that_says_nothing_proves_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let plan = sound_run(dir.path());
    for open in [None, Some(1)] {
        let evidence = gather(dir.path(), open);
        let proofs = prove(&plan, plan.money(), &evidence);
        let failing: Vec<_> = proofs.iter().filter(|p| !p.holds).map(|p| p.name).collect();
        assert_eq!(failing, ["nothing_in_doubt"]);
    }
}

#[test]
fn an_outcome_that_is_missing_or_contradicted_is_found() {
    let missing = failing(|dir| {
        let text = std::fs::read_to_string(crate::demo::results::path(dir)).expect("text");
        let rest: String = text.split_inclusive('\n').skip(1).collect();
        std::fs::write(crate::demo::results::path(dir), rest).expect("it is ours");
    });
    assert!(missing.contains(&"outcomes") && missing.contains(&"nothing_in_doubt"), "{missing:?}");
    let contradicted = failing(|dir| {
        let mut first = crate::demo::results::read(dir).expect("it was written").remove(0);
        first.committed = !first.committed;
        Results::open(dir).expect("it is ours").write(&[first]).expect("it is ours");
    });
    assert!(contradicted.contains(&"outcomes"), "{contradicted:?}");
}

#[test]
fn a_failure_for_another_reason_is_found() {
    let found = failing(|dir| {
        let path = crate::demo::results::path(dir);
        let text = std::fs::read_to_string(&path).expect("text");
        std::fs::write(&path, text.replacen(INSUFFICIENT, "a whim", 1)).expect("it is ours");
    });
    assert_eq!(found, ["reasons"]);
}
