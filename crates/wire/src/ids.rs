//! Ids, names and enums: the small pieces that all conversions are made of.
//!
//! Each function that reads takes the name of the field, because the sentence that refuses a value
//! has to say where it stood.

use bytes::Bytes;
use handfast_core::event::{DeliveryRef, OffsetRange};
use handfast_core::ids::{
    DeliveryToken, Name, Offset, ProducerId, StateId, StoreId, SubscriptionId, TransactionId,
};
use handfast_core::record::ParticipantKind;
use handfast_core::refusal::{Code, Refusal};

use crate::{Malformed, v1};

/// The 16 bytes of an id.
fn uuid(field: &'static str, bytes: &[u8]) -> Result<u128, Malformed> {
    match <[u8; 16]>::try_from(bytes) {
        Ok(bytes) => Ok(u128::from_be_bytes(bytes)),
        Err(_) => {
            Err(Malformed::new(field, format!("an id has 16 bytes, this has {}", bytes.len())))
        }
    }
}

fn uuid_bytes(value: u128) -> Bytes {
    Bytes::copy_from_slice(&value.to_be_bytes())
}

/// Reads the number that a client gives one of its messages, where zero stands for what the server
/// says of its own accord: an answer with it could be taken for such a message.
///
/// # Errors
/// When it is zero.
pub fn request_number(number: u64) -> Result<u64, Malformed> {
    match number {
        0 => Err(Malformed::new("request", "is zero, which is for what the server says unasked")),
        _ => Ok(number),
    }
}

/// Reads a transaction's id.
///
/// # Errors
/// When there are not 16 bytes.
pub fn transaction_id(field: &'static str, bytes: &[u8]) -> Result<TransactionId, Malformed> {
    uuid(field, bytes).map(TransactionId)
}

/// Reads a transaction's id where empty means none.
///
/// # Errors
/// When there are neither 0 nor 16 bytes.
pub fn transaction_id_or_none(
    field: &'static str,
    bytes: &[u8],
) -> Result<Option<TransactionId>, Malformed> {
    if bytes.is_empty() { Ok(None) } else { transaction_id(field, bytes).map(Some) }
}

/// Reads ids of transactions.
///
/// # Errors
/// When one of them has not 16 bytes.
pub fn transaction_ids(
    field: &'static str,
    list: &[Bytes],
) -> Result<Vec<TransactionId>, Malformed> {
    list.iter().map(|bytes| transaction_id(field, bytes)).collect()
}

/// Reads the id of a durable state.
///
/// # Errors
/// When there are not 16 bytes.
pub fn state_id(field: &'static str, bytes: &[u8]) -> Result<StateId, Malformed> {
    uuid(field, bytes).map(StateId)
}

/// Reads the id of a store.
///
/// # Errors
/// When there are not 16 bytes.
pub fn store_id(field: &'static str, bytes: &[u8]) -> Result<StoreId, Malformed> {
    uuid(field, bytes).map(StoreId)
}

/// Reads the id of a producer.
///
/// # Errors
/// When there are not 16 bytes.
pub fn producer_id(field: &'static str, bytes: &[u8]) -> Result<ProducerId, Malformed> {
    uuid(field, bytes).map(ProducerId)
}

/// A transaction's id as it travels.
#[must_use]
pub fn transaction_bytes(id: TransactionId) -> Bytes {
    uuid_bytes(id.0)
}

/// A transaction's id as it travels; none is empty.
#[must_use]
pub fn transaction_bytes_or_none(id: Option<TransactionId>) -> Bytes {
    id.map_or_else(Bytes::new, transaction_bytes)
}

/// The id of a durable state as it travels.
#[must_use]
pub fn state_bytes(id: StateId) -> Bytes {
    uuid_bytes(id.0)
}

/// The id of a store as it travels.
#[must_use]
pub fn store_bytes(id: StoreId) -> Bytes {
    uuid_bytes(id.0)
}

/// The id of a producer as it travels.
#[must_use]
pub fn producer_bytes(id: ProducerId) -> Bytes {
    uuid_bytes(id.0)
}

/// Reads a name.
///
/// # Errors
/// When it is not one; the sentence has the value.
pub fn name(field: &'static str, text: &str) -> Result<Name, Malformed> {
    Name::new(text).map_err(|problem| {
        let shown: String = text.chars().take(80).collect();
        Malformed::new(field, format!("{shown:?} is not a name: {problem}"))
    })
}

