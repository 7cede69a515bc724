//! Which path leads where, and what a request passes on its way.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};

use super::authentication::{self, Authentication};
use super::bodies::{self, Bodies};
use super::error::{self, ApiError};
use super::guard::{self, Guard};
use super::health::{self, Readiness};
use super::legacy;
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

/// The whole of HTTP. There is no `rest` where another server than the product is served.
pub(super) fn router<H: Handlers>(
    config: &HttpConfig,
    authenticator: Authenticator,
    mcp: StreamableHttp<H>,
    rest: Option<Rest>,
) -> Router {
    let guard = Guard::new(config);
    let metadata = Metadata::new(authenticator.clone());
    let authentication = Authentication::new(authenticator, metadata.clone());
    let streamable = any(streamable::<H>).layer(map_response(error::in_one_shape));
    let mut for_clients = Router::new().route("/mcp", streamable).with_state(mcp);
    let bodies = Bodies::new(config.patience.body, &config.bounds);
    let (mut for_operators, mut for_programs, mut for_anybody) = (Router::new(), Router::new(), Router::new());
    if let Some(Rest { sse, readiness, metrics, api }) = rest {
        for_programs = rest::router(api, authentication.clone(), &bodies);
        let legacy = Router::new().route("/sse", get(legacy::events)).route("/messages", post(legacy::message));
        for_clients = for_clients.merge(legacy.with_state(sse));
        for_operators = Router::new()
            .route("/metrics", get(metrics::show))
            .with_state(metrics)
            .layer(from_fn_with_state(authentication.clone(), metrics::for_operators))
            .layer(from_fn_with_state(authentication.clone(), authentication::authenticate));
        // Whoever probes the server names it as it likes, and learns nothing.
        let probes = Router::new().route("/healthz", get(health::live)).route("/readyz", get(health::ready));
        for_anybody = probes.with_state(readiness);
    }
    let for_clients = for_clients
        .layer(from_fn_with_state(authentication.clone(), step_up::step_up))
        .layer(from_fn_with_state(bodies, bodies::read))
        .layer(from_fn_with_state(authentication, authentication::authenticate));
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

async fn streamable<H: Handlers>(
    State(mcp): State<StreamableHttp<H>>,
    Extension(identity): Extension<Identity>,
    request: Request,
) -> Response {
    mcp.serve(identity, request).await.unwrap_or_else(|failure| ApiError::from(failure).into_response())
}
