//! Stable hashes. Their values are written to the journal, so they must never change.
//!
//! Keys and requests are hashed by FNV-1a with 64 bits (offset basis `cbf29ce484222325`, prime
//! `100000001b3`), as in the IETF draft by Fowler, Noll, Vo and Eastlake; what is in events by
//! [`of_bytes`], which is faster. Neither withstands somebody who looks for collisions, and need
//! not: a collision of keys costs a publisher some parallelism of his own events, one of requests
//! needs the same idempotency key too, and one of batches the same producer and number.

use handfast_core::ids::KeyHash;

const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// FNV-1a with 64 bits.
#[derive(Clone, Copy)]
pub(crate) struct Fnv(u64);

impl Fnv {
    pub(crate) fn new() -> Self {
        Self(BASIS)
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
        self
    }

    pub(crate) fn number(self, value: u64) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    /// With its length first, so that what follows cannot be taken for a part of it.
    pub(crate) fn text(self, text: &[u8]) -> Self {
        self.number(text.len() as u64).bytes(text)
    }

    pub(crate) fn finish(self) -> u64 {
        self.0
    }
}

/// What [`of_bytes`] starts from, and multiplies with: odd, and with bits all over.
pub(crate) const SEED: u64 = 0xd6e8_feb8_6659_fd93;
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Takes another number into a hash.
pub(crate) fn mix(hash: u64, number: u64) -> u64 {
    let wide = u128::from(hash ^ number) * u128::from(MULTIPLIER);
    wide as u64 ^ (wide >> 64) as u64
}

/// A hash of bytes, eight at a time: several times as fast as FNV, for what every publish has to be
/// hashed for. `kind` keeps apart what the same bytes may stand for.
pub(crate) fn of_bytes(kind: u32, bytes: &[u8]) -> u64 {
    let mut hash = mix(SEED ^ u64::from(kind), bytes.len() as u64);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = mix(hash, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(hash, u64::from_le_bytes(last))
}

/// The hash of an ordering key: FNV-1a 64 over its UTF-8 bytes.
#[must_use]
pub fn key_hash(key: &str) -> KeyHash {
    KeyHash(Fnv::new().bytes(key.as_bytes()).finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published test values of FNV-1a 64: if these fail, stored hashes no longer match.
    #[test]
    fn the_hash_never_changes() {
        assert_eq!(key_hash(""), KeyHash(0xcbf2_9ce4_8422_2325));
        assert_eq!(key_hash("a"), KeyHash(0xaf63_dc4c_8601_ec8c));
        assert_eq!(key_hash("foobar"), KeyHash(0x8594_4171_f739_67e8));
    }

    /// As the same few lines in another language give them.
    #[test]
    fn the_hash_of_bytes_never_changes() {
        assert_eq!(of_bytes(0, b""), 0xd79b_0957_4bb4_eca3);
        assert_eq!(of_bytes(0, b"\0"), 0x515e_bb6d_4e54_ea37);
        assert_eq!(of_bytes(7, b"foobar"), 0xd11a_264d_75f1_16a5);
        assert_eq!(of_bytes(7, b"a batch of events"), 0x7bdf_12ac_abc9_2dfd);
    }
}
