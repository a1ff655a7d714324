//! Databases: the doctor without a server, and what a server says about them, with a private
//! PostgreSQL and a private MariaDB. Steps of operators.

use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use handfast::{BeginOptions, Event, Handfast, TopicSettings, TransactionId};
use handfast_database::private::{MariaDb, MariaDbOptions, Postgres, PostgresOptions};
use handfast_wire::v1;
use serde_json::{Value, json};
use sqlx::{Connection, MySqlConnection};

use crate::harness::{Done, Server, ask, run, start, until};

const UNKNOWN: &str = "00000000-0000-7000-8000-000000000000";
/// Tests share a server, and the list is of all its databases.
const PREPARED_HERE: &str =
    "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()";

static POSTGRES: LazyLock<Postgres> = LazyLock::new(|| postgres(&PostgresOptions::default()));

fn postgres(options: &PostgresOptions) -> Postgres {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("handfast-cli-{}-{number}", std::process::id());
    let directory: PathBuf = std::env::temp_dir().join(name);
    let options = options.clone().with_directory_removed();
    Postgres::start(&directory, &options).unwrap_or_else(|error| panic!("{error}"))
}

/// What psql answers to statements that it sends in one message.
#[track_caller]
fn sql(url: &str, statements: &str) -> String {
    let mut psql = Command::new("psql");
    let done = psql.args([url, "-X", "-A", "-t", "-q", "-c", statements]).output().unwrap();
    assert!(done.status.success(), "{statements}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// A database of the test's own.
fn database(name: &str) -> String {
    sql(&POSTGRES.url(), &format!("CREATE DATABASE {name}"));
    POSTGRES.url_of("postgres", name)
}

fn doctor(url: &str, more: &str) -> Done {
    let arguments = ["doctor", "--database", url].into_iter().chain(more.split_whitespace());
    run(&arguments.collect::<Vec<_>>())
}

/// A report on stdout, with an error on stderr if it is refused.
#[track_caller]
fn report(done: &Done) -> Value {
    serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{}", done.stderr))
}

fn finding<'a>(report: &'a Value, check: &str) -> &'a Value {
    let findings = report["findings"].as_array().unwrap();
    findings.iter().find(|f| f["check"] == check).unwrap_or_else(|| panic!("{check}: {report}"))
}

#[test]
fn the_doctor_says_what_is_wrong_and_mends_what_it_can() {
    let url = database("doctor");
    sql(&url, "CREATE ROLE app LOGIN");
    let sick = doctor(&url, "--json");
    assert_eq!(sick.status, 1);
    let found = report(&sick);
    assert_eq!((&found["local"], &found["distributed"]), (&json!(false), &json!(false)));
    let fixable = found["findings"].as_array().unwrap().iter().any(|f| f["fixable"] == true);
    assert!(fixable, "{found}");
    let error: Value = serde_json::from_str(&sick.stderr).unwrap();
    assert_eq!(error["error"]["code"], "database_refused");
    assert_eq!(error["error"]["hint"], "--fix does what it can");
    assert!(doctor(&url, "").stdout.contains("--fix does it."));

    let mended = report(&doctor(&url, "--fix --role app --json"));
    assert_eq!(mended["done"].as_array().unwrap().len(), 3, "{mended}");
    assert_eq!((&mended["local"], &mended["distributed"]), (&json!(true), &json!(true)));
    let again = doctor(&url, "--fix");
    assert_eq!(again.status, 0, "{}", again.stderr);
    assert!(again.stdout.contains("fixed: nothing"), "{}", again.stdout);
    let well = doctor(&url, "").text();
    assert!(well.contains("PostgreSQL ") && well.contains("transactions are allowed"), "{well}");
    let may = "SELECT has_table_privilege('app', 'handfast_branch', 'INSERT'), \
               has_table_privilege('app', 'handfast_branch', 'SELECT')";
    assert_eq!(sql(&url, may), "t|f");

    let (status, error) = doctor(&url, "--fix --role a\"b --json").error();
    assert_eq!((status, &error["code"]), (2, &json!("invalid_role")));
    let (status, error) = doctor(&POSTGRES.url_of("app", "doctor"), "--fix --json").error();
    assert_eq!((status, &error["code"]), (1, &json!("not_fixed")), "{error}");
}

