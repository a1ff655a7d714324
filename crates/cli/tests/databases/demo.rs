//! `handfast demo --postgres URL --mariadb URL`: the demo with the services' accounts in databases.

use std::process::{Command, Output, Stdio};

use serde_json::Value;
use sqlx::{Connection, MySqlConnection, PgConnection};

use crate::world::{databases, shared};

fn demo(postgres: &str, mariadb: &str, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_handfast"))
        .args(["demo", "--postgres", postgres, "--mariadb", mariadb, "--json"])
        .args(more)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[track_caller]
fn report(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    assert!(errors.contains("the east keeps its accounts in PostgreSQL"), "{errors}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let proofs = report["proofs"].as_object().unwrap();
    assert!(!proofs.is_empty() && proofs.values().all(|proof| proof == true), "{report}");
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_over_databases_survives_kills_and_takes_a_person_s_own_transfers() {
    let (postgres, mariadb) = shared();
    let (postgres, mariadb) = databases(&postgres, &mariadb).await;
    // Six kills: the server twice, an instance of each service, the subscriber, the client.
    let options = ["--transfers", "200", "--kills", "6", "--seed", "7"];
    let first = report(&demo(&postgres, &mariadb, &options));
    assert_eq!((&first["kills"], &first["transfers"]), (&6.into(), &200.into()), "{first}");
    assert_eq!(first["money_before"], first["money_after"]);
    assert_eq!((&first["in_doubt"], &first["duplicates"]), (&0.into(), &0.into()), "{first}");
    assert!(first["committed"].as_u64().unwrap() > 0, "{first}");

    // Again on the same databases: it makes its tables anew.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("transfers.csv");
    std::fs::write(&file, "from,to,cents\nann,bob,6000\nbob,ann,1\neast-1,west-1,10001\n").unwrap();
    let options = ["--input", file.to_str().unwrap(), "--kills", "0", "--seed", "1"];
    let second = report(&demo(&postgres, &mariadb, &options));
    assert_eq!((&second["committed"], &second["failed"]), (&2.into(), &1.into()), "{second}");
    assert_eq!(second["money_before"], 40_000);
    let sql = "SELECT name, cents FROM demo_account ORDER BY name";
    let mut db = PgConnection::connect(&postgres).await.unwrap();
    let east: Vec<(String, i64)> = sqlx::query_as(sql).fetch_all(&mut db).await.unwrap();
    let mut db = MySqlConnection::connect(&mariadb).await.unwrap();
    let west: Vec<(String, i64)> = sqlx::query_as(sql).fetch_all(&mut db).await.unwrap();
    let account = |name: &str, cents| (name.to_owned(), cents);
    assert_eq!(east, [account("ann", 4_001), account("east-1", 10_000)]);
    assert_eq!(west, [account("bob", 15_999), account("west-1", 10_000)]);
}
