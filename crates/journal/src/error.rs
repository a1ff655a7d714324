//! What can go wrong with the journal, and who is at fault.
//!
//! A misuse by the caller (LSNs that do not follow each other, an incomplete checkpoint) is a bug
//! and panics; it is not here.

use std::io;

use crate::corruption::Corruption;
use crate::damage::Damage;

/// A fault of the journal or of what lies under it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Somebody else has the store open.
    #[error("the store is open in another process")]
    Locked,
    /// The directory holds something else; it was left as it is.
    #[error("the directory is not a handfast store and not empty: it holds {name:?}")]
    NotAStore {
        /// One of the things that are in the way.
        name: String,
    },
    /// A copy was to be made in a directory that is not empty; it was left as it is.
    #[error("the directory is not empty: it holds {name:?}")]
    NotEmpty {
        /// One of the things that are in the way.
        name: String,
    },
    /// The directory holds no store, and none may be made by this call.
    #[error("there is no handfast store in the directory")]
    NoStore,
    /// The store was written by a version with another format.
    #[error("{file} has format {found}, this version reads format {known}")]
    Format {
        /// The file.
        file: String,
        /// Its format.
        found: u32,
        /// The format of this version.
        known: u32,
    },
    /// Something that was durable is altered or missing. Nothing was changed on disk.
    #[error("the journal is damaged: {0}")]
    Corrupt(Corruption),
    /// A place in a sealed segment cannot be read. Everything else goes on.
    #[error("{0}")]
    Unreadable(Box<Damage>),
    /// There is no room. Nothing was written, everything goes on; free some and try again.
    #[error("no room on the disk for {needed} bytes more")]
    NoSpace {
        /// How many bytes were wanted.
        needed: u64,
    },
    /// Somebody removed or replaced a file, or its directory, under the open store. What was
    /// acknowledged since may be gone with it.
    #[error("{file} was removed or replaced by somebody else while the store was open")]
    Removed {
        /// The file.
        file: String,
    },
    /// An input or output operation failed.
    #[error("{action} {file}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        file: String,
        /// What the file system said.
        source: io::Error,
    },
    /// An earlier call failed in a way after which nobody knows what is on the disk: end the
    /// process and open the store again.
    #[error("the journal has failed before and takes nothing more")]
    Poisoned,
    /// There is no sealed segment of this number.
    #[error("there is no sealed segment {0}")]
    NoSuchSegment(u64),
    /// A segment may only go once a durable record says so.
    #[error("no durable record says that segment {0} is dropped")]
    NotDropped(u64),
}

impl Error {
    /// What it says of a file that does not hold what it should; none: it says something else.
    pub(crate) fn corruption(&self) -> Option<Corruption> {
        match self {
            Self::Corrupt(why) => Some(why.clone()),
            Self::Io { action: "read" | "seek" | "measure", file, source }
                if !crate::files::is_no_descriptor(source) =>
            {
                Some(Corruption { file: file.clone(), position: 0, detail: source.to_string() })
            }
            _ => None,
        }
    }

    pub(crate) fn io(action: &'static str, file: &str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, file: file.to_owned(), source }
    }

    pub(crate) fn corrupt(file: &str, position: u64, detail: impl Into<String>) -> Self {
        Self::Corrupt(Corruption { file: file.to_owned(), position, detail: detail.into() })
    }

    /// The call had no effect and may be made again when there is room.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace { .. })
    }

    /// Durable bytes are altered or missing.
    #[must_use]
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::Corrupt(_) | Self::Unreadable(_))
    }

    /// Turns an error for want of room into the clean refusal.
    pub(crate) fn or_no_space(self, needed: u64) -> Self {
        match self {
            Self::Io { source, .. } if crate::files::is_no_space(&source) => {
                Self::NoSpace { needed }
            }
            other => other,
        }
    }
}
