//! Refusals on the wire: the one place that maps them to gRPC status codes, and back.
//!
//! A unary call is refused with a status that carries google.rpc.ErrorInfo (the stable code as its
//! reason) and, where the same call may succeed later, google.rpc.RetryInfo. The two messages and
//! their envelope are declared here by hand: they are three, and small.

use std::collections::BTreeMap;

use bytes::Bytes;
use handfast_core::output::Reply;
use handfast_core::refusal::{Code, Refusal};
use prost::Message;
use tonic::Status;

use crate::{Malformed, v1};

/// The domain in ErrorInfo.
pub const DOMAIN: &str = "handfast";

const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// google.rpc.Status.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// google.rpc.ErrorInfo.
#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    /// `effect`: `unknown`, of what is no refusal.
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: BTreeMap<String, String>,
}

/// In the metadata of an ErrorInfo: whether the call had an effect. Absent: it had none.
const EFFECT: &str = "effect";
const UNKNOWN: &str = "unknown";

/// google.rpc.RetryInfo.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

/// The gRPC status code of a refusal.
#[must_use]
pub fn grpc_code(code: Code) -> tonic::Code {
    match code {
        Code::InvalidArgument | Code::Malformed | Code::TooLarge | Code::InvalidDeadline => {
            tonic::Code::InvalidArgument
        }
        Code::TooManyTransactions
        | Code::TooManyCalls
        | Code::TooManyStreams
        | Code::TooManyProducers
        | Code::ArrivingBytesFull
        | Code::Unfinished
        | Code::TooSlow
        | Code::StagedBytesFull
        | Code::NoSpace
        | Code::TopicFull
        | Code::LimitReached => tonic::Code::ResourceExhausted,
        Code::Draining | Code::Pending | Code::DatabaseRefused => tonic::Code::Unavailable,
        Code::UnknownTransaction
        | Code::UnknownDatabase
        | Code::UnknownTopic
        | Code::UnknownSubscription
        | Code::UnknownDeadLetter => tonic::Code::NotFound,
        Code::KeyConflict
        | Code::SequenceConflict
        | Code::AlreadyEnlisted
        | Code::TopicExists
        | Code::SubscriptionExists => tonic::Code::AlreadyExists,
        Code::TooMany
        | Code::Closed
        | Code::NotAParticipant
        | Code::ContradictingVote
        | Code::ContradictingOutcome
        | Code::NotAttached
        | Code::WrongState
        | Code::LocalTransaction
        | Code::WrongDatabase
        | Code::MarkerNotWritten
        | Code::Deleting
        | Code::DeliveryExpired
        | Code::DeliveryStaged
        | Code::NotSubscribed
        | Code::NotSupported => tonic::Code::FailedPrecondition,
        Code::OffsetOutOfRange => tonic::Code::OutOfRange,
        Code::Damaged => tonic::Code::DataLoss,
        // The core may add codes; a test fails until they stand above.
        _ => tonic::Code::Unknown,
    }
}

/// How long to wait before the same call, in milliseconds; zero when it is not retryable.
#[must_use]
pub fn retry_after_ms(code: Code) -> u64 {
    match code {
        _ if !code.is_retryable() => 0,
        Code::Draining | Code::NoSpace | Code::TopicFull | Code::TooManyProducers => 1_000,
        _ => 200,
    }
}

/// The code of this text, if there is one.
#[must_use]
pub fn code(text: &str) -> Option<Code> {
    Code::ALL.iter().copied().find(|code| code.as_str() == text)
}

impl From<Refusal> for v1::Refusal {
    fn from(refusal: Refusal) -> Self {
        Self {
            code: refusal.code.as_str().to_owned(),
            detail: refusal.detail,
            retryable: refusal.code.is_retryable(),
            retry_after_ms: retry_after_ms(refusal.code),
        }
    }
}

impl TryFrom<v1::Refusal> for Refusal {
    type Error = Malformed;

    /// Fails for a code that a newer server may have; the message itself still says whether it is
    /// retryable.
    fn try_from(message: v1::Refusal) -> Result<Self, Malformed> {
        match code(&message.code) {
            Some(code) => Ok(Self::new(code, message.detail)),
            None => Err(Malformed::new("code", format!("{:?} is not known", message.code))),
        }
    }
}

/// The status that refuses a call, or ends a stream.
#[must_use]
pub fn status(refusal: Refusal) -> Status {
    let code = grpc_code(refusal.code);
    let mut details = vec![any(ERROR_INFO, &info(refusal.code.as_str(), true))];
    if refusal.code.is_retryable() {
        let retry_delay = Some(duration(retry_after_ms(refusal.code)));
        details.push(any(RETRY_INFO, &RetryInfo { retry_delay }));
    }
    let message = refusal.detail;
    let rpc = RpcStatus { code: code.into(), message: message.clone(), details };
    Status::with_details(code, message, Bytes::from(rpc.encode_to_vec()))
}

/// A status with a code that is not the core's.
pub(crate) fn coded(
    code: tonic::Code,
    reason: &str,
    message: String,
    had_no_effect: bool,
) -> Status {
    let details = vec![any(ERROR_INFO, &info(reason, had_no_effect))];
    let rpc = RpcStatus { code: code.into(), message: message.clone(), details };
    Status::with_details(code, message, Bytes::from(rpc.encode_to_vec()))
}

