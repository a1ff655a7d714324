//! What files a directory holds, before any is opened.

use std::collections::BTreeSet;

use handfast_core::ids::StoreId;

use crate::error::Error;
use crate::files::Files;
use crate::layout::names::{self, Kind};
use crate::layout::store;

#[derive(Debug, Default)]
pub(crate) struct Inventory {
    pub(crate) store: bool,
    pub(crate) lock: bool,
    pub(crate) logs: BTreeSet<u64>,
    pub(crate) indexes: BTreeSet<u64>,
    pub(crate) unfinished: Vec<String>,
    foreign: Option<String>,
}

impl Inventory {
    pub(crate) fn take(files: &dyn Files) -> Result<Self, Error> {
        let mut inventory = Self::default();
        for name in files.list().map_err(Error::io("list", "."))? {
            match names::kind(&name) {
                Kind::Store => inventory.store = true,
                Kind::Lock => inventory.lock = true,
                Kind::Log(segment) => {
                    inventory.logs.insert(segment);
                }
                Kind::Index(segment) => {
                    inventory.indexes.insert(segment);
                }
                Kind::Unfinished => inventory.unfinished.push(name),
                Kind::End | Kind::Neutral => {}
                Kind::Foreign => inventory.foreign = Some(name),
            }
        }
        inventory.unfinished.sort_unstable();
        Ok(inventory)
    }

    /// Refuses a directory in which no store may be made. In a store other files are left alone.
    pub(crate) fn refuse_foreign(&self) -> Result<(), Error> {
        if self.store {
            return Ok(());
        }
        if let Some(name) = &self.foreign {
            return Err(Error::NotAStore { name: name.clone() });
        }
        // The first segment alone may be what an interrupted creation left; more may not.
        if self.logs.iter().any(|n| *n > 1) || !self.indexes.is_empty() {
            return Err(Error::corrupt(names::STORE, 0, "the file is missing"));
        }
        Ok(())
    }

    /// The segment in which writing goes on.
    pub(crate) fn newest(&self) -> Result<u64, Error> {
        let newest = self.logs.last().copied();
        let sealed = self.indexes.last().copied();
        let missing = |segment| Error::corrupt(&names::log(segment), 0, "the segment is missing");
        match (newest, sealed) {
            (None, None) => Err(missing(1)),
            (None, Some(sealed)) => Err(missing(sealed + 1)),
            // An index is written when the next segment is durable.
            (Some(newest), Some(sealed)) if sealed >= newest => Err(missing(sealed + 1)),
            (Some(newest), _) => Ok(newest),
        }
    }
}

pub(crate) fn read_store(files: &dyn Files) -> Result<StoreId, Error> {
    let file = files.open(names::STORE).map_err(Error::io("open", names::STORE))?;
    let mut bytes = [0; store::BYTES + 1];
    let n = file.read_at(&mut bytes, 0).map_err(Error::io("read", names::STORE))?;
    store::decode(&bytes[..n])
}
