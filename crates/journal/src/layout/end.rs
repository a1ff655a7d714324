//! The end mark: how far the log was durable when it was written, a second ago or less. It never
//! says more than is durable, so a log that ends before it has lost its end. Written in place and
//! never synced: what a power cut leaves of it says less, or nothing.
//!
//! Without it a log that lost its last groups as a whole looks like one that never had them.

use handfast_core::ids::{Lsn, StoreId};

use super::{FORMAT, names, seed, u32_at, u64_at};
use crate::error::Error;
use crate::files::Files;

const MAGIC: &[u8; 8] = b"HFEND\n\0\0";
/// Length of the mark.
pub(crate) const BYTES: usize = 48;
const CHECKSUM: usize = BYTES - 4;

/// See the file's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EndMark {
    /// The segment that was written.
    pub(crate) segment: u64,
    /// Where its last frame ended.
    pub(crate) tail: u64,
    /// The file was this long at least.
    pub(crate) length: u64,
    /// The last record.
    pub(crate) last: Lsn,
}

impl EndMark {
    /// What the directory holds; none: nothing that checks.
    pub(crate) fn read(files: &dyn Files, store: StoreId) -> Result<Option<Self>, Error> {
        let file = match files.open(names::END) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(Error::io("open", names::END))?,
        };
        let mut bytes = [0; BYTES];
        let n = file.read_at(&mut bytes, 0).map_err(Error::io("read", names::END))?;
        Ok(Self::decode(&bytes[..n], store))
    }

    /// Damage if the newest segment ends before what was durable once.
    pub(crate) fn check(&self, segment: u64, tail: u64, length: u64) -> Result<(), Error> {
        let Self { segment: marked, tail: durable, length: was, last } = *self;
        let detail = if marked > segment {
            format!("segment {marked} with record {last} was durable, and is missing")
        } else if marked == segment && durable > tail {
            format!("the log ends here, and was durable up to record {last} at byte {durable}")
        } else if marked == segment && was > length {
            format!("the file ends here, and was {was} bytes long")
        } else {
            return Ok(());
        };
        let at = if marked == segment && durable <= tail { length } else { tail };
        Err(Error::corrupt(&names::log(segment), at, detail))
    }

    pub(crate) fn encode(&self, store: StoreId) -> [u8; BYTES] {
        let mut out = [0; BYTES];
        out[..8].copy_from_slice(MAGIC);
        for (i, word) in [self.segment, self.tail, self.length, self.last.0].iter().enumerate() {
            out[8 + 8 * i..16 + 8 * i].copy_from_slice(&word.to_le_bytes());
        }
        out[40..44].copy_from_slice(&FORMAT.to_le_bytes());
        let checksum = crc32c::crc32c_append(seed(store, self.segment), &out[..CHECKSUM]);
        out[CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// None if it does not check: then it says nothing.
    pub(crate) fn decode(bytes: &[u8], store: StoreId) -> Option<Self> {
        if bytes.len() < BYTES || bytes[..8] != MAGIC[..] || u32_at(bytes, 40) != FORMAT {
            return None;
        }
        let segment = u64_at(bytes, 8);
        let checksum = crc32c::crc32c_append(seed(store, segment), &bytes[..CHECKSUM]);
        (u32_at(bytes, CHECKSUM) == checksum).then(|| Self {
            segment,
            tail: u64_at(bytes, 16),
            length: u64_at(bytes, 24),
            last: Lsn(u64_at(bytes, 32)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_whole_or_not_at_all() {
        let store = StoreId(7);
        let mark = EndMark { segment: 3, tail: 4_096, length: 1 << 20, last: Lsn(99) };
        let bytes = mark.encode(store);
        assert_eq!(EndMark::decode(&bytes, store), Some(mark));
        assert_eq!(EndMark::decode(&bytes, StoreId(8)), None);
        assert_eq!(EndMark::decode(&bytes[1..], store), None);
        for at in 0..BYTES {
            let mut altered = bytes;
            altered[at] ^= 1;
            assert_eq!(EndMark::decode(&altered, store), None, "{at}");
        }
    }
}
