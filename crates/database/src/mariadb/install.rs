//! What `handfast doctor --fix` does: the shipped SQL, and the application's right to insert.

use sqlx::{AssertSqlSafe, MySqlConnection};

use crate::Fault;
use crate::errors::mariadb::fault;

/// The shipped SQL, for administrators who run it themselves.
const SQL: &str = include_str!("../../sql/mariadb.sql");

const OUTDATED: &str = "Dropped the table handfast_owner, which had the shape of an earlier build: \
                        its rows say nothing that this one can use.";
const TABLES: [&str; 2] = ["handfast_branch", "handfast_owner"];

pub(super) async fn install(
    connection: &mut MySqlConnection,
    application_role: Option<&str>,
) -> Result<Vec<String>, Fault> {
    let account = application_role.map(quoted).transpose()?;
    let before = tables(connection).await?;
    let outdated = has_old_owner(connection).await?;
    if outdated {
        sqlx::raw_sql("DROP TABLE handfast_owner")
            .execute(&mut *connection)
            .await
            .map_err(|error| fault(&error))?;
    }
    sqlx::raw_sql(SQL).execute(&mut *connection).await.map_err(|error| fault(&error))?;
    let mut done: Vec<String> = TABLES
        .iter()
        .filter(|table| !before.iter().any(|there| there == *table))
        .map(|table| format!("Created the table {table}."))
        .collect();
    if outdated {
        done.insert(0, OUTDATED.to_owned());
    }
    if let (Some(account), Some(role)) = (account, application_role) {
        if is_own(connection, role).await? {
            done.push(format!("Left the rights of {account} alone: it is the server's own user."));
            return Ok(done);
        }
        // Without a database's name the table of the current one is meant.
        let grant = format!("GRANT INSERT ON handfast_branch TO {account}");
        sqlx::raw_sql(AssertSqlSafe(grant))
            .execute(connection)
            .await
            .map_err(|error| fault(&error))?;
        done.push(format!("Let {account} insert into handfast_branch."));
    }
    Ok(done)
}

/// Whether it is the user of this connection. Without a host it is the same name with any.
async fn is_own(connection: &mut MySqlConnection, role: &str) -> Result<bool, Fault> {
    let own: String = sqlx::query_scalar("SELECT CURRENT_USER()")
        .fetch_one(connection)
        .await
        .map_err(|error| fault(&error))?;
    let user = own.rsplit_once('@').map_or(own.as_str(), |(user, _)| user);
    Ok(own == role || user == role)
}

/// The owner's table has the shape of an earlier build. Its rows are of stores that this build does
/// not open.
async fn has_old_owner(connection: &mut MySqlConnection) -> Result<bool, Fault> {
    let there: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM information_schema.TABLES \
         WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'handfast_owner'",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(|error| fault(&error))?;
    Ok(there > 0 && !tables(connection).await?.iter().any(|table| table == "handfast_owner"))
}

/// Which of our tables are there, in the shape of today.
pub(super) async fn tables(connection: &mut MySqlConnection) -> Result<Vec<String>, Fault> {
    sqlx::query_scalar(
        "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() \
         AND (TABLE_NAME = 'handfast_branch' OR (TABLE_NAME = 'handfast_owner' AND EXISTS \
           (SELECT 1 FROM information_schema.COLUMNS c WHERE c.TABLE_SCHEMA = DATABASE() \
             AND c.TABLE_NAME = 'handfast_owner' AND c.COLUMN_NAME = 'opening')))",
    )
    .fetch_all(connection)
    .await
    .map_err(|error| fault(&error))
}

/// An account in quotes, if its alphabet is plain: `user` or `user@host`.
fn quoted(account: &str) -> Result<String, Fault> {
    let (user, host) = account.split_once('@').unwrap_or((account, "%"));
    let plain = |text: &str, more: &[u8]| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"_-.$".contains(&b) || more.contains(&b);
        !text.is_empty() && text.len() <= 63 && text.bytes().all(fits)
    };
    if !plain(user, b"") || !plain(host, b"%:") {
        return Err(Fault::InvalidRole);
    }
    Ok(format!("'{user}'@'{host}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_quoted_and_has_a_closed_alphabet() {
        assert_eq!(quoted("app"), Ok("'app'@'%'".to_owned()));
        assert_eq!(quoted("app@10.0.0.%"), Ok("'app'@'10.0.0.%'".to_owned()));
        for bad in ["", "@", "a@", "@h", "a b", "a'b", "a\\", "a@h'", "%"] {
            assert_eq!(quoted(bad), Err(Fault::InvalidRole), "{bad}");
        }
    }
}
