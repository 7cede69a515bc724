//! `/sessions`: made, listed, described, changed and closed.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::Api;
use super::asked::Asked;
use super::extract::{InBody, InPath, InQuery};
use super::idempotency::Repeatable;
use super::page::{self, PageQuery, Place};
use crate::http::error::ApiError;
use crate::tools::{SessionCloseOutput, SessionInfoOutput, SessionView};

/// A new session.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSession {
    /// A name for people; it need not be unique.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Your own notes about the session, at most 16 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<BTreeMap<String, Value>>,
    /// Idle seconds after which the session's processes are ended; its files stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 604_800)]
    ttl_seconds: Option<u64>,
    /// Labels that its worker must carry, at most 16.
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<BTreeMap<String, String>>,
    /// What it may reach outside; left out: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<NewNetwork>,
    /// Waits so many seconds for a free slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 300)]
    wait_seconds: Option<u64>,
}

/// What a session may reach, within what the operator permits.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewNetwork {
    /// Hosts, as `name` or `name:port`, at most 64.
    #[schema(max_items = 64)]
    allow: Vec<String>,
    /// The names of secrets of the operator that are put into requests, at most 16.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 16)]
    secrets: Option<Vec<String>>,
}

/// What changes of a session. What is left out stays.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionChange {
    /// A new name.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Notes to set. They are merged into what is there, and a null removes its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<BTreeMap<String, Value>>,
    /// Replaces all notes instead of merging.
    #[serde(skip_serializing_if = "Option::is_none")]
    replace_metadata: Option<bool>,
    /// New idle seconds after which the session's processes are ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 604_800)]
    ttl_seconds: Option<u64>,
}

/// A page of sessions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SessionPage {
    /// The sessions, oldest first.
    sessions: Vec<SessionView>,
    /// Goes on after the last one; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Which sessions.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SessionFilter {
    /// Whether closed sessions are listed, too.
    include_closed: Option<bool>,
    /// At most so many entries. Default 50.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(max_length = 256)]
    cursor: Option<String>,
}

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(get, update, close))
}

/// Make a session
///
/// An isolated workspace with its own Python and shell. Its handle works until the session is closed.
#[utoipa::path(post, path = "/sessions", tag = "sessions", operation_id = "create_session", params(Repeatable), request_body = NewSession, responses(
    (status = 201, description = "It is made", body = SessionView, headers(("location" = String, description = "Where it is"))),
))]
async fn create(State(api): State<Api>, asked: Asked, InBody(new): InBody<NewSession>) -> Result<Response, ApiError> {
    let session = api.structured(&asked, "session_create", json!(new)).await?;
    let location = format!("{}/sessions/{}", super::BASE, session["session_id"].as_str().unwrap_or_default());
    let location = HeaderValue::try_from(location).map_err(|error| ApiError::internal(&error))?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(session)).into_response())
}

/// List your sessions
#[utoipa::path(get, path = "/sessions", tag = "sessions", operation_id = "list_sessions", params(SessionFilter), responses(
    (status = 200, description = "A page of them, the oldest first", body = SessionPage, headers(("link" = String, description = "Where the next page is"))),
))]
async fn list(
    State(api): State<Api>,
    asked: Asked,
    OriginalUri(uri): OriginalUri,
    InQuery(filter): InQuery<SessionFilter>,
) -> Result<Response, ApiError> {
    let SessionFilter { include_closed, limit, cursor } = filter;
    let mut listed =
        api.structured(&asked, "session_list", json!({"include_closed": include_closed.unwrap_or(false)})).await?;
    let Some(Value::Array(sessions)) = listed.get_mut("sessions").map(Value::take) else {
        return Ok(Json(listed).into_response());
    };
    let (sessions, next) = page::of(sessions, &PageQuery { limit, cursor }, place, |one, other| one > other)?;
    Ok(page::answer("sessions", sessions, next, &uri))
}

fn place(session: &Value) -> Place {
    let text = |name: &str| session[name].as_str().unwrap_or_default();
    let made: Option<jiff::Timestamp> = text("created_at").parse().ok();
    (made.map_or(0, jiff::Timestamp::as_millisecond), text("session_id").to_owned())
}

/// Describe a session
#[utoipa::path(get, path = "/sessions/{session_id}", tag = "sessions", operation_id = "get_session", params(("session_id" = String, Path, description = "The session's handle")), responses(
    (status = 200, description = "How it is, and what you may use and use", body = SessionInfoOutput),
))]
async fn get(State(api): State<Api>, asked: Asked, InPath(session): InPath<String>) -> Result<Json<Value>, ApiError> {
    Ok(Json(api.structured(&asked, "session_info", json!({"session_id": session})).await?))
}

/// Change a session's description
#[utoipa::path(patch, path = "/sessions/{session_id}", tag = "sessions", operation_id = "update_session", params(("session_id" = String, Path, description = "The session's handle"), Repeatable), request_body = SessionChange, responses(
    (status = 200, description = "How it is now", body = SessionView),
))]
async fn update(
    State(api): State<Api>,
    asked: Asked,
    InPath(session): InPath<String>,
    InBody(change): InBody<SessionChange>,
) -> Result<Json<Value>, ApiError> {
    let mut args = in_session(&session);
    if let Value::Object(change) = json!(change) {
        args.extend(change);
    }
    Ok(Json(api.structured(&asked, "session_update", Value::Object(args)).await?))
}

/// Close a session for good
///
/// Its processes are ended and its files deleted.
#[utoipa::path(delete, path = "/sessions/{session_id}", tag = "sessions", operation_id = "close_session", params(("session_id" = String, Path, description = "The session's handle"), Repeatable), responses(
    (status = 200, description = "It is closed", body = SessionCloseOutput),
))]
async fn close(State(api): State<Api>, asked: Asked, InPath(session): InPath<String>) -> Result<Json<Value>, ApiError> {
    Ok(Json(api.structured(&asked, "session_close", json!({"session_id": session})).await?))
}

/// Arguments that name a session.
pub(super) fn in_session(session: &str) -> Map<String, Value> {
    Map::from_iter([("session_id".to_owned(), json!(session))])
}
