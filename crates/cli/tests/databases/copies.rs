//! Copies of a store, of every kind and at every moment: no branch of a committed transaction is
//! rolled back by one of them, and the right store stays what it is (I1, I5). The lines of the table
//! in docs/databases.md.
//!
//! An older copy of the store was put in place after a decision. It found a row with a lower epoch
//! and a lower place in the log than its own, took the database for its own, and rolled back a
//! prepared branch of a transaction that had committed elsewhere, "which the log has never heard
//! of". Nobody had seen it, because no test had ever started anything but the newest files.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use handfast_database::private::{MariaDb, Postgres};
use handfast_wire::v1::{self, TransactionState as State, Wait};
use serde_json::{Value, json};

use crate::world::{Begun, World, servers};

/// What is copied, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// File by file.
    Files,
    /// As the snapshot of a disk or of a whole virtual machine: the files keep their numbers.
    Disk,
}

const HOWS: [How; 2] = [How::Files, How::Disk];

async fn world() -> (World, Postgres, MariaDb) {
    let (postgres, mariadb) = servers();
    (World::over(&postgres.url(), &mariadb.url()).await, postgres, mariadb)
}

/// A copy of the world's store as it is at this moment.
fn copy(world: &World, name: &str, how: How) {
    let (from, to) = (world.directory().join("store"), world.directory().join(name));
    let copied = Command::new("cp").arg("-a").arg(&from).arg(&to).status().unwrap();
    assert!(copied.success());
    if how == How::Disk {
        keep_numbers(&to);
    }
}

/// Lets the files of a copy seem to be those that were copied.
fn keep_numbers(store: &Path) {
    let path = store.join("place");
    let mut place: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for name in ["store", "place"] {
        let metadata = std::fs::metadata(store.join(name)).unwrap();
        let born = metadata.created().ok().map(|born| born.duration_since(UNIX_EPOCH).unwrap());
        let born = born.map(|since| u64::try_from(since.as_nanos()).unwrap());
        place[name] = json!({ "inode": metadata.ino(), "born_unix_ns": born });
    }
    // Written over, not anew.
    std::fs::write(path, serde_json::to_vec(&place).unwrap()).unwrap();
}

/// Kills the server, and starts it again with a copy where its store was.
fn put_in_place(world: &mut World, name: &str) {
    world.kill();
    swap(world, "store", "right");
    swap(world, name, "store");
    world.restart();
}

/// The right store again.
fn put_back(world: &mut World) {
    world.kill();
    swap(world, "store", "wrong");
    swap(world, "right", "store");
    world.restart();
}

fn swap(world: &World, from: &str, to: &str) {
    std::fs::rename(world.directory().join(from), world.directory().join(to)).unwrap();
}

async fn until(world: &World, database: &str, condition: &str) -> v1::RegisteredDatabase {
    world.until(async || world.database(database).await.filter(|d| d.condition == condition)).await
}

/// PostgreSQL is gone between the votes and the decision; MariaDB commits.
async fn half_committed(world: &World, begun: &Begun, postgres: &mut Postgres) {
    postgres.kill();
    let outcome = world.commit_vouched(begun, Wait::Decided).await.unwrap();
    assert_eq!(outcome.state(), State::Committing);
    world.until(async || (world.balances_of_ledger().await == 110).then_some(())).await;
}

async fn prepared(world: &World) -> Begun {
    let begun = world.begin(&["orders", "ledger"]).await.unwrap();
    world.prepare_orders(&begun).await;
    world.prepare_ledger(&begun).await;
    begun
}

/// Waits until the store has looked through PostgreSQL as often as it does before it rolls anything
/// back, or has said that it is not its own; the branch is still there.
async fn is_left_alone(world: &World, begun: &Begun) {
    world
        .until(async || {
            let orders = world.database("orders").await?;
            let settled = orders.condition == "not_ours"
                || (orders.condition == "up" && orders.in_doubt.is_some());
            settled.then_some(())
        })
        .await;
    assert!(world.is_prepared("orders", &begun.branch("orders")).await);
}

