//! The parts that records are made of: ids, names, participants, events.

use handfast_core::event::{Body, OffsetRange, PlacedEvent, StagedEvent};
use handfast_core::ids::{
    Digest, KeyHash, Lsn, Name, Offset, OpeningId, ProducerId, StateId, StoreId, SubscriptionId,
    TopicId, TransactionId,
};
use handfast_core::record::{
    Decision, Finished, IdempotencyKey, LocalItems, Note, Participant, ParticipantKind, Reason,
    ReasonCode, Remark, SubscriptionSettings, TopicSettings, Updater,
};

use super::{Codec, Input, Malformed};

/// A struct as its fields, one after the other. A field that is missing here does not compile.
macro_rules! fields {
    ($name:ident { $($field:ident),+ $(,)? }) => {
        impl $crate::codec::Codec for $name {
            fn put(&self, out: &mut Vec<u8>) {
                let Self { $($field),+ } = self;
                $($field.put(out);)+
            }

            fn take(
                input: &mut $crate::codec::Input,
            ) -> Result<Self, $crate::codec::Malformed> {
                Ok(Self { $($field: $crate::codec::Codec::take(input)?),+ })
            }
        }
    };
}
pub(super) use fields;

/// Ids that count up: varints.
macro_rules! varint_id {
    ($($name:ident),+) => {$(
        impl Codec for $name {
            fn put(&self, out: &mut Vec<u8>) {
                self.0.put(out);
            }

            fn take(input: &mut Input) -> Result<Self, Malformed> {
                Codec::take(input).map(Self)
            }
        }
    )+};
}

/// Ids that are spread over all values: fixed width, most significant byte first.
macro_rules! wide_id {
    ($($name:ident($inner:ty)),+) => {$(
        impl Codec for $name {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.0.to_be_bytes());
            }

            fn take(input: &mut Input) -> Result<Self, Malformed> {
                Ok(Self(<$inner>::from_be_bytes(input.array()?)))
            }
        }
    )+};
}

varint_id!(Lsn, Offset, TopicId, SubscriptionId);
wide_id!(
    TransactionId(u128),
    StoreId(u128),
    OpeningId(u128),
    StateId(u128),
    ProducerId(u128),
    KeyHash(u64),
    Digest(u64)
);

impl Codec for Name {
    fn put(&self, out: &mut Vec<u8>) {
        (self.as_str().len() as u64).put(out);
        out.extend_from_slice(self.as_str().as_bytes());
    }

    fn take(input: &mut Input) -> Result<Self, Malformed> {
        input.short_text(|text| Name::new(text).ok(), "not a name")
    }
}

impl Codec for ParticipantKind {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Service => 1,
            Self::Database => 2,
        });
    }

    fn take(input: &mut Input) -> Result<Self, Malformed> {
        match input.byte()? {
            1 => Ok(Self::Service),
            2 => Ok(Self::Database),
            _ => Err(Malformed("an unknown kind of participant")),
        }
    }
}

impl Codec for Remark {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Open => 0,
            Self::Seen => 1,
            Self::Gone => 2,
        });
    }

    fn take(input: &mut Input) -> Result<Self, Malformed> {
        match input.byte()? {
            0 => Ok(Self::Open),
            1 => Ok(Self::Seen),
            2 => Ok(Self::Gone),
            _ => Err(Malformed("an unknown remark")),
        }
    }
}

impl Codec for ReasonCode {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::VotedNo => 1,
            Self::Aborted => 2,
            Self::DeadlinePassed => 3,
            Self::Incomplete => 4,
            Self::ClientGone => 5,
            Self::CoordinatorRestarted => 6,
            Self::Operator => 7,
            Self::NotCommittedLocally => 8,
            // The core may add codes; a test walks through `ReasonCode::ALL`.
            other => panic!("the reason code {other:?} has no number in the journal"),
        });
    }

    fn take(input: &mut Input) -> Result<Self, Malformed> {
        Ok(match input.byte()? {
            1 => Self::VotedNo,
            2 => Self::Aborted,
            3 => Self::DeadlinePassed,
            4 => Self::Incomplete,
            5 => Self::ClientGone,
            6 => Self::CoordinatorRestarted,
            7 => Self::Operator,
            8 => Self::NotCommittedLocally,
            _ => return Err(Malformed("an unknown reason code")),
        })
    }
}

impl Codec for Decision {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Commit => out.push(1),
            Self::Abort(reason) => {
                out.push(2);
                reason.put(out);
            }
        }
    }

    fn take(input: &mut Input) -> Result<Self, Malformed> {
        match input.byte()? {
            1 => Ok(Self::Commit),
            2 => Ok(Self::Abort(Reason::take(input)?)),
            _ => Err(Malformed("an unknown decision")),
        }
    }
}

impl Codec for Body {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Here(bytes) => {
                out.push(1);
                bytes.put(out);
            }
            Self::InBegin { item, size } => {
                out.push(2);
                item.put(out);
                size.put(out);
            }
        }
    }

    fn take(input: &mut Input) -> Result<Self, Malformed> {
        match input.byte()? {
            1 => Ok(Self::Here(Codec::take(input)?)),
            2 => Ok(Self::InBegin { item: Codec::take(input)?, size: Codec::take(input)? }),
            _ => Err(Malformed("an unknown kind of body")),
        }
    }
}

fields!(OffsetRange { from, to });
fields!(StagedEvent { topic, key, size, body });
fields!(PlacedEvent { topic, offset, key, body });
fields!(Participant { name, kind });
fields!(IdempotencyKey { key, digest });
fields!(LocalItems { events, acknowledged });
fields!(Updater { participant, state_id });
fields!(Reason { code, participant, detail, retryable });
fields!(Finished { participant, prepare_sent_ms, voted_ms, decision_sent_ms, finished_ms, sends });
fields!(Note { wall_ms, text });
fields!(TopicSettings { retain_ms, retain_bytes, retain_unacknowledged });
fields!(SubscriptionSettings { lease_ms, max_attempts, backoff_ms, backoff_max_ms });
