//! The owner row as it is stored: how a store finds out that it is a copy, or older than the
//! database (PG10). What a row says against a store is judged in [`handfast_core::owner`].

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use handfast_core::ids::{Lsn, StoreId};
use handfast_core::owner::Owner;
use sqlx::{ColumnIndex, Decode, Row, Type};

/// Longest name of a machine, in bytes.
const NODE_BYTES: usize = 255;

/// A row of `handfast_owner`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerRow {
    /// What it says.
    pub owner: Owner,
    /// When it was written, by the database's clock: Unix time in milliseconds.
    pub at_unix_ms: u64,
}

impl OwnerRow {
    /// When it was written, by the database's clock.
    #[must_use]
    pub fn at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.at_unix_ms)
    }
}

/// Which life of the store wrote it; when is [`OwnerRow::at`].
impl fmt::Display for OwnerRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Owner { opening, epoch, node, durable_lsn, .. } = &self.owner;
        let short = (opening.0 >> 96) as u32;
        write!(
            f,
            "opening {short:08x}, epoch {epoch}, node {node}, durable to record {durable_lsn}"
        )
    }
}

/// Reads a row: epoch, node, opening, durable LSN, claim, time in milliseconds.
pub(crate) fn decode<R: Row>(row: &R, store: StoreId, shard: u32) -> Result<OwnerRow, sqlx::Error>
where
    usize: ColumnIndex<R>,
    i64: for<'r> Decode<'r, R::Database> + Type<R::Database>,
    String: for<'r> Decode<'r, R::Database> + Type<R::Database>,
{
    let opening: String = row.try_get(2)?;
    let owner = Owner {
        store,
        shard,
        epoch: loaded(row.try_get(0)?),
        node: row.try_get(1)?,
        // What is no opening at all is none that a log contains.
        opening: opening.parse().unwrap_or_default(),
        durable_lsn: Lsn(loaded(row.try_get(3)?)),
        claim: loaded(row.try_get(4)?),
    };
    Ok(OwnerRow { owner, at_unix_ms: loaded(row.try_get(5)?) })
}

/// The node as it is stored.
pub(crate) fn stored_node(node: &str) -> &str {
    let mut end = node.len().min(NODE_BYTES);
    while !node.is_char_boundary(end) {
        end -= 1;
    }
    &node[..end]
}

/// A counter as the signed 64 bits that a database has. Ours start at 0 and rise by one, so the
/// upper half is never reached; a claim that is too high would only be refused.
pub(crate) fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A counter as it was stored.
fn loaded(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let node = format!("{}é", "x".repeat(254));
        assert_eq!(stored_node(&node), "x".repeat(254));
    }
}
