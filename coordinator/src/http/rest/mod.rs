//! REST: `/api/v1`, its description (OpenAPI 3.1) and a page that shows it.
//!
//! An operation becomes a call of the tool that does the same, or is recorded as one: credentials, limits and the log
//! are those of every call.
//!
//! *Invariant*: nothing is done to a session here but through [`crate::tools`], and no handler answers without a record.

mod api;
mod approvals;
mod archive;
mod archive_body;
mod archive_import;
mod archive_links;
mod asked;
mod description;
mod docs;
mod download;
mod events;
mod extract;
mod files;
mod idempotency;
mod listing;
mod logs;
mod operators;
mod page;
mod places;
mod sessions;
mod tail;
mod task_view;
mod tasks;
mod tokens;
mod workers;

use axum::extract::{DefaultBodyLimit, Extension};
use axum::middleware::from_fn_with_state;
use axum::routing::{Router, get};
use utoipa_axum::router::OpenApiRouter;

use super::authentication::{self, Authentication};
use super::bodies::{self, Bodies};
use super::error::ApiError;

pub(super) use api::Api;
pub use operators::Plant;

/// Where the operations are.
const BASE: &str = "/api/v1";
/// The largest body in JSON, in bytes: code, its input and its environment fit.
const JSON_BYTES_MAX: usize = 16 << 20;

/// Every operation whose body is read whole before it.
fn all() -> OpenApiRouter<Api> {
    let of_sessions = sessions::router().merge(listing::router()).merge(files::router()).merge(tasks::router());
    let of_sessions = of_sessions.merge(logs::router()).merge(archive::router());
    of_sessions
        .merge(events::router())
        .merge(operators::router())
        .merge(workers::router())
        .merge(approvals::router())
        .merge(tokens::router())
}

/// Everything below `/api`.
pub(super) fn router(api: Api, authentication: Authentication, bodies: &Bodies) -> Router {
    let file_bytes = usize::try_from(api.limits().file_bytes).unwrap_or(usize::MAX);
    let bodies = bodies.of_at_most(file_bytes.max(JSON_BYTES_MAX));
    // An archive is larger than anything that is held.
    let inflowing = OpenApiRouter::new()
        .nest(BASE, archive_import::router())
        .with_state(api.clone())
        .layer(Extension(bodies.clone()))
        .layer(from_fn_with_state(api.clone(), idempotency::once_without_body));
    let operations = OpenApiRouter::with_openapi(description::frame())
        .nest(BASE, all())
        .with_state(api.clone())
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(api, idempotency::once))
        .layer(from_fn_with_state(bodies, bodies::read))
        .merge(inflowing)
        .layer(from_fn_with_state(authentication, authentication::authenticate));
    let (operations, description) = operations.split_for_parts();
    let description = description::Description::new(description);
    let for_anybody = Router::new()
        .route("/api/openapi.json", get(description::document))
        .route("/api/docs", get(docs::page))
        .route("/api/docs.css", get(docs::style))
        .with_state(description);
    operations
        .merge(for_anybody)
        .fallback(|| async { ApiError::not_found() })
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
}
