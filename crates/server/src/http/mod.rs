//! HTTP beside gRPC on the same port: health, metrics, and a page that says what this is.

mod metrics;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use handfast_wire::edge::Edge;

use crate::VERSION;
use crate::databases::Databases;
use crate::health::Health;
use crate::node::Node;

/// The routes, to be merged with those of gRPC.
pub fn routes(node: &Node, databases: &Databases, health: &Health) -> Router {
    let metrics = metrics::Metrics::new(node, databases);
    Router::new()
        .route("/", get(about))
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/healthz", get(ready))
        .with_state(health.clone())
        .route("/metrics", get(metrics::scrape).with_state(metrics))
}

async fn about() -> String {
    format!(
        "handfast {VERSION}: a durable event bus and a two-phase-commit coordinator.\n\
         \n\
         This port speaks gRPC (package handfast.v1, with reflection) and these:\n\
         \n\
         /livez     the process is alive\n\
         /readyz    it takes new work (also /healthz)\n\
         /metrics   figures in the format of Prometheus\n"
    )
}

async fn live() -> &'static str {
    "alive\n"
}

async fn ready(State(health): State<Health>) -> Response {
    if health.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "about to stop\n").into_response()
    } else {
        "ready\n".into_response()
    }
}

/// Answers what is no route: to a gRPC client in its own language.
pub(crate) async fn not_found(request: Request) -> Response {
    let is_grpc = |value: &HeaderValue| value.as_bytes().starts_with(b"application/grpc");
    if request.headers().get(header::CONTENT_TYPE).is_some_and(is_grpc) {
        let path = request.uri().path();
        return Edge::UnknownMethod.status(format!("this server has no call {path}")).into_http();
    }
    (StatusCode::NOT_FOUND, "not found; / says what is here\n").into_response()
}

/// Plain text of a given type.
fn text(content_type: &'static str, body: String) -> Response {
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}
