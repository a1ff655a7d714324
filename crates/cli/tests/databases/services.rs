//! Services that keep their state in PostgreSQL and in MariaDB, each in a process of its own: what
//! they vote, and what their handlers change, is one local transaction of their database. They are
//! killed between their YES and the decision (P1, P6 to P8).

use std::process::{Child, Command, Stdio};

use handfast::service::sql::create_tables;
use handfast::{BeginOptions, Event, Handfast, OpenTransaction, State, VoteKind, Wait};
use sqlx::{Connection, MySqlConnection, MySqlPool, PgConnection, PgPool};
use tempfile::TempDir;

use crate::world::World;

/// The tables of the demo's account services, with an account of 100.
const TABLES: [&str; 4] = [
    "CREATE TABLE demo_account (name varchar(10) PRIMARY KEY, cents bigint)",
    "CREATE TABLE demo_hold \
     (transaction_id varchar(36), transfer bigint, account varchar(10), cents bigint)",
    "CREATE TABLE demo_effect \
     (transaction_id varchar(36), transfer bigint, account varchar(10), cents bigint)",
    "INSERT INTO demo_account VALUES ('a', 100)",
];
/// The balance, what is reserved, how often something took effect, and branches in doubt.
const BOOKS: &str = "SELECT (SELECT cents FROM demo_account), \
                     (SELECT CAST(coalesce(sum(cents), 0) AS DECIMAL(18)) = 0 FROM demo_hold), \
                     (SELECT count(*) FROM demo_effect), \
                     (SELECT count(*) FROM handfast_service_branch WHERE state = 1)";

type Books = (i64, bool, i64, i64);

/// The two services over the world's databases: `east` in PostgreSQL, `west` in MariaDB.
struct Services {
    world: World,
    hf: Handfast,
    directory: TempDir,
    processes: Vec<Child>,
}

impl Services {
    async fn new() -> Self {
        let world = World::new().await;
        let pool = PgPool::connect(&world.urls["orders"]).await.unwrap();
        create_tables(&pool).await.unwrap();
        for sql in TABLES {
            sqlx::raw_sql(sql).execute(&pool).await.unwrap();
        }
        let pool = MySqlPool::connect(&world.urls["ledger"]).await.unwrap();
        create_tables(&pool).await.unwrap();
        for sql in TABLES {
            sqlx::raw_sql(sql).execute(&pool).await.unwrap();
        }
        let hf = Handfast::connect(world.url()).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut services = Self { world, hf, directory, processes: Vec::new() };
        services.start();
        services
    }

    fn start(&mut self) {
        let start = |side: &str, database: &str| {
            Command::new(env!("CARGO_BIN_EXE_handfast"))
                .args(["demo-part", "service", "--side", side, "--instance", "one"])
                .args(["--server", &self.world.url(), "--database", &self.world.urls[database]])
                .arg("--dir")
                .arg(self.directory.path())
                .stdin(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        self.processes = vec![start("east", "orders"), start("west", "ledger")];
    }

    /// SIGKILL for both.
    fn kill(&mut self) {
        for mut process in self.processes.drain(..) {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    async fn books(&self) -> [Books; 2] {
        let mut east = PgConnection::connect(&self.world.urls["orders"]).await.unwrap();
        let mut west = MySqlConnection::connect(&self.world.urls["ledger"]).await.unwrap();
        [
            sqlx::query_as(BOOKS).fetch_one(&mut east).await.unwrap(),
            sqlx::query_as(BOOKS).fetch_one(&mut west).await.unwrap(),
        ]
    }

    /// A transfer of 30 from the east to the west, with an event.
    async fn transfer(&self, options: BeginOptions, cents: i64) -> OpenTransaction {
        let mut tx = self.hf.begin_with(options).await.unwrap();
        tx.publish("made", Event::new("made", "/test")).await.unwrap();
        // The east may refuse, which ends the transaction: nothing can be added after it.
        for (side, cents) in [("west", cents), ("east", -cents)] {
            let change = format!(r#"{{"account":"a","cents":{cents}}}"#);
            tx.call(side, format!(r#"{{"transfer":1,"changes":[{change}]}}"#)).await.unwrap();
        }
        tx
    }

    /// The same, voted for by both, and both killed.
    async fn prepared_and_killed(&mut self) -> OpenTransaction {
        let tx = self.transfer(BeginOptions::new().detached(), 30).await;
        self.world
            .until(async || {
                let view = self.hf.show(tx.id()).await.unwrap();
                view.branches.iter().all(|b| b.vote == Some(VoteKind::Yes)).then_some(())
            })
            .await;
        self.kill();
        assert_eq!(self.books().await, [(100, false, 0, 1); 2], "both have prepared");
        tx
    }

    async fn until_books(&self, books: [Books; 2]) {
        self.world.until(async || (self.books().await == books).then_some(())).await;
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

#[tokio::test]
async fn a_transfer_between_postgres_and_mariadb_commits_or_fails_as_a_whole() {
    let services = Services::new().await;
    let committed = services.transfer(BeginOptions::new(), 30).await.commit().await.unwrap();
    assert!(committed.finished);
    assert_eq!(services.books().await, [(70, true, 1, 0), (130, true, 1, 0)]);
    assert_eq!(services.world.events().await, 1);

    // The west is ready to take it; the east does not have it.
    let error = services.transfer(BeginOptions::new(), 71).await.commit().await.unwrap_err();
    assert!(error.to_string().contains("insufficient funds"), "{error}");
    services.until_books([(70, true, 1, 0), (130, true, 1, 0)]).await;
    assert_eq!(services.world.events().await, 1);
}

#[tokio::test]
async fn killed_after_their_yes_both_come_back_and_commit() {
    let mut services = Services::new().await;
    let tx = services.prepared_and_killed().await;
    let id = tx.id();
    let committed = tx.commit_with(Wait::Decided).await.unwrap();
    assert!(!committed.finished, "nobody is there to finish it");
    services.start();
    services.until_books([(70, true, 1, 0), (130, true, 1, 0)]).await;
    services.world.until(async || services.hf.show(id).await.unwrap().ended_wall_ms).await;
    assert_eq!(services.hf.status(id).await.unwrap().state, State::Committed);
    assert_eq!(services.world.events().await, 1);
}

#[tokio::test]
async fn killed_after_their_yes_both_come_back_and_abort() {
    let mut services = Services::new().await;
    let tx = services.prepared_and_killed().await;
    tx.abort("the client has changed its mind").await.unwrap();
    services.start();
    services.until_books([(100, true, 0, 0); 2]).await;
    assert_eq!(services.world.events().await, 0);
}
