//! The id of one branch: what a prepared transaction and its marker are called in a database.
//!
//! It has a fixed alphabet, because neither `PREPARE TRANSACTION` nor `XA` takes a bind parameter
//! (PG5, MY10). Nothing that a client sends ever becomes part of it as text.

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use crate::ids::{Name, StoreId, TransactionId};

/// The formatID of our XA ids: the letters `HFDT`. Ids with another one are foreign (MY10).
pub const FORMAT_ID: u32 = 0x4846_4454;

const GID_PREFIX: &str = "handfast.";
const TEXT_LENGTH: usize = 32 + 1 + 16 + 1 + 8;

/// One transaction's branch in one registered database.
///
/// Its canonical text is `<32 hex transaction>.<16 hex store>.<8 hex branch>` in lower case. That
/// text is the key of the branch's marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BranchId {
    /// The transaction; the time in it is when the transaction began.
    pub transaction: TransactionId,
    /// The last 8 bytes, which are random, of the [`StoreId`] of the server that coordinates it.
    pub store: u64,
    /// A hash of the name under which the database is registered: a transaction with branches in
    /// two databases of one server needs two ids there (MY9).
    pub branch: u32,
}

impl BranchId {
    /// The id of a transaction's branch in the database registered under a name. The same
    /// arguments give the same id, in this and every later version.
    #[must_use]
    pub fn new(transaction: TransactionId, store: StoreId, database: &Name) -> Self {
        Self { transaction, store: store_suffix(store), branch: fnv1a(database.as_str()) }
    }

    /// Whether the branch belongs to this store.
    #[must_use]
    pub fn belongs_to(&self, store: StoreId) -> bool {
        self.store == store_suffix(store)
    }

    /// The name of the prepared transaction in PostgreSQL: under 200 bytes (PG5).
    #[must_use]
    pub fn gid(&self) -> String {
        format!("{GID_PREFIX}{self}")
    }

    /// The branch that a PostgreSQL gid names; none if it is not one of ours.
    #[must_use]
    pub fn from_gid(gid: &str) -> Option<Self> {
        gid.strip_prefix(GID_PREFIX)?.parse().ok()
    }

    /// The id in XA statements: global id, qualifier and formatID as literals.
    #[must_use]
    pub fn xid(&self) -> String {
        format!(
            "X'{:032x}{:016x}',X'{:08x}',{FORMAT_ID}",
            self.transaction.0, self.store, self.branch
        )
    }

    /// The branch that a line of `XA RECOVER FORMAT='SQL'` names; none if it is not one of ours.
    #[must_use]
    pub fn from_xid(xid: &str) -> Option<Self> {
        let mut parts = xid.split(',');
        let (global, qualifier, format) = (parts.next()?, parts.next()?, parts.next()?);
        let global = hex_literal(global)?;
        let qualifier = hex_literal(qualifier)?;
        let ours = format.trim().parse() == Ok(FORMAT_ID)
            && parts.next().is_none()
            && global.len() == 48
            && qualifier.len() == 8;
        if !ours {
            return None;
        }
        let (transaction, store) = global.split_at_checked(32)?;
        Some(Self {
            transaction: TransactionId(u128::from_str_radix(transaction, 16).ok()?),
            store: u64::from_str_radix(store, 16).ok()?,
            branch: u32::from_str_radix(qualifier, 16).ok()?,
        })
    }
}

impl fmt::Display for BranchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}.{:016x}.{:08x}", self.transaction.0, self.store, self.branch)
    }
}

/// The text is not a branch id in its canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidBranchId;

impl fmt::Display for InvalidBranchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a branch id is 32, 16 and 8 lower-case hexadecimal digits with points between")
    }
}

impl core::error::Error for InvalidBranchId {}

impl FromStr for BranchId {
    type Err = InvalidBranchId;

    fn from_str(text: &str) -> Result<Self, InvalidBranchId> {
        let canonical = text.len() == TEXT_LENGTH
            && text.bytes().enumerate().all(|(i, b)| match i {
                32 | 49 => b == b'.',
                _ => matches!(b, b'0'..=b'9' | b'a'..=b'f'),
            });
        if !canonical {
            return Err(InvalidBranchId);
        }
        let number = |range| u128::from_str_radix(&text[range], 16).map_err(|_| InvalidBranchId);
        let store = number(33..49)?;
        let branch = number(50..58)?;
        Ok(Self {
            transaction: TransactionId(number(0..32)?),
            store: u64::try_from(store).map_err(|_| InvalidBranchId)?,
            branch: u32::try_from(branch).map_err(|_| InvalidBranchId)?,
        })
    }
}

fn store_suffix(store: StoreId) -> u64 {
    store.0 as u64
}

/// FNV-1a, 32 bits (draft-eastlake-fnv): stable for ever, which the standard library's hash is not.
fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

fn hex_literal(text: &str) -> Option<&str> {
    let digits = text.trim().strip_prefix("X'")?.strip_suffix('\'')?;
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::borrow::ToOwned;
    use alloc::string::ToString;

    fn branch() -> BranchId {
        let store = StoreId(0x99aa_bbcc_ddee_ff00_1122_3344_5566_7788);
        let name = Name::new("orders").unwrap();
        BranchId::new(TransactionId(0x0192_f0a1_b2c3_7d4e_8f90_a1b2_c3d4_e5f6), store, &name)
    }

    #[test]
    fn the_text_is_fixed_for_ever() {
        let text = "0192f0a1b2c37d4e8f90a1b2c3d4e5f6.1122334455667788.325e96ec";
        assert_eq!(branch().to_string(), text);
        assert_eq!(text.parse(), Ok(branch()));
        assert_eq!(fnv1a(""), 0x811c_9dc5);
        assert_eq!(fnv1a("foobar"), 0xbf9c_f968);
    }

    #[test]
    fn both_databases_names_survive_the_way_there_and_back() {
        let id = branch();
        assert_eq!(BranchId::from_gid(&id.gid()), Some(id));
        assert_eq!(BranchId::from_xid(&id.xid()), Some(id));
        assert!(id.gid().len() < 200);
    }

    #[test]
    fn anything_else_is_foreign() {
        let text = branch().to_string();
        for bad in [
            String::new(),
            text.to_uppercase(),
            text.replace('.', "-"),
            format!("{text}0"),
            text[1..].to_owned(),
            format!("é{}", &text[2..]),
        ] {
            assert_eq!(bad.parse::<BranchId>(), Err(InvalidBranchId), "{bad}");
            assert_eq!(BranchId::from_gid(&format!("handfast.{bad}")), None, "{bad}");
        }
        assert_eq!(BranchId::from_gid(&text), None);
        let xid = branch().xid();
        for bad in [
            xid.replace(&FORMAT_ID.to_string(), "1"),
            xid.replace("X'32", "X'"),
            xid.replace("X'01", "X'zz"),
            format!("{xid},1"),
            "'a','b',1".to_owned(),
        ] {
            assert_eq!(BranchId::from_xid(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_branch_knows_its_store() {
        assert!(branch().belongs_to(StoreId(0x1122_3344_5566_7788)));
        assert!(!branch().belongs_to(StoreId(0x1122_3344_5566_7789)));
    }
}
