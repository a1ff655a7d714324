//! The owner row: how a store finds out that it is a copy, or older than the database (PG10).

use std::fmt;

use handfast_core::ids::{Lsn, StoreId};

/// What a store says about itself in each of its databases, at each opening and every minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The store.
    pub store: StoreId,
    /// The host that it runs on, at most 255 bytes; what is longer is cut off.
    pub host: String,
    /// Its epoch, raised at every opening.
    pub epoch: u64,
    /// The last record that is durable.
    pub durable_lsn: Lsn,
}

impl Owner {
    /// The host as it is stored.
    pub(crate) fn stored_host(&self) -> &str {
        let mut end = self.host.len().min(255);
        while !self.host.is_char_boundary(end) {
            end -= 1;
        }
        &self.host[..end]
    }
}

/// The answer to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The row is ours and now says what we said.
    Ours,
    /// The row contradicts us and was left as it is: resolve nothing there.
    Other {
        /// What the row says.
        row: Owner,
        /// Why it cannot be ours. At least one.
        why: Vec<Contradiction>,
    },
}

/// One reason why a row of this store's own id is not this store's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contradiction {
    /// Another host wrote it.
    Host,
    /// An opening later than ours wrote it.
    Epoch,
    /// It knows of durable records that we do not have.
    DurableLsn,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "another host wrote it",
            Self::Epoch => "its epoch is higher than ours",
            Self::DurableLsn => "it knows of durable records that this store does not have",
        })
    }
}

impl Claim {
    /// What a row that refused to be replaced has against the claim.
    pub(crate) fn refused(ours: &Owner, row: Owner) -> Self {
        let why = [
            (row.host != ours.stored_host(), Contradiction::Host),
            (row.epoch > ours.epoch, Contradiction::Epoch),
            (row.durable_lsn > ours.durable_lsn, Contradiction::DurableLsn),
        ];
        let why = why.into_iter().filter_map(|(holds, why)| holds.then_some(why)).collect();
        Self::Other { row, why }
    }
}

/// A counter as the signed 64 bits that a database has. Ours start at 0 and rise by one, so the
/// upper half is never reached; a claim that is too high would only be refused.
pub(crate) fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A counter as it was stored.
pub(crate) fn loaded(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_host_is_cut_between_characters() {
        let host = format!("{}é", "x".repeat(254));
        let owner = Owner { store: StoreId(1), host, epoch: 1, durable_lsn: Lsn(1) };
        assert_eq!(owner.stored_host(), "x".repeat(254));
    }
}