#[tokio::test]
async fn the_doctor_mends_mariadb_too() {
    let name = format!("handfast-cli-mariadb-{}", std::process::id());
    let options = MariaDbOptions::default().with_directory_removed();
    let server = MariaDb::start(&std::env::temp_dir().join(name), &options).unwrap();
    let mut root = MySqlConnection::connect(&server.url()).await.unwrap();
    let create = "CREATE DATABASE stock; CREATE DATABASE other; CREATE USER app";
    sqlx::raw_sql(create).execute(&mut root).await.unwrap();
    let url = server.url_of("root", "stock");
    let sick = doctor(&url, "--json");
    assert_eq!(sick.status, 1);
    let found = report(&sick);
    assert_eq!((&found["kind"], &found["local"]), (&json!("MariaDB"), &json!(false)), "{found}");
    assert_eq!(finding(&found, "tables")["fixable"], true);

    let mended = report(&doctor(&url, "--fix --role app --json"));
    assert_eq!((&mended["local"], &mended["distributed"]), (&json!(true), &json!(true)));
    assert_eq!(mended["done"].as_array().unwrap().len(), 3, "{mended}");
    let well = doctor(&url, "").text();
    assert!(well.contains("MariaDB ") && well.contains("transactions are allowed"), "{well}");
    // The role may insert markers, and nothing else.
    let mut app = MySqlConnection::connect(&server.url_of("app", "stock")).await.unwrap();
    let marker = "INSERT INTO handfast_branch (id, outcome) VALUES ('x', 'committed')";
    sqlx::raw_sql(marker).execute(&mut app).await.unwrap();
    sqlx::raw_sql("SELECT id FROM handfast_branch").execute(&mut app).await.unwrap_err();
    sqlx::raw_sql("SELECT node FROM handfast_owner").execute(&mut app).await.unwrap_err();

    // MY9: what tells two registrations of one database, by whatever address.
    let identity = |url: &str| report(&doctor(url, "--json"))["identity"].clone();
    assert!(identity(&url).as_str().unwrap().ends_with("database stock"));
    assert_eq!(identity(&url), identity(&url.replace("127.0.0.1", "localhost")));
    assert_ne!(identity(&url), identity(&server.url_of("root", "other")));
    assert!(well.contains("leads to this very"), "{well}");
    let (status, error) = doctor(&server.url_of("root", "missing"), "--json").error();
    assert_eq!((status, &error["code"]), (1, &json!("no_such_database")), "{error}");
}

#[test]
fn only_local_transactions_are_a_failure_with_its_finding() {
    let server = postgres(&PostgresOptions::default().with_max_prepared_transactions(0));
    let done = doctor(&server.url(), "--fix --json");
    assert_eq!(done.status, 1);
    let found = report(&done);
    assert_eq!((&found["local"], &found["distributed"]), (&json!(true), &json!(false)));
    assert_eq!(finding(&found, "max_prepared_transactions")["grade"], "local transactions only");
    let done = doctor(&server.url(), "");
    assert!(done.stdout.contains("Only local transactions are allowed."), "{}", done.stdout);
    assert!(done.stderr.contains("distributed transactions are refused"), "{}", done.stderr);
}

