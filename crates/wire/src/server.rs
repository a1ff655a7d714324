//! The version handshake and what the server tells about its limits.

use handfast_core::limits::{self, Limits};
use handfast_core::refusal::{Code, Refusal};

use crate::{MESSAGE_BYTES, v1};

/// The oldest protocol number that this crate speaks.
pub const PROTOCOL_MIN: u32 = 1;
/// The newest protocol number that this crate speaks.
pub const PROTOCOL_MAX: u32 = 1;

/// What a client of this crate says first. `client` is its name and version, for people.
#[must_use]
pub fn hello(client: impl Into<String>) -> v1::HelloRequest {
    v1::HelloRequest {
        client: client.into(),
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
    }
}

/// The newest protocol number that both sides speak.
///
/// # Errors
/// `invalid_argument` when the range is none; `not_supported` when there is no common number.
pub fn negotiate(request: &v1::HelloRequest) -> Result<u32, Refusal> {
    let (min, max) = (request.protocol_min, request.protocol_max);
    if min == 0 || min > max {
        let detail = format!("`protocol_min`: {min} to {max} is no range from 1");
        return Err(Refusal::new(Code::InvalidArgument, detail));
    }
    let newest = max.min(PROTOCOL_MAX);
    if newest < min.max(PROTOCOL_MIN) {
        let detail = format!(
            "the client speaks protocol {min} to {max}, the server {PROTOCOL_MIN} to {PROTOCOL_MAX}"
        );
        return Err(Refusal::new(Code::NotSupported, detail));
    }
    Ok(newest)
}

impl From<&Limits> for v1::Limits {
    fn from(limits: &Limits) -> Self {
        let bytes = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Self {
            name_bytes: bytes(limits::NAME_BYTES),
            key_bytes: bytes(limits::KEY_BYTES),
            reason_bytes: bytes(limits::REASON_BYTES),
            event_bytes: bytes(limits::EVENT_BYTES),
            batch_items: bytes(limits::BATCH_ITEMS),
            batch_bytes: bytes(limits::BATCH_BYTES),
            work_bytes: bytes(limits::WORK_BYTES),
            branches: bytes(limits::BRANCHES),
            deadline_ms: limits::DEADLINE_MS,
            default_deadline_ms: limits.default_deadline_ms,
            lease_ms: limits::LEASE_MS,
            credit: limits::CREDIT,
            finish_wait_ms: limits.finish_wait_ms,
            dedup_ms: limits.dedup_ms,
            key_age_ms: limits.key_age_ms,
            message_bytes: bytes(MESSAGE_BYTES),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_settle_on_the_newest_common_number() {
        let ask = |protocol_min, protocol_max| {
            let request = v1::HelloRequest { client: String::new(), protocol_min, protocol_max };
            negotiate(&request).map_err(|refusal| refusal.code)
        };
        assert_eq!(negotiate(&hello("test")), Ok(PROTOCOL_MAX));
        assert_eq!(ask(1, 99), Ok(PROTOCOL_MAX));
        assert_eq!(ask(98, 99), Err(Code::NotSupported));
        assert_eq!(ask(0, 1), Err(Code::InvalidArgument));
        assert_eq!(ask(2, 1), Err(Code::InvalidArgument));
    }

    #[test]
    fn limits_are_told() {
        let told = v1::Limits::from(&Limits::default());
        assert_eq!(told.event_bytes as usize, limits::EVENT_BYTES);
        assert_eq!(told.message_bytes as usize, MESSAGE_BYTES);
        assert_eq!(told.finish_wait_ms, 5_000);
    }
}
