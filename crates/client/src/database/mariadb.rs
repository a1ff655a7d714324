//! MariaDB.

use std::time::Duration;

use handfast_database::errors::mariadb::{message, number};
use handfast_database::mariadb::application;
use handfast_database::{ApplicationError, BranchId, Holder, Home, Kind, Marker};
use sqlx::{AssertSqlSafe, MySql, MySqlConnection, Row};

use super::engine::Engine;
use super::finisher::{Finisher, Held};
use super::handle::BranchHandle;
use super::lease::Lease;

impl Engine for MySql {
    const KIND: Kind = Kind::MariaDb;
    const INBOX: &'static str = "handfast_inbox";
    const CREATE_INBOX: &'static str = include_str!("../../sql/inbox.mariadb.sql");

    async fn home(connection: &mut MySqlConnection) -> Result<Home, sqlx::Error> {
        application::home(connection).await
    }

    fn is_at_home(here: &Home, belongs: &Home) -> bool {
        // Another database of the same server is as good: its engine is one.
        here.identity() == belongs.identity()
    }

    async fn begin_local(
        connection: &mut MySqlConnection,
        remaining: Duration,
    ) -> Result<(), sqlx::Error> {
        application::begin_local(connection, remaining).await
    }

    async fn commit_local(
        connection: &mut MySqlConnection,
        marker: Marker<'_>,
    ) -> Result<(), ApplicationError> {
        application::commit_local(connection, marker).await
    }

    async fn commit_alone(connection: &mut MySqlConnection) -> Result<(), ApplicationError> {
        application::commit_alone(connection).await
    }

    async fn roll_back(connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
        application::roll_back(connection).await
    }

    async fn start(
        connection: &mut MySqlConnection,
        branch: &BranchId,
        remaining: Duration,
    ) -> Result<Option<Holder>, sqlx::Error> {
        application::start(connection, branch, remaining).await.map(Some)
    }

    async fn prepare(
        connection: &mut MySqlConnection,
        marker: Marker<'_>,
    ) -> Result<(), ApplicationError> {
        application::prepare(connection, marker).await
    }

    async fn roll_back_branch(
        connection: &mut MySqlConnection,
        branch: &BranchId,
    ) -> Result<(), sqlx::Error> {
        application::roll_back_branch(connection, branch).await
    }

    fn prepared(lease: Lease<Self>, handle: BranchHandle) {
        match handle.stream {
            Some(stream) => {
                let handfast = handle.handfast.clone();
                // With no finisher the session is closed, and the server finishes the branch.
                if let Some(finisher) = Finisher::of(&handfast) {
                    finisher.hold(Held::new(handle, stream, lease));
                }
            }
            // No stream would bring the decision: the server finishes it, once this is closed.
            None => drop(lease),
        }
    }

    fn abandoned(lease: Lease<Self>, handle: BranchHandle) {
        let handfast = handle.handfast.clone();
        if let Some(finisher) = Finisher::of(&handfast) {
            finisher.abandon(Held::new(handle, 0, lease));
        }
    }

    async fn execute(connection: &mut MySqlConnection, sql: String) -> Result<u64, sqlx::Error> {
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
        Ok(done.rows_affected())
    }

    async fn number(
        connection: &mut MySqlConnection,
        sql: String,
    ) -> Result<Option<i64>, sqlx::Error> {
        sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(connection).await?.try_get(0)
    }

    fn older_than(age: Duration) -> String {
        format!("at < CURRENT_TIMESTAMP(6) - INTERVAL {} SECOND", age.as_secs())
    }

    fn words(error: &sqlx::Error) -> (String, String) {
        let code = number(error).map(|number| number.to_string()).unwrap_or_default();
        (code, message(error))
    }

    fn is_duplicate(code: &str) -> bool {
        code == "1062"
    }
}
