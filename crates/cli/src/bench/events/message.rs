//! What is in an event of `bench events`: the number of its key, the how-manieth of it, and when it
//! was sent.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The part of an event's data that says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// The number of its key, which one caller has.
    pub(super) key: u32,
    /// From 0, by key and topic.
    pub(super) number: u64,
    /// When it was sent, Unix time. Both ends are on one machine and have one clock.
    pub(super) sent_ns: u64,
    /// Its latency counts.
    pub(super) counts: bool,
}

impl Message {
    /// As data of this many bytes, at least 32.
    pub(super) fn data(&self, size: u32) -> Vec<u8> {
        let mut data = vec![b'.'; size as usize];
        data[..4].copy_from_slice(&self.key.to_be_bytes());
        data[4..12].copy_from_slice(&self.number.to_be_bytes());
        data[12..20].copy_from_slice(&self.sent_ns.to_be_bytes());
        data[20] = u8::from(self.counts);
        data
    }

    /// None: it is not one.
    pub(super) fn read(data: &[u8]) -> Option<Self> {
        Some(Self {
            key: u32::from_be_bytes(*data.first_chunk()?),
            number: u64::from_be_bytes(*data.get(4..)?.first_chunk()?),
            sent_ns: u64::from_be_bytes(*data.get(12..)?.first_chunk()?),
            counts: *data.get(20)? == 1,
        })
    }

    /// How long ago it was sent.
    pub(super) fn age(&self) -> Duration {
        Duration::from_nanos(unix_ns().saturating_sub(self.sent_ns))
    }
}

/// Now, in nanoseconds since 1970.
pub(super) fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let message = Message { key: 7, number: 1 << 40, sent_ns: 99, counts: true };
        assert_eq!(Message::read(&message.data(32)), Some(message));
        assert_eq!(message.data(300).len(), 300);
        assert_eq!(Message::read(b"short"), None);
    }
}
