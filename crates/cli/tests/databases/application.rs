//! An application over the client crate, in a process of its own, that is killed with SIGKILL:
//! between its YES votes and its commit, and between the commit's acknowledgement and phase two.
//!
//! The process is this very test program, told by its environment to be the application.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use handfast::{BeginOptions, Event, Handfast, State, TransactionId, Wait};
use sqlx::{MySqlPool, PgPool};

use crate::network::Network;
use crate::world::World;

/// The server's URL, PostgreSQL's, MariaDB's, and `attached` or `detached`, with spaces between.
const TOLD: &str = "HANDFAST_TEST_APPLICATION";
/// Deadline of a detached transaction, which ends with nobody's stream.
const DEADLINE: Duration = Duration::from_secs(3);

/// The application: prepares in both databases, waits for a line, commits, and stays there.
#[tokio::test]
async fn the_application() {
    let Ok(told) = std::env::var(TOLD) else { return };
    let told: Vec<&str> = told.split(' ').collect();
    let [server, postgres, mariadb, kind] = told[..] else { panic!("{told:?}") };
    let hf = Handfast::connect(server).await.unwrap();
    let orders = PgPool::connect(postgres).await.unwrap();
    let ledger = MySqlPool::connect(mariadb).await.unwrap();
    let mut options = BeginOptions::new();
    if kind == "detached" {
        options = options.detached().with_deadline(DEADLINE);
    }
    let mut tx = hf.begin_with(options).await.unwrap();
    let work = "UPDATE account SET amount = amount - 10 WHERE name = 'a'";
    tx.join("orders", &orders, async |db| sqlx::query(work).execute(db).await).await.unwrap();
    let work = "UPDATE account SET amount = amount + 10 WHERE name = 'a'";
    tx.join("ledger", &ledger, async |db| sqlx::query(work).execute(db).await).await.unwrap();
    tx.publish("made", Event::new("made", "/test")).await.unwrap();
    println!("prepared {}", tx.id());
    let told = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    told.await.unwrap().unwrap();
    tx.commit_with(Wait::Decided).await.unwrap();
    println!("acknowledged");
    std::future::pending::<()>().await;
}

/// That process, seen from outside. It is killed when it is dropped.
struct Application {
    process: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Application {
    /// Starts it; returns when it has prepared.
    fn prepared(world: &World, mariadb: &str, kind: &str) -> (Self, TransactionId) {
        let told = format!("{} {} {mariadb} {kind}", world.url(), world.urls["orders"]);
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["application::the_application", "--exact", "--nocapture"])
            .env(TOLD, told)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut application = Self { process, lines };
        let id = application.says("prepared ").parse().unwrap();
        (application, id)
    }

    /// The rest of the next line that begins so. What the test harness says is between them.
    fn says(&mut self, word: &str) -> String {
        let mut lines = self.lines.by_ref().map_while(Result::ok);
        let found = lines.find_map(|line| Some(line.split_once(word)?.1.to_owned()));
        found.unwrap_or_else(|| panic!("it ended before it said {word}"))
    }

    fn commit(&mut self) {
        self.process.stdin.as_mut().unwrap().write_all(b"commit\n").unwrap();
        self.says("acknowledged");
    }

    /// SIGKILL.
    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn killed_before_its_commit(kind: &str) {
    let world = World::new().await;
    let (mut application, id) = Application::prepared(&world, &world.urls["ledger"], kind);
    assert_eq!(world.prepared(id).await, 2, "it has voted YES twice");
    application.kill();
    world.until(async || (world.prepared(id).await == 0).then_some(())).await;
    let hf = Handfast::connect(world.url()).await.unwrap();
    assert_eq!(hf.status(id).await.unwrap().state, State::Failed);
    assert_eq!(world.balances().await, (100, 100));
    assert_eq!(world.events().await, 0);
}

#[tokio::test]
async fn an_application_killed_between_its_votes_and_its_commit_leaves_nothing_prepared() {
    killed_before_its_commit("attached").await;
}

/// A detached transaction does not end with its stream: its deadline ends it.
#[tokio::test]
async fn a_detached_one_leaves_nothing_prepared_after_its_deadline() {
    killed_before_its_commit("detached").await;
}

/// The client's finisher is held off by a network that takes nothing any more: the application's
/// session keeps the MariaDB branch, and the server has to end that session first (MY3).
#[tokio::test(flavor = "multi_thread")]
async fn an_application_killed_between_the_acknowledgement_and_phase_two_has_committed() {
    let world = World::new().await;
    let network = Network::to(&world.urls["ledger"]).await;
    let (mut application, id) = Application::prepared(&world, &network.url, "attached");
    assert_eq!(world.prepared(id).await, 2);
    network.stop();
    application.commit();
    application.kill();
    let hf = Handfast::connect(world.url()).await.unwrap();
    world.until(async || hf.show(id).await.unwrap().ended_wall_ms).await;
    assert_eq!(hf.status(id).await.unwrap().state, State::Committed);
    assert_eq!(world.prepared(id).await, 0);
    assert_eq!(world.balances().await, (90, 110));
    assert_eq!(world.events().await, 1);
}
