//! The handshake, counts, health, reflection, and HTTP on the same port.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use handfast_core::limits::Limits;
use handfast_server::grpc::SERVICES;
use handfast_wire::v1;
use handfast_wire::v1::server_client::ServerClient;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::{v1 as reflection, v1alpha};
use tower::ServiceExt;

use super::*;

#[tokio::test]
async fn hello_settles_the_protocol_and_tells_the_limits() {
    let mut limits = Limits::default();
    limits.finish_wait_ms = 1_234;
    let world = World::with_limits(limits).await;
    let mut server = ServerClient::new(world.channel.clone());
    let hello = server.hello(handfast_wire::server::hello("test")).await.unwrap().into_inner();
    assert_eq!(hello.protocol, 1);
    assert_eq!(hello.server_version, handfast_server::VERSION);
    assert_eq!(*hello.store_id, world.node.info().store.0.to_be_bytes());
    assert_eq!(hello.limits.unwrap().finish_wait_ms, 1_234);

    let newer = v1::HelloRequest { client: String::new(), protocol_min: 9, protocol_max: 9 };
    let expected = (tonic::Code::FailedPrecondition, "not_supported".into());
    assert_eq!(refused(server.hello(newer).await), expected);
}

#[tokio::test]
async fn status_counts() {
    let world = World::new().await;
    world.topic("orders").await;
    world.publish("orders", 1, &["a"]).await;
    let mut server = ServerClient::new(world.channel.clone());
    let status = server.status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.topics, Some(1));
    assert_eq!(status.subscriptions, Some(0));
    assert_eq!(status.open_transactions, Some(0));
    assert_eq!(status.epoch, world.node.info().epoch);
    assert!(status.durable_lsn >= Some(2), "{status:?}");
    assert!(status.started_unix_ms > 0);
    assert!(!status.draining && !status.low_space);
}

#[tokio::test]
async fn health_follows_the_switch() {
    let world = World::new().await;
    let mut health = HealthClient::new(world.channel.clone());
    let mut ask = async |service: &str| {
        let request = HealthCheckRequest { service: service.into() };
        health.check(request).await.unwrap().into_inner().status()
    };
    for service in SERVICES.into_iter().chain([""]) {
        assert_eq!(ask(service).await, ServingStatus::Serving, "{service}");
    }
    world.health.drain().await;
    for service in SERVICES.into_iter().chain([""]) {
        assert_eq!(ask(service).await, ServingStatus::NotServing, "{service}");
    }
    let mut server = ServerClient::new(world.channel.clone());
    assert!(server.status(v1::StatusRequest {}).await.unwrap().into_inner().draining);
}

#[tokio::test]
async fn reflection_lists_every_service() {
    let world = World::new().await;
    let request = reflection::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(world.channel.clone());
    let replies = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
    let reply = replies.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = reply.message_response else {
        panic!("{reply:?}");
    };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    for service in SERVICES.into_iter().chain(["grpc.health.v1.Health"]) {
        assert!(names.contains(&service), "{service} is not in {names:?}");
    }

    // The older form is what many tools ask first.
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
                "handfast.v1.Event".into(),
            ),
        ),
    };
    let mut client =
        v1alpha::server_reflection_client::ServerReflectionClient::new(world.channel.clone());
    let replies = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
    let reply = replies.into_inner().message().await.unwrap().unwrap();
    let found = v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse;
    assert!(
        matches!(&reply.message_response, Some(r) if std::mem::discriminant(r)
            == std::mem::discriminant(&found(Default::default()))),
        "{reply:?}"
    );
}

#[tokio::test]
async fn http_is_on_the_same_port() {
    let world = World::new().await;
    world.topic("orders").await;
    let routes =
        handfast_server::routes(&world.node, &world.databases, &world.health, &Limits::default());
    let get = async |path: &str| {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = routes.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.into()).unwrap())
    };
    for (path, says) in [
        ("/", "two-phase-commit"),
        ("/livez", "alive"),
        ("/readyz", "ready"),
        ("/healthz", "ready"),
        ("/metrics", "handfast_transactions_begun_total 0"),
    ] {
        let (status, body) = get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert!(body.contains(says), "{path}: {body}");
    }
    assert_eq!(get("/nothing").await.0, StatusCode::NOT_FOUND);
    world.health.drain().await;
    assert_eq!(get("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(get("/livez").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_stopped_node_is_no_refusal() {
    let world = World::new().await;
    world.topic("orders").await;
    let (_sending, stream) = Sending::new();
    let mut replies = world.transactions().session(stream).await.unwrap().into_inner();
    world.node.shutdown(Duration::ZERO).await;
    let status = replies.message().await.expect_err("the stream ends");
    assert_eq!(status.code(), tonic::Code::Unavailable);
    let status = world.events().list_topics(v1::ListTopicsRequest {}).await.expect_err("stopped");
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert_eq!(status::refusal(&status), None, "the effect is unknown");
    assert_eq!(status::reason(&status).as_deref(), Some("stopped"));
}

#[tokio::test]
async fn a_call_that_is_not_known_is_unimplemented() {
    let world = World::new().await;
    let routes =
        handfast_server::routes(&world.node, &world.databases, &world.health, &Limits::default());
    let request = Request::post("/handfast.v1.Transactions/Guess")
        .header("content-type", "application/grpc")
        .body(Body::empty())
        .unwrap();
    let response = routes.oneshot(request).await.unwrap();
    let code = tonic::Code::Unimplemented as i32;
    assert_eq!(response.headers()["grpc-status"], code.to_string().as_str());
}

/// When nobody listens any more, what was copied is removed; the store is as it was, and another
/// backup into the same directory is whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_cancelled_leaves_nothing_behind() {
    let world = World::new().await;
    world.topic("orders").await;
    // Enough to copy that nobody has copied it before the first message is read.
    let data = v1::event::Data::TextData("x".repeat(900_000));
    for sequence in 1..=24 {
        let mut event = event(&sequence.to_string());
        event.data = Some(data.clone());
        let events = vec![v1::NewEvent { topic: "orders".into(), event: Some(event) }];
        let producer_id = vec![7; 16].into();
        let request = v1::PublishRequest { producer_id, sequence, events };
        world.events().publish(request).await.unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let mut server = ServerClient::new(world.channel.clone());
    let path = |attempt: u32| directory.path().join(format!("backup-{attempt}"));
    let request = |attempt| v1::BackupRequest { directory: path(attempt).display().to_string() };
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut progress = server.backup(request(attempt)).await.unwrap().into_inner();
        let first = progress.message().await.unwrap().unwrap();
        assert!(first.backup.is_none() && first.done_bytes < first.total_bytes, "{first:?}");
        drop(progress);
        // The file `store` is the last that is written: then the copy was faster than its listener.
        let files = || std::fs::read_dir(path(attempt)).unwrap().count();
        let is_whole = || path(attempt).join("store").exists();
        let ended = async {
            while files() > 0 && !is_whole() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(NEVER, ended).await.expect("what was copied is removed");
        if files() == 0 {
            break;
        }
    }

    world.publish("orders", 25, &["after"]).await;
    let mut progress = server.backup(request(attempt)).await.unwrap().into_inner();
    let mut last = None;
    while let Some(message) = progress.message().await.unwrap() {
        last = message.backup;
    }
    let backup = last.expect("it came to its end");
    assert_eq!(backup.store_id, world.node.info().store.0.to_be_bytes().to_vec());
    assert!(path(attempt).join("store").exists());
}