#[test]
fn a_database_that_cannot_be_asked_is_one_sentence() {
    let url = |user: &str, database: &str| POSTGRES.url_of(user, database);
    // A password is asked for and is not the right one.
    sql(&url("postgres", "postgres"), "CREATE ROLE locked LOGIN PASSWORD 'right'");
    let rules = sql(&url("postgres", "postgres"), "SHOW hba_file");
    let before = std::fs::read_to_string(&rules).unwrap();
    std::fs::write(&rules, format!("host all locked 127.0.0.1/32 scram-sha-256\n{before}"))
        .unwrap();
    sql(&url("postgres", "postgres"), "SELECT pg_reload_conf()");
    let locked = url("locked", "postgres").replace("locked@", "locked:secret@");
    until(
        || json!(doctor(&locked, "--json").stderr),
        |told| told.as_str().unwrap().contains("password authentication failed"),
    );
    let down = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("postgres://u:secret@{}/d", listener.local_addr().unwrap())
    };
    for (url, status, code, words) in [
        (down.as_str(), 1, "database_down", "nothing answers at postgres://u@127.0.0.1"),
        (&url("postgres", "missing"), 1, "no_such_database", "has no such database"),
        (&url("nobody", "postgres"), 1, "access_denied", "refuses the user"),
        (&locked, 1, "access_denied", "refuses the user or the password"),
        ("http://h/d", 2, "invalid_url", "begins with postgres://"),
        ("postgres://h", 2, "invalid_url", "has to name the database"),
        ("nonsense", 2, "invalid_url", "begins with postgres://"),
    ] {
        let (found, error) = doctor(url, "--json").error();
        assert_eq!((found, error["code"].as_str().unwrap()), (status, code), "{url}: {error}");
        assert!(error["message"].as_str().unwrap().contains(words), "{url}: {error}");
        let (_, sentence) = doctor(url, "").sentence();
        assert_eq!(sentence.lines().count(), 1, "{sentence}");
        assert!(!sentence.contains("secret"), "{sentence}");
    }
}

async fn begin(server: &Server, database: &str, deadline: Duration) -> (TransactionId, String) {
    let channel = tonic::transport::Endpoint::from_shared(server.url()).unwrap().connect_lazy();
    let mut stub = v1::transactions_client::TransactionsClient::new(channel);
    let branch = v1::Branch {
        participant: database.into(),
        kind: v1::ParticipantKind::Database.into(),
        work: None,
    };
    let request = v1::BeginRequest {
        deadline_ms: u64::try_from(deadline.as_millis()).unwrap(),
        branches: vec![branch],
        ..Default::default()
    };
    let begun = stub.begin(request).await.unwrap().into_inner();
    let id = handfast_wire::ids::transaction_id("id", &begun.transaction_id).unwrap();
    (id, begun.branch_ids[0].branch_id.clone())
}

/// Commits as somebody who has seen the guarded prepare succeed.
async fn commit_vouched(server: &Server, id: TransactionId, database: &str) {
    let channel = tonic::transport::Endpoint::from_shared(server.url()).unwrap().connect_lazy();
    let mut stub = v1::transactions_client::TransactionsClient::new(channel);
    let database = database.to_owned();
    let request = v1::CommitRequest {
        transaction_id: handfast_wire::ids::transaction_bytes(id),
        branches: 1,
        votes: vec![v1::DatabaseVote { database, vouched: true, ..Default::default() }],
        wait: v1::Wait::Decided.into(),
        ..Default::default()
    };
    stub.commit(request).await.unwrap();
}

fn prepare(url: &str, branch: &str) {
    let marker = format!(
        "BEGIN; INSERT INTO handfast_branch (id, outcome) VALUES ('{branch}', 'committed'); \
         PREPARE TRANSACTION 'handfast.{branch}'"
    );
    sql(url, &marker);
}

