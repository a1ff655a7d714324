//! Databases of the test's own on private servers, and a server that answers as it should.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use handfast_core::ids::{Name, StoreId, TransactionId};
use handfast_core::input::Resolution;
use handfast_database::private::{MariaDb, MariaDbOptions, Postgres, PostgresOptions};
use handfast_database::{BranchId, Database, Options, connect};
use handfast_wire::raw::transaction_request::Call;
use handfast_wire::v1::transaction_reply::Result as Answer;
use handfast_wire::{ids, v1};
use sqlx::mysql::MySqlPoolOptions;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, MySqlPool, PgConnection, PgPool};

use crate::fake::Session;

pub(crate) const STORE: StoreId = StoreId(7);

static NEXT: AtomicU64 = AtomicU64::new(1);

pub(crate) fn next() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A transaction that no other test of this process has.
pub(crate) fn transaction() -> TransactionId {
    TransactionId(u128::from(next()) << 64)
}

fn directory(kind: &str) -> PathBuf {
    std::env::temp_dir().join(format!("handfast-client-{kind}-{}-{}", std::process::id(), next()))
}

static POSTGRES: LazyLock<Postgres> = LazyLock::new(|| {
    let options = PostgresOptions::default().with_directory_removed();
    Postgres::start(&directory("postgres"), &options).unwrap_or_else(|error| panic!("{error}"))
});

static MARIADB: LazyLock<MariaDb> = LazyLock::new(|| {
    let options = MariaDbOptions::default().with_directory_removed();
    MariaDb::start(&directory("mariadb"), &options).unwrap_or_else(|error| panic!("{error}"))
});

/// A PostgreSQL database with the tables of handfast and a table `work (id text, n int)`.
pub(crate) struct Pg {
    pub(crate) pool: PgPool,
    pub(crate) url: String,
    /// What the server has in its hands.
    pub(crate) database: Arc<dyn Database>,
}

impl Pg {
    pub(crate) async fn new() -> Self {
        let name = format!("test_{}", next());
        let mut root = PgConnection::connect(&POSTGRES.url()).await.unwrap();
        let create = format!("CREATE DATABASE {name}");
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut root).await.unwrap();
        let url = POSTGRES.url_of("postgres", &name);
        let database = connect(&url, Options::default()).unwrap();
        database.install(None).await.unwrap();
        let pool = PgPoolOptions::new().max_connections(2).connect(&url).await.unwrap();
        sqlx::raw_sql("CREATE TABLE work (id text PRIMARY KEY, n int)")
            .execute(&pool)
            .await
            .unwrap();
        Self { pool, url, database }
    }

    /// Over a connection of its own.
    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        let mut connection = PgConnection::connect(&self.url).await.unwrap();
        sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
    }
}

/// The same in MariaDB.
pub(crate) struct Maria {
    pub(crate) pool: MySqlPool,
    pub(crate) url: String,
    pub(crate) database: Arc<dyn Database>,
}

impl Maria {
    pub(crate) async fn new() -> Self {
        let name = format!("test_{}", next());
        let mut root = MySqlConnection::connect(&MARIADB.url()).await.unwrap();
        let create = format!("CREATE DATABASE {name}");
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut root).await.unwrap();
        let url = MARIADB.url_of("root", &name);
        let database = connect(&url, Options::default()).unwrap();
        database.install(None).await.unwrap();
        // One connection, so that who has it can be seen.
        let pool = MySqlPoolOptions::new().max_connections(1).connect(&url).await.unwrap();
        let table = "CREATE TABLE work (id varchar(64) PRIMARY KEY, n int)";
        sqlx::raw_sql(table).execute(&pool).await.unwrap();
        Self { pool, url, database }
    }

    /// Over a connection of its own.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        let mut connection = MySqlConnection::connect(&self.url).await.unwrap();
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap()
    }

    /// Whether a session is there.
    pub(crate) async fn lives(&self, session: u64) -> bool {
        let sql = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = ";
        self.count(&format!("{sql}{session}")).await == 1
    }

    pub(crate) async fn is_prepared(&self, branch: &BranchId) -> bool {
        self.database.prepared(&[*branch]).await.unwrap() == [true]
    }
}

/// Asks again until it holds, for at most a minute.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let mut pauses = 0;
    while !holds().await {
        assert!(pauses < 6_000, "not within a minute: {what}");
        pauses += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn branch(id: TransactionId, database: &str) -> BranchId {
    BranchId::new(id, STORE, &Name::new(database).unwrap())
}

pub(crate) fn branch_ids(id: TransactionId, databases: &[&str]) -> Vec<v1::BranchId> {
    let issued = |database: &&str| v1::BranchId {
        database: (*database).to_owned(),
        branch_id: branch(id, database).to_string(),
        // Not said by this server.
        ..v1::BranchId::default()
    };
    databases.iter().map(issued).collect()
}

pub(crate) fn begun(id: TransactionId, databases: &[&str]) -> Answer {
    Answer::Begun(v1::Begun {
        transaction_id: ids::transaction_bytes(id),
        remaining_ms: 30_000,
        branch_ids: branch_ids(id, databases),
        ..v1::Begun::default()
    })
}

pub(crate) fn outcome(id: TransactionId, state: v1::TransactionState) -> Answer {
    Answer::Outcome(v1::Outcome {
        transaction_id: ids::transaction_bytes(id),
        state: state.into(),
        ..v1::Outcome::default()
    })
}

pub(crate) fn committed(id: TransactionId) -> Answer {
    outcome(id, v1::TransactionState::Committed)
}

pub(crate) fn failed(id: TransactionId, code: &str) -> Answer {
    let Answer::Outcome(mut message) = outcome(id, v1::TransactionState::Failed) else {
        unreachable!()
    };
    message.reason = Some(v1::Reason { code: code.into(), ..v1::Reason::default() });
    Answer::Outcome(message)
}

/// Answers a begin_local; says what it carried.
pub(crate) async fn begin_local(
    session: &mut Session,
    id: TransactionId,
) -> handfast_wire::raw::BeginLocalRequest {
    let (request, call) = session.call().await;
    let Call::BeginLocal(begin) = call else { panic!("{call:?}") };
    session.answer(request, begun(id, &[&begin.database])).await;
    begin
}

/// What the server does with a local transaction that it is asked to give up.
pub(crate) async fn resolve(
    session: &mut Session,
    id: TransactionId,
    name: &str,
    database: &Arc<dyn Database>,
) {
    let (request, call) = session.call().await;
    assert!(matches!(call, Call::Abort(_)), "{call:?}");
    let answer = match database.resolve(&branch(id, name)).await {
        Resolution::Committed => committed(id),
        Resolution::Tombstone | Resolution::Aborted => failed(id, "aborted"),
        Resolution::Unknown => panic!("not resolved"),
    };
    session.answer(request, answer).await;
}
