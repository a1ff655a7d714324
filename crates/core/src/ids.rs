//! Identifiers and units as types, so that one cannot be taken for another.
//!
//! Nothing here makes an identifier: ids, like time and randomness, come in as arguments.

use alloc::sync::Arc;
use core::fmt;
use core::str::FromStr;

use crate::limits::NAME_BYTES;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// Log sequence number: the place of a record in the journal, from 1. Zero means "none".
    Lsn(u64)
);
number!(
    /// The place of an event in its topic, from 0. Offsets rise along the log; holes are legal.
    Offset(u64)
);
number!(
    /// A topic's internal id. Never used again, so a new topic of the same name inherits nothing.
    TopicId(u32)
);
number!(
    /// A subscription's internal id. Never used again.
    SubscriptionId(u32)
);
number!(
    /// One connected stream (or one unary call) of a client. Never used again within an epoch.
    SessionId(u64)
);
number!(
    /// Hash of an event's ordering key. A collision costs some parallelism and nothing else.
    KeyHash(u64)
);
number!(
    /// What a request says, as a number: made at the edge, compared here, looked into by nobody.
    /// Two requests with the same digest are taken for the same.
    Digest(u64)
);
number!(
    /// One attempt to deliver one event: unique over the life of the store (its high half is the
    /// epoch), so that an acknowledgement of an attempt that is over is recognised.
    DeliveryToken(u64)
);

macro_rules! uuid {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let v = self.0;
                write!(
                    f,
                    "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
                    (v >> 96) as u32,
                    (v >> 80) as u16,
                    (v >> 64) as u16,
                    (v >> 48) as u16,
                    v & 0xffff_ffff_ffff
                )
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidUuid;

            fn from_str(text: &str) -> Result<Self, InvalidUuid> {
                parse_uuid(text).map(Self)
            }
        }
    };
}

uuid!(
    /// A transaction's id: a UUIDv7 made by the server, see [`TransactionId::new`].
    TransactionId
);
uuid!(
    /// Names one data directory for ever.
    StoreId
);
uuid!(
    /// Names one opening of a store: one life of a server. Random, so that no two openings have the
    /// same, not even those of two copies of one store that were made at the same time.
    OpeningId
);
uuid!(
    /// Names one durable state of a service; instances that share it finish each other's branches.
    StateId
);
uuid!(
    /// Names one producer of events, for deduplication.
    ProducerId
);

/// The session of a database that holds a prepared branch: its number, and when its server started
/// (Unix time in seconds), because numbers begin anew with the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// The session's number in its database server.
    pub connection: u64,
    /// When that server started.
    pub server_start: u64,
}

impl Holder {
    /// As the durable state that a branch is bound to, which is what it is to the log.
    #[must_use]
    pub fn state_id(self) -> StateId {
        StateId(u128::from(self.server_start) << 64 | u128::from(self.connection))
    }

    /// The session, from what the log says; none for zero.
    #[must_use]
    pub fn from_state_id(state: StateId) -> Option<Self> {
        let (server_start, connection) = ((state.0 >> 64) as u64, state.0 as u64);
        (connection != 0).then_some(Self { connection, server_start })
    }
}

impl StoreId {
    /// Unix time in milliseconds at which the store was made: its id is a UUIDv7.
    #[must_use]
    pub fn unix_ms(self) -> u64 {
        (self.0 >> 80) as u64
    }
}

impl TransactionId {
    /// An id as a UUIDv7: 48 bits of log time in milliseconds and a counter of 12 bits, which
    /// together rise from id to id; then, where other UUIDs are random, 10 bits of the shard, 24
    /// bits of the epoch in which it was made, and the low 28 bits of the opening, which are random.
    /// So ids of one store differ whatever its clock did, and those of two copies of one
    /// life differ but for one case in 2^28. Of each number only its low bits count.
    #[must_use]
    pub fn new(tick: Tick, shard: u16, epoch: u32, opening: OpeningId) -> Self {
        const VERSION: u128 = 7 << 76;
        const VARIANT: u128 = 2 << 62;
        let (unix_ms, counter) = (tick.0 >> Tick::COUNTER_BITS, tick.0 & Tick::COUNTER);
        let node = u128::from(shard & 0x3ff) << 52
            | u128::from(epoch & Self::EPOCH) << 28
            | opening.0 & Self::OPENING;
        Self(u128::from(unix_ms) << 80 | VERSION | u128::from(counter) << 64 | VARIANT | node)
    }

