//! Changes of a directory that are not durable yet.

use std::collections::BTreeMap;

/// One of them.
#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Link { name: String, inode: u64 },
    Rename { from: String, to: String, inode: u64 },
    Unlink { name: String },
}

impl NameChange {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Link { name, .. } | Self::Unlink { name } => name,
            Self::Rename { to, .. } => to,
        }
    }

    pub(super) fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Link { name, inode } => {
                names.insert(name.clone(), *inode);
            }
            Self::Rename { from, to, inode } => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
            Self::Unlink { name } => {
                names.remove(name);
            }
        }
    }
}