fn condition(server: &Server, is: &str) -> Value {
    let asked = || ask(server, "database list --json").json()["databases"][0].clone();
    until(asked, |database| database["condition"] == is)
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_and_what_is_in_doubt() {
    let url = database("listed");
    let (directory, server) = start();
    assert_eq!(ask(&server, "database list").text(), "No databases are registered.\n");
    let none = ask(&server, "indoubt").text();
    assert!(
        none.contains("Nothing is prepared.\n") && none.contains("No transaction needs"),
        "{none}"
    );
    let (status, error) = ask(&server, "database adopt ledger --yes --json").error();
    assert_eq!((status, &error["code"]), (1, &json!("unknown_database")));
    drop(server);

    // Refused until the doctor has been there.
    let store = directory.path().join("store");
    let config = format!("[databases.ledger]\nurl = \"{url}\"\n");
    let server = Server::start(&store, &config);
    let refused = condition(&server, "refused");
    assert_eq!((&refused["grade"], &refused["kind"]), (&json!("refused"), &json!("PostgreSQL")));
    let text = ask(&server, "database list").text();
    assert!(text.contains("\n  refused: "), "{text}");
    assert_eq!(doctor(&url, "--fix").status, 0);
    let up = condition(&server, "up");
    assert_eq!((&up["url"], &up["why"]), (&json!(url), &Value::Null));
    let text = ask(&server, "database list").text();
    assert!(text.lines().nth(1).unwrap().starts_with("ledger    PostgreSQL  up "), "{text}");

    // Ours and undecided, and somebody else's.
    let (id, branch) = begin(&server, "ledger", Duration::from_secs(3_600)).await;
    prepare(&url, &branch);
    sql(&url, "BEGIN; CREATE TABLE theirs (n int); PREPARE TRANSACTION 'it''s'");
    let seen = || ask(&server, "indoubt --json").json();
    let both = until(seen, |seen| seen["prepared"].as_array().unwrap().len() == 2);
    let row = |is: &str| {
        let rows = both["prepared"].as_array().unwrap().clone();
        rows.into_iter().find(|row| row["label"] == is).unwrap_or_else(|| panic!("{is}: {both}"))
    };
    let (ours, foreign) = (row("undecided"), row("foreign"));
    assert_eq!(
        (&ours["transaction_id"], &ours["user"]),
        (&json!(id.to_string()), &json!("postgres"))
    );
    let remedy = ours["remedy"].as_str().unwrap().to_owned();
    assert!(remedy.contains(&format!("handfast tx resolve {id} --abort")), "{remedy}");
    assert_eq!((&foreign["name"], &foreign["transaction_id"]), (&json!("it's"), &Value::Null));
    assert!(foreign["remedy"].as_str().unwrap().contains("ROLLBACK PREPARED 'it''s'"), "{foreign}");
    assert!(both["audited_unix_ms"].is_u64(), "{both}");
    let text = ask(&server, "indoubt").text();
    for words in ["undecided", "it's", "Audited ", " ago.", "  foreign: it is not handfast's"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    // Foreign ones are not counted as ours.
    assert_eq!(condition(&server, "up")["in_doubt"], 1);
    // What is proposed to whoever named the server runs as it stands.
    let named = run(&["indoubt", "--server", &server.url(), "--json"]).json();
    let rows = named["prepared"].as_array().unwrap();
    let remedy = rows.iter().find(|row| row["label"] == "undecided").unwrap()["remedy"].clone();
    let proposed = format!(
        "`handfast tx resolve {id} --abort --why \"who and why\" --server {}`",
        server.url()
    );
    assert!(remedy.as_str().unwrap().contains(&proposed), "{remedy}");
    let (_, error) =
        run(&["topic", "delete", "nobody", "--yes", "--server", &server.url()]).sentence();
    let proposed = format!("`handfast topic list --server {}`", server.url());
    assert!(error.contains(&proposed), "{error}");
    let text = ask(&server, &format!("tx resolve {id} --abort --why test --yes")).text();
    assert!(text.contains("reason        operator: test"), "{text}");
    until(seen, |seen| seen["prepared"].as_array().unwrap().len() == 1);
    assert_eq!(sql(&url, PREPARED_HERE), "1");
    sql(&url, "ROLLBACK PREPARED 'it''s'");
    drop(server);

    // Somebody else has had the store, or a copy of it.
    sql(&url, "UPDATE handfast_owner SET epoch = 1000, node = 'elsewhere'");
    let server = Server::start(&store, &config);
    let other = condition(&server, "not_ours");
    assert!(other["why"].as_str().unwrap().contains("epoch 1000, node elsewhere"), "{other}");
    let (status, error) = ask(&server, "database adopt ledger --json").error();
    assert_eq!((status, &error["code"]), (2, &json!("not_confirmed")));
    let text = ask(&server, "indoubt").text();
    assert!(text.contains("ledger is not_ours, so its list may be old"), "{text}");
    let adopted = ask(&server, "database adopt ledger --yes --json").json();
    assert_eq!((&adopted["name"], &adopted["condition"]), (&json!("ledger"), &json!("up")));
    assert_eq!(sql(&url, "SELECT count(*) FROM handfast_owner WHERE node = 'elsewhere'"), "0");
}

/// What a logical subscription has prepared is ended by its publisher. `indoubt` printed COMMIT
/// PREPARED and ROLLBACK PREPARED for it, and either stops the subscription for ever.
#[test]
fn a_subscriptions_branch_is_never_to_be_ended_here() {
    let url = database("subscriber");
    assert_eq!(doctor(&url, "--fix").status, 0);
    let oid = sql(
        &url,
        "CREATE SUBSCRIPTION incoming CONNECTION 'dbname=nowhere' PUBLICATION p \
         WITH (connect = false, slot_name = NONE); \
         SELECT oid FROM pg_subscription WHERE subname = 'incoming'",
    );
    let oid = oid.lines().last().unwrap().to_owned();
    let names = [format!("pg_gid_{oid}_727"), "pg_gid_1_727".to_owned()];
    for name in &names {
        sql(&url, &format!("BEGIN; PREPARE TRANSACTION '{name}'"));
    }
    let directory = tempfile::tempdir().unwrap();
    let config = format!("[databases.ledger]\nurl = \"{url}\"\n");
    let server = Server::start(&directory.path().join("store"), &config);
    let seen = || ask(&server, "indoubt --json").json();
    let seen = until(seen, |seen| seen["prepared"].as_array().unwrap().len() == 2);
    let row = |name: &str| {
        let rows = seen["prepared"].as_array().unwrap();
        rows.iter().find(|row| row["name"] == name).unwrap().clone()
    };
    let theirs = row(&names[0]);
    assert_eq!(theirs["belongs_to"], format!("subscription incoming (oid {oid})"));
    let advice = theirs["remedy"].as_str().unwrap();
    assert!(!advice.contains("PREPARED") && advice.contains("publisher ends it"), "{advice}");
    // Its subscription is dropped: nobody else will ever end it.
    let orphan = row(&names[1]);
    assert_eq!(orphan["belongs_to"], Value::Null);
    assert!(orphan["remedy"].as_str().unwrap().contains("ROLLBACK PREPARED 'pg_gid_1_727'"));
    let text = ask(&server, "indoubt").text();
    assert!(text.contains("subscription incoming") && text.contains("'pg_gid_1_727'"), "{text}");
    drop(server);
    for name in &names {
        sql(&url, &format!("ROLLBACK PREPARED '{name}'"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_store_leaves_databases_alone_until_they_are_adopted() {
    let url = database("restored");
    assert_eq!(doctor(&url, "--fix").status, 0);
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let config = format!("[databases.ledger]\nurl = \"{url}\"\n");
    let server = Server::start(&path("store"), &config);
    condition(&server, "up");
    assert_eq!(ask(&server, &format!("backup {}", path("backup").display())).status, 0);
    // Begun after the backup, and prepared: the restored store has never heard of it.
    let (_, branch) = begin(&server, "ledger", Duration::from_secs(3_600)).await;
    prepare(&url, &branch);
    drop(server);

    let (backup, restored) = (path("backup"), path("restored"));
    let line = ["restore", backup.to_str().unwrap(), "--data-dir", restored.to_str().unwrap()];
    assert_eq!(run(&line).status, 0);
    let server = Server::start(&restored, &config);
    let other = condition(&server, "not_ours");
    let why = other["why"].as_str().unwrap();
    assert!(why.starts_with("this store was restored from the backup"), "{why}");
    assert!(why.contains("handfast database adopt ledger"), "{why}");
    let adopted = ask(&server, "database adopt ledger --yes --json").json();
    assert_eq!(adopted["condition"], "up", "{adopted}");
    // Also after another start, and what the lost store may have decided is not rolled back.
    drop(server);
    let server = Server::start(&restored, &config);
    condition(&server, "up");
    let seen = || ask(&server, "indoubt --json").json();
    let found = until(seen, |seen| !seen["prepared"].as_array().unwrap().is_empty());
    let row = &found["prepared"][0];
    assert_eq!(row["label"], "unknown", "{found}");
    assert!(row["remedy"].as_str().unwrap().contains("PREPARED 'handfast."), "{row}");
    // It was in the server's log alone.
    let why = "it began before the database was adopted";
    assert_eq!(row["why_left"], why, "{row}");
    let text = ask(&server, "indoubt").text();
    assert!(text.contains(&format!("the server leaves it alone: {why}. If it stays")), "{text}");
    assert_eq!(sql(&url, PREPARED_HERE), "1");
    sql(&url, &format!("ROLLBACK PREPARED 'handfast.{branch}'"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_never_commits() {
    let (_directory, server) = start();
    let ask = |line: &str| ask(&server, line);
    let handfast = Handfast::connect(server.url()).await.unwrap();
    handfast.create_topic("t", TopicSettings::new()).await.unwrap();
    let mut open = handfast.begin_with(BeginOptions::new().detached()).await.unwrap();
    open.publish("t", Event::new("made", "/test")).await.unwrap();
    let id = open.id();
    let (status, error) = ask(&format!("tx resolve {id} --abort --why x --json")).error();
    assert_eq!((status, &error["code"]), (2, &json!("not_confirmed")));
    let (status, error) = ask(&format!("tx resolve {id} --note --why x --json")).error();
    assert_eq!((status, &error["code"], &error["retryable"]), (1, &json!("pending"), &json!(true)));
    let (status, error) = ask(&format!("tx resolve {id} --release p --why x --yes --json")).error();
    assert_eq!((status, &error["code"]), (1, &json!("pending")));
    let failed = ask(&format!("tx resolve {id} --abort --why gone\x1b --yes --json")).json();
    assert_eq!(
        (&failed["state"], &failed["transaction_id"]),
        (&json!("failed"), &json!(id.to_string()))
    );
    assert_eq!(failed["reason"]["code"], "operator");
    let (status, error) = ask(&format!("tx resolve {id} --abort --why x --yes --json")).error();
    assert_eq!((status, &error["code"]), (1, &json!("closed")));
    let (status, error) = ask(&format!("tx resolve {UNKNOWN} --note --why x --json")).error();
    assert_eq!((status, &error["code"]), (1, &json!("unknown_transaction")));
}

/// A database does not come back after the decision: its transaction asks for a person, who takes
/// note of it, and then waits no longer.
#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_person_is_listed_noted_and_released() {
    let url = database("attention");
    assert_eq!(doctor(&url, "--fix").status, 0);
    let directory = tempfile::tempdir().unwrap();
    let config = format!("[databases.ledger]\nurl = \"{url}\"\n[limits]\nattention_ms = 200\n");
    let server = Server::start(&directory.path().join("store"), &config);
    condition(&server, "up");
    let ask = |line: &str| ask(&server, line);
    let (id, branch) = begin(&server, "ledger", Duration::from_secs(600)).await;
    prepare(&url, &branch);
    let label = || ask("indoubt --json").json()["prepared"][0].clone();
    until(label, |row| row["label"] == "undecided");
    // From here on nobody can finish it: the database takes no connections.
    let root = POSTGRES.url();
    sql(&root, "ALTER DATABASE attention ALLOW_CONNECTIONS false");
    sql(
        &root,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'attention'",
    );
    commit_vouched(&server, id, "ledger").await;
    // The list is older than the decision; what is advised is not. To abort it would be refused.
    let row = label();
    assert_eq!(row["label"], "committing", "{row}");
    assert!(!row["remedy"].as_str().unwrap().contains("--abort"), "{row}");
    let listed = until(
        || ask("indoubt --json").json(),
        |seen| !seen["transactions"].as_array().unwrap().is_empty(),
    );
    let row = &listed["transactions"][0];
    assert_eq!(
        (&row["transaction_id"], &row["state"]),
        (&json!(id.to_string()), &json!("committing")),
        "{row}"
    );
    assert!(row["attention"].as_str().unwrap().contains("committing for too long"), "{row}");
    let text = ask("indoubt").text();
    for words in ["Transactions that need a person", &id.to_string(), "tx resolve"] {
        assert!(text.contains(words), "{words}: {text}");
    }

    // Noted: it is still open, and asks for nobody any more.
    let noted = ask(&format!("tx resolve {id} --note --why called --json")).json();
    assert_eq!(noted["state"], "committing", "{noted}");
    assert!(noted["notes"][0]["text"].as_str().unwrap().contains("called"), "{noted}");
    assert_eq!(ask("indoubt --json").json()["transactions"], json!([]));
    assert!(ask("indoubt").text().contains("No transaction needs attention."));

    // Released: it has ended, and says for ever that nobody knows how it ended there.
    let line = format!("tx resolve {id} --release elsewhere --why x --yes --json");
    let (status, error) = ask(&line).error();
    assert_eq!((status, &error["code"]), (1, &json!("not_a_participant")), "{error}");
    let line = format!("tx resolve {id} --release ledger --why gone --yes --json");
    let released = ask(&line).json();
    assert_eq!(
        (&released["state"], &released["heuristic"]),
        (&json!("committed"), &json!(true)),
        "{released}"
    );
    let told = released["notes"].to_string();
    assert!(told.contains("ledger released by an operator: gone"), "{told}");
    let text = ask(&format!("tx show {id}")).text();
    assert!(text.contains("released"), "{text}");
    sql(&root, "ALTER DATABASE attention ALLOW_CONNECTIONS true");
    sql(&url, &format!("ROLLBACK PREPARED 'handfast.{branch}'"));
}

/// Somebody rolls a prepared branch back by hand before its transaction is decided to commit. That
/// was told once, in a log line, and listed nowhere from the moment at which it had ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_heuristic_end_is_listed_until_somebody_takes_note() {
    let url = database("heuristic");
    assert_eq!(doctor(&url, "--fix").status, 0);
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let config = format!("[databases.ledger]\nurl = \"{url}\"\n");
    let server = Server::start(&store, &config);
    condition(&server, "up");
    let (id, branch) = begin(&server, "ledger", Duration::from_secs(600)).await;
    prepare(&url, &branch);
    sql(&url, &format!("ROLLBACK PREPARED 'handfast.{branch}'"));
    commit_vouched(&server, id, "ledger").await;
    let listed = |server: &Server| {
        // It is there as soon as that is found, and has ended a moment later.
        let first = || ask(server, "indoubt --json").json()["transactions"][0].clone();
        until(first, |row| row["state"] == "committed")
    };
    let row = listed(&server);
    assert_eq!(row["transaction_id"], id.to_string(), "{row}");
    let why = row["attention"].as_str().unwrap();
    assert!(why.starts_with("database ledger: ") && why.contains("rolled it back"), "{why}");

    // Also after a restart, and every list of what needs a person has it.
    drop(server);
    let server = Server::start(&store, &config);
    assert_eq!(listed(&server), row);
    let list = ask(&server, "tx list --attention --json").json();
    assert_eq!(list["transactions"][0]["transaction_id"], id.to_string(), "{list}");
    assert_eq!(ask(&server, "tx list --json").json()["transactions"], json!([]));
    let text = ask(&server, "indoubt").text();
    let command = format!("handfast tx resolve {id} --note --why");
    assert!(text.contains(&command), "{text}");
    let text = ask(&server, &format!("tx show {id}")).text();
    assert!(
        text.contains("  heuristic     database ledger: ") && text.contains(&command),
        "{text}"
    );

    let noted = ask(&server, &format!("tx resolve {id} --note --why seen --json")).json();
    assert_eq!((&noted["attention"], &noted["heuristic"]), (&Value::Null, &json!(true)));
    assert!(noted["why"].as_str().unwrap().contains("rolled it back"), "{noted}");
    assert_eq!(noted["notes"][0]["text"], "noted by an operator: seen");
    assert_eq!(ask(&server, "indoubt --json").json()["transactions"], json!([]));
    let (status, error) = ask(&server, &format!("tx resolve {id} --note --why x --json")).error();
    assert_eq!((status, &error["code"]), (1, &json!("closed")));
}

/// "up, good" was said of a database that was gone, for as long as its pool tried, and then "pool
/// timed out".
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_gone_is_said_with_its_own_error() {
    let postgres = postgres(&PostgresOptions::default());
    let url = postgres.url();
    assert_eq!(doctor(&url, "--fix").status, 0);
    let directory = tempfile::tempdir().unwrap();
    let config = format!("[databases.ledger]\nurl = \"{url}\"\n");
    let server = Server::start(&directory.path().join("store"), &config);
    condition(&server, "up");
    let (id, branch) = begin(&server, "ledger", Duration::from_secs(600)).await;
    prepare(&url, &branch);
    drop(postgres);
    commit_vouched(&server, id, "ledger").await;
    let down = condition(&server, "down");
    let why = down["why"].as_str().unwrap();
    assert!(why.contains("refused") && !why.contains("pool"), "{why}");
    assert_eq!(down["grade"], Value::Null, "{down}");
    assert!(down["next_try_unix_ms"].is_u64(), "{down}");
    // Whoever looks at the transaction reads what it waits for.
    let shown = ask(&server, &format!("tx show {branch} --json")).json();
    assert_eq!(shown["transaction_id"], id.to_string());
    let waits = &shown["databases"][0];
    assert_eq!((&waits["name"], &waits["condition"]), (&json!("ledger"), &json!("down")));
    let text = ask(&server, &format!("tx show handfast.{branch}")).text();
    assert!(text.contains("In the way\n  ledger is down since "), "{text}");
}

/// Doctor and server looked at the tables once a minute (K4).
#[test]
fn k4_tables_that_go_while_the_server_runs_are_missed_at_once() {
    let url = database("dropped");
    assert_eq!(doctor(&url, "--fix").status, 0);
    let directory = tempfile::tempdir().unwrap();
    let config = format!("[databases.ledger]\nurl = \"{url}\"\n");
    let server = Server::start(&directory.path().join("store"), &config);
    condition(&server, "up");
    sql(&url, "DROP TABLE handfast_branch");
    let refused = condition(&server, "refused");
    assert!(refused["why"].as_str().unwrap().contains("handfast_branch"), "{refused}");
    assert_eq!(doctor(&url, "--fix").status, 0);
    condition(&server, "up");
    sql(&url, "DELETE FROM handfast_owner");
    let rows = || json!(sql(&url, "SELECT count(*) FROM handfast_owner"));
    until(rows, |rows| rows == "1");
}

/// A local transaction is given up while its session still holds the marker. Nobody said who that
/// was, and an abort waited for it without end.
#[tokio::test(flavor = "multi_thread")]
async fn who_holds_a_marker_is_named() {
    let url = database("holder");
    assert_eq!(doctor(&url, "--fix").status, 0);
    let directory = tempfile::tempdir().unwrap();
    let config = format!("[databases.ledger]\nurl = \"{url}\"\n");
    let server = Server::start(&directory.path().join("store"), &config);
    condition(&server, "up");
    let channel = tonic::transport::Endpoint::from_shared(server.url()).unwrap().connect_lazy();
    let mut stub = v1::transactions_client::TransactionsClient::new(channel);
    let request = v1::BeginLocalRequest {
        deadline_ms: 600_000,
        database: "ledger".into(),
        ..Default::default()
    };
    let begun = stub.begin_local(request).await.unwrap().into_inner();
    let id = handfast_wire::ids::transaction_id("id", &begun.transaction_id).unwrap();
    let branch = &begun.branch_ids[0].branch_id;
    let mut session = sqlx::PgConnection::connect(&url).await.unwrap();
    let insert =
        format!("INSERT INTO handfast_branch (id, outcome) VALUES ('{branch}', 'committed')");
    sqlx::raw_sql("BEGIN").execute(&mut session).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(insert)).execute(&mut session).await.unwrap();
    // Answered in time, with what stands.
    let open = ask(&server, &format!("tx resolve {id} --abort --why test --yes --json")).json();
    assert_eq!(open["state"], "preparing", "{open}");
    let show = || ask(&server, &format!("tx show {id} --json")).json();
    let held = until(show, |shown| shown["databases"][0]["holders"].is_string());
    let holders = held["databases"][0]["holders"].as_str().unwrap();
    assert!(holders.contains("of postgres") && holders.contains("handfast_branch"), "{holders}");
    sqlx::raw_sql("ROLLBACK").execute(&mut session).await.unwrap();
    let failed = until(show, |shown| shown["state"] == "failed");
    assert_eq!(failed["reason"]["code"], "operator", "{failed}");
}
