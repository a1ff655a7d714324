//! What a power cut may leave on the crash disk.
//!
//! A snapshot holds all possibilities of one instant, an image is one of them.

use std::collections::BTreeMap;

use super::SECTOR;
use super::inode::{Content, Inode};
use super::names::NameChange;

/// The disk at one instant, with everything that was not synced still undecided.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(super) names: BTreeMap<String, u64>,
    pub(super) pending: Vec<NameChange>,
    pub(super) inodes: BTreeMap<u64, Inode>,
}

/// One thing that a power cut decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// A create, rename or remove: 0 it is lost, 1 it is there.
    Name {
        /// Its number since the last directory sync, from 0.
        number: usize,
        /// The name that it makes or takes away.
        name: String,
    },
    /// A sector: 0 as it was synced, n as the n-th write since then left it.
    Sector {
        /// The file's number (names may be undecided).
        file: u64,
        /// The sector's number in the file.
        sector: u64,
        /// How many writes touched it.
        versions: usize,
    },
    /// The length of a file: 0 as it was synced, 1 as it was set since. Sectors that survived
    /// make a file long enough to hold them in any case.
    Length {
        /// The file's number.
        file: u64,
        /// The synced length.
        from: u64,
        /// The length that was set.
        to: u64,
    },
}

impl Snapshot {
    /// Only what was synced.
    #[must_use]
    pub fn synced_only(&self) -> Image {
        self.choose(&mut |_| 0)
    }

    /// Everything that was written, as after the death of the process alone.
    #[must_use]
    pub fn everything(&self) -> Image {
        self.choose(&mut |unsynced| match unsynced {
            Unsynced::Sector { versions, .. } => *versions,
            Unsynced::Name { .. } | Unsynced::Length { .. } => 1,
        })
    }

    /// A random part of what was not synced; the same seed gives the same part.
    #[must_use]
    pub fn random(&self, seed: u64) -> Image {
        let mut random = Random(seed);
        // Whether most of it survives, half of it or little.
        let odds = [1, 4, 7][(random.next() % 3) as usize];
        self.choose(&mut |unsynced| {
            let survives = random.next() % 8 < odds;
            match unsynced {
                _ if !survives => 0,
                Unsynced::Sector { versions, .. } => {
                    1 + (random.next() % *versions as u64) as usize
                }
                Unsynced::Name { .. } | Unsynced::Length { .. } => 1,
            }
        })
    }

    /// An image in which the caller decides everything that is undecided. Numbers that are too
    /// large are taken as the largest there is.
    pub fn choose(&self, decide: &mut dyn FnMut(&Unsynced) -> usize) -> Image {
        let mut names = self.names.clone();
        for (number, change) in self.pending.iter().enumerate() {
            if decide(&Unsynced::Name { number, name: change.name().to_owned() }) > 0 {
                change.apply(&mut names);
            }
        }
        let mut files = BTreeMap::new();
        for (name, id) in names {
            if let Some(inode) = self.inodes.get(&id) {
                files.insert(name, decided(id, inode, decide));
            }
        }
        Image { files }
    }
}

fn decided(file: u64, inode: &Inode, decide: &mut dyn FnMut(&Unsynced) -> usize) -> Content {
    let mut content = inode.synced.clone();
    let (from, to) = (inode.synced.length, inode.written.length);
    if from != to && decide(&Unsynced::Length { file, from, to }) > 0 {
        content.truncate(to.min(from));
        content.length = to;
    }
    for (sector, versions) in &inode.unsynced {
        let all = versions.list.len();
        let chosen = decide(&Unsynced::Sector { file, sector: *sector, versions: all }).min(all);
        if chosen > 0 {
            content.sectors.insert(*sector, versions.list[chosen - 1].clone());
            let end = ((sector + 1) * SECTOR as u64).min(to.max(from));
            content.length = content.length.max(end);
        }
    }
    content
}

/// One state of the disk after a power cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub(super) files: BTreeMap<String, Content>,
}

impl Image {
    /// The names of its files.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.files.keys().cloned().collect()
    }

    /// The bytes of a file; none if there is no such file.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        self.files.get(name).map(Content::to_bytes)
    }

    /// Puts other bytes into a file, or makes it.
    pub fn replace(&mut self, name: &str, bytes: &[u8]) {
        self.files.insert(name.to_owned(), Content::from_bytes(bytes));
    }

    /// Takes a file away.
    pub fn remove(&mut self, name: &str) {
        self.files.remove(name);
    }
}

/// The splitmix64 generator (Steele, Lea, Flood 2014): small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