/// Reads a name where empty means none.
///
/// # Errors
/// When it is neither empty nor a name.
pub fn name_or_none(field: &'static str, text: &str) -> Result<Option<Name>, Malformed> {
    if text.is_empty() { Ok(None) } else { name(field, text).map(Some) }
}

/// A name as it travels; none is empty.
#[must_use]
pub fn name_text(name: Option<&Name>) -> String {
    name.map_or_else(String::new, |name| name.as_str().to_owned())
}

/// Refuses a list that is too long.
pub(crate) fn at_most(field: &'static str, length: usize, most: usize) -> Result<(), Refusal> {
    if length <= most {
        return Ok(());
    }
    Err(Refusal::new(Code::TooMany, format!("`{field}`: {length} are more than {most}")))
}

/// Reads an enum of the contract.
pub(crate) fn enumeration<E: TryFrom<i32>>(
    field: &'static str,
    value: i32,
) -> Result<E, Malformed> {
    E::try_from(value).map_err(|_| Malformed::new(field, format!("{value} is none of its values")))
}

/// Reads the kind of a participant; not said: a service.
///
/// # Errors
/// When it is none of the values.
pub fn participant_kind(field: &'static str, value: i32) -> Result<ParticipantKind, Malformed> {
    Ok(match enumeration::<v1::ParticipantKind>(field, value)? {
        v1::ParticipantKind::Unspecified | v1::ParticipantKind::Service => ParticipantKind::Service,
        v1::ParticipantKind::Database => ParticipantKind::Database,
    })
}

impl From<ParticipantKind> for v1::ParticipantKind {
    fn from(kind: ParticipantKind) -> Self {
        match kind {
            ParticipantKind::Service => Self::Service,
            ParticipantKind::Database => Self::Database,
        }
    }
}

impl From<v1::DeliveryRef> for DeliveryRef {
    fn from(message: v1::DeliveryRef) -> Self {
        Self {
            subscription: SubscriptionId(message.subscription_id),
            offset: Offset(message.offset),
            token: DeliveryToken(message.token),
        }
    }
}

impl From<DeliveryRef> for v1::DeliveryRef {
    fn from(reference: DeliveryRef) -> Self {
        Self {
            subscription_id: reference.subscription.0,
            offset: reference.offset.0,
            token: reference.token.0,
        }
    }
}

impl From<v1::OffsetRange> for OffsetRange {
    fn from(message: v1::OffsetRange) -> Self {
        Self { from: Offset(message.from), to: Offset(message.to) }
    }
}

impl From<OffsetRange> for v1::OffsetRange {
    fn from(range: OffsetRange) -> Self {
        Self { from: range.from.0, to: range.to.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_travel_in_network_order() {
        let id = TransactionId(0x0192_f0a1_b2c3_7d4e_8f90_a1b2_c3d4_e5f6);
        let bytes = transaction_bytes(id);
        assert_eq!(bytes[..4], [0x01, 0x92, 0xf0, 0xa1]);
        assert_eq!(transaction_id("id", &bytes), Ok(id));
        assert_eq!(transaction_id_or_none("id", &transaction_bytes_or_none(None)), Ok(None));
        assert_eq!(transaction_id_or_none("id", &bytes), Ok(Some(id)));
        for len in [0, 1, 15, 17, 36] {
            let refused = transaction_id("after", &vec![0; len]).expect_err("not 16 bytes");
            assert_eq!(refused.to_string(), format!("`after`: an id has 16 bytes, this has {len}"));
        }
    }

    #[test]
    fn a_bad_name_is_shown_but_not_all_of_it() {
        let refused = name("topic", &"ä".repeat(10_000)).expect_err("not a name");
        assert_eq!(refused.field, "topic");
        assert!(refused.problem.len() < 400, "{refused}");
    }

    #[test]
    fn kinds_survive_and_strangers_are_refused() {
        for kind in [ParticipantKind::Service, ParticipantKind::Database] {
            assert_eq!(participant_kind("kind", v1::ParticipantKind::from(kind).into()), Ok(kind));
        }
        assert_eq!(participant_kind("kind", 0), Ok(ParticipantKind::Service));
        assert!(participant_kind("kind", 77).is_err());
    }

    #[test]
    fn references_and_ranges_survive() {
        let reference = DeliveryRef {
            subscription: SubscriptionId(7),
            offset: Offset(u64::MAX),
            token: DeliveryToken(1 << 33),
        };
        assert_eq!(DeliveryRef::from(v1::DeliveryRef::from(reference)), reference);
        let range = OffsetRange { from: Offset(3), to: Offset(9) };
        assert_eq!(OffsetRange::from(v1::OffsetRange::from(range)), range);
    }
}
