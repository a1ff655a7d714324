//! What the headers of a request say about it before anything of it is read: whether it is gRPC, and
//! how much time it has.

use std::time::Duration;

use axum::body::Body as AxumBody;
use axum::http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use handfast_core::refusal::{Code, Refusal};
use handfast_wire::edge::Edge;
use handfast_wire::status::status;
use tonic::Status;

use super::arriving::Kind;

/// The services of the contract, whose messages are looked through before they are decoded.
const CONTRACT: &str = "/handfast.v1.";
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// A request, as its headers tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) kind: Kind,
    /// What its caller gives it; none: as long as it takes.
    pub(super) time: Option<Duration>,
}

impl Asked {
    /// What is asked for, or the answer to who speaks something that nobody here does.
    pub(super) fn of<B>(request: &Request<B>) -> Result<Self, Box<Response<AxumBody>>> {
        let (headers, path) = (request.headers(), request.uri().path());
        let kind = match Speech::of(headers) {
            Speech::Grpc if path.starts_with(CONTRACT) => Kind::Contract,
            Speech::Grpc => Kind::Other,
            Speech::GrpcOver => return Err(Box::new(unsupported().into_http())),
            Speech::Http if names_a_call(path) => return Err(Box::new(not_grpc())),
            Speech::Http => return Ok(Self { kind: Kind::Plain, time: None }),
        };
        let time = time(headers).map_err(|status| Box::new(status.into_http()))?;
        Ok(Self { kind, time })
    }
}

/// What somebody speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speech {
    /// gRPC over protobuf.
    Grpc,
    /// gRPC over something else.
    GrpcOver,
    Http,
}

impl Speech {
    fn of(headers: &HeaderMap) -> Self {
        let Some(content) = headers.get(header::CONTENT_TYPE) else { return Self::Http };
        let Some(rest) = content.as_bytes().strip_prefix(b"application/grpc") else {
            return Self::Http;
        };
        match rest.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii() {
            b"" | b"+proto" => Self::Grpc,
            [b'+', ..] => Self::GrpcOver,
            // Such as application/grpc-web.
            _ => Self::Http,
        }
    }
}

/// Whether a path is that of a call: the full name of its service is first, and that has a dot.
fn names_a_call(path: &str) -> bool {
    path.split('/').nth(1).is_some_and(|service| service.contains('.'))
}

fn unsupported() -> Status {
    Edge::UnsupportedMediaType.status("the content type of a call is application/grpc")
}

/// Who does not speak gRPC does not look for a status: it is told in both languages.
fn not_grpc() -> Response<AxumBody> {
    let status = unsupported();
    let text = format!("{}: {}\n", Edge::UnsupportedMediaType.as_str(), status.message());
    let mut response = (StatusCode::UNSUPPORTED_MEDIA_TYPE, text).into_response();
    status.add_header(response.headers_mut()).expect("text and base64 are fit for headers");
    response
}

/// The time that a call is given (`grpc-timeout`): up to eight digits, and a unit.
fn time(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get(TIMEOUT) else { return Ok(None) };
    let time = value.to_str().ok().and_then(time_of);
    time.map(Some).ok_or_else(|| {
        let detail = "`grpc-timeout`: expected up to eight digits and one of H, M, S, m, u, n";
        status(Refusal::new(Code::Malformed, detail))
    })
}

fn time_of(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_time_is_read_as_grpc_writes_it() {
        assert_eq!(time_of("2S"), Some(Duration::from_secs(2)));
        assert_eq!(time_of("100m"), Some(Duration::from_millis(100)));
        assert_eq!(time_of("2000u"), Some(Duration::from_millis(2)));
        assert_eq!(time_of("0n"), Some(Duration::ZERO));
        assert_eq!(time_of("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        for not_one in ["", "S", "1", "1s", "123456789S", "-1S", "+1S", "1 S", "1µ"] {
            assert_eq!(time_of(not_one), None, "{not_one:?}");
        }
    }

    fn asked(path: &str, content: &str) -> Result<Kind, StatusCode> {
        let request = Request::post(path).header(header::CONTENT_TYPE, content);
        let request = request.body(()).expect("it is a request");
        Asked::of(&request).map(|asked| asked.kind).map_err(|response| response.status())
    }

    #[test]
    fn only_grpc_over_protobuf_is_a_call() {
        let call = "/handfast.v1.Server/Status";
        for yes in ["application/grpc", "application/grpc+proto", "application/grpc; charset=utf-8"]
        {
            assert_eq!(asked(call, yes), Ok(Kind::Contract), "{yes}");
            assert_eq!(asked("/grpc.health.v1.Health/Check", yes), Ok(Kind::Other), "{yes}");
        }
        assert_eq!(asked(call, "application/grpc+json"), Err(StatusCode::OK), "it has a status");
        for no in ["application/grpc-web", "application/json", "text/plain", ""] {
            assert_eq!(asked(call, no), Err(StatusCode::UNSUPPORTED_MEDIA_TYPE), "{no}");
            assert_eq!(asked("/metrics", no), Ok(Kind::Plain), "{no}");
        }
    }
}
