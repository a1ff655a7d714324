//! A participant in a process of its own is killed with SIGKILL between its YES and the decision;
//! when it comes back it ends as decided (P8, I1, I9, I13), also if the server was killed as well.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use handfast::service::rusqlite::Connection;
use handfast::{BeginOptions, Handfast, OpenTransaction, State, TransactionId, VoteKind, Wait};

use crate::server::Server;

const TABLES: &str = "
    CREATE TABLE account (name TEXT PRIMARY KEY, cents INTEGER NOT NULL) STRICT;
    CREATE TABLE hold (transaction_id TEXT, transfer INTEGER, account TEXT, cents INTEGER) STRICT;
    CREATE TABLE effect (transaction_id TEXT, transfer INTEGER, account TEXT, cents INTEGER) STRICT;
    INSERT INTO account VALUES ('a', 100);
";

/// One of the demo's account services. It is killed when it is dropped.
struct Participant {
    child: Child,
    server: String,
    directory: PathBuf,
}

impl Participant {
    fn start(server: &Server, directory: &Path) -> Self {
        let (server, directory) = (server.url(), directory.to_path_buf());
        Connection::open(directory.join("east.sqlite")).unwrap().execute_batch(TABLES).unwrap();
        Self { child: spawn(&server, &directory), server, directory }
    }

    /// SIGKILL.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn restart(&mut self) {
        self.child = spawn(&self.server, &self.directory);
    }

    /// The balance, what is reserved, and how often something took effect.
    fn books(&self) -> (i64, i64, i64) {
        let db = Connection::open(self.directory.join("east.sqlite")).unwrap();
        let number = |sql: &str| db.query_row(sql, [], |row| row.get(0)).unwrap();
        (
            number("SELECT cents FROM account"),
            number("SELECT coalesce(sum(cents), 0) FROM hold"),
            number("SELECT count(*) FROM effect"),
        )
    }
}

impl Drop for Participant {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(server: &str, directory: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_handfast"))
        .args(["demo-part", "service", "--side", "east", "--instance", "one", "--server", server])
        .arg("--dir")
        .arg(directory)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// A transaction that the participant has prepared and nobody has decided; the participant is
/// killed then.
async fn prepared_and_killed(hf: &Handfast, participant: &mut Participant) -> OpenTransaction {
    let mut tx = hf.begin_with(BeginOptions::new().detached()).await.unwrap();
    let work = r#"{"transfer":1,"changes":[{"account":"a","cents":-30}]}"#;
    tx.call("east", work).await.unwrap();
    while hf.show(tx.id()).await.unwrap().branches[0].vote != Some(VoteKind::Yes) {
        tokio::task::yield_now().await;
    }
    participant.kill();
    assert_eq!(participant.books(), (100, -30, 0), "prepared");
    tx
}

async fn ended(hf: &Handfast, id: TransactionId, participant: &Participant) -> State {
    loop {
        let view = hf.show(id).await.unwrap();
        let (_, reserved, _) = participant.books();
        if view.ended_wall_ms.is_some() && reserved == 0 {
            return view.state;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn killed_after_its_yes_a_participant_comes_back_and_commits() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("store"));
    let hf = Handfast::connect(server.url()).await.unwrap();
    let mut participant = Participant::start(&server, directory.path());
    let tx = prepared_and_killed(&hf, &mut participant).await;
    let id = tx.id();

    let committed = tx.commit_with(Wait::Decided).await.unwrap();
    assert!(!committed.finished, "nobody is there to finish it");
    assert_eq!(hf.status(id).await.unwrap().state, State::Committing);
    participant.restart();
    assert_eq!(ended(&hf, id, &participant).await, State::Committed);
    assert_eq!(participant.books(), (70, 0, 1));
}

#[tokio::test]
async fn killed_after_its_yes_a_participant_comes_back_and_aborts() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("store"));
    let hf = Handfast::connect(server.url()).await.unwrap();
    let mut participant = Participant::start(&server, directory.path());
    let tx = prepared_and_killed(&hf, &mut participant).await;
    let id = tx.id();

    assert_eq!(tx.abort("the client has changed its mind").await.unwrap().state, State::Failed);
    participant.restart();
    assert_eq!(ended(&hf, id, &participant).await, State::Failed);
    assert_eq!(participant.books(), (100, 0, 0));
}

#[tokio::test]
async fn killed_with_the_server_both_come_back_and_what_was_decided_stands() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(&directory.path().join("store"));
    let hf = Handfast::connect(server.url()).await.unwrap();
    let mut participant = Participant::start(&server, directory.path());

    let undecided = prepared_and_killed(&hf, &mut participant).await.id();
    server.kill();
    server.restart();
    participant.restart();
    assert_eq!(ended(&hf, undecided, &participant).await, State::Failed);
    assert_eq!(participant.books(), (100, 0, 0), "nobody had decided, so nothing happened");

    let tx = prepared_and_killed(&hf, &mut participant).await;
    let decided = tx.id();
    tx.commit_with(Wait::Decided).await.unwrap();
    server.kill();
    server.restart();
    participant.restart();
    assert_eq!(ended(&hf, decided, &participant).await, State::Committed);
    assert_eq!(participant.books(), (70, 0, 1));
}
