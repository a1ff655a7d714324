//! PostgreSQL: the conformance suite, and the rows PG1 to PG12.

mod conformance;
mod crash;
mod doctor;
mod finish;
mod marker;
mod pooler;
mod prepare;

use std::sync::Arc;

use handfast_database::postgres::application;
use handfast_database::private::Postgres;
use handfast_database::{BranchId, Database, Finished, Options, connect};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::servers::{LONG, POSTGRES, next};

/// A database of the test's own on a server, installed.
struct Bench {
    name: String,
    url: String,
    database: Arc<dyn Database>,
}

impl Bench {
    async fn new() -> Self {
        Self::on(&POSTGRES, Options::default()).await
    }

    async fn on(server: &Postgres, options: Options) -> Self {
        let name = format!("test_{}", next());
        let mut connection = PgConnection::connect(&server.url()).await.unwrap();
        run(&mut connection, &format!("CREATE DATABASE {name}")).await;
        let url = server.url_of("postgres", &name);
        let database = connect(&url, options).unwrap();
        database.install(None).await.unwrap();
        let bench = Self { name, url, database };
        run(&mut bench.connection().await, "CREATE TABLE work (id text, n int DEFAULT 0)").await;
        bench
    }

    async fn connection(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    /// The same database as another role sees it.
    fn url_of(&self, role: &str) -> String {
        self.url.replace("postgres@", &format!("{role}@"))
    }

    /// Some work, prepared.
    async fn prepare(&self, branch: &BranchId) {
        let mut connection = self.connection().await;
        work(&mut connection, branch).await;
        application::prepare(&mut connection, branch).await.unwrap();
    }

    async fn count(&self, sql: &str) -> i64 {
        let mut connection = self.connection().await;
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap()
    }

    async fn work_is_visible(&self, branch: &BranchId) -> bool {
        self.count(&format!("SELECT count(*) FROM work WHERE id = '{branch}'")).await == 1
    }

    async fn is_prepared(&self, branch: &BranchId) -> bool {
        self.database.prepared(&[*branch]).await.unwrap() == [true]
    }
}

/// Opens a transaction and does some work in it.
async fn work(connection: &mut PgConnection, branch: &BranchId) {
    application::begin(connection, LONG).await.unwrap();
    run(connection, &format!("INSERT INTO work VALUES ('{branch}')")).await;
}

async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.unwrap_or_else(|error| {
        panic!("{sql}: {error}");
    });
}

fn is_unknown(finished: &Finished) -> bool {
    matches!(finished, Finished::Unknown(_))
}
