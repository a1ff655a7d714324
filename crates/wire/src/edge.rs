//! Statuses that the edge of a server makes by itself: where a call never became a command, and
//! where nobody can say what came of one. With these every status has a stable code.
//!
//! Two kinds, which must not be taken for each other. A *refusal* had no effect, like those of the
//! core. Of a *fault* the effect is unknown: its ErrorInfo says so (`effect: unknown`), and
//! [`status::refusal`] does not take it for a refusal.

use handfast_core::refusal::{Code, Refusal};
use tonic::Status;

use crate::status;

macro_rules! edges {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $grpc:ident, $kind:ident;)*) => {
        /// A status that is not the core's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Edge { $($(#[$doc])* $variant,)* }

        impl Edge {
            /// Every one there is.
            pub const ALL: &'static [Edge] = &[$(Edge::$variant),*];

            /// Its stable code.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Its gRPC status code.
            #[must_use]
            pub fn grpc_code(self) -> tonic::Code {
                match self { $(Self::$variant => tonic::Code::$grpc,)* }
            }

            /// Whether the call certainly had no effect.
            #[must_use]
            pub fn is_refusal(self) -> bool {
                match self { $(Self::$variant => edges!(@$kind),)* }
            }
        }
    };
    (@refusal) => { true };
    (@fault) => { false };
}

edges! {
    /// The server has no such call.
    UnknownMethod = "unknown_method", Unimplemented, refusal;
    /// A standard service (health, reflection) does not know what it was asked about.
    NotFound = "not_found", NotFound, refusal;
    /// The call is not gRPC over protobuf, or its messages are compressed.
    UnsupportedMediaType = "unsupported_media_type", Unimplemented, refusal;
    /// The time that the caller gave the call is over.
    DeadlineExceeded = "deadline_exceeded", DeadlineExceeded, fault;
    /// The caller has left.
    Cancelled = "cancelled", Cancelled, fault;
    /// The server has stopped.
    Stopped = "stopped", Unavailable, fault;
    /// A file or a database did not do what was asked; the message says which.
    Failed = "failed", Internal, fault;
    /// A bug of the server.
    Internal = "internal", Internal, fault;
}

impl Edge {
    /// The status, with a sentence for people.
    #[must_use]
    pub fn status(self, detail: impl Into<String>) -> Status {
        status::coded(self.grpc_code(), self.as_str(), detail.into(), self.is_refusal())
    }
}

/// What tonic says of a call that has one message and came without it.
const NO_MESSAGE: &str = "Missing request message.";
/// How it begins to say that a message of health or reflection does not decode; those of the
/// contract are decoded by [`bounded`](crate::bounded).
const UNDECODED: &str = "failed to decode Protobuf message";

/// The status with a code, of one that tonic or a service of somebody else's (health, reflection)
/// has made; none: it is OK, or has its code already.
///
/// Only what is known to be said before a call is carried out becomes a refusal.
#[must_use]
pub fn coded(bare: &Status) -> Option<Status> {
    if bare.code() == tonic::Code::Ok || !bare.details().is_empty() {
        return None;
    }
    let message = bare.message();
    let malformed = |problem: &str| {
        let detail = format!("a message is not well-formed: {problem}");
        status::status(Refusal::new(Code::Malformed, detail))
    };
    Some(match bare.code() {
        tonic::Code::Unimplemented if message.is_empty() => {
            Edge::UnknownMethod.status("this server has no such call")
        }
        // The only other one: a message is compressed.
        tonic::Code::Unimplemented => Edge::UnsupportedMediaType.status(message),
        tonic::Code::NotFound => Edge::NotFound.status(message),
        tonic::Code::InvalidArgument => malformed(message),
        tonic::Code::Internal if message == NO_MESSAGE => malformed("there is none"),
        tonic::Code::Internal if message.starts_with(UNDECODED) => malformed(message),
        tonic::Code::DeadlineExceeded => Edge::DeadlineExceeded.status(message),
        tonic::Code::Cancelled => Edge::Cancelled.status(message),
        // Nobody is known to say this. Such as an answer that could not be encoded: what was asked
        // for may be done.
        tonic::Code::Ok
        | tonic::Code::Internal
        | tonic::Code::Unknown
        | tonic::Code::AlreadyExists
        | tonic::Code::PermissionDenied
        | tonic::Code::ResourceExhausted
        | tonic::Code::FailedPrecondition
        | tonic::Code::Aborted
        | tonic::Code::OutOfRange
        | tonic::Code::Unavailable
        | tonic::Code::DataLoss
        | tonic::Code::Unauthenticated => Edge::Internal.status(message),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_nobody_elses_and_faults_are_no_refusals() {
        for edge in Edge::ALL {
            assert!(status::code(edge.as_str()).is_none(), "{edge:?} is the core's");
            let sent = edge.status("why, for people");
            assert_eq!(sent.code(), edge.grpc_code());
            assert_eq!(status::reason(&sent).as_deref(), Some(edge.as_str()));
            assert!(coded(&sent).is_none(), "it has its code");
            match status::refusal(&sent) {
                Some(refusal) => {
                    assert!(edge.is_refusal(), "the effect of {edge:?} is unknown");
                    assert_eq!((refusal.code.as_str(), refusal.retryable), (edge.as_str(), false));
                }
                None => assert!(!edge.is_refusal(), "{edge:?} is a refusal"),
            }
        }
    }

    #[test]
    fn whatever_the_transport_says_gets_a_code() {
        for code in 1..=16 {
            let bare = Status::new(tonic::Code::from_i32(code), "what it says");
            let with = coded(&bare).expect("it had none");
            let code = status::reason(&with).expect("it has one");
            let is_refusal = status::refusal(&with).is_some();
            let known = Edge::ALL.iter().find(|edge| edge.as_str() == code);
            assert_eq!(is_refusal, known.is_none_or(|edge| edge.is_refusal()), "{with:?}");
            assert!(with.message().contains("what it says"), "{with:?}");
        }
        assert!(coded(&Status::ok("")).is_none());
    }
}
