//! What `handfast doctor --fix` does: the shipped SQL, and the application's right to insert.

use sqlx::{AssertSqlSafe, PgConnection};

use crate::Fault;
use crate::errors::postgres::fault;

/// The shipped SQL, for administrators who run it themselves.
pub(super) const SQL: &str = include_str!("../../sql/postgres.sql");

const OUTDATED: &str = "Dropped the table public.handfast_owner, which had the shape of an earlier \
                        build: its rows say nothing that this one can use.";
const TABLES: [&str; 2] = ["handfast_branch", "handfast_owner"];

pub(super) async fn install(
    connection: &mut PgConnection,
    application_role: Option<&str>,
) -> Result<Vec<String>, Fault> {
    let role = application_role.map(quoted).transpose()?;
    let before = tables(connection).await?;
    let outdated = has_old_owner(connection).await?;
    if outdated {
        sqlx::raw_sql("DROP TABLE public.handfast_owner")
            .execute(&mut *connection)
            .await
            .map_err(|error| fault(&error))?;
    }
    // Several statements in one message are one transaction.
    sqlx::raw_sql(SQL).execute(&mut *connection).await.map_err(|error| fault(&error))?;
    let mut done: Vec<String> = TABLES
        .iter()
        .filter(|table| !before.iter().any(|there| there == *table))
        .map(|table| format!("Created the table public.{table}."))
        .collect();
    if outdated {
        done.insert(0, OUTDATED.to_owned());
    }
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

/// The owner's table has the shape of an earlier build. Its rows are of stores that this build does
/// not open.
async fn has_old_owner(connection: &mut PgConnection) -> Result<bool, Fault> {
    let there: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_tables \
         WHERE schemaname = 'public' AND tablename = 'handfast_owner')",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(|error| fault(&error))?;
    Ok(there && !tables(connection).await?.iter().any(|table| table == "handfast_owner"))
}

/// Which of our tables are there, in the shape of today.
pub(super) async fn tables(connection: &mut PgConnection) -> Result<Vec<String>, Fault> {
    sqlx::query_scalar(
        "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' \
         AND (tablename = 'handfast_branch' OR (tablename = 'handfast_owner' AND EXISTS \
           (SELECT FROM pg_attribute WHERE attrelid = to_regclass('public.handfast_owner') \
             AND attname = 'opening' AND NOT attisdropped)))",
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
