//! Every status that leaves has a stable code, whoever made it: the transport, the generated stubs
//! and the services of others refuse by themselves, without one.
//!
//! This is the last thing that sees a status, in the headers of an answer or behind its messages.
//! Of an answer that is OK, and of a status that has its code, nothing is changed or allocated.

use axum::http::{HeaderMap, HeaderName};
use handfast_wire::edge;
use tonic::Status;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// Gives the status in these headers or trailers a code, if there is one and it has none.
pub(super) fn with_code(headers: &mut HeaderMap) {
    let Some(code) = headers.get(STATUS) else { return };
    if code.as_bytes() == b"0" || headers.contains_key(DETAILS) {
        return;
    }
    let bare = Status::from_header_map(headers);
    let Some(status) = bare.as_ref().and_then(edge::coded) else { return };
    if status.code() == tonic::Code::Internal {
        tracing::error!("an answer without a code: {bare:?}");
    }
    // What else they say (the encodings that would be taken) stays.
    status.add_header(headers).expect("text and base64 are fit for headers");
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use handfast_core::refusal::{Code, Refusal};
    use handfast_wire::status;

    use super::*;

    fn left(mut headers: HeaderMap) -> HeaderMap {
        with_code(&mut headers);
        headers
    }

    #[test]
    fn whatever_status_somebody_makes_has_a_code_when_it_leaves() {
        // 17 is no status at all.
        for code in 1..=17 {
            let mut headers = HeaderMap::new();
            headers.insert(STATUS, HeaderValue::from(code));
            headers.insert("grpc-message", HeaderValue::from_static("what%20it%20says"));
            headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
            let headers = left(headers);
            let status = Status::from_header_map(&headers).expect("it is one");
            assert!(status::reason(&status).is_some(), "{status:?}");
            assert!(status.message().contains("what it says"), "{status:?}");
            assert_eq!(headers["grpc-accept-encoding"], "identity");
            assert_eq!(headers.get_all(STATUS).iter().count(), 1);
        }
    }

    #[test]
    fn what_is_ok_or_has_its_code_stays_as_it_is() {
        let mut ok = HeaderMap::new();
        assert_eq!(left(ok.clone()), ok, "the headers of an answer that goes on");
        ok.insert(STATUS, HeaderValue::from_static("0"));
        assert_eq!(left(ok.clone()), ok);
        let mut refused = HeaderMap::new();
        let refusal = Refusal::new(Code::TooManyCalls, "later");
        status::status(refusal).add_header(&mut refused).expect("headers");
        assert_eq!(left(refused.clone()), refused);
    }
}
