//! The durable log of handfast: segments, commit groups, indexes, recovery.
//!
//! [`Journal`] is the one writer of a store and [`Reader`] reads beside it; both are synchronous
//! and know nothing of transactions beyond where their records are. What the bytes are is drawn
//! in `docs/format.md`. Everything touches the disk through [`files`], so every state that a
//! power cut may leave can be tested with [`files::crash::CrashDisk`].
//!
//! 1. [`Journal::open`] replays the newest checkpoint and what follows it;
//! 2. [`Journal::append`] makes one group of records durable at a time;
//! 3. [`Journal::reader`] answers for events, chains and records that are durable.

mod check;
pub mod codec;
mod corruption;
mod create;
mod damage;
mod dump;
mod error;
pub mod files;
mod group;
mod index;
mod inventory;
mod journal;
mod layout;
mod maintenance;
mod options;
mod reader;
mod recent;
mod recovery;
mod roll;
mod scan;
mod sealed;
mod snapshot;
mod source;
mod state;
#[cfg(feature = "testing")]
pub mod testing;
mod view;

pub use check::{Report, check};
pub use corruption::Corruption;
pub use damage::{Damage, Lost};
pub use dump::{DumpItem, dump};
pub use error::Error;
pub use group::{GROUP_BYTES, Group, Space, record_bytes};
pub use index::{Reference, SegmentSummary, TopicSummary};
pub use maintenance::Compaction;
pub use options::Options;
pub use reader::{Ended, Reader};
pub use recovery::{Progress, Recovered};
pub use roll::Sealing;
pub use snapshot::Snapshot;
pub use state::Journal;