fn info(reason: &str, had_no_effect: bool) -> ErrorInfo {
    let effect = (!had_no_effect).then(|| (EFFECT.to_owned(), UNKNOWN.to_owned()));
    ErrorInfo {
        reason: reason.to_owned(),
        domain: DOMAIN.to_owned(),
        metadata: effect.into_iter().collect(),
    }
}

/// What a status of handfast's says about itself, and its details.
fn read(status: &Status) -> Option<(ErrorInfo, RpcStatus)> {
    let rpc = RpcStatus::decode(status.details()).ok()?;
    let found = rpc.details.iter().find(|detail| detail.type_url == ERROR_INFO)?;
    let info = ErrorInfo::decode(found.value.as_slice()).ok()?;
    (info.domain == DOMAIN).then_some((info, rpc))
}

/// The stable code of a status, be it a refusal or a fault; none: it is not handfast's.
#[must_use]
pub fn reason(status: &Status) -> Option<String> {
    read(status).map(|(info, _)| info.reason)
}

/// The refusal in a status; none when the status is not one: then the world failed (no connection,
/// a proxy in between, a call that was cut off, a server that has stopped), and whether the call had
/// an effect is unknown.
#[must_use]
pub fn refusal(status: &Status) -> Option<v1::Refusal> {
    let (info, rpc) = read(status)?;
    if info.metadata.get(EFFECT).is_some_and(|effect| effect == UNKNOWN) {
        return None;
    }
    let find = |url: &str| rpc.details.iter().find(|detail| detail.type_url == url);
    let retry = find(RETRY_INFO).and_then(|any| RetryInfo::decode(any.value.as_slice()).ok());
    Some(v1::Refusal {
        code: info.reason,
        detail: status.message().to_owned(),
        retryable: retry.is_some(),
        retry_after_ms: retry.and_then(|retry| retry.retry_delay).map_or(0, |delay| millis(&delay)),
    })
}

/// A bug: the core answers each command with a reply of its own kind.
pub(crate) fn foreign(reply: &Reply) -> ! {
    panic!("the core answered with another command's reply: {reply:?}")
}

fn any(url: &str, message: &impl Message) -> prost_types::Any {
    prost_types::Any { type_url: url.to_owned(), value: message.encode_to_vec() }
}

fn duration(ms: u64) -> prost_types::Duration {
    let nanos = i32::try_from(ms % 1_000 * 1_000_000).expect("less than a second");
    prost_types::Duration { seconds: i64::try_from(ms / 1_000).unwrap_or(i64::MAX), nanos }
}

fn millis(delay: &prost_types::Duration) -> u64 {
    let seconds = u64::try_from(delay.seconds).unwrap_or(0);
    let nanos = u64::try_from(delay.nanos).unwrap_or(0);
    seconds.saturating_mul(1_000).saturating_add(nanos / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_status_and_comes_back() {
        for &code in Code::ALL {
            let sent = Refusal::new(code, "why, for people");
            let status = status(sent.clone());
            assert_ne!(status.code(), tonic::Code::Unknown, "{code} is not mapped");
            assert_ne!(status.code(), tonic::Code::Ok, "{code}");
            let message = refusal(&status).expect("it is a refusal");
            assert_eq!(message, v1::Refusal::from(sent.clone()), "{code}");
            assert_eq!(message.retryable, code.is_retryable(), "{code}");
            assert_eq!(message.retry_after_ms > 0, code.is_retryable(), "{code}");
            assert_eq!(Refusal::try_from(message), Ok(sent), "{code}");
        }
    }

    #[test]
    fn a_status_of_somebody_else_is_no_refusal() {
        assert_eq!(refusal(&Status::unavailable("no route")), None);
        let garbage = Bytes::from_static(b"\xff\xff");
        assert_eq!(refusal(&Status::with_details(tonic::Code::Aborted, "x", garbage)), None);
        let foreign = ErrorInfo { domain: "example.org".into(), ..info("unknown_topic", true) };
        let rpc = RpcStatus { details: vec![any(ERROR_INFO, &foreign)], ..RpcStatus::default() };
        let bytes = Bytes::from(rpc.encode_to_vec());
        assert_eq!(refusal(&Status::with_details(tonic::Code::NotFound, "x", bytes)), None);
    }

    #[test]
    fn a_code_of_a_newer_server_stays_usable() {
        let newer = info("over_quota", true);
        let delay = RetryInfo { retry_delay: Some(duration(2_345)) };
        let details = vec![any(ERROR_INFO, &newer), any(RETRY_INFO, &delay)];
        let rpc = RpcStatus { details, ..RpcStatus::default() };
        let bytes = Bytes::from(rpc.encode_to_vec());
        let status = Status::with_details(tonic::Code::Unavailable, "later", bytes);
        let message = refusal(&status).expect("it is a refusal");
        assert!(message.retryable);
        assert_eq!((message.code.as_str(), message.retry_after_ms), ("over_quota", 2_345));
        assert!(Refusal::try_from(message).is_err());
    }
}
