//! One file of the crash disk: its synced content, its written content and what lies between.
//!
//! It knows no names and no faults.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::SECTOR;

pub(super) type Sector = Arc<[u8; SECTOR]>;

/// Bytes as sectors; one that is missing holds zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) length: u64,
    pub(super) sectors: BTreeMap<u64, Sector>,
}

impl Content {
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let sectors = bytes.chunks(SECTOR).enumerate().map(|(i, chunk)| {
            let mut sector = [0; SECTOR];
            sector[..chunk.len()].copy_from_slice(chunk);
            (i as u64, Arc::new(sector))
        });
        Self { length: bytes.len() as u64, sectors: sectors.collect() }
    }

    pub(super) fn read(&self, buffer: &mut [u8], at: u64) -> usize {
        let end = self.length.min(at.saturating_add(buffer.len() as u64));
        let mut position = at;
        while position < end {
            let within = (position % SECTOR as u64) as usize;
            let n = (SECTOR - within).min((end - position) as usize);
            let to = (position - at) as usize;
            match self.sectors.get(&(position / SECTOR as u64)) {
                Some(sector) => {
                    buffer[to..to + n].copy_from_slice(&sector[within..within + n]);
                }
                None => buffer[to..to + n].fill(0),
            }
            position += n as u64;
        }
        end.saturating_sub(at) as usize
    }

    /// What may be other than zeros, from a position on.
    pub(super) fn ranges(&self, from: u64) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for number in self.sectors.range(from / SECTOR as u64..).map(|(number, _)| *number) {
            let start = from.max(number * SECTOR as u64);
            let end = self.length.min((number + 1) * SECTOR as u64);
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                Some(_) | None if start < end => ranges.push(start..end),
                Some(_) | None => {}
            }
        }
        ranges
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length as usize];
        self.read(&mut bytes, 0);
        bytes
    }

    /// Cuts the file off; bytes behind the cut read as zeros if it grows again.
    pub(super) fn truncate(&mut self, length: u64) {
        if length < self.length {
            self.sectors.split_off(&length.div_ceil(SECTOR as u64));
            let within = (length % SECTOR as u64) as usize;
            if within > 0
                && let Some(sector) = self.sectors.get_mut(&(length / SECTOR as u64))
            {
                Arc::make_mut(sector)[within..].fill(0);
            }
        }
        self.length = length;
    }
}

/// The versions that a sector has had since it was last synced.
#[derive(Clone, Debug, Default)]
pub(super) struct Versions {
    pub(super) list: Vec<Sector>,
    /// A sync of them failed: they may be on the disk or not, and no later sync says anything.
    lost: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) synced: Content,
    pub(super) written: Content,
    pub(super) unsynced: BTreeMap<u64, Versions>,
}

impl Inode {
    pub(super) fn durable(content: Content) -> Self {
        Self { synced: content.clone(), written: content, unsynced: BTreeMap::new() }
    }

    pub(super) fn write(&mut self, bytes: &[u8], at: u64) {
        let mut done = 0;
        while done < bytes.len() {
            let position = at + done as u64;
            let number = position / SECTOR as u64;
            let within = (position % SECTOR as u64) as usize;
            let n = (SECTOR - within).min(bytes.len() - done);
            let mut sector = self.written.sectors.get(&number).map_or([0; SECTOR], |s| **s);
            sector[within..within + n].copy_from_slice(&bytes[done..done + n]);
            let sector = Arc::new(sector);
            self.written.sectors.insert(number, sector.clone());
            let versions = self.unsynced.entry(number).or_default();
            versions.list.push(sector);
            versions.lost = false;
            done += n;
        }
        self.written.length = self.written.length.max(at + bytes.len() as u64);
    }

    pub(super) fn truncate(&mut self, length: u64) {
        self.written.truncate(length);
    }

    pub(super) fn sync(&mut self) {
        let mut kept = BTreeMap::new();
        for (number, versions) in std::mem::take(&mut self.unsynced) {
            if versions.lost {
                kept.insert(number, versions);
            } else if let Some(last) = versions.list.into_iter().next_back() {
                self.synced.sectors.insert(number, last);
            }
        }
        self.unsynced = kept;
        self.synced.truncate(self.written.length.min(self.synced.length));
        self.synced.length = self.written.length;
        let behind = self.written.length.div_ceil(SECTOR as u64);
        self.synced.sectors.split_off(&behind);
        self.unsynced.split_off(&behind);
    }

    /// A sync that failed: what was to be synced is in doubt for ever.
    pub(super) fn lose(&mut self) {
        for versions in self.unsynced.values_mut() {
            versions.lost = true;
        }
    }
}
