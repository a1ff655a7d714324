//! A place where a file does not hold what it should.

/// Where the journal is damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file} at byte {position}: {detail}")]
pub struct Corruption {
    /// The file.
    pub file: String,
    /// The byte in it.
    pub position: u64,
    /// What does not check.
    pub detail: String,
}
