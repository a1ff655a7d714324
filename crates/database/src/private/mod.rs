//! Private database servers, for tests, examples and torture: each in a directory of the
//! caller's, on a free port of 127.0.0.1, with the binaries that the system has.
//!
//! Nothing here ever touches a server that it did not start. A server ends when its value is
//! dropped, and also when the process that started it ends in any way: it runs under a shell that
//! waits for the end of a pipe.

mod binaries;
mod mariadb;
mod postgres;
mod server;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub use mariadb::{MariaDb, MariaDbOptions};
pub use postgres::{Postgres, PostgresOptions};

/// A private server could not be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PrivateError {
    /// The system does not have the program.
    #[error("{program} is not installed: install the Debian package {package}")]
    Missing {
        /// What was looked for.
        program: &'static str,
        /// What brings it.
        package: &'static str,
    },
    /// The directory that was given does not have the program.
    #[error("{program} is not in {home}")]
    NotIn {
        /// What was looked for.
        program: &'static str,
        /// Where.
        home: PathBuf,
    },
    /// Database servers do not run as root, and the user that should run them is not there.
    #[error("there is no user {user}, which the Debian package {package} makes")]
    NoUser {
        /// The user.
        user: &'static str,
        /// What makes it.
        package: &'static str,
    },
    /// A program ended with an error, or did not answer in time.
    #[error("{what} failed; its log is {log}: {tail}")]
    Failed {
        /// What was tried.
        what: String,
        /// Where it wrote.
        log: PathBuf,
        /// The end of that.
        tail: String,
    },
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Its answer.
        source: io::Error,
    },
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> PrivateError {
    move |source| PrivateError::Io { what, source }
}
