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
use super::step_up;
use crate::config::HttpConfig;
use crate::identity::{Authenticator, Identity};
use crate::mcp::{LegacySse, StreamableHttp};
use crate::telemetry::Metrics;

/// The protocol's ways over HTTP.
pub(super) struct Transports {
    pub(super) mcp: StreamableHttp,
    pub(super) sse: LegacySse,
}

/// The whole of HTTP.
pub(super) fn router(
    config: &HttpConfig,
    authenticator: Authenticator,
    transports: Transports,
    readiness: Arc<dyn Readiness>,
    metrics: Metrics,
) -> Router {
    let guard = Guard::new(config);
    let metadata = Metadata::new(authenticator.clone(), config.tls.is_some());
    let authentication = Authentication::new(authenticator, metadata.clone());
    let legacy = Router::new()
        .route("/sse", get(legacy::events))
        .route("/messages", post(legacy::message))
        .with_state(transports.sse);
    let for_clients = Router::new()
        .route("/mcp", any(streamable).layer(map_response(error::in_one_shape)))
        .with_state(transports.mcp)
        .merge(legacy)
        .layer(from_fn_with_state(authentication.clone(), step_up::step_up))
        .layer(from_fn_with_state(Bodies::new(config.patience.body), bodies::read))
        .layer(from_fn_with_state(authentication.clone(), authentication::authenticate));
    let for_operators = Router::new()
        .route("/metrics", get(metrics::show))
        .with_state(metrics)
        .layer(from_fn_with_state(authentication.clone(), metrics::for_operators))
        .layer(from_fn_with_state(authentication, authentication::authenticate));
    // Whoever probes the server names it as it likes, and learns nothing.
    let for_anybody = Router::new().route("/healthz", get(health::live)).route("/readyz", get(health::ready));
    let of_issuer = Router::new()
        .route(WELL_KNOWN, get(metadata::metadata))
        .route(&format!("{WELL_KNOWN}/{{*path}}"), get(metadata::metadata))
        .with_state(metadata);
    for_clients
        .merge(for_operators)
        .merge(of_issuer)
        .fallback(|| async { ApiError::not_found() })
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        .layer(guard.cors())
        .layer(from_fn_with_state(guard, guard::check))
        .merge(for_anybody.with_state(readiness))
}

async fn streamable(
    State(mcp): State<StreamableHttp>,
    Extension(identity): Extension<Identity>,
    request: Request,
) -> Response {
    mcp.serve(identity, request).await.unwrap_or_else(|failure| ApiError::from(failure).into_response())
}
