//! Metrics, for those who run the server.

use axum::extract::{Extension, Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::authentication::Authentication;
use crate::identity::{Identity, InsufficientScope, Scope};
use crate::telemetry::Metrics;

/// The text format of Prometheus.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything that is counted.
pub(super) async fn show(State(metrics): State<Metrics>) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics.render()).into_response()
}

/// Lets operators through; where nobody is asked who they are, everybody.
pub(super) async fn for_operators(
    State(authentication): State<Authentication>,
    Extension(identity): Extension<Identity>,
    request: Request,
    next: Next,
) -> Response {
    if identity.scopes.has(Scope::Admin) || authentication.is_open() {
        return next.run(request).await;
    }
    let insufficient = InsufficientScope { given: identity.scopes, needed: Scope::Admin.into() };
    authentication.step_up(insufficient, None, request.extensions()).await
}
