//! What `handfast doctor --fix` does: the shipped SQL, and the application's right to insert.

use sqlx::{AssertSqlSafe, PgConnection};

use crate::Fault;
use crate::errors::postgres::fault;

/// The shipped SQL, for administrators who run it themselves.
pub(super) const SQL: &str = include_str!("../../sql/postgres.sql");

const TABLES: [&str; 2] = ["handfast_branch", "handfast_owner"];

pub(super) async fn install(
    connection: &mut PgConnection,
    application_role: Option<&str>,
) -> Result<Vec<String>, Fault> {
    let role = application_role.map(quoted).transpose()?;
    let before = tables(connection).await?;
    // Several statements in one message are one transaction.
    sqlx::raw_sql(SQL).execute(&mut *connection).await.map_err(|error| fault(&error))?;
    let mut done: Vec<String> = TABLES
        .iter()
        .filter(|table| !before.iter().any(|there| there == *table))
        .map(|table| format!("Created the table public.{table}."))
        .collect();
    if let Some(role) = role {
        if application_role == Some(current_user(connection).await?.as_str()) {
            // Taking its other rights away would take them from the server.
            done.push(format!("Left the rights of {role} alone: it is the server's own role."));
            return Ok(done);
        }
        let grant = format!(
            "REVOKE ALL ON public.handfast_branch, public.handfast_owner FROM {role}; \
             GRANT INSERT ON public.handfast_branch TO {role}"
        );
        sqlx::raw_sql(AssertSqlSafe(grant))
            .execute(connection)
            .await
            .map_err(|error| fault(&error))?;
        done.push(format!("Let {role} insert into public.handfast_branch, and nothing else."));
    }
    Ok(done)
}

async fn current_user(connection: &mut PgConnection) -> Result<String, Fault> {
    sqlx::query_scalar("SELECT current_user::text")
        .fetch_one(connection)
        .await
        .map_err(|error| fault(&error))
}

/// Which of our tables are there.
pub(super) async fn tables(connection: &mut PgConnection) -> Result<Vec<String>, Fault> {
    sqlx::query_scalar(
        "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' \
         AND tablename IN ('handfast_branch', 'handfast_owner')",
    )
    .fetch_all(connection)
    .await
    .map_err(|error| fault(&error))
}

/// A role's name in quotes, if its alphabet is plain.
fn quoted(role: &str) -> Result<String, Fault> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'$');
    if role.is_empty() || role.len() > 63 || !role.bytes().all(plain) {
        return Err(Fault::InvalidRole);
    }
    Ok(format!("\"{role}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_quoted_and_has_a_closed_alphabet() {
        assert_eq!(quoted("app_1"), Ok("\"app_1\"".to_owned()));
        for bad in ["", "a b", "a\"b", "a;b", "ä", &"x".repeat(64)] {
            assert_eq!(quoted(bad), Err(Fault::InvalidRole), "{bad}");
        }
    }
}
