//! MariaDB.

use std::time::Duration;

use handfast_database::errors::mariadb::{message, number};
use handfast_database::mariadb::application;
use handfast_database::{ApplicationError, BranchId, Holder};
use sqlx::{MySql, MySqlConnection, Row};

use super::engine::Engine;
use super::finisher::Held;
use super::join::Place;
use super::lease::Lease;

impl Engine for MySql {
    async fn begin_local(
        connection: &mut MySqlConnection,
        remaining: Duration,
    ) -> Result<(), sqlx::Error> {
        application::begin_local(connection, remaining).await
    }

    async fn commit_local(
        connection: &mut MySqlConnection,
        branch: &BranchId,
    ) -> Result<(), ApplicationError> {
        application::commit_local(connection, branch).await
    }

    async fn commit_alone(connection: &mut MySqlConnection) -> Result<(), ApplicationError> {
        // After a deadlock MariaDB has ended the transaction, and the statements after it have
        // committed on their own.
        let no =
            |code, message| ApplicationError::No { code, message, retryable: false, discard: true };
        match sqlx::raw_sql("SELECT CAST(@@in_transaction AS SIGNED)")
            .fetch_one(&mut *connection)
            .await
        {
            Ok(row) if row.try_get(0).is_ok_and(|open: i64| open == 1) => {}
            Ok(_) => {
                let ended = "no transaction is open: a deadlock or a statement such as CREATE TABLE has \
                             ended it";
                return Err(no(String::new(), ended.to_owned()));
            }
            Err(error) => {
                let (code, message) = Self::words(&error);
                return Err(no(code, message));
            }
        }
        let committed = sqlx::raw_sql("COMMIT").execute(&mut *connection).await;
        committed.map_err(|error| {
            let (code, message) = Self::words(&error);
            ApplicationError::Unknown { code, message }
        })?;
        // Takes the limits of the session back. It has committed, whatever this says.
        if let Err(error) = application::roll_back(connection).await {
            tracing::debug!(%error, "a session was not reset");
        }
        Ok(())
    }

    async fn roll_back(connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
        application::roll_back(connection).await
    }

    async fn start(
        connection: &mut MySqlConnection,
        branch: &BranchId,
        remaining: Duration,
    ) -> Result<Option<Holder>, sqlx::Error> {
        // Once it has prepared, a session answers nothing else.
        let holder = application::holder(connection).await?;
        application::start(connection, branch, remaining).await?;
        Ok(Some(holder))
    }

    async fn prepare(
        connection: &mut MySqlConnection,
        branch: &BranchId,
    ) -> Result<(), ApplicationError> {
        application::prepare(connection, branch).await
    }

    async fn roll_back_branch(
        connection: &mut MySqlConnection,
        branch: &BranchId,
    ) -> Result<(), sqlx::Error> {
        application::roll_back_branch(connection, branch).await
    }

    fn prepared(lease: Lease<Self>, place: Place) {
        let Place { handfast, id, database, branch, stream, deadline } = place;
        match stream {
            Some(stream) => {
                let finisher = handfast.inner.finisher.clone();
                finisher.hold(Held::new(handfast, id, database, branch, stream, deadline, lease));
            }
            // No stream would bring the decision: the server finishes it, once this is closed.
            None => drop(lease),
        }
    }

    fn words(error: &sqlx::Error) -> (String, String) {
        let code = number(error).map(|number| number.to_string()).unwrap_or_default();
        (code, message(error))
    }

    fn is_duplicate(code: &str) -> bool {
        code == "1062"
    }
}