    /// Log time at which the id was made, Unix time in milliseconds.
    #[must_use]
    pub fn unix_ms(self) -> u64 {
        (self.0 >> 80) as u64
    }

    /// The epoch in which the id was made, of which it has the low 24 bits.
    #[must_use]
    pub fn epoch(self) -> u32 {
        (self.0 >> 28) as u32 & Self::EPOCH
    }

    /// Whether this opening made it. Of an opening it has the epoch and 28 random bits.
    #[must_use]
    pub fn is_of(self, epoch: u32, opening: OpeningId) -> bool {
        self.epoch() == epoch & Self::EPOCH && self.0 & Self::OPENING == opening.0 & Self::OPENING
    }

    const EPOCH: u32 = 0xff_ffff;
    const OPENING: u128 = 0xfff_ffff;
}

/// A moment of log time that no other id has: milliseconds, and a counter within them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);

impl Tick {
    const COUNTER_BITS: u32 = 12;
    const COUNTER: u64 = (1 << Self::COUNTER_BITS) - 1;

    /// The first of a millisecond.
    #[must_use]
    pub fn first_of(unix_ms: u64) -> Self {
        Self(unix_ms << Self::COUNTER_BITS)
    }

    /// The millisecond.
    #[must_use]
    pub fn unix_ms(self) -> u64 {
        self.0 >> Self::COUNTER_BITS
    }
}

/// Where BEGIN of a transaction is in the log of its store: when it began, without a clock. Of two
/// transactions of one store the one with the higher value began later. The epoch belongs to it,
/// because the LSNs of a torn tail that an opening drops are given again in the next epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Began {
    /// The store. Places in the logs of two stores say nothing about each other.
    pub store: StoreId,
    /// The epoch in which it began.
    pub epoch: u32,
    /// The place of BEGIN.
    pub lsn: Lsn,
}

impl Began {
    /// Store, epoch and LSN, most significant byte first, so that the bytes of one store's
    /// transactions sort as they began.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..16].copy_from_slice(&self.store.0.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[20..].copy_from_slice(&self.lsn.0.to_be_bytes());
        bytes
    }

    /// What [`Began::to_bytes`] made; none: of another length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (store, rest) = bytes.split_first_chunk()?;
        let (epoch, rest) = rest.split_first_chunk()?;
        let lsn = Lsn(u64::from_be_bytes(rest.try_into().ok()?));
        let store = StoreId(u128::from_be_bytes(*store));
        Some(Self { store, epoch: u32::from_be_bytes(*epoch), lsn })
    }

    /// Bytes of [`Began::to_bytes`].
    pub const BYTES: usize = 28;
}

/// The text is not a UUID in its usual form of 8-4-4-4-12 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidUuid;

impl fmt::Display for InvalidUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id is written as 8-4-4-4-12 hexadecimal digits")
    }
}

impl core::error::Error for InvalidUuid {}

fn parse_uuid(text: &str) -> Result<u128, InvalidUuid> {
    let bytes = text.as_bytes();
    if bytes.len() != 36 {
        return Err(InvalidUuid);
    }
    let mut value = 0u128;
    for (i, b) in bytes.iter().enumerate() {
        if matches!(i, 8 | 13 | 18 | 23) {
            if *b != b'-' {
                return Err(InvalidUuid);
            }
            continue;
        }
        let digit = (*b as char).to_digit(16).ok_or(InvalidUuid)?;
        value = (value << 4) | u128::from(digit);
    }
    Ok(value)
}

