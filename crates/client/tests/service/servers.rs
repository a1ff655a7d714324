//! Databases of a test's own on private PostgreSQL and MariaDB servers, with the bookkeeper's
//! tables.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use handfast::database::sqlx::{self, AssertSqlSafe, Connection, MySql, Postgres, Row};
use handfast::service::conformance::Subject;
use handfast::service::sql::{MariaDbStore, PostgresStore, SqlConnection, create_tables};
use handfast_core::ids::TransactionId;
use handfast_database::private::{
    MariaDb, MariaDbOptions, Postgres as PrivatePostgres, PostgresOptions,
};
use tokio::runtime::Runtime;

use crate::bookkeeper::{BookDb, Books};

static NEXT: AtomicU64 = AtomicU64::new(1);

fn directory(kind: &str) -> PathBuf {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("handfast-service-{kind}-{}-{number}", std::process::id()))
}

static POSTGRES: LazyLock<PrivatePostgres> = LazyLock::new(|| {
    let options = PostgresOptions::default().with_directory_removed();
    PrivatePostgres::start(&directory("postgres"), &options).expect("it is installed")
});

static MARIADB: LazyLock<MariaDb> = LazyLock::new(|| {
    let options = MariaDbOptions::default().with_directory_removed();
    MariaDb::start(&directory("mariadb"), &options).expect("it is installed")
});

const TABLES: &str = "
    CREATE TABLE number (value bigint);
    CREATE TABLE book (id varchar(36) PRIMARY KEY, held bigint, applied bigint);
";
/// A rule that PostgreSQL checks at commit only.
const DEFERRED: &str = "
    CREATE TABLE parent (id bigint PRIMARY KEY);
    CREATE TABLE child (parent bigint REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED);
";

pub(crate) fn wait<T>(work: impl Future<Output = T>) -> T {
    Runtime::new().expect("a runtime").block_on(work)
}

/// A database of the kind `D`, of its own.
pub(crate) struct Own<D> {
    pub(crate) url: String,
    kind: std::marker::PhantomData<fn() -> D>,
}

impl Own<Postgres> {
    pub(crate) fn new() -> Self {
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let url = POSTGRES.url_of("postgres", &name);
        wait(async {
            let mut root = sqlx::PgConnection::connect(&POSTGRES.url()).await.expect("it runs");
            let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
            sqlx::raw_sql(create).execute(&mut root).await.expect("created");
            let pool = sqlx::PgPool::connect(&url).await.expect("it is there");
            create_tables(&pool).await.expect("created");
            create_tables(&pool).await.expect("they are there");
            sqlx::raw_sql(TABLES).execute(&pool).await.expect("created");
            sqlx::raw_sql(DEFERRED).execute(&pool).await.expect("created");
        });
        Self { url, kind: std::marker::PhantomData }
    }
}

impl Own<MySql> {
    pub(crate) fn new() -> Self {
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let url = MARIADB.url_of("root", &name);
        wait(async {
            let mut root = sqlx::MySqlConnection::connect(&MARIADB.url()).await.expect("it runs");
            let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
            sqlx::raw_sql(create).execute(&mut root).await.expect("created");
            let pool = sqlx::MySqlPool::connect(&url).await.expect("it is there");
            create_tables(&pool).await.expect("created");
            create_tables(&pool).await.expect("they are there");
            sqlx::raw_sql(TABLES).execute(&pool).await.expect("created");
        });
        Self { url, kind: std::marker::PhantomData }
    }
}

const ADD: &str = "INSERT INTO number VALUES (1)";
const NUMBER: &str = "SELECT count(*) FROM number";
const COUNTS: &str = "SELECT id, held, applied FROM book WHERE held <> 0 OR applied <> 0";

impl Subject for Own<Postgres> {
    type Store = PostgresStore;

    fn open(&self) -> PostgresStore {
        wait(PostgresStore::open(&self.url, "books")).expect("the store opens")
    }

    fn add(db: &SqlConnection<Postgres>) {
        db.run(async |db| sqlx::query(ADD).execute(db).await).expect("added");
    }

    fn number(db: &SqlConnection<Postgres>) -> u64 {
        let row = db.run(async |db| sqlx::query(NUMBER).fetch_one(db).await).expect("counted");
        row.get::<i64, _>(0).unsigned_abs()
    }
}

impl Subject for Own<MySql> {
    type Store = MariaDbStore;

    fn open(&self) -> MariaDbStore {
        wait(MariaDbStore::open(&self.url, "books")).expect("the store opens")
    }

    fn add(db: &SqlConnection<MySql>) {
        db.run(async |db| sqlx::query(ADD).execute(db).await).expect("added");
    }

    fn number(db: &SqlConnection<MySql>) -> u64 {
        let row = db.run(async |db| sqlx::query(NUMBER).fetch_one(db).await).expect("counted");
        row.get::<i64, _>(0).unsigned_abs()
    }
}

impl BookDb for SqlConnection<Postgres> {
    fn add(&self, id: TransactionId, held: i64, applied: i64) {
        let added = self.run(async |db| {
            let sql = "INSERT INTO book VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE \
                       SET held = book.held + excluded.held, \
                       applied = book.applied + excluded.applied";
            sqlx::query(sql).bind(id.to_string()).bind(held).bind(applied).execute(db).await
        });
        added.expect("the books are written");
    }

    fn books(&self) -> Books {
        let rows = self.run(async |db| sqlx::query_as(COUNTS).fetch_all(db).await);
        read(rows.expect("the books are read"))
    }
}

impl BookDb for SqlConnection<MySql> {
    fn add(&self, id: TransactionId, held: i64, applied: i64) {
        let added = self.run(async |db| {
            let sql = "INSERT INTO book VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE \
                       held = held + VALUES(held), applied = applied + VALUES(applied)";
            sqlx::query(sql).bind(id.to_string()).bind(held).bind(applied).execute(db).await
        });
        added.expect("the books are written");
    }

    fn books(&self) -> Books {
        let rows = self.run(async |db| sqlx::query_as(COUNTS).fetch_all(db).await);
        read(rows.expect("the books are read"))
    }
}

fn read(rows: Vec<(String, i64, i64)>) -> Books {
    let row =
        |(id, held, applied): (String, i64, i64)| (id.parse().expect("an id"), (held, applied));
    rows.into_iter().map(row).collect()
}
