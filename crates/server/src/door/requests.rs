//! What a connection asks for: streams and calls, each with its bounds, in front of the routes.

use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body as AxumBody;
use axum::http::{Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use handfast_core::refusal::{Code, Refusal};
use handfast_wire::bounded::Arrived;
use handfast_wire::status::status;
use hyper::body::Incoming;
use hyper::service::Service as HyperService;
use tokio::time::{Instant, timeout_at};
use tower_service::Service;

use super::Shared;
use super::arriving::{Arriving, Held, Kind};
use super::calls::Asked;
use super::connections::Place;
use super::leaving::{Leaving, late_status};
use super::rooms::Way;

/// Streams and calls that a connection may have whatever others have.
pub(super) const OWN_STREAMS: usize = 4;

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
        let beyond_own = place.connection.streams() >= OWN_STREAMS;
        let streaming = place.stream();
        let at_once = |response, streaming| -> Answer {
            Box::pin(ready(Ok(Leaving::answer(response, Way::new(shared, streaming, None)))))
        };
        let Asked { kind, time } = match Asked::of(&request) {
            Ok(asked) => asked,
            Err(refused) => return at_once(*refused, streaming),
        };
        let deadline = time.and_then(|time| Instant::now().checked_add(time));
        let stream = beyond_own.then(|| Arc::clone(&shared.streams).try_acquire_owned());
        let Ok(stream) = stream.transpose() else {
            return at_once(too_many(kind, shared.options.streams), streaming);
        };
        let way = Way::new(shared, streaming, stream);
        let (held, arrived) = (Arc::new(Held::default()), Arrived::default());
        let mut request = request.map(|body| {
            let connection = &place.connection;
            AxumBody::new(Arriving::new(body, kind, shared, connection, &held, &arrived))
        });
        request.extensions_mut().insert(way.clone());
        let late = deadline.map(|deadline| (deadline, way.clone()));
        // A router is ready at once.
        let mut answer = self.routes.clone().call(request);
        let answering = async move {
            let Ok(response) = poll_fn(|cx| arrived.scope(|| Pin::new(&mut answer).poll(cx))).await;
            held.answered();
            Ok(Leaving::answer(response, way))
        };
        let Some((deadline, way)) = late else { return Box::pin(answering) };
        Box::pin(async move {
            let Ok(response) = timeout_at(deadline, answering)
                .await
                .unwrap_or_else(|_| Ok(Leaving::answer(late_status().into_http(), way)));
            Ok(response.map(|body| body.until(deadline)))
        })
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
