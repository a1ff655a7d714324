//! A handfast server, a PostgreSQL and a MariaDB, all processes of their own that can be killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use handfast_core::branch::BranchId;
use handfast_core::ids::TransactionId;
use handfast_database::private::{MariaDb, MariaDbOptions, Postgres, PostgresOptions};
use handfast_database::{Options, Outcome, Prepared, connect, mariadb, postgres};
use handfast_wire::prost::Message;
use handfast_wire::raw::events_client::EventsClient;
use handfast_wire::raw::transactions_client::TransactionsClient;
use handfast_wire::v1::databases_client::DatabasesClient;
use handfast_wire::{raw, v1};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, PgConnection};
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::network::Network;

/// The application has this long in each database.
const REMAINING: Duration = Duration::from_secs(20);

/// Servers that all tests share which do not kill them; they end with this process.
static SERVERS: LazyLock<(Postgres, MariaDb)> = LazyLock::new(servers);
static NUMBER: AtomicU32 = AtomicU32::new(1);

/// A PostgreSQL and a MariaDB of their own.
pub(crate) fn servers() -> (Postgres, MariaDb) {
    let directory = |kind: &str| {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        std::env::temp_dir().join(format!("handfast-{kind}-{}-{number}", std::process::id()))
    };
    let options = PostgresOptions::default().with_directory_removed();
    let postgres = Postgres::start(&directory("postgres"), &options).unwrap();
    let options = MariaDbOptions::default().with_binlog().with_directory_removed();
    (postgres, MariaDb::start(&directory("mariadb"), &options).unwrap())
}

/// The URLs of the servers that all tests share which do not kill them.
pub(crate) fn shared() -> (String, String) {
    let (postgres, mariadb) = &*SERVERS;
    (postgres.url(), mariadb.url())
}

/// Databases of a test's own on servers, with a table `account` that has a row `a` with 100.
pub(crate) async fn databases(postgres: &str, mariadb: &str) -> (String, String) {
    let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let table = "CREATE TABLE account (name varchar(10) PRIMARY KEY, amount bigint NOT NULL); \
                 INSERT INTO account VALUES ('a', 100)";
    let create = || AssertSqlSafe(format!("CREATE DATABASE {name}"));
    let of = |url: &str| format!("{}/{name}", url.rsplit_once('/').unwrap().0);
    let mut db = PgConnection::connect(postgres).await.unwrap();
    sqlx::raw_sql(create()).execute(&mut db).await.unwrap();
    let mut db = PgConnection::connect(&of(postgres)).await.unwrap();
    sqlx::raw_sql(table).execute(&mut db).await.unwrap();
    let mut db = MySqlConnection::connect(mariadb).await.unwrap();
    sqlx::raw_sql(create()).execute(&mut db).await.unwrap();
    let mut db = MySqlConnection::connect(&of(mariadb)).await.unwrap();
    sqlx::raw_sql(table).execute(&mut db).await.unwrap();
    for url in [of(postgres), of(mariadb)] {
        connect(&url, Options::default()).unwrap().install(None).await.unwrap();
    }
    (of(postgres), of(mariadb))
}

/// See the module.
pub(crate) struct World {
    child: Child,
    said: Said,
    directory: TempDir,
    address: String,
    pub(crate) urls: BTreeMap<&'static str, String>,
    pub(crate) transactions: TransactionsClient<Channel>,
    pub(crate) databases: DatabasesClient<Channel>,
    pub(crate) events: EventsClient<Channel>,
}

impl World {
    /// A server over databases `orders` (PostgreSQL) and `ledger` (MariaDB) of its own, and a topic
    /// `made`.
    pub(crate) async fn new() -> Self {
        let (postgres, mariadb) = shared();
        Self::over(&postgres, &mariadb).await
    }

    /// A server over the same, without a topic, whose way to `ledger` can be stopped. Everybody else
    /// has another way.
    pub(crate) async fn with_network() -> (Self, Network) {
        let (postgres, mariadb) = shared();
        let (orders, ledger) = databases(&postgres, &mariadb).await;
        let network = Network::to(&ledger).await;
        let mut world = Self::start(&[("orders", &orders), ("ledger", &network.url)]);
        world.until_up(&["orders", "ledger"]).await;
        world.urls.insert("ledger", ledger);
        (world, network)
    }

    /// The same on these servers.
    pub(crate) async fn over(postgres: &str, mariadb: &str) -> Self {
        let (postgres, mariadb) = databases(postgres, mariadb).await;
        let world = Self::start(&[("orders", &postgres), ("ledger", &mariadb)]);
        world.until_up(&["orders", "ledger"]).await;
        world.make_topic().await;
        world
    }

