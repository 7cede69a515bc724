//! `/sessions/{session_id}/files/…`: downloaded, uploaded, deleted, moved.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use codegen_types::{ErrorCode, OperationResult};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::{Api, nothing_given};
use super::asked::Asked;
use super::download::{self, Download};
use super::extract::{InBody, InPath, InQuery};
use super::idempotency::Repeatable;
use super::sessions::in_session;
use crate::http::error::ApiError;
use crate::tools::{FileView, Raw};

/// How to delete.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Deletion {
    /// Whether a directory may be deleted with all that is in it.
    recursive: Option<bool>,
}

/// What was deleted.
#[derive(Debug, Serialize, ToSchema)]
struct Deleted {
    /// How many files and directories.
    removed: u64,
}

/// A file or directory to be renamed.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Renaming {
    /// What to rename, relative to the workspace.
    from: String,
    /// Its new path; missing directories are made.
    to: String,
    /// Whether a file that is already there is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    overwrite: Option<bool>,
}

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(read, write, delete)).routes(routes!(rename))
}

/// Download a file
///
/// One range of bytes can be asked for, and `If-None-Match`, `If-Match` and `If-Range` take the entity tag.
#[utoipa::path(get, path = "/sessions/{session_id}/files/{*path}", tag = "files", operation_id = "read_file",
    params(
        ("session_id" = String, Path, description = "The session's handle"),
        ("path" = String, Path, description = "The file, relative to the workspace"),
        ("range" = Option<String>, Header, description = "The bytes to give, as `bytes=0-99`, `bytes=100-` or `bytes=-100`; anything else gives all"),
        ("if-range" = Option<String>, Header, description = "The entity tag of which the range is wanted; of another version all is given"),
        ("if-match" = Option<String>, Header, description = "Entity tags: the file is given only if it is one of these versions"),
        ("if-none-match" = Option<String>, Header, description = "Entity tags: the file is given only if it is none of these versions"),
    ),
    responses(
        (status = 200, description = "Its contents", body = Vec<u8>, content_type = "application/octet-stream",
            headers(("etag" = String, description = "Names this version"), ("accept-ranges" = String, description = "`bytes`"))),
        (status = 206, description = "The part that was asked for", body = Vec<u8>, content_type = "application/octet-stream",
            headers(("etag" = String, description = "Names this version"), ("accept-ranges" = String, description = "`bytes`"),
                ("content-range" = String, description = "Which part"))),
        (status = 304, description = "It is still the version that is named", headers(
            ("etag" = String, description = "Names this version"), ("cache-control" = String, description = "How it may be kept"))),
        (status = 416, description = "The file has no such part", body = super::description::Refusal,
            headers(("content-range" = String, description = "How many bytes it has"))),
    ))]
async fn read(
    State(api): State<Api>,
    asked: Asked,
    method: Method,
    headers: HeaderMap,
    InPath((session, path)): InPath<(String, String)>,
) -> Result<Response, ApiError> {
    Download { api, asked, session, path, leave: None }.answer(&headers, method == Method::HEAD).await
}

/// Upload a file
///
/// It is written in one step: readers see the old contents or the new. `If-Match` writes over that version only, or over
/// whatever is there with `*`, `If-None-Match: *` only makes a new file.
#[utoipa::path(put, path = "/sessions/{session_id}/files/{*path}", tag = "files", operation_id = "write_file",
    params(
        ("session_id" = String, Path, description = "The session's handle"),
        ("path" = String, Path, description = "The file, relative to the workspace; missing directories are made"),
        ("if-match" = Option<String>, Header, description = "The entity tag of the version to write over; `*`: only if there is one"),
        ("if-none-match" = Option<String>, Header, description = "`*`: only if there is none"),
        Repeatable,
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "It is replaced", body = FileView, headers(("etag" = String, description = "Names this version"))),
        (status = 201, description = "It is made", body = FileView, headers(("etag" = String, description = "Names this version"))),
    ))]
