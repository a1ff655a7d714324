//! Picks the implementation by the URL's scheme. Opens no connection: a database that is down when
//! the server starts is no error.

use std::sync::Arc;

use crate::mariadb::MariaDb;
use crate::postgres::Postgres;
use crate::url::ConnectError;
use crate::{Database, Options};

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