    /// A server over `orders` alone.
    pub(crate) async fn with_postgres_only(postgres: &str) -> Self {
        let (postgres, _) = databases(postgres, &SERVERS.1.url()).await;
        let world = Self::start(&[("orders", &postgres)]);
        world.until_up(&["orders"]).await;
        world.make_topic().await;
        world
    }

    /// The topic `made`.
    pub(crate) async fn make_topic(&self) {
        let topic = v1::CreateTopicRequest { name: "made".into(), settings: None };
        self.events.clone().create_topic(topic).await.unwrap();
    }

    /// A server over these databases, whatever state they are in, without a topic.
    pub(crate) fn start(databases: &[(&'static str, &str)]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), databases, |_| {})
    }

    fn start_in(
        directory: TempDir,
        databases: &[(&'static str, &str)],
        furnish: impl FnOnce(&Path),
    ) -> Self {
        furnish(directory.path());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let urls: BTreeMap<_, _> =
            databases.iter().map(|(name, url)| (*name, (*url).to_owned())).collect();
        configure(directory.path(), &urls);
        let said = Said::default();
        let child = spawn(directory.path(), &address, &[], &said).unwrap();
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        Self {
            child,
            said,
            directory,
            address,
            urls,
            transactions: TransactionsClient::new(channel.clone()),
            databases: DatabasesClient::new(channel.clone()),
            events: EventsClient::new(channel),
        }
    }

    /// Where the store is, as `store`, and whatever is beside it.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Another server over the same databases, with the store that is beside this one's under a name.
    pub(crate) fn beside(&self, name: &str) -> Self {
        let urls: Vec<(&'static str, &str)> =
            self.urls.iter().map(|(name, url)| (*name, url.as_str())).collect();
        Self::start_in(tempfile::tempdir_in(self.directory.path()).unwrap(), &urls, |directory| {
            let (from, to) = (self.directory.path().join(name), directory.join("store"));
            std::fs::rename(from, to).unwrap();
        })
    }

    /// Takes the store of the server that ran beside this one, and has ended.
    pub(crate) fn take_store(&mut self, other: Self) {
        let from = other.directory.path().join("store");
        let mut other = other;
        other.kill();
        std::fs::rename(from, self.directory.path().join("store")).unwrap();
    }

    /// Runs a command of the program, which succeeds.
    pub(crate) fn run(&self, arguments: &[&str]) {
        let run = Command::new(env!("CARGO_BIN_EXE_handfast")).args(arguments).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    }

    /// Sends the server a signal.
    pub(crate) fn signal(&self, signal: &str) {
        let (signal, id) = (format!("-{signal}"), self.child.id().to_string());
        assert!(Command::new("kill").args([&signal, &id]).status().unwrap().success());
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn restart(&mut self) {
        self.child = spawn(self.directory.path(), &self.address, &[], &self.said).unwrap();
    }

    /// Starts again with other databases and arguments; what it says on stderr if it does not.
    pub(crate) fn restart_with(
        &mut self,
        databases: &[&str],
        arguments: &[&str],
    ) -> Result<(), String> {
        let mut urls = self.urls.clone();
        urls.retain(|name, _| databases.contains(name));
        configure(self.directory.path(), &urls);
        self.child = spawn(self.directory.path(), &self.address, arguments, &self.said)?;
        Ok(())
    }

    /// SIGHUP, after other databases were written into the configuration.
    pub(crate) fn reload(&mut self, databases: &[&str]) {
        let mut urls = self.urls.clone();
        urls.retain(|name, _| databases.contains(name));
        configure(self.directory.path(), &urls);
        self.signal("HUP");
    }

    /// Waits until the server, since its last start, has said a line with all of these words.
    pub(crate) async fn until_said(&self, words: &[&str]) -> String {
        let is_it = |line: &&String| words.iter().all(|words| line.contains(words));
        let found = self.until(async || self.said.lock().unwrap().iter().find(is_it).cloned());
        found.await
    }

    pub(crate) async fn list(&self) -> Vec<v1::RegisteredDatabase> {
        self.until(async || {
            let mut stub = self.databases.clone();
            Some(stub.list(v1::ListDatabasesRequest {}).await.ok()?.into_inner().databases)
        })
        .await
    }

    pub(crate) async fn database(&self, name: &str) -> Option<v1::RegisteredDatabase> {
        self.list().await.into_iter().find(|database| database.name == name)
    }

    pub(crate) async fn until_up(&self, names: &[&str]) {
        for name in names {
            self.until(async || {
                let database = self.database(name).await?;
                (database.condition == "up").then_some(())
            })
            .await;
        }
    }

    /// Asks again and again, for at most a minute.
    pub(crate) async fn until<T>(&self, ask: impl AsyncFn() -> Option<T>) -> T {
        let asking = async {
            loop {
                if let Some(found) = ask().await {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(60), asking).await;
        found.unwrap_or_else(|_| {
            panic!("not within a minute; the server said {:#?}", self.said.lock())
        })
    }

    /// Begins a distributed transaction over these databases; the ids of its branches.
    pub(crate) async fn begin(&self, names: &[&str]) -> Result<Begun, Status> {
        let branch = |name: &&str| v1::Branch {
            participant: (*name).to_owned(),
            kind: v1::ParticipantKind::Database.into(),
            work: None,
        };
        let branches = names.iter().map(branch).collect();
        let request = raw::BeginRequest { branches, ..Default::default() };
        Ok(self.transactions.clone().begin(request).await?.into_inner().into())
    }

    /// The same with a deadline.
    pub(crate) async fn begin_for(&self, names: &[&str], deadline: Duration) -> Begun {
        let branch = |name: &&str| v1::Branch {
            participant: (*name).to_owned(),
            kind: v1::ParticipantKind::Database.into(),
            work: None,
        };
        let request = raw::BeginRequest {
            branches: names.iter().map(branch).collect(),
            deadline_ms: u64::try_from(deadline.as_millis()).unwrap(),
            ..Default::default()
        };
        self.transactions.clone().begin(request).await.unwrap().into_inner().into()
    }

    /// Publishes one event to `made`.
    pub(crate) async fn publish(&self) {
        let event = v1::Event {
            id: "p".into(),
            source: "/test".into(),
            spec_version: "1.0".into(),
            r#type: "made".into(),
            ..Default::default()
        };
        let event = raw::NewEvent { topic: "made".into(), event: event.encode_to_vec().into() };
        let producer = (u128::from(std::process::id()) << 64)
            | u128::from(NUMBER.fetch_add(1, Ordering::Relaxed));
        let request = raw::PublishRequest {
            producer_id: producer.to_be_bytes().to_vec().into(),
            sequence: 1,
            events: vec![event],
        };
        self.events.clone().publish(request).await.unwrap();
    }

    /// An operator makes a database the store's own.
    pub(crate) async fn adopt(&self, name: &str) {
        let adopt = v1::AdoptRequest { database: name.to_owned() };
        self.databases.clone().adopt(adopt).await.unwrap();
    }

    /// How far the store was durable when the owner rows were written.
    pub(crate) async fn durable_in_rows(&self) -> (i64, i64) {
        let sql = "SELECT durable_lsn FROM handfast_owner";
        let orders: (i64,) =
            sqlx::query_as(sql).fetch_one(&mut self.postgres().await).await.unwrap();
        let ledger: (i64,) =
            sqlx::query_as(sql).fetch_one(&mut self.mariadb().await).await.unwrap();
        (orders.0, ledger.0)
    }

    /// The rows say again that the store was durable up to here.
    pub(crate) async fn set_durable_in_rows(&self, (orders, ledger): (i64, i64)) {
        let sql = |lsn| AssertSqlSafe(format!("UPDATE handfast_owner SET durable_lsn = {lsn}"));
        sqlx::raw_sql(sql(orders)).execute(&mut self.postgres().await).await.unwrap();
        sqlx::raw_sql(sql(ledger)).execute(&mut self.mariadb().await).await.unwrap();
    }

    /// Somebody rolls the branch in PostgreSQL back.
    pub(crate) async fn roll_back_orders(&self, begun: &Begun) {
        let sql = format!("ROLLBACK PREPARED '{}'", begun.branch("orders").gid());
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.postgres().await).await.unwrap();
    }

    /// Begins a local transaction with one event.
    pub(crate) async fn begin_local(
        &self,
        database: &str,
        deadline: Duration,
    ) -> Result<Begun, Status> {
        let event = v1::Event {
            id: "e".into(),
            source: "/test".into(),
            spec_version: "1.0".into(),
            r#type: "made".into(),
            ..Default::default()
        };
        let event = raw::NewEvent { topic: "made".into(), event: event.encode_to_vec().into() };
        let request = raw::BeginLocalRequest {
            database: database.to_owned(),
            deadline_ms: u64::try_from(deadline.as_millis()).unwrap(),
            events: vec![event],
            ..Default::default()
        };
        Ok(self.transactions.clone().begin_local(request).await?.into_inner().into())
    }

    /// Commits with votes that nobody vouches for.
    pub(crate) async fn commit(
        &self,
        begun: &Begun,
        wait: v1::Wait,
    ) -> Result<v1::Outcome, Status> {
        self.commit_with(begun, wait, false).await
    }

    /// Commits as a library does that has seen the guarded prepares succeed.
    pub(crate) async fn commit_vouched(
        &self,
        begun: &Begun,
        wait: v1::Wait,
    ) -> Result<v1::Outcome, Status> {
        self.commit_with(begun, wait, true).await
    }

    async fn commit_with(
        &self,
        begun: &Begun,
        wait: v1::Wait,
        vouched: bool,
    ) -> Result<v1::Outcome, Status> {
        let vote = |name: &String| v1::DatabaseVote {
            database: name.clone(),
            vouched,
            ..Default::default()
        };
        let votes: Vec<_> = begun.branches.keys().map(vote).collect();
        let request = v1::CommitRequest {
            transaction_id: begun.bytes.clone(),
            branches: u32::try_from(votes.len()).unwrap(),
            votes,
            wait: wait.into(),
            ..Default::default()
        };
        Ok(self.transactions.clone().commit(request).await?.into_inner())
    }

    /// "My local COMMIT succeeded."
    pub(crate) async fn commit_local(&self, begun: &Begun) -> Result<v1::Outcome, Status> {
        let request = v1::CommitRequest {
            transaction_id: begun.bytes.clone(),
            items: 1,
            ..Default::default()
        };
        Ok(self.transactions.clone().commit(request).await?.into_inner())
    }

    pub(crate) async fn abort(&self, begun: &Begun) -> Result<v1::Outcome, Status> {
        let request =
            v1::AbortRequest { transaction_id: begun.bytes.clone(), detail: "test".into() };
        Ok(self.transactions.clone().abort(request).await?.into_inner())
    }

    pub(crate) async fn show(&self, begun: &Begun) -> v1::Transaction {
        self.until(async || self.try_show(begun).await).await
    }

    /// None: the connection is that of a server that was killed.
    async fn try_show(&self, begun: &Begun) -> Option<v1::Transaction> {
        let request = v1::ShowRequest { transaction_id: begun.bytes.clone() };
        Some(self.transactions.clone().show(request).await.ok()?.into_inner())
    }

    /// Waits until it has ended; how.
    pub(crate) async fn ended(&self, begun: &Begun) -> v1::Transaction {
        self.until(async || {
            let shown = self.show(begun).await;
            shown.ended_unix_ms.is_some().then_some(shown)
        })
        .await
    }

    pub(crate) async fn postgres(&self) -> PgConnection {
        PgConnection::connect(&self.urls["orders"]).await.unwrap()
    }

    pub(crate) async fn mariadb(&self) -> MySqlConnection {
        MySqlConnection::connect(&self.urls["ledger"]).await.unwrap()
    }

    /// The application's work in PostgreSQL: takes 10 from `a` and prepares.
    pub(crate) async fn prepare_orders(&self, begun: &Begun) {
        let mut db = self.postgres().await;
        postgres::application::begin(&mut db, REMAINING).await.unwrap();
        let work = "UPDATE account SET amount = amount - 10 WHERE name = 'a'";
        sqlx::query(work).execute(&mut db).await.unwrap();
        postgres::application::prepare(&mut db, &begun.branch("orders")).await.unwrap();
        db.close().await.unwrap();
    }

    /// The application's work in MariaDB: adds 10 to `a` and prepares. It does not hold its
    /// session, so it closes it before it votes (MY3).
    pub(crate) async fn prepare_ledger(&self, begun: &Begun) {
        let mut db = self.mariadb().await;
        let branch = begun.branch("ledger");
        mariadb::application::start(&mut db, &branch, REMAINING).await.unwrap();
        let work = "UPDATE account SET amount = amount + 10 WHERE name = 'a'";
        sqlx::query(work).execute(&mut db).await.unwrap();
        mariadb::application::prepare(&mut db, &branch).await.unwrap();
        db.close().await.unwrap();
    }

    /// The balances, as anybody reads them.
    pub(crate) async fn balances(&self) -> (i64, i64) {
        (self.balance_of_orders().await, self.balances_of_ledger().await)
    }

    pub(crate) async fn balance_of_orders(&self) -> i64 {
        let sql = "SELECT amount FROM account WHERE name = 'a'";
        let mut db = self.postgres().await;
        let orders: (i64,) = sqlx::query_as(sql).fetch_one(&mut db).await.unwrap();
        orders.0
    }

    pub(crate) async fn balances_of_ledger(&self) -> i64 {
        let sql = "SELECT amount FROM account WHERE name = 'a'";
        let mut db = self.mariadb().await;
        let ledger: (i64,) = sqlx::query_as(sql).fetch_one(&mut db).await.unwrap();
        ledger.0
    }

    /// How many branches of a transaction are prepared in the databases.
    pub(crate) async fn prepared(&self, id: TransactionId) -> usize {
        let mut count = 0;
        for url in self.urls.values() {
            let listed = connect(url, Options::default()).unwrap().list().await.unwrap();
            let ours = |p: &&Prepared| p.branch.is_some_and(|branch| branch.transaction == id);
            count += listed.iter().filter(ours).count();
        }
        count
    }

    /// Whether a branch is prepared in a database.
    pub(crate) async fn is_prepared(&self, database: &str, branch: &BranchId) -> bool {
        let database = connect(&self.urls[database], Options::default()).unwrap();
        database.prepared(&[*branch]).await.unwrap()[0]
    }

    /// What the marker of a branch says.
    pub(crate) async fn marker(&self, database: &str, branch: &BranchId) -> Option<Outcome> {
        let database = connect(&self.urls[database], Options::default()).unwrap();
        database.outcomes(&[*branch]).await.unwrap()[0]
    }

    /// Writes a marker, as some application may have done long ago.
    pub(crate) async fn insert_marker(&self, database: &str, branch: &BranchId, outcome: &str) {
        let sql =
            format!("INSERT INTO handfast_branch (id, outcome) VALUES ('{branch}', '{outcome}')");
        let sql = sqlx::raw_sql(AssertSqlSafe(sql));
        match database {
            "orders" => drop(sql.execute(&mut self.postgres().await).await.unwrap()),
            _ => drop(sql.execute(&mut self.mariadb().await).await.unwrap()),
        }
    }

    /// Events that anybody can read.
    pub(crate) async fn events(&self) -> usize {
        let request = v1::ReadRequest { topic: "made".into(), ..Default::default() };
        let mut frames = self.events.clone().read(request).await.unwrap().into_inner();
        let mut count = 0;
        while let Some(frame) = frames.message().await.unwrap() {
            count += frame.events.len();
        }
        count
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A transaction that was begun.
pub(crate) struct Begun {
    pub(crate) bytes: bytes::Bytes,
    branches: BTreeMap<String, BranchId>,
    /// The marker's table in each database, as the server names it.
    pub(crate) tables: BTreeMap<String, String>,
}

impl From<v1::Begun> for Begun {
    fn from(begun: v1::Begun) -> Self {
        let table = |b: &v1::BranchId| (b.database.clone(), b.table.clone());
        let tables = begun.branch_ids.iter().map(table).collect();
        let branch = |b: v1::BranchId| (b.database, b.branch_id.parse().unwrap());
        let branches = begun.branch_ids.into_iter().map(branch).collect();
        Self { bytes: begun.transaction_id, branches, tables }
    }
}

impl Begun {
    pub(crate) fn branch(&self, database: &str) -> BranchId {
        self.branches[database]
    }
}

fn configure(directory: &Path, urls: &BTreeMap<&'static str, String>) {
    let mut text = String::new();
    for (name, url) in urls {
        text.push_str(&format!("[databases.{name}]\nurl = {url:?}\n"));
    }
    std::fs::write(directory.join("handfast.toml"), text).unwrap();
}

/// What a server has said in its log.
type Said = Arc<Mutex<Vec<String>>>;

fn spawn(
    directory: &Path,
    address: &str,
    arguments: &[&str],
    said: &Said,
) -> Result<Child, String> {
    said.lock().unwrap().clear();
    let mut child = Command::new(env!("CARGO_BIN_EXE_handfast"))
        .env("HANDFAST_LOG", "info")
        .args(["serve", "--listen", address, "--data-dir"])
        .arg(directory.join("store"))
        .arg("--config")
        .arg(directory.join("handfast.toml"))
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let mut stderr = child.stderr.take().unwrap();
    let port = address.rsplit(':').next().unwrap();
    let mut lines = stdout.lines().map_while(Result::ok);
    if !lines.any(|line| line.contains(port)) {
        let mut words = String::new();
        stderr.read_to_string(&mut words).unwrap();
        child.wait().unwrap();
        return Err(words);
    }
    // What else it says is read, so that it never waits for somebody to do so.
    std::thread::spawn(move || lines.for_each(drop));
    let said = Arc::clone(said);
    std::thread::spawn(move || {
        let lines = BufReader::new(stderr).lines().map_while(Result::ok);
        lines.for_each(|line| said.lock().unwrap().push(line));
    });
    Ok(child)
}
