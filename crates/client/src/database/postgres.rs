//! PostgreSQL.

use std::time::Duration;

use handfast_database::errors::postgres::{code, meaning, message};
use handfast_database::errors::{Meaning, Step};
use handfast_database::postgres::application;
use handfast_database::{ApplicationError, BranchId, Holder, Home, Kind, Marker};
use sqlx::{AssertSqlSafe, PgConnection, Postgres, Row};

use super::engine::Engine;
use super::handle::BranchHandle;
use super::lease::Lease;

impl Engine for Postgres {
    const KIND: Kind = Kind::Postgres;
    const INBOX: &'static str = "public.handfast_inbox";
    const CREATE_INBOX: &'static str = include_str!("../../sql/inbox.postgres.sql");

    async fn home(connection: &mut PgConnection) -> Result<Home, sqlx::Error> {
        application::home(connection).await
    }

    fn is_at_home(here: &Home, belongs: &Home) -> bool {
        here == belongs
    }

    async fn begin_local(
        connection: &mut PgConnection,
        remaining: Duration,
    ) -> Result<(), sqlx::Error> {
        application::begin(connection, remaining).await
    }

    async fn commit_local(
        connection: &mut PgConnection,
        marker: Marker<'_>,
    ) -> Result<(), ApplicationError> {
        application::commit_local(connection, marker).await
    }

    async fn commit_alone(connection: &mut PgConnection) -> Result<(), ApplicationError> {
        // COMMIT in a block that has failed, or without one, succeeds and commits nothing; the
        // savepoint fails then, and what follows it in the message is not run.
        let sql = "SAVEPOINT handfast; RELEASE SAVEPOINT handfast; COMMIT";
        let Err(error) = sqlx::raw_sql(sql).execute(&mut *connection).await else { return Ok(()) };
        let (code, message) = Self::words(&error);
        if meaning(Step::CommitLocal, &error) != Meaning::No {
            return Err(ApplicationError::Unknown { code, message });
        }
        let discard = application::roll_back(connection).await.is_err();
        let retryable = may_pass(&code);
        Err(ApplicationError::No { code, message, retryable, discard })
    }

    async fn roll_back(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        application::roll_back(connection).await
    }

    async fn start(
        connection: &mut PgConnection,
        _: &BranchId,
        remaining: Duration,
    ) -> Result<Option<Holder>, sqlx::Error> {
        application::begin(connection, remaining).await.map(|()| None)
    }

    async fn prepare(
        connection: &mut PgConnection,
        marker: Marker<'_>,
    ) -> Result<(), ApplicationError> {
        application::prepare(connection, marker).await
    }

    async fn roll_back_branch(
        connection: &mut PgConnection,
        _: &BranchId,
    ) -> Result<(), sqlx::Error> {
        application::roll_back(connection).await
    }

    fn prepared(lease: Lease<Self>, _: BranchHandle) {
        // What is prepared belongs to no session.
        lease.give_back();
    }

    fn abandoned(lease: Lease<Self>, _: BranchHandle) {
        // The server rolls it back.
        lease.give_back();
    }

    async fn execute(connection: &mut PgConnection, sql: String) -> Result<u64, sqlx::Error> {
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
        Ok(done.rows_affected())
    }

    async fn number(
        connection: &mut PgConnection,
        sql: String,
    ) -> Result<Option<i64>, sqlx::Error> {
        sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(connection).await?.try_get(0)
    }

    fn older_than(age: Duration) -> String {
        format!("at < clock_timestamp() - make_interval(secs => {})", age.as_secs())
    }

    fn words(error: &sqlx::Error) -> (String, String) {
        (code(error).unwrap_or_default().to_owned(), message(error))
    }

    fn is_duplicate(code: &str) -> bool {
        code == "23505"
    }
}

/// Serialization failures and deadlocks.
fn may_pass(code: &str) -> bool {
    matches!(code, "40001" | "40P01" | "55P03" | "57014")
}