/// A name of a topic, subscription, participant or instance: 1 to [`NAME_BYTES`] bytes out of
/// `A-Z a-z 0-9 . _ -`, the first a letter or a digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Checks the text and takes it as a name.
    ///
    /// # Errors
    /// [`InvalidName`] when it is empty, too long, or has a character outside the alphabet.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let mut bytes = text.bytes();
        let first_fits = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest_fits = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if first_fits && rest_fits && text.len() <= NAME_BYTES {
            Ok(Self(Arc::from(text)))
        } else {
            Err(InvalidName)
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl core::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidName;

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a name is 1 to {NAME_BYTES} characters out of A-Z a-z 0-9 . _ - and starts with a \
             letter or a digit"
        )
    }
}

impl core::error::Error for InvalidName {}

/// The instant at which something is handled. The core has no clock of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Now {
    /// Milliseconds on a clock that never goes back; all deadlines are on it.
    pub mono_ms: u64,
    /// Log time, Unix time in milliseconds: never before any time in the log. For people, and for
    /// ages: what retention, idempotency keys and outcomes are kept by. It decides no transaction.
    pub wall_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_uuid_survives_its_text() {
        let id = TransactionId(0x0192_f0a1_b2c3_7d4e_8f90_a1b2_c3d4_e5f6);
        assert_eq!(id.to_string(), "0192f0a1-b2c3-7d4e-8f90-a1b2c3d4e5f6");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.unix_ms(), 0x0192_f0a1_b2c3);
        for bad in ["", "0192f0a1", "0192f0a1-b2c3-7d4e-8f90-a1b2c3d4e5fg"] {
            assert_eq!(bad.parse::<TransactionId>(), Err(InvalidUuid), "{bad}");
        }
    }

    #[test]
    fn a_transaction_id_is_a_uuid_of_version_7_that_rises_with_its_tick() {
        let at = Tick::first_of(0x0192_f0a1_b2c3);
        let id = TransactionId::new(Tick(at.0 + 5), 1, 0x0012_3456, OpeningId(0x0abc_def0));
        assert_eq!(id.to_string(), "0192f0a1-b2c3-7005-8011-23456abcdef0");
        assert_eq!((id.unix_ms(), id.epoch()), (0x0192_f0a1_b2c3, 0x0012_3456));
        // Nothing of a number that is too large reaches its neighbours.
        let full = TransactionId::new(Tick(at.0 + 4_095), u16::MAX, u32::MAX, OpeningId(u128::MAX));
        assert_eq!(full.to_string(), "0192f0a1-b2c3-7fff-bfff-ffffffffffff");
        let next = TransactionId::new(Tick(at.0 + 4_096), 0, 0, OpeningId(0));
        assert_eq!((next.unix_ms(), full.unix_ms()), (at.unix_ms() + 1, at.unix_ms()));
        assert!(id < full && full < next);
    }

    #[test]
    fn places_sort_as_their_bytes_and_come_back() {
        let began = |epoch, lsn| Began { store: StoreId(7), epoch, lsn: Lsn(lsn) };
        let rising = [began(0, 0), began(1, u64::MAX), began(2, 1), began(2, 256), began(300, 2)];
        for pair in rising.windows(2) {
            assert!(pair[0] < pair[1] && pair[0].to_bytes() < pair[1].to_bytes(), "{pair:?}");
        }
        for began in rising {
            let bytes = began.to_bytes();
            assert_eq!(Began::from_bytes(&bytes), Some(began));
            assert_eq!(Began::from_bytes(&bytes[1..]), None);
        }
    }

    #[test]
    fn names_have_a_closed_alphabet() {
        for good in ["a", "orders.v2", "7-up", "A_b"] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        let long = "x".repeat(NAME_BYTES + 1);
        for bad in ["", ".a", "-a", "a b", "a/b", "ä", "a\n", &long] {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
    }
}
