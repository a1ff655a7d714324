//! Every status that is not OK has a stable code, whoever makes it: through every method of every
//! service that there is, with rubbish of each kind, by a client that sends bytes.

use axum::http::{Request, StatusCode};
use bytes::Bytes;
use h2::client::SendRequest;
use handfast_wire::prost::Message;
use handfast_wire::prost_types::FileDescriptorSet;
use handfast_wire::{FILE_DESCRIPTOR_SET, MESSAGE_BYTES};
use tonic::Code;

use super::*;

/// A connection on which anything can be sent.
struct Raw(SendRequest<Bytes>);

/// What a call is answered with, be it in the headers or behind the messages.
#[derive(Debug)]
struct Answer {
    http: StatusCode,
    /// None: it is no answer of gRPC.
    status: Option<Status>,
    data: Vec<u8>,
}

impl Answer {
    /// The code of a status that is not OK.
    fn code(&self) -> &str {
        let status = self.status.as_ref().unwrap_or_else(|| panic!("no status: {self:?}"));
        assert_ne!(status.code(), Code::Ok, "{self:?}");
        let code = status::reason(status).unwrap_or_else(|| panic!("no code: {self:?}"));
        // A code that there is.
        let known = handfast_core::refusal::Code::ALL.iter().map(|code| code.as_str());
        let mut known = known.chain(Edge::ALL.iter().map(|edge| edge.as_str()));
        known.find(|known| *known == code).unwrap_or_else(|| panic!("a code of nobody: {self:?}"))
    }

    fn had_no_effect(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status::refusal(status).is_some())
    }
}

impl Raw {
    async fn connect(world: &World) -> Self {
        let (requests, connection) = h2::client::handshake(world.memory.connect()).await.unwrap();
        tokio::spawn(connection);
        Self(requests)
    }