/// The right store finishes what it has decided, whatever the copy did before.
async fn is_finished_by_the_right_store(world: &mut World, begun: &Begun) {
    put_back(world);
    world.until_up(&["orders", "ledger"]).await;
    assert_eq!(world.ended(begun).await.state(), State::Committed);
    assert_eq!(world.balances().await, (90, 110));
}

/// The copy was made while the server was stopped, and is put in place after a decision.
#[tokio::test]
async fn an_older_copy_that_is_put_in_place_rolls_nothing_back() {
    for how in HOWS {
        let (mut world, mut postgres, _mariadb) = world().await;
        world.kill();
        copy(&world, "copy", how);
        world.restart();
        world.until_up(&["orders", "ledger"]).await;
        let begun = prepared(&world).await;
        half_committed(&world, &begun, &mut postgres).await;
        put_in_place(&mut world, "copy");
        postgres.restart().unwrap();
        let orders = until(&world, "orders", "not_ours").await;
        let why = orders.why.unwrap();
        assert!(why.contains("handfast database adopt orders"), "{why}");
        let found = if how == How::Files { "its files are not those" } else { "does not contain" };
        assert!(why.contains(found), "{how:?}: {why}");
        is_left_alone(&world, &begun).await;
        is_finished_by_the_right_store(&mut world, &begun).await;
    }
}

/// A copy goes on by itself: its epoch and its place in the log rise above those of the row, over
/// restarts too. It stays what it is, and the right store too.
#[tokio::test]
async fn a_copy_that_goes_on_never_becomes_the_right_one() {
    for how in HOWS {
        let mut world = World::new().await;
        world.kill();
        copy(&world, "copy", how);
        world.restart();
        world.until_up(&["orders", "ledger"]).await;
        put_in_place(&mut world, "copy");
        for _ in 0..2 {
            for database in ["orders", "ledger"] {
                until(&world, database, "not_ours").await;
            }
            for _ in 0..200 {
                world.publish().await;
            }
            world.kill();
            world.restart();
        }
        for database in ["orders", "ledger"] {
            until(&world, database, "not_ours").await;
        }
        put_back(&mut world);
        world.until_up(&["orders", "ledger"]).await;
        let begun = prepared(&world).await;
        world.commit(&begun, Wait::Finished).await.unwrap();
        assert_eq!(world.balances().await, (90, 110), "{how:?}");
    }
}

/// The rows are as they were when the disk was copied: only a marker tells. It was compared with the
/// newest time in the log, and a copy that had gone on and was restarted was taken for the right
/// store. Every test had a row that told as well, or none.
#[tokio::test]
async fn a_copy_that_only_a_marker_contradicts_stays_one_until_it_is_adopted() {
    let mut world = World::new().await;
    let rows = world.durable_in_rows().await;
    copy(&world, "copy", How::Disk);
    let begun = prepared(&world).await;
    world.commit(&begun, Wait::Finished).await.unwrap();
    world.kill();
    world.set_durable_in_rows(rows).await;
    swap(&world, "store", "right");
    swap(&world, "copy", "store");
    for _ in 0..3 {
        world.restart();
        for database in ["orders", "ledger"] {
            let found = is_judged(&world, database).await;
            let why = found.why.unwrap_or_default();
            assert_eq!(found.condition, "not_ours", "{database}");
            assert!(why.contains("committed in it"), "{why}");
        }
        for _ in 0..20 {
            world.publish().await;
        }
        world.kill();
    }
    world.restart();
    for database in ["orders", "ledger"] {
        until(&world, database, "not_ours").await;
        world.adopt(database).await;
        until(&world, database, "up").await;
    }
    let begun = prepared(&world).await;
    world.commit(&begun, Wait::Finished).await.unwrap();
    world.kill();
    world.restart();
    for database in ["orders", "ledger"] {
        assert_eq!(is_judged(&world, database).await.condition, "up");
    }
    assert_eq!(world.balances().await, (80, 120));
}

