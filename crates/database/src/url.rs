//! What may be wrong with the URL of a database.

use thiserror::Error;

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
