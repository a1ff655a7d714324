//! MariaDB: the conformance suite with the binary log on and off, and the rows MY1 to MY20.

mod conformance;
mod crash;
mod doctor;
mod guard;
mod prepare;
mod session;

use std::sync::Arc;

use handfast_database::mariadb::application;
use handfast_database::private::MariaDb;
use handfast_database::{BranchId, Database, Finished, Holder, Options, connect};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection};

use crate::servers::{LONG, MARIADB, next};

/// A database of the test's own on a server, installed.
struct Bench {
    name: String,
    url: String,
    database: Arc<dyn Database>,
}

impl Bench {
    async fn new() -> Self {
        Self::on(&MARIADB).await
    }

    async fn on(server: &MariaDb) -> Self {
        let name = format!("test_{}", next());
        let mut connection = MySqlConnection::connect(&server.url()).await.unwrap();
        run(&mut connection, &format!("CREATE DATABASE {name}")).await;
        let url = server.url_of("root", &name);
        let database = connect(&url, Options::default()).unwrap();
        database.install(None).await.unwrap();
        let bench = Self { name, url, database };
        let tables = "CREATE TABLE work (id varchar(64) PRIMARY KEY, n int NOT NULL DEFAULT 0)";
        run(&mut bench.connection().await, tables).await;
        bench
    }

    async fn connection(&self) -> MySqlConnection {
        MySqlConnection::connect(&self.url).await.unwrap()
    }

    /// Some work, prepared; the session still lives.
    async fn prepare_and_hold(&self, branch: &BranchId) -> (MySqlConnection, Holder) {
        let mut connection = self.connection().await;
        let holder = application::holder(&mut connection).await.unwrap();
        work(&mut connection, branch).await;
        application::prepare(&mut connection, branch).await.unwrap();
        (connection, holder)
    }

    async fn count(&self, sql: &str) -> i64 {
        let mut connection = self.connection().await;
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap()
    }

    async fn work_is_visible(&self, branch: &BranchId) -> bool {
        self.count(&format!("SELECT COUNT(*) FROM work WHERE id = '{branch}'")).await == 1
    }

    async fn is_prepared(&self, branch: &BranchId) -> bool {
        self.database.prepared(&[*branch]).await.unwrap() == [true]
    }
}

/// Opens a branch and does some work in it.
async fn work(connection: &mut MySqlConnection, branch: &BranchId) {
    application::start(connection, branch, LONG).await.unwrap();
    insert(connection, branch).await;
}

/// Opens a local transaction and does some work in it.
async fn local_work(connection: &mut MySqlConnection, branch: &BranchId) {
    application::begin_local(connection, LONG).await.unwrap();
    insert(connection, branch).await;
}

async fn insert(connection: &mut MySqlConnection, branch: &BranchId) {
    run(connection, &format!("INSERT INTO work (id) VALUES ('{branch}')")).await;
}

async fn run(connection: &mut MySqlConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.unwrap_or_else(|error| {
        panic!("{sql}: {error}");
    });
}

fn is_unknown(finished: &Finished) -> bool {
    matches!(finished, Finished::Unknown(_))
}