/// Adopted is adopted: what the other life had committed before says nothing any more, though it is
/// newer than anything in the log of a copy that has only waited.
#[tokio::test]
async fn a_copy_that_has_done_nothing_but_wait_is_adopted_once() {
    let mut world = World::new().await;
    copy(&world, "copy", How::Files);
    let mut beside = world.beside("copy");
    for database in ["orders", "ledger"] {
        until(&beside, database, "not_ours").await;
    }
    let begun = prepared(&world).await;
    world.commit(&begun, Wait::Finished).await.unwrap();
    world.kill();
    for database in ["orders", "ledger"] {
        beside.adopt(database).await;
        until(&beside, database, "up").await;
    }
    beside.kill();
    beside.restart();
    for database in ["orders", "ledger"] {
        assert_eq!(is_judged(&beside, database).await.condition, "up");
    }
}

/// What the server says of a database when it has looked at it.
async fn is_judged(world: &World, database: &str) -> v1::RegisteredDatabase {
    let judged = |found: &v1::RegisteredDatabase| {
        matches!(found.condition.as_str(), "up" | "not_ours" | "refused")
    };
    world.until(async || world.database(database).await.filter(judged)).await
}

/// The copy is of the very life that decides afterwards: the row is of an opening that the copy
/// knows. The transaction begins after the copy was made, or before.
#[tokio::test]
async fn a_copy_of_the_running_life_rolls_nothing_back() {
    for (how, before) in [(How::Files, false), (How::Disk, false), (How::Disk, true)] {
        let (mut world, mut postgres, _mariadb) = world().await;
        let begun = if before {
            let begun = prepared(&world).await;
            // Its BEGIN has to be in the copy, which a later record shows.
            world.publish().await;
            copy(&world, "copy", how);
            begun
        } else {
            copy(&world, "copy", how);
            prepared(&world).await
        };
        half_committed(&world, &begun, &mut postgres).await;
        put_in_place(&mut world, "copy");
        postgres.restart().unwrap();
        is_left_alone(&world, &begun).await;
        if how == How::Files {
            for database in ["orders", "ledger"] {
                until(&world, database, "not_ours").await;
            }
        }
        world.kill();
        world.restart();
        is_left_alone(&world, &begun).await;
        if how == How::Disk {
            // It claims what it was not told about; the right store needs a word of the operator.
            put_back(&mut world);
            for database in ["orders", "ledger"] {
                world
                    .until(async || {
                        let found = world.database(database).await?;
                        matches!(found.condition.as_str(), "up" | "not_ours").then_some(())
                    })
                    .await;
                world.adopt(database).await;
            }
            assert_eq!(world.ended(&begun).await.state(), State::Committed);
            assert_eq!(world.balances().await, (90, 110), "{how:?}, {before}");
        } else {
            is_finished_by_the_right_store(&mut world, &begun).await;
        }
    }
}

/// Beside the running server somebody starts a copy of its store, as it is or with all its disk.
#[tokio::test]
async fn a_copy_beside_the_right_store_is_not_taken_for_it() {
    for how in HOWS {
        let world = World::new().await;
        copy(&world, "copy", how);
        // The rows say how far the store has come, some seconds later.
        let at = world.durable_in_rows().await;
        world.publish().await;
        world
            .until(async || {
                let now = world.durable_in_rows().await;
                (now.0 > at.0 && now.1 > at.1).then_some(())
            })
            .await;
        let begun = prepared(&world).await;
        let beside = world.beside("copy");
        for database in ["orders", "ledger"] {
            until(&beside, database, "not_ours").await;
        }
        is_left_alone(&beside, &begun).await;
        drop(beside);
        world.commit(&begun, Wait::Finished).await.unwrap();
        assert_eq!(world.balances().await, (90, 110), "{how:?}");
        world.until_up(&["orders", "ledger"]).await;
    }
}

