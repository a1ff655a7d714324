//! Whether both databases and the topic hold exactly what the application was told had committed.

use std::collections::BTreeMap;

use handfast::{Handfast, ReadItem, Start};
use sqlx::Connection;
use sqlx::mysql::MySqlConnection;
use sqlx::postgres::PgConnection;

use super::bank::{ACCOUNTS, START, TOPIC};
use super::databases::Databases;
use super::plan::Way;
use crate::harness::Problem;

/// What is wrong.
pub(super) async fn prove(
    databases: &Databases,
    hf: &Handfast,
    committed: &[(Way, u64)],
) -> Result<Vec<String>, Problem> {
    let told: BTreeMap<Way, i64> =
        committed.iter().map(|(way, count)| (*way, count.cast_signed())).collect();
    let mut found = Vec::new();
    let mut compare = |what: &str, told: i64, is: i64| {
        if told != is {
            found.push(format!("{what}: {told} were told, {is} are there"));
        }
    };
    let mut orders = PgConnection::connect(&databases.postgres).await?;
    let mut ledger = MySqlConnection::connect(&databases.mariadb).await?;
    let effects = "SELECT way, count(*) FROM bench_effect GROUP BY way";
    let in_orders: Vec<(i16, i64)> = sqlx::query_as(effects).fetch_all(&mut orders).await?;
    let in_ledger: Vec<(i16, i64)> = sqlx::query_as(effects).fetch_all(&mut ledger).await?;
    let of = |rows: &[(i16, i64)], way: Way| {
        rows.iter().find(|(number, _)| *number == way.number()).map_or(0, |(_, count)| *count)
    };
    for way in Way::GROUPS.into_iter().flatten() {
        let told = told.get(&way).copied().unwrap_or(0);
        compare(&format!("{} in PostgreSQL", way.title()), told, of(&in_orders, way));
        if way.is_transfer() {
            compare(&format!("{} in MariaDB", way.title()), told, of(&in_ledger, way));
        }
    }
    let sum = "SELECT CAST(sum(amount) AS decimal(30)) = CAST(? AS decimal(30)) FROM bench_account";
    let transfers: i64 = told.iter().filter(|(way, _)| way.is_transfer()).map(|(_, n)| n).sum();
    let all: i64 = told.values().sum();
    let is_right: (i64,) =
        sqlx::query_as(sum).bind(ACCOUNTS * START + transfers).fetch_one(&mut ledger).await?;
    compare("the sum of MariaDB's accounts is right", 1, is_right.0);
    let sum = "SELECT sum(amount)::bigint FROM bench_account";
    let money: (i64,) = sqlx::query_as(sum).fetch_one(&mut orders).await?;
    compare("the sum of PostgreSQL's accounts", ACCOUNTS * START - all, money.0);
    let prepared: (i64,) =
        sqlx::query_as("SELECT count(*) FROM pg_prepared_xacts").fetch_one(&mut orders).await?;
    compare("prepared in PostgreSQL", 0, prepared.0);
    let recovered = sqlx::raw_sql("XA RECOVER").fetch_all(&mut ledger).await?;
    compare("prepared in MariaDB", 0, recovered.len() as i64);
    let told = told.get(&Way::Local).copied().unwrap_or(0);
    compare("events of local transactions", told, events(hf).await?);
    Ok(found)
}

/// How many different events are in the topic.
async fn events(hf: &Handfast) -> Result<i64, Problem> {
    let mut ids = std::collections::HashSet::new();
    let mut doubled = 0;
    let mut events = hf.read(TOPIC, Start::Earliest).open().await?;
    while let Some(item) = events.next().await? {
        if let ReadItem::Event(stored) = item
            && !ids.insert(stored.event.id)
        {
            doubled += 1;
        }
    }
    // One that is there twice counts against the comparison too.
    Ok((ids.len() as i64) + doubled)
}
