//! Where the registered databases are: what every answer says that names a branch.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use handfast_core::ids::Name;

/// Where a registered database is, as those have to see it who write a marker there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Home {
    /// The marker's table, with its place.
    pub table: String,
    /// Which server it is, and which of its lives.
    pub identity: String,
}

/// Where the registered databases are that have answered.
#[derive(Debug, Default)]
pub struct Homes(RwLock<BTreeMap<Name, Home>>);

impl Homes {
    /// None has answered.
    #[must_use]
    pub const fn new() -> Self {
        Self(RwLock::new(BTreeMap::new()))
    }

    /// A database was found there.
    pub fn set(&self, database: &Name, home: Home) {
        // A panic between two changes would have left whole entries, here and below.
        let mut homes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        homes.insert(database.clone(), home);
    }

    /// It is registered no longer, or with another URL.
    pub fn remove(&self, database: &Name) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(database);
    }

    /// Where a database is; empty if it has not answered.
    #[must_use]
    pub fn of(&self, database: &Name) -> Home {
        let homes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        homes.get(database).cloned().unwrap_or_default()
    }
}