async fn write(
    State(api): State<Api>,
    asked: Asked,
    headers: HeaderMap,
    InPath((session, path)): InPath<(String, String)>,
    body: Bytes,
) -> Result<Response, ApiError> {
    if headers.contains_key(header::CONTENT_RANGE) {
        return Err(ApiError::bad_request("a file is uploaded whole: no `Content-Range`"));
    }
    let mut args = in_session(&session);
    args.extend([
        ("path".to_owned(), json!(&path)),
        ("contents".to_owned(), json!(STANDARD.encode(&body))),
        ("encoding".to_owned(), json!("base64")),
    ]);
    drop(body);
    let makes = condition(&headers, &header::IF_NONE_MATCH)?;
    match (condition(&headers, &header::IF_MATCH)?, makes.as_deref()) {
        (None, None) => {}
        (Some(etag), None) => {
            let etag = match etag.as_str() {
                "*" => {
                    let (api, asked) = (api.clone(), asked.clone());
                    Download { api, asked, session, path, leave: None }.version().await?
                }
                _ => etag,
            };
            args.insert("if_match".to_owned(), json!(etag));
        }
        (None, Some("*")) => drop(args.insert("mode".to_owned(), json!("create"))),
        _ => return Err(ApiError::bad_request("either `If-Match` with one entity tag or `*`, or `If-None-Match: *`")),
    }
    let result = api.call(&asked, "fs_write", Value::Object(args)).await.map_err(|error| match makes {
        Some(_) if error.code() == ErrorCode::AlreadyExists => error.with_status(StatusCode::PRECONDITION_FAILED),
        _ => error,
    })?;
    let Some(Raw::Outcome(outcome)) = result.raw else { return Err(nothing_given()) };
    match outcome.result.ok().and_then(|completed| completed.result) {
        Some(OperationResult::Write { stat, created }) => {
            let status = if created { StatusCode::CREATED } else { StatusCode::OK };
            let mut response = (status, Json(FileView::of(&stat))).into_response();
            download::tag(response.headers_mut(), &stat);
            Ok(response)
        }
        _ => Err(nothing_given()),
    }
}

/// What a conditional header names, without the marks of an entity tag.
fn condition(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    match bare.or((text == "*").then_some(text)) {
        Some(tag) if !tag.contains('"') => Ok(Some(tag.to_owned())),
        _ => Err(ApiError::bad_request(format!("`{name}`: must be one entity tag in quotation marks, or `*`"))),
    }
}

/// Delete a file or directory
///
/// A symbolic link is deleted itself, never what it points to.
#[utoipa::path(delete, path = "/sessions/{session_id}/files/{*path}", tag = "files", operation_id = "delete_file",
    params(
        ("session_id" = String, Path, description = "The session's handle"),
        ("path" = String, Path, description = "The file or directory, relative to the workspace"),
        Deletion,
        Repeatable,
    ),
    responses((status = 200, description = "It is deleted", body = Deleted)))]
async fn delete(
    State(api): State<Api>,
    asked: Asked,
    headers: HeaderMap,
    InPath((session, path)): InPath<(String, String)>,
    InQuery(Deletion { recursive }): InQuery<Deletion>,
) -> Result<Json<Deleted>, ApiError> {
    if headers.contains_key(header::IF_MATCH) || headers.contains_key(header::IF_UNMODIFIED_SINCE) {
        return Err(ApiError::bad_request("deleting takes no condition"));
    }
    let args = json!({"session_id": session, "path": path, "recursive": recursive.unwrap_or(false)});
    let result = api.call(&asked, "fs_delete", args).await?;
    let Some(Raw::Outcome(outcome)) = result.raw else { return Err(nothing_given()) };
    match outcome.result.ok().and_then(|completed| completed.result) {
        Some(OperationResult::Remove { removed }) => Ok(Json(Deleted { removed })),
        _ => Err(nothing_given()),
    }
}

/// Rename a file or directory
#[utoipa::path(post, path = "/sessions/{session_id}/move", tag = "files", operation_id = "move_file",
    params(("session_id" = String, Path, description = "The session's handle"), Repeatable), request_body = Renaming,
    responses((status = 200, description = "It is renamed", body = FileView)))]
async fn rename(
    State(api): State<Api>,
    asked: Asked,
    InPath(session): InPath<String>,
    InBody(renaming): InBody<Renaming>,
) -> Result<Json<FileView>, ApiError> {
    let mut args = in_session(&session);
    if let Value::Object(renaming) = json!(renaming) {
        args.extend(renaming);
    }
    let result = api.call(&asked, "fs_move", Value::Object(args)).await?;
    let Some(Raw::Outcome(outcome)) = result.raw else { return Err(nothing_given()) };
    match outcome.result.ok().and_then(|completed| completed.result) {
        Some(OperationResult::Move { stat }) => Ok(Json(FileView::of(&stat))),
        _ => Err(nothing_given()),
    }
}

/// Headers of whatever session code made, so that no browser takes it for a page of ours.
pub(super) const FOREIGN: [(HeaderName, HeaderValue); 4] = [
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment")),
    (header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache")),
];
