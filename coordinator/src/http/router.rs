//! Which path leads where, and what a request passes on its way.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};

use super::authentication::{self, Authentication};
use super::bodies::{self, Bodies};
use super::error::{self, ApiError};
use super::guard::{self, Guard};
use super::health::{self, Readiness};
use super::legacy::{self, Legacy};
use super::metadata::{self, Metadata, WELL_KNOWN};
use super::metrics;
use super::rest::{self, Api};
use super::step_up;
use crate::config::HttpConfig;
use crate::identity::{Authenticator, Identity};
use crate::mcp::{Handlers, LegacySse, StreamableHttp};
use crate::telemetry::Metrics;

/// What is served beside Streamable HTTP.
#[derive(Clone)]
pub(super) struct Rest {
    pub(super) sse: LegacySse,
    pub(super) readiness: Arc<dyn Readiness>,
    pub(super) metrics: Metrics,
    pub(super) api: Api,
}

/// The whole of HTTP at an address. There is no `rest` where another server than the product is served.
pub(super) fn router<H: Handlers>(
    config: &HttpConfig,
    address: SocketAddr,
    authenticator: Authenticator,
    mcp: StreamableHttp<H>,
    rest: Option<Rest>,
) -> Router {
    let guard = Guard::new(config, address);
    let metadata = Metadata::new(authenticator.clone());
    let authentication = Authentication::new(authenticator, metadata.clone());
    let bodies = Bodies::new(config.patience.body, &config.bounds);
    let door = Door { authentication: authentication.clone(), bodies: bodies.clone(), mcp };
    let mut for_clients = Router::new().route("/mcp", any(streamable::<H>)).with_state(Arc::new(door));
    let (mut for_operators, mut for_programs, mut for_anybody) = (Router::new(), Router::new(), Router::new());
    if let Some(Rest { sse, readiness, metrics, api }) = rest {
        for_programs = rest::router(api, authentication.clone(), &bodies);
        let legacy = Router::new().route("/sse", get(legacy::events)).route("/messages", post(legacy::message));
        let legacy = legacy
            .with_state(Legacy { sse, keep_alive: config.patience.keep_alive })
            .layer(from_fn_with_state(authentication.clone(), step_up::step_up))
            .layer(from_fn_with_state(bodies, bodies::read))
            .layer(from_fn_with_state(authentication.clone(), authentication::authenticate));
        for_clients = for_clients.merge(legacy);
        for_operators = Router::new()
            .route("/metrics", get(metrics::show))
            .with_state(metrics)
            .layer(from_fn_with_state(authentication.clone(), metrics::for_operators))
            .layer(from_fn_with_state(authentication.clone(), authentication::authenticate));
        // Whoever probes the server names it as it likes, and learns nothing.
        let probes = Router::new().route("/healthz", get(health::live)).route("/readyz", get(health::ready));
        for_anybody = probes.with_state(readiness);
    }
    let of_issuer = Router::new()
        .route(WELL_KNOWN, get(metadata::metadata))
        .route(&format!("{WELL_KNOWN}/{{*path}}"), get(metadata::metadata))
        .with_state(metadata);
    for_clients
        .merge(for_operators)
        .merge(for_programs)
        .merge(of_issuer)
        .fallback(|| async { ApiError::not_found() })
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        .layer(guard.cors())
        .layer(from_fn_with_state(guard, guard::check))
        .merge(for_anybody)
}

/// What stands between a request at `/mcp` and the protocol. Not layers: each of those clones all that are further in, for
/// every request.
struct Door<H> {
    authentication: Authentication,
    bodies: Bodies,
    mcp: StreamableHttp<H>,
}

async fn streamable<H: Handlers>(State(door): State<Arc<Door<H>>>, request: Request) -> Response {
    door.authentication.let_in(request, |identity, request| door.pass(identity, request)).await
}

impl<H: Handlers> Door<H> {
    async fn pass(&self, identity: Identity, request: Request) -> Response {
        let whole = match self.bodies.gather(&identity.principal, request).await {
            Ok(whole) => whole,
            Err(refusal) => return refusal.into_response(),
        };
        let permitted = match step_up::permitted(&self.authentication, &identity, whole).await {
            Ok(permitted) => permitted,
            Err(refusal) => return refusal,
        };
        let served = self.mcp.serve(identity, permitted).await;
        error::in_one_shape(served.unwrap_or_else(|failure| ApiError::from(failure).into_response())).await
    }
}