    async fn call(&self, path: &str, headers: &[(&str, &str)], body: &Bytes) -> Answer {
        let mut request = Request::post(format!("http://memory{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let mut requests = self.0.clone().ready().await.unwrap();
        let (answer, mut sending) = requests.send_request(request, false).unwrap();
        // It fails when the server has answered already.
        let _ = sending.send_data(body.clone(), true);
        let answered = async {
            let (parts, mut body) = answer.await.unwrap().into_parts();
            let mut status = Status::from_header_map(&parts.headers);
            let mut data = Vec::new();
            while let Some(bytes) = body.data().await {
                data.extend(bytes.unwrap());
            }
            if let Some(trailers) = body.trailers().await.unwrap() {
                assert!(status.is_none(), "{path}: two statuses");
                status = Status::from_header_map(&trailers);
            }
            Answer { http: parts.status, status, data }
        };
        tokio::time::timeout(NEVER, answered).await.expect("the answer does not end")
    }
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");

/// Paths of all methods of the contract and of the standard services.
fn methods() -> Vec<String> {
    let mut methods = Vec::new();
    for set in [
        FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ] {
        for file in FileDescriptorSet::decode(set).unwrap().file {
            for service in &file.service {
                for method in &service.method {
                    let (service, method) = (service.name(), method.name());
                    methods.push(format!("/{}.{service}/{method}", file.package()));
                }
            }
        }
    }
    methods
}

/// A message as gRPC frames it: flag, length, bytes.
fn framed(flag: u8, length: usize, bytes: &[u8]) -> Bytes {
    let length = u32::try_from(length).unwrap().to_be_bytes();
    [&[flag], &length[..], bytes].concat().into()
}

/// A status that tonic made before our code saw the call had no ErrorInfo, and a program could not
/// tell a refusal without effect from a call that was cut off. No test had sent anything that does
/// not decode to more than one method.
#[tokio::test]
async fn whatever_is_sent_to_whatever_method_every_status_has_a_code() {
    let world = World::new().await;
    let raw = Raw::connect(&world).await;
    let rubbish = [0xff; 32];
    let methods = methods();
    assert!(methods.len() > 40, "{methods:?}");
    for method in &methods {
        for (what, body, code) in [
            ("what does not decode", framed(0, 32, &rubbish), "malformed"),
            ("a message that ends in the middle", framed(0, 1_000, &rubbish), "malformed"),
            ("what is compressed and does not say how", framed(1, 32, &rubbish), "malformed"),
            ("a flag that there is not", framed(7, 32, &rubbish), "malformed"),
            ("too large a message", framed(0, MESSAGE_BYTES + 1, &rubbish), "too_large"),
        ] {
            let answer = raw.call(method, &[GRPC], &body).await;
            if method.contains("ServerReflection/") {
                // It ends its stream.
                assert_eq!(answer.status.as_ref().unwrap().code(), Code::Ok, "{what}: {answer:?}");
                continue;
            }
            assert_eq!(answer.code(), code, "{method}: {what}: {answer:?}");
            assert!(answer.had_no_effect(), "{method}: {what}: {answer:?}");
        }

        let headers = [GRPC, ("grpc-encoding", "gzip")];
        let answer = raw.call(method, &headers, &framed(1, 32, &rubbish)).await;
        assert_eq!(answer.code(), "unsupported_media_type", "{method}: {answer:?}");
        assert_eq!(answer.status.unwrap().code(), Code::Unimplemented);

        let headers = [("content-type", "application/grpc+json")];
        let answer = raw.call(method, &headers, &framed(0, 2, b"{}")).await;
        assert_eq!(answer.code(), "unsupported_media_type", "{method}: {answer:?}");

        for content in ["application/json", "application/grpc-web", "text/plain"] {
            let answer = raw.call(method, &[("content-type", content)], &Bytes::new()).await;
            assert_eq!(answer.http, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{method}: {content}");
            assert_eq!(answer.code(), "unsupported_media_type", "{method}: {answer:?}");
            assert!(answer.data.starts_with(b"unsupported_media_type: "), "{answer:?}");
        }

        for timeout in ["", "soon", "1", "123456789S"] {
            let headers = [GRPC, ("grpc-timeout", timeout)];
            let answer = raw.call(method, &headers, &framed(0, 0, &[])).await;
            assert_eq!(answer.code(), "malformed", "{method}: {timeout:?}: {answer:?}");
        }

        for unknown in [format!("{method}Not"), method.replacen('/', "/elsewhere.", 1)] {
            if methods.contains(&unknown) {
                continue;
            }
            let answer = raw.call(&unknown, &[GRPC], &framed(0, 0, &[])).await;
            assert_eq!(answer.code(), "unknown_method", "{unknown}: {answer:?}");
            assert_eq!(answer.status.unwrap().code(), Code::Unimplemented, "{unknown}");
        }
    }
    let answer = raw.call("/nothing", &[GRPC], &framed(0, 0, &[])).await;
    assert_eq!(answer.code(), "unknown_method", "{answer:?}");
}

/// A unary call without a message, and questions that a standard service has no answer to.
#[tokio::test]
async fn a_call_of_nothing_and_a_question_about_nothing_have_codes() {
    let world = World::new().await;
    let raw = Raw::connect(&world).await;
    let answer = raw.call("/handfast.v1.Server/Status", &[GRPC], &Bytes::new()).await;
    assert_eq!(answer.code(), "malformed", "{answer:?}");
    assert!(answer.had_no_effect(), "{answer:?}");

    let about = tonic_health::pb::HealthCheckRequest { service: "nobody".into() }.encode_to_vec();
    for method in ["Check", "Watch"] {
        let (path, body) =
            (format!("/grpc.health.v1.Health/{method}"), framed(0, about.len(), &about));
        let answer = raw.call(&path, &[GRPC], &body).await;
        assert_eq!(answer.code(), "not_found", "{answer:?}");
    }

    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    let symbol = MessageRequest::FileContainingSymbol("no.such.Thing".into());
    for (asked, code) in [(Some(symbol), "not_found"), (None, "malformed")] {
        let asked = ServerReflectionRequest { message_request: asked, ..Default::default() };
        let asked = asked.encode_to_vec();
        let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        let answer = raw.call(path, &[GRPC], &framed(0, asked.len(), &asked)).await;
        assert_eq!(answer.code(), code, "{answer:?}");
    }
}

/// The caller's time is over while a call waits, or a stream has nothing to say: the effect is
/// unknown, and the status says so. The server took no notice of the time.
#[tokio::test]
async fn what_is_late_ends_and_says_that_its_effect_is_unknown() {
    let world = World::new().await;
    let raw = Raw::connect(&world).await;
    world.topic("made").await;
    world.publish("made", 1, &["one"]).await;
    let begin = v1::BeginRequest { deadline_ms: 60_000, ..Default::default() };
    let begun = world.transactions().begin(begin).await.unwrap().into_inner();
    let get =
        v1::GetRequest { transaction_id: begun.transaction_id, wait: v1::Wait::Decided.into() };
    let read = v1::ReadRequest { topic: "made".into(), follow: true, ..Default::default() };
    for (method, message) in
        [("Transactions/Get", get.encode_to_vec()), ("Events/Read", read.encode_to_vec())]
    {
        let (path, body) = (format!("/handfast.v1.{method}"), framed(0, message.len(), &message));
        let answer = raw.call(&path, &[GRPC, ("grpc-timeout", "300m")], &body).await;
        assert_eq!(answer.code(), "deadline_exceeded", "{method}: {answer:?}");
        assert!(!answer.had_no_effect(), "{method}: {answer:?}");
        assert_eq!(answer.status.unwrap().code(), Code::DeadlineExceeded);
    }
}

/// Streams that end because the node has, and what cannot be done.
#[tokio::test]
async fn faults_have_codes_and_are_no_refusals() {
    let world = World::new().await;
    let raw = Raw::connect(&world).await;
    world.topic("made").await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let directory = file.path().join("below").to_str().unwrap().to_owned();
    let backup = v1::BackupRequest { directory }.encode_to_vec();
    let body = framed(0, backup.len(), &backup);
    let answer = raw.call("/handfast.v1.Server/Backup", &[GRPC], &body).await;
    assert_eq!((answer.code(), answer.had_no_effect()), ("failed", false), "{answer:?}");

    let read = v1::ReadRequest { topic: "made".into(), follow: true, ..Default::default() };
    let read = read.encode_to_vec();
    let body = framed(0, read.len(), &read);
    let follow = raw.call("/handfast.v1.Events/Read", &[GRPC], &body);
    let (answer, ()) = tokio::join!(follow, async {
        // In any order: the answer is the same.
        world.node.shutdown(Duration::ZERO).await;
    });
    assert_eq!((answer.code(), answer.had_no_effect()), ("stopped", false), "{answer:?}");
}
