//! What to tell a person whose store was refused.

use std::path::Path;

use handfast_journal::Error;
use handfast_server::node::OpenError;

use super::{Exit, Failure};

/// Why a store was not opened, in one sentence with what to do about it.
pub(crate) fn not_opened(data_dir: &Path, error: &OpenError) -> Failure {
    match error {
        OpenError::Journal(error) => refused(data_dir, error),
        OpenError::Directory { .. } => {
            let remedy = "name another one with --data-dir, or see that this user may use it";
            Failure::new(Exit::Store, format!("{error}; {remedy}"))
        }
        other => Failure::new(Exit::Failed, other),
    }
}

/// Why the journal refused, in one sentence with what to do about it.
pub(crate) fn refused(data_dir: &Path, error: &Error) -> Failure {
    let dir = data_dir.display();
    let remedy = match error {
        Error::Locked => "stop that one, or choose another directory with --data-dir".to_owned(),
        Error::NotAStore { .. } => {
            "choose an empty directory, or one with a store, with --data-dir".to_owned()
        }
        Error::NoStore => "name the directory of a store".to_owned(),
        Error::Format { .. } => {
            "use the version of handfast that wrote it, or a newer one".to_owned()
        }
        Error::Corrupt(_) => format!(
            "nothing was changed; look at it with `handfast journal check {dir}` and restore a \
             backup"
        ),
        Error::NoSpace { .. } => "free some and start again".to_owned(),
        Error::Io { .. } => {
            "see that the directory and its files may be read and written by this user".to_owned()
        }
        _ => "start again".to_owned(),
    };
    Failure::new(Exit::Store, format!("{dir}: {error}; {remedy}"))
}
