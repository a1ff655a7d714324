//! What a connection asks for: streams and calls, each with its bounds, in front of the routes.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body as AxumBody;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use handfast_core::refusal::{Code, Refusal};
use handfast_wire::bounded::Arrived;
use handfast_wire::status::status;
use hyper::body::Incoming;
use hyper::service::Service as HyperService;
use tower_service::Service;

use super::Shared;
use super::arriving::{Arriving, Held, Kind};
use super::connections::Place;
use super::leaving::Leaving;
use super::rooms::Way;

/// Streams and calls that a connection may have whatever others have.
pub(super) const OWN_STREAMS: usize = 4;

/// The services of the contract, whose messages are looked through before they are decoded.
const CONTRACT: &str = "/handfast.v1.";

/// The requests of one connection.
#[derive(Clone)]
pub(super) struct Requests {
    routes: Router,
    shared: Arc<Shared>,
    place: Arc<Place>,
}

impl Requests {
    pub(super) fn new(routes: Router, shared: &Arc<Shared>, place: &Arc<Place>) -> Self {
        Self { routes, shared: Arc::clone(shared), place: Arc::clone(place) }
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Leaving>, Infallible>> + Send>>;

impl HyperService<Request<Incoming>> for Requests {
    type Response = Response<Leaving>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        let Self { shared, place, .. } = self;
        let kind = kind(&request);
        let beyond_own = place.connection.streams() >= OWN_STREAMS;
        let streaming = place.stream();
        let stream = beyond_own.then(|| Arc::clone(&shared.streams).try_acquire_owned());
        let Ok(stream) = stream.transpose() else {
            let response = too_many(kind, shared.options.streams);
            let way = Way::new(shared, streaming, None);
            return Box::pin(async { Ok(response.map(|body| Leaving::new(body, way))) });
        };
        let way = Way::new(shared, streaming, stream);
        let (held, arrived) = (Arc::new(Held::default()), Arrived::default());
        let mut request = request.map(|body| {
            let connection = &place.connection;
            AxumBody::new(Arriving::new(body, kind, shared, connection, &held, &arrived))
        });
        request.extensions_mut().insert(way.clone());
        // A router is ready at once.
        let mut answer = self.routes.clone().call(request);
        Box::pin(async move {
            let Ok(response) = poll_fn(|cx| arrived.scope(|| Pin::new(&mut answer).poll(cx))).await;
            held.answered();
            Ok(response.map(|body| Leaving::new(body, way)))
        })
    }
}

fn kind(request: &Request<Incoming>) -> Kind {
    let is_grpc = |value: &HeaderValue| value.as_bytes().starts_with(b"application/grpc");
    if !request.headers().get(header::CONTENT_TYPE).is_some_and(is_grpc) {
        Kind::Plain
    } else if request.uri().path().starts_with(CONTRACT) {
        Kind::Contract
    } else {
        Kind::Other
    }
}

/// Says that there are too many streams, to a gRPC client in its own language.
fn too_many(kind: Kind, most: usize) -> Response<AxumBody> {
    let detail = format!("{most} streams and calls of all connections are under way");
    match kind {
        Kind::Contract | Kind::Other => {
            status(Refusal::new(Code::TooManyStreams, detail)).into_http()
        }
        Kind::Plain => {
            let detail = format!("{}: {detail}\n", Code::TooManyStreams);
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], detail).into_response()
        }
    }
}
