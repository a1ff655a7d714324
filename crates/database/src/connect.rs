//! Picks the implementation by the URL's scheme. Opens no connection: a database that is down when
//! the server starts is no error.

use std::sync::Arc;

use thiserror::Error;

use crate::mariadb::MariaDb;
use crate::postgres::Postgres;
use crate::{Database, Options};

/// A URL that cannot be that of a database. The text never contains the URL, because a password
/// may be in it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Neither PostgreSQL's nor MariaDB's.
    #[error("a database's URL begins with postgres://, postgresql://, mysql:// or mariadb://")]
    Scheme,
    /// The driver does not understand it.
    #[error("the database's URL is not understood: {0}")]
    Url(String),
    /// It names no database, so that the marker's table would be nowhere.
    #[error("the URL has to name the database: add /name at its end")]
    NoDatabase,
}

/// The database at a URL such as `postgres://user:password@host:5432/name`.
///
/// Has to be called inside a tokio runtime, which the pools use later.
///
/// # Errors
/// [`ConnectError`] for a URL that cannot work. Whether the database answers, and may be trusted,
/// is for [`Database::check`] to say.
pub fn connect(url: &str, options: Options) -> Result<Arc<dyn Database>, ConnectError> {
    match url.split_once("://").map(|(scheme, _)| scheme) {
        Some("postgres" | "postgresql") => Ok(Arc::new(Postgres::new(url, options)?)),
        Some("mysql" | "mariadb") => Ok(Arc::new(MariaDb::new(url, options)?)),
        _ => Err(ConnectError::Scheme),
    }
}
