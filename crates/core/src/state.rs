//! The states of a transaction that everybody sees.

/// The four public states. `unknown` is none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PublicState {
    /// Requests and confirms travel.
    Preparing,
    /// Decided; participants are being told.
    Committing,
    /// Every participant has committed.
    Committed,
    /// Nothing of it happened, or will.
    Failed,
}

impl PublicState {
    /// The word that clients see.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preparing => "Preparing",
            Self::Committing => "Committing",
            Self::Committed => "Committed",
            Self::Failed => "Failed",
        }
    }
}