/// A backup is restored in place. Adopted too early, it still rolls nothing back that began before.
#[tokio::test]
async fn a_restored_backup_rolls_nothing_back_even_if_it_is_adopted_too_early() {
    let (mut world, mut postgres, _mariadb) = world().await;
    let backup = world.directory().join("backup");
    let (backup, restored) = (backup.to_str().unwrap(), world.directory().join("restored"));
    world.run(&["backup", backup, "--server", &world.url()]);
    let begun = prepared(&world).await;
    half_committed(&world, &begun, &mut postgres).await;
    world.run(&["restore", backup, "--data-dir", restored.to_str().unwrap()]);
    put_in_place(&mut world, "restored");
    postgres.restart().unwrap();
    for database in ["orders", "ledger"] {
        let found = until(&world, database, "not_ours").await;
        assert!(found.why.unwrap().contains("restored from the backup"));
    }
    for database in ["orders", "ledger"] {
        world.adopt(database).await;
        until(&world, database, "up").await;
    }
    is_left_alone(&world, &begun).await;
    world.kill();
    world.restart();
    world.until_up(&["orders", "ledger"]).await;
    is_left_alone(&world, &begun).await;
}

/// A restart, a new name and another place for the same files are nothing that anybody notices; a
/// copy in their place is adopted once.
#[tokio::test]
async fn a_restart_and_a_move_are_painless_and_a_copy_is_adopted_once() {
    let mut world = World::new().await;
    for _ in 0..2 {
        world.kill();
        world.restart();
        world.until_up(&["orders", "ledger"]).await;
    }
    world.kill();
    swap(&world, "store", "elsewhere");
    let moved = world.beside("elsewhere");
    moved.until_up(&["orders", "ledger"]).await;
    // To another disk: copied, and the original is gone.
    world.take_store(moved);
    copy(&world, "copy", How::Files);
    swap(&world, "store", "gone");
    swap(&world, "copy", "store");
    world.restart();
    for database in ["orders", "ledger"] {
        let found = until(&world, database, "not_ours").await;
        assert!(found.why.unwrap().contains("found to be a copy"));
        world.adopt(database).await;
        until(&world, database, "up").await;
    }
    world.kill();
    world.restart();
    world.until_up(&["orders", "ledger"]).await;
    let begun = prepared(&world).await;
    world.commit(&begun, Wait::Finished).await.unwrap();
    assert_eq!(world.balances().await, (90, 110));
}

/// The server stands still; meanwhile a copy is adopted and the branch is rolled back there. When
/// the server goes on, the first thing it is asked is to commit.
#[tokio::test]
async fn a_server_that_stood_still_decides_nothing_before_it_has_looked() {
    let world = World::new().await;
    copy(&world, "copy", How::Files);
    let begun = world.begin_for(&["orders", "ledger"], Duration::from_secs(15)).await;
    world.prepare_orders(&begun).await;
    world.prepare_ledger(&begun).await;
    world.signal("STOP");
    let beside = world.beside("copy");
    for database in ["orders", "ledger"] {
        until(&beside, database, "not_ours").await;
        beside.adopt(database).await;
        until(&beside, database, "up").await;
    }
    world.roll_back_orders(&begun).await;
    // This is how long it stands still, at the least.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let commit = world.commit_vouched(&begun, Wait::Decided);
    let go_on = async {
        // The commit waits in its socket by then, or is the first thing after.
        tokio::time::sleep(Duration::from_millis(500)).await;
        world.signal("CONT");
    };
    let (outcome, ()) = tokio::join!(commit, go_on);
    assert_eq!(outcome.unwrap().state(), State::Failed, "half of it is gone already");
    for database in ["orders", "ledger"] {
        until(&world, database, "not_ours").await;
    }
    assert_eq!(world.balances().await, (100, 100));
    drop(beside);
}
