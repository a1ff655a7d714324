//! Where a registered database is, as everybody has to see it who writes a marker there.
//!
//! An application's pool may lead to another database than the registered one: staging and
//! production, a restored clone, two services' URLs swapped. Its marker would be committed where
//! nobody looks, and its events would be lost. So the statement that writes the marker names the
//! table with its place and the server with its life, and the database itself refuses it anywhere
//! else, in the very transaction that it would vouch for.

use std::fmt;

use crate::{BranchId, Kind};

/// A database's own table for markers, and which server it is on.
///
/// Both become part of statements. Made by the server's side from what the database says, or from
/// what a server says with [`Home::new`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    table: String,
    identity: String,
    /// The identity as a literal of the database's.
    literal: String,
}

impl Home {
    /// What a server says of a database; none if it can be no such thing.
    #[must_use]
    pub fn new(kind: Kind, table: &str, identity: &str) -> Option<Self> {
        let (quote, rest) = match kind {
            Kind::Postgres => ('"', ".public.handfast_branch"),
            Kind::MariaDb => ('`', ".handfast_branch"),
        };
        let name = table.strip_suffix(rest)?.strip_prefix(quote)?.strip_suffix(quote)?;
        let doubled: String = [quote, quote].iter().collect();
        let closed = !name.replace(&doubled, "").contains(quote) && !name.contains('\0');
        let fits = match kind {
            // A time, written as a literal.
            Kind::Postgres => identity.bytes().all(|b| b.is_ascii_digit() || b" -:.".contains(&b)),
            // Written in hexadecimal digits.
            Kind::MariaDb => true,
        };
        let whole = !name.is_empty() && !identity.is_empty() && identity.len() <= 4_096;
        (closed && fits && whole).then(|| Self::of(kind, table.to_owned(), identity))
    }

    /// The database of this name, on a server that runs since this time.
    pub(crate) fn in_postgres(database: &str, since: &str) -> Self {
        let table = format!("\"{}\".public.handfast_branch", database.replace('"', "\"\""));
        Self::of(Kind::Postgres, table, since)
    }

    /// The database of this name, on the server that calls itself so.
    pub(crate) fn in_mariadb(database: &str, server: &str) -> Self {
        let table = format!("`{}`.handfast_branch", database.replace('`', "``"));
        Self::of(Kind::MariaDb, table, server)
    }

    fn of(kind: Kind, table: String, identity: &str) -> Self {
        let literal = match kind {
            Kind::Postgres => format!("'{identity}'"),
            // Whatever is in it, and whatever a session takes for an escape.
            Kind::MariaDb => hexadecimal(identity),
        };
        Self { table, identity: identity.to_owned(), literal }
    }

    pub(crate) fn literal(&self) -> &str {
        &self.literal
    }

    /// The marker's table with its place, quoted as the database wants it: `"name".public.handfast_branch`
    /// in PostgreSQL, `` `name`.handfast_branch `` in MariaDB.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// What the server says of itself: in PostgreSQL when it was started, to the microsecond, in
    /// MariaDB its `server_id`, host, port, directory and start.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }
}

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on the server {}", self.table, self.identity)
    }
}

fn hexadecimal(text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut literal = String::with_capacity(2 * text.len() + 3);
    literal.push_str("X'");
    for byte in text.bytes() {
        literal.push(char::from(DIGITS[usize::from(byte >> 4)]));
        literal.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    literal.push('\'');
    literal
}

/// What a marker is written with.
#[derive(Clone, Copy, Debug)]
pub struct Marker<'a> {
    /// The branch that it vouches for.
    pub branch: &'a BranchId,
    /// Where it belongs. None: to the database that the connection happens to be in.
    pub home: Option<&'a Home>,
}

impl<'a> From<&'a BranchId> for Marker<'a> {
    fn from(branch: &'a BranchId) -> Self {
        Self { branch, home: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_becomes_part_of_a_statement_only_if_it_is_a_table() {
        let since = "2026-11-30 19:00:00.000001";
        for name in ["orders", "a\"b", "a`b", "ä"] {
            let postgres = Home::in_postgres(name, since);
            assert_eq!(Home::new(Kind::Postgres, postgres.table(), since), Some(postgres));
            let mariadb = Home::in_mariadb(name, "1 at h:3306 /o'clock/ since 1");
            let read = Home::new(Kind::MariaDb, mariadb.table(), mariadb.identity());
            assert_eq!(read, Some(mariadb));
        }
        for bad in [
            "",
            "handfast_branch",
            "public.handfast_branch",
            "\"\".public.handfast_branch",
            "\"a\".private.handfast_branch",
            "\"a\"b\".public.handfast_branch",
            "\"a\"; DROP TABLE x; --\".public.handfast_branch",
            "\"a.public.handfast_branch",
            "`a`.handfast_branch",
        ] {
            assert_eq!(Home::new(Kind::Postgres, bad, since), None, "{bad}");
        }
        for bad in ["`a`b`.handfast_branch", "``.handfast_branch", "a.handfast_branch", "`a`.other"]
        {
            assert_eq!(Home::new(Kind::MariaDb, bad, "x"), None, "{bad}");
        }
        assert_eq!(Home::new(Kind::Postgres, "\"a\".public.handfast_branch", "' OR '"), None);
        assert_eq!(Home::new(Kind::Postgres, "\"a\".public.handfast_branch", ""), None);
    }
}
