//! Which database each name leads to, so that one that is registered twice is found (MY9).
//!
//! The first name that answers has it for as long as it is registered. It decides nothing about
//! transactions, and remembers nothing over a restart.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use handfast_core::ids::Name;

/// Databases by what tells them apart, with the name that has them.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<BTreeMap<String, Name>>);

impl Places {
    /// A name leads to this database, and to no other any more; or somebody has it already.
    pub(super) fn take(&self, database: &str, name: &Name) -> Option<Name> {
        let mut places = self.lock();
        places.retain(|place, holder| holder != name || place == database);
        let holder = places.entry(database.to_owned()).or_insert_with(|| name.clone());
        (holder != name).then(|| holder.clone())
    }

    /// A name is registered no longer, or with another URL.
    pub(super) fn leave(&self, name: &Name) {
        self.lock().retain(|_, holder| holder != name);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Name>> {
        // Nothing in here can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_has_a_database_until_it_leaves() {
        let name = |text| Name::new(text).expect("it is one");
        let (one, two) = (name("one"), name("two"));
        let places = Places::default();
        assert_eq!(places.take("a", &one), None);
        assert_eq!(places.take("a", &one), None, "it is looked at again and again");
        assert_eq!(places.take("a", &two), Some(one.clone()));
        assert_eq!(places.take("b", &two), None, "another database");
        // Started again, the same database has another name for itself.
        assert_eq!(places.take("a'", &one), None);
        assert_eq!(places.take("a", &two), None);
        places.leave(&one);
        assert_eq!(places.take("a'", &two), None);
    }
}
