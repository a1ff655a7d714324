//! A disk in memory that remembers what is durable and what is not, so that every state that a
//! power cut may leave behind can be looked at.
//!
//! It keeps the contents of each file as they were at its last sync, every later version of each
//! 512-byte sector, and the directory operations since the last directory sync. It must never be
//! kinder than a real disk: unsynced sectors survive in any combination, and a failed sync makes
//! nothing durable, not even when it is repeated.

mod disk;
mod image;
mod inode;
mod names;

pub use disk::{CrashDisk, Fault};
pub use image::{Image, Snapshot, Unsynced};

/// The unit that a disk writes as a whole.
pub const SECTOR: usize = 512;
