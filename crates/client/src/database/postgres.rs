//! PostgreSQL.

use std::time::Duration;

use handfast_database::errors::postgres::{code, meaning, message};
use handfast_database::errors::{Meaning, Step};
use handfast_database::postgres::application;
use handfast_database::{ApplicationError, BranchId, Holder};
use sqlx::{PgConnection, Postgres};

use super::engine::Engine;
use super::join::Place;
use super::lease::Lease;

impl Engine for Postgres {
    async fn begin_local(
        connection: &mut PgConnection,
        remaining: Duration,
    ) -> Result<(), sqlx::Error> {
        application::begin(connection, remaining).await
    }

    async fn commit_local(
        connection: &mut PgConnection,
        branch: &BranchId,
    ) -> Result<(), ApplicationError> {
        application::commit_local(connection, branch).await
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
        branch: &BranchId,
    ) -> Result<(), ApplicationError> {
        application::prepare(connection, branch).await
    }

    async fn roll_back_branch(
        connection: &mut PgConnection,
        _: &BranchId,
    ) -> Result<(), sqlx::Error> {
        application::roll_back(connection).await
    }

    fn prepared(lease: Lease<Self>, _: Place) {
        // What is prepared belongs to no session.
        lease.give_back();
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
